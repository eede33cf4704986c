"""Rows as text: columns that fit the terminal, or full lines if the output is no terminal.

Invariant: no printed value can control the terminal.
"""

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poller.cli.times import row_for_people, show_time, show_times
from poller.control import Row

WIDE = 10_000
"""The width of an output that is no terminal: so no text is cut or folded."""
SOURCE = ("source", "type", "state", "last_answer", "taken", "per_s")
SINK = ("sink", "state", "backlog", "oldest", "retry", "dead", "delivered", "per_s", "catch_up")
UNBROKEN = ("id", "source", "sink", "state", "daemon", "since")
"""Columns whose values are not folded."""
MEMBER = ("daemon", "name", "since", "expires", "held")
REPLAY = ("replay", "sink", "what", "done", "total", "state")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def print_table(rows: Sequence[Row], columns: Iterable[str]) -> None:
    """Print a table of these columns, with their names as headings."""
    names = list(columns)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in UNBROKEN)
    for row in rows:
        table.add_row(*(Text(shown(row.get(name))) for name in names))
    _print(table)


def print_fields(row: Row) -> None:
    """Print one row, each field on its own line after its name."""
    width = max(map(len, row))
    for name, value in row.items():
        _print(Text(f"{name:<{width}}  {shown(value)}"))


def print_status(row: Row, utc: bool) -> None:
    """Print the answer of `status`: lines about daemon, spool and journal, then a table of sources and one of sinks.

    Both tables fit 80 columns. What is said about a source or sink, in any length, follows in lines below.
    """
    spool, journal = _object(row["spool"]), _object(row["journal"] or {})
    quarantined = shown(spool["quarantined"])
    parts = {
        "daemon": f"{_daemon(row)}, version {row['version']}",
        "spool": f"{shown(spool['path'] or spool['type'])}, {spool['bytes']} bytes, {quarantined} quarantined",
        "journal": f"{journal['bytes']} bytes not yet in the spool" if journal else None,
        "trouble": None if row["away"] else spool["trouble"],
    }
    print_fields({name: value for name, value in parts.items() if value is not None})
    lost = [_lost(book, utc) for book in _objects(row["books"]) if book["book"] == "possibly_lost"]
    for name, said in (("not ready", row["reasons"]), ("note", row["notes"]), ("possibly lost", lost)):
        for text in _texts(said):
            _print(Text(f"{name}: {shown(show_times(text, utc))}"))
    if row["away"]:
        known = show_time(_object(row["away"])["known_at"], utc)
        _print(Text(f"note: counts are from {known}; the daemon tries again until the database answers"))
    for kind, columns in (("source", SOURCE), ("sink", SINK)):
        _print(Text(""))
        parts_of_kind = _objects(row[f"{kind}s"])
        print_table([{kind: one["name"], **_in_short(one)} for one in parts_of_kind], columns)
        for one in parts_of_kind:
            for text in _remarks(one):
                _print(Text(f"{shown(one['name'])}: {shown(text)}"))
    _print_members(_objects(row["members"]), utc)
    if replays := _objects(row["replays"]):
        _print(Text(""))
        print_table([row_for_people(replay, utc) for replay in replays], REPLAY)


def _daemon(row: Row) -> str:
    """Whether the daemon of this machine runs, and how many others share the spool if it does not."""
    if row["running"]:
        return f"running, pid {row['pid']}"
    if not (count := len(_objects(row["members"]))):
        return "not running"
    return f"not running on this machine; {count} other{' shares' if count == 1 else 's share'} the spool"


def _print_members(members: Sequence[Row], utc: bool) -> None:
    """A table of the daemons that share the spool, and below it what each of them alone does."""
    if not members:
        return
    _print(Text(""))
    print_table([_member_in_short(member, utc) for member in members], MEMBER)
    for member in members:
        if duties := _texts(member["duties"]):
            _print(Text(f"{member['number']}: {shown(', '.join(duties))}"))


def _member_in_short(member: Row, utc: bool) -> Row:
    held = _object(member["held"])
    return {
        **member,
        "daemon": f"{member['number']}{' (here)' if member['here'] else ''}",
        "since": show_time(member["since"], utc),
        "expires": ago(member["expires"]),
        "held": ", ".join(f"{sink} {count}" for sink, count in held.items()) or None,
    }


def _lost(book: Row, utc: bool) -> str:
    return f"{book['owner']}: {book['count']} since the spool began, last at {show_time(book['at'], utc)}"


def _in_short(one: Row) -> Row:
    """A source or sink with its ages in a short form. A sink that falls behind catches up `never`."""
    rate, found = one["per_second"], {**one, "per_s": one["per_second"], "retry": one.get("retrying")}
    for name in ("last_answer", "oldest", "catch_up"):
        found[name] = ago(one.get(name))
    if rate is not None and one.get("catch_up") is None and one.get("backlog"):
        found["catch_up"] = "never"
    return found


def _remarks(one: Row) -> Iterator[str]:
    """What there is to say about a source or sink."""
    if said := one.get("trouble") or one.get("why"):
        yield str(said)
    if (polled := one.get("polled_by")) is not None:
        yield str(polled)
    if (error := one.get("last_error")) is not None:
        yield f"last error: {error} ({ago(one['last_error_age'])} ago)"
    if (known := one.get("beat_known")) is not None:
        follows = "polls follow the beat" if known else "no beat is known, so pauses grow while nothing comes"
        due = f"in {one['next_poll']:.1f} s" if one["next_poll"] else "now, or waits for its answer"
        yield f"{follows}; the next poll is due {due}"


def _object(value: Any) -> dict[str, Any]:
    return dict(value)


def _texts(value: Any) -> list[str]:
    return list(value)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [dict(one) for one in value]


def safe(text: str) -> str:
    """The same JSON, with every character that could control a terminal as a `\\u` escape."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def shown(value: Any) -> str:
    """A value in one line of text. Control characters, and characters that change the text direction, are escaped."""
    if value is None or value == "":
        return "-"
    if isinstance(value, dict | list | msgspec.Raw):
        value = msgspec.json.encode(value).decode()
    elif isinstance(value, datetime):  # from the file of a stopped daemon; a running one writes text
        value = msgspec.to_builtins(value)
    return "".join(
        character if unicodedata.category(character)[0] != "C" else ascii(character)[1:-1]
        for character in str(value)
    )


def ago(seconds: Any) -> str | None:
    """Seconds in a short form such as `3m`; None stays None."""
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
        print(line.rstrip())  # noqa: T201 - the output of the command
