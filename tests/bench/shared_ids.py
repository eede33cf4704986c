"""What remembered ids cost the spool in PostgreSQL: appending with many of them, beside appending with few.

    python -m tests.bench.shared_ids [--ids 1000000 20000000] [--events 64000] [--rounds 3] [--directory DIR]

The ids are made up in the database, and their index is built anew. Each round begins with a checkpoint, and appends so
many events with new ids to each spool, 16 pages of 100 a commit. The first change of a page of the index after a
checkpoint puts the whole page into the write-ahead log. So an event costs more, the more pages the index has.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.shared_rounds import Places, Round
from tests.bench.shared_server import Server, server

BENCH: Final = "shared_ids"
_FILL: Final = """
ALTER TABLE {0}.seen DROP CONSTRAINT seen_pkey;
DROP INDEX {0}.seen_token;
INSERT INTO {0}.seen
SELECT ('x' || left(md5(n::text), 16))::bit(64)::bigint, n / 1600 FROM generate_series(1, {1}) AS n;
ALTER TABLE {0}.seen ADD PRIMARY KEY (key);
CREATE INDEX seen_token ON {0}.seen (token)
"""


def filled(database: Server, folder: Path, ids: int) -> Places:
    """A spool that remembers so many ids, in a schema of its own."""
    places = Places(database, folder, schema=f"ids_{ids}")
    places.append("postgres", 1, 1_600, 16)
    database.run(_FILL.format(places.schema, ids))
    return places


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the table, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    found: dict[int, list[Round]] = {ids: [] for ids in options.ids}
    with rig.scratch(options.directory) as folder, server() as database:
        spools = {ids: filled(database, folder, ids) for ids in options.ids}
        index = database.ask(f"SELECT pg_relation_size('{spools[options.ids[-1]].schema}.seen_pkey')")
        for turn in range(options.rounds):
            for ids in options.ids[:: 1 if turn % 2 else -1]:
                database.settle()
                found[ids].append(spools[ids].append("postgres", 1, options.events, 16))
    columns = ("speed", "server", "log")
    rows = [
        [f"{ids:,} ids", *[rig.median([getattr(one, what) for one in rounds]) for what in columns]]
        for ids, rounds in found.items()
    ]
    print(rig.table(["append", "events/s", "us, server", "bytes of log"], rows))
    return [*_figures(found, index / options.ids[-1])]


def _figures(found: dict[int, list[Round]], index: float) -> Iterator[Figure]:
    few, *others = found
    for many in others:
        for name, unit, what in (
            ("events appended", "1/s", "speed"),
            ("CPU of the server an event", "µs", "server"),
            ("bytes of the write-ahead log an event", "B", "log"),
        ):
            ours, theirs = ([getattr(one, what) for one in found[ids]] for ids in (many, few))
            yield figures.beside(BENCH, f"{name}, {many:,} ids, beside {few:,}", unit, ours, theirs)
    yield Figure(bench=BENCH, name="bytes of the index of an id", unit="B", ours=index)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ids", type=int, nargs="+", default=[1_000_000, 20_000_000])
    parser.add_argument("--events", type=int, default=64_000, help="that a round appends")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
