"""Times as options: `--since`, `--until`, `--at` and `--utc`, the same for every command."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NamedTuple

import typer

from poller.core.moments import FORMS, parse_end, parse_moment

_METAVAR = "TIME"
_IN_UTC: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_AS_IT_IS: Final = "event"
"""A member of a row that is printed as its sinks get it."""

Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar=_METAVAR,
        help=f"Only what was received at this time or later: {FORMS}.",
        show_default=False,
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar=_METAVAR,
        help="Only what was received before this time.",
        show_default=False,
    ),
]
TakenSince = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar=_METAVAR,
        help=f"Only pictures taken at this time or later: {FORMS}.",
        show_default="all that is in the log",
    ),
]
TakenUntil = Annotated[
    str | None,
    typer.Option(
        "--until", metavar=_METAVAR, help="Only pictures taken before this time.", show_default=False
    ),
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar=_METAVAR, help=f"At this time: {FORMS}.", show_default=False),
]
Utc = Annotated[
    bool,
    typer.Option("--utc", help="Read and print times in UTC instead of local time."),
]
PrintUtc = Annotated[
    bool, typer.Option("--utc", help="Print times in UTC instead of local time. JSON is always in UTC.")
]


class Span(NamedTuple):
    """A span of time, in UTC: at or after `since`, and before `until`. None does not restrict."""

    since: datetime | None
    until: datetime | None


def moment(text: str, option: str, utc: bool) -> datetime:
    """The moment that a text means, in UTC. A bad one is a usage error that names the option and the forms.

    `option` is an option or an argument as people write it, such as `--since`. With `utc`, a time without an offset is
    in UTC instead of the local time.
    """
    return _parsed(text, option, lambda: parse_moment(text, datetime.now(UTC), UTC if utc else None))


def _parsed(text: str, option: str, parse: Callable[[], datetime]) -> datetime:
    try:
        return parse()
    except ValueError:
        raise typer.BadParameter(f"write {FORMS}, not {text!r}", param_hint=option) from None


def span(since: str | None, until: str | None, utc: bool) -> Span:
    """The span between `--since` and `--until`. A span that ends before it begins is a usage error."""
    begin, zone = None if since is None else moment(since, "--since", utc), UTC if utc else None
    found = Span(
        since=begin,
        until=None
        if until is None
        else _parsed(until, "--until", lambda: parse_end(until, begin, datetime.now(UTC), zone)),
    )
    if found.since is not None and found.until is not None and found.since > found.until:
        raise typer.BadParameter(f"{since} is after --until {until}", param_hint="--since")
    return found


def time_of(value: object) -> datetime:
    """A time of a row: text if it came over the socket."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


def show_time(value: object, utc: bool) -> str:
    """A time, or one of a row, for people: with its date, to the second, in local time or UTC."""
    at = time_of(value)
    try:
        return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if utc else f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
    except OverflowError:  # the local time would be in the year 0 or 10000
        return at.isoformat()


def show_times(text: str, utc: bool) -> str:
    """A text of ours with the times in it as `show_time` prints them."""
    return _IN_UTC.sub(lambda found: show_time(found[0], utc), text)


def row_for_people(row: Mapping[str, object], utc: bool) -> dict[str, object]:
    """A row with its times as `show_time` prints them, also those of attempts and in the words of a selection."""
    return {name: _for_people(name, value, utc) for name, value in row.items()}


def _for_people(name: str, value: Any, utc: bool) -> object:
    if value is None or name == _AS_IT_IS:
        return value
    if name == "at" or name.endswith("_at"):
        return show_time(value, utc)
    if name == "what":
        return show_times(str(value), utc)
    if isinstance(value, list):
        return [row_for_people(one, utc) if isinstance(one, Mapping) else one for one in value]
    return value
