"""Pictures and streams for people: the line of `find` and `latest`, and the table of `streams`.

Invariant: what goes to a terminal holds no query of a URL, which may be signed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from poller.cli.tables import ago, print_table, shown
from poller.cli.times import show_time
from poller.control import Row
from poller.operations.masking import public_form


def picture_line(picture: Row, utc: bool, *, terminal: bool) -> str:
    """When a picture was taken, its URL, and the path of each file, with two spaces between."""
    url = str(picture["url"] or "")
    if terminal:
        url = public_form(url.encode(errors="replace")).decode(errors="replace")
    return "  ".join([show_time(picture["taken"], utc), shown(url), *_paths(picture["files"])])


def _paths(files: Any) -> Iterator[str]:
    for file in cast(Sequence[Mapping[str, Any]], files):
        yield shown(file["path"]) + ("" if file["present"] else " (not there)")


def none_found(row: Row, utc: bool) -> str:
    """Why there is no picture, and when the nearest ones were taken."""
    stream = shown(row["stream"])
    if "at" not in row:
        return f"no picture of {stream} is kept"
    at = show_time(row["at"], utc)
    nearest = [
        f"the nearest {side} was taken at {show_time(row[side], utc)}"
        for side in ("before", "after")
        if row[side] is not None
    ]
    return "; ".join([f"no picture of {stream} within {row['within']:g} s of {at}", *nearest])


def print_streams(rows: Sequence[Row], utc: bool) -> None:
    """Print the table of streams. The account is left out if all streams are of the same.

    `!` marks a stream that needs attention, and says why in place of its state.
    """
    several = len({row["account"] for row in rows}) > 1
    first = ["stream", "account"] if several else ["stream"]
    columns = [*first, "state", "cadence", "last picture", "age", "gaps"]
    if rows:
        print_table([_cells(row, utc) for row in rows], columns)


def _cells(row: Row, utc: bool) -> Row:
    cadence, last = row["cadence"], row["last_picture"]
    return {
        **row,
        "state": f"! {row['attention']}" if row["attention"] else row["state"],
        "cadence": None if cadence is None else f"{cadence:g}s",
        "last picture": None if last is None else show_time(last, utc),
        "age": ago(row["age"]),
    }
