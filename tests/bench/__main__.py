"""All figures in one table, beside bare loops and, where they are installed, peers.

    python -m tests.bench [--only throughput,burst] [--rounds 5] [--quick] [--json FILE]

Each bench runs with its own defaults. `--quick` takes counts that show that the benches work. Its figures say nothing
about the program, so no promise is judged by them, and they may not go into docs/figures.json. `--json` puts the
figures into a file, such as docs/figures.json, in the place of those of the same benches; `python -m docs.generate`
then makes the table of docs/figures.md. A bench prints its rounds and its own tables to stderr. A bench that fails is
named, and the exit code is 1. A missed promise leaves it 0.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.bench import figures
from tests.bench.figures import Figure

QUICK: Final[Mapping[str, str]] = {
    "throughput": "--events 5000 --rounds 1",
    "burst": "--messages 2000 --lanes 4 --rounds 1",
    "growth": "--sizes 1000 10000 --events 2000 --rounds 1",
    "download": "--pictures 200 --rounds 1",
    "latency": "--streams 20 --seconds 10 --warm 10 --rounds 1",
    "sinks": "--sinks redis --ways alone --events 2000 --rounds 1",
    "order": "--events 4000 --rounds 1",
    "audit": "--events 4000 --rounds 1",
    "tracing": "--events 20000 --singles 3000 --rounds 1",
    "counting": "--streams 5000 --rounds 1",
    "idle": "--seconds 5",
    "peers": "--events 5000 --rounds 1",
    "parts": "--pages 40 --rounds 1",
    "index": "--events 20000 --streams 200 --rounds 1",
    "tap": "--events 4000 --rounds 1",
    "web": "--events 5000 --streams 500 --rounds 1 --seconds 2",
    "pictures": "--events 4000 --rounds 1",
    "streams": "--streams 2 --seconds 5",
    "shared": "--retained 6400 --events 3200 --burst 3000 --rounds 1 --takeovers 1 --members 1 2",
    "shared_ids": "--ids 2000 20000 --events 3200 --rounds 1",
    "shared_load": "--rate 1000 --seconds 3 --streams 1000",
    "shared_pictures": "--pictures 1000 --seconds 2 --streams 20",
    "sandbox_queue": "--calls 1000 --messages 200000 --rounds 1",
}
"""The benches of the table, and the arguments of each that make it quick."""

RECORDED: Final = Path(__file__).parents[2] / "docs" / "figures.json"
"""The figures of the page. The path is resolved, as this file's is by Python."""

WITHOUT_ROUNDS: Final = frozenset({"idle", "shared_load", "shared_pictures", "streams"})


def measured(name: str, arguments: Sequence[str]) -> list[Figure]:
    """The figures of a bench."""
    main: Callable[[Sequence[str]], list[Figure]] = import_module(f"tests.bench.{name}").main
    with redirect_stdout(sys.stderr):
        return main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    found: list[Figure] = []
    failed: list[str] = []
    for name in options.only:
        arguments = QUICK[name].split() if options.quick else []
        if options.rounds and name not in WITHOUT_ROUNDS:
            arguments += ["--rounds", str(options.rounds)]
        print(f"{name} {' '.join(arguments)}", file=sys.stderr)
        try:
            found += measured(name, arguments)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    if options.quick:
        found = figures.unjudged(found)
    print(figures.table(found))
    if options.json:
        figures.write(options.json, found)
    if failed:
        print(f"not measured: {', '.join(failed)}")
    return 1 if failed else 0


def _names(text: str) -> list[str]:
    found = text.split(",")
    for one in found:
        if one not in QUICK:
            raise argparse.ArgumentTypeError(f"{one} is none of {', '.join(QUICK)}")
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", type=_names, default=list(QUICK), metavar="NAMES", help=f"some of: {', '.join(QUICK)}"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=None,
        metavar="N",
        help=f"of each bench, instead of its default; {' and '.join(sorted(WITHOUT_ROUNDS))} have none",
    )
    parser.add_argument("--quick", action="store_true", help="small counts, to see that the benches work")
    parser.add_argument(
        "--json", type=Path, default=None, metavar="FILE", help="put the figures into this file"
    )
    options = parser.parse_args(arguments)
    if options.quick and options.json and options.json.resolve() == RECORDED:
        parser.error("--quick and --json docs/figures.json: the figures of a quick run are not recorded")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
