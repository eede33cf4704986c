"""All figures in one table, beside bare loops and, where they are installed, peers.

    python -m tests.bench [--only throughput,burst] [--rounds 5] [--quick] [--json FILE]

Each bench runs with its own defaults. `--quick` takes counts that show that the benches work; their figures say
little. `--json` puts the figures into a file, such as docs/figures.json, in the place of those of the same benches;
`python -m docs.generate` then makes the table of docs/figures.md. A bench prints its rounds and its own tables to
stderr. A bench that fails is named, and the exit code is 1. A missed promise leaves it 0.
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
}
"""The benches of the table, and the arguments of each that make it quick."""

APART: Final = frozenset({"index", "parts", "pictures", "sandbox_queue", "starts", "streams", "tap", "web"})
"""Benches that print a table of their own shape and are run by themselves."""

WITHOUT_ROUNDS: Final = frozenset({"idle"})


def measured(name: str, arguments: Sequence[str]) -> list[Figure]:
    """The figures of a bench."""
    main: Callable[[Sequence[str]], list[Figure]] = import_module(f"tests.bench.{name}").main
    with redirect_stdout(sys.stderr):
        return main(arguments)


def main() -> int:
    options = _options()
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=_names, default=list(QUICK), help="benches, with commas")
    parser.add_argument("--rounds", type=int, default=None, help="of each bench, instead of its default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
