"""Writes the generated pages; with `--check` it only names those that differ from the code, and exits with 1."""

import sys
from collections.abc import Mapping
from pathlib import Path

from docs.generate.alerts import alerts
from docs.generate.api import api
from docs.generate.command_line import command_line
from docs.generate.configuration import configuration
from docs.generate.events import events, events_schema
from docs.generate.exit_codes import exit_codes
from docs.generate.figures import figures
from docs.generate.log_events import log_events
from docs.generate.metrics import metrics
from docs.generate.promises import promises
from docs.generate.sizing import sizing
from docs.generate.sql_table import sql_table

DOCS = Path(__file__).parents[1]


def pages() -> Mapping[str, str]:
    """Each generated file, by its path below `docs`, with its text."""
    return {
        "figures.md": figures(),
        "operations/sizing.md": sizing(),
        "reference/configuration.md": configuration(),
        "reference/command-line.md": command_line(),
        "reference/metrics.md": metrics(),
        "reference/alerts.md": alerts(),
        "promises.md": promises(),
        "reference/exit-codes.md": exit_codes(),
        "reference/log-events.md": log_events(),
        "reference/api.md": api(),
        "reference/events.md": events(),
        "reference/events.schema.json": events_schema(),
        "reference/sql-table.md": sql_table(),
    }


def differing() -> Mapping[str, str]:
    """Those that are not as the code would have them."""
    return {
        name: text
        for name, text in pages().items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text() != text
    }


def main(arguments: list[str]) -> int:
    """Write, or check."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m docs.generate [--check]", file=sys.stderr)
        return 2
    found = differing()
    if arguments:
        for name in found:
            print(f"docs/{name} differs from the code: run python -m docs.generate", file=sys.stderr)
        return 1 if found else 0
    for name, text in found.items():
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(text)
        print(f"docs/{name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
