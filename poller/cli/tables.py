"""How rows look to people: aligned columns on a terminal, whole lines elsewhere; nothing in them can steer it."""

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poller.control import Row

WIDE = 10_000
"""Columns of what is no terminal: nothing is cut or folded there."""
SOURCE = ("source", "type", "state", "last_answer", "trouble")
SINK = ("sink", "type", "state", "backlog", "oldest", "retrying", "dead", "why", "last_error")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def print_table(rows: Sequence[Row], columns: Iterable[str]) -> None:
    """Print these members of each row under their names."""
    names = list(columns)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in ("id", "source", "sink", "state"))
    for row in rows:
        table.add_row(*(Text(shown(row.get(name))) for name in names))
    _print(table)


def print_fields(row: Row) -> None:
    """Print one row as lines `name: value`."""
    width = max(map(len, row))
    for name, value in row.items():
        _print(Text(f"{name:<{width}}  {shown(value)}"))


def print_status(row: Row) -> None:
    """Print what `status` says: a line on the daemon and the spool, then sources and sinks."""
    daemon = f"running, pid {row['pid']}" if row["running"] else "not running"
    spool, journal = _object(row["spool"]), _object(row["journal"] or {})
    parts = {
        "daemon": f"{daemon}, version {row['version']}",
        "spool": f"{shown(spool['path'] or spool['type'])}, {spool['bytes']} bytes, {spool['quarantined']} quarantined",
        "journal": f"{journal['bytes']} bytes not yet in the spool" if journal else None,
        "trouble": spool["trouble"],
    }
    print_fields({name: value for name, value in parts.items() if value is not None})
    for name, said in (("not ready", row["reasons"]), ("note", row["notes"])):
        for text in _texts(said):
            _print(Text(f"{name}: {shown(text)}"))
    _print(Text(""))
    sources = [{**one, "last_answer": ago(one["last_answer"])} for one in _objects(row["sources"])]
    print_table([{"source": one["name"], **one} for one in sources], SOURCE)
    _print(Text(""))
    sinks = [{**one, "sink": one["name"], "oldest": ago(one["oldest"])} for one in _objects(row["sinks"])]
    print_table([{**one, "last_error": _error(one)} for one in sinks], SINK)


def _error(sink: Row) -> str | None:
    error = sink["last_error"]
    return None if error is None else f"{error} ({ago(sink['last_error_age'])} ago)"


def _object(value: Any) -> dict[str, Any]:
    return dict(value)


def _texts(value: Any) -> list[str]:
    return list(value)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [dict(one) for one in value]


def safe(text: str) -> str:
    """JSON text with everything that could steer a terminal as `\\u` escapes; still the same JSON."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def shown(value: Any) -> str:
    """A value in one line of text without control characters, and without what turns text around."""
    if value is None or value == "":
        return "-"
    if isinstance(value, dict | list):
        value = msgspec.json.encode(value).decode()
    return "".join(
        character if unicodedata.category(character)[0] != "C" else ascii(character)[1:-1]
        for character in str(value)
    )


def ago(seconds: Any) -> str | None:
    """Seconds as people say them; None stays."""
    if seconds is None:
        return None
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _print(what: Table | Text) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, soft_wrap=False)
    with console.capture() as captured:
        console.print(what)
    for line in captured.get().splitlines():
        print(line.rstrip())  # noqa: T201 - what the command was asked for
