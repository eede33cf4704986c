"""`poller audit`: which pictures never came."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poller.cli.backfill import ask_backfill
from poller.cli.client import fetch_rows, print_row
from poller.cli.common import Config
from poller.cli.times import Utc, span, written
from poller.core.moments import FORMS

if TYPE_CHECKING:
    from poller.control import Row

NAMED = 5
"""How many streams that cannot be audited are named."""


def audit(
    context: typer.Context,
    config: Config,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=f"Only pictures taken at this time or later: {FORMS}.",
            show_default="all that is in the log",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only pictures taken before this time.", show_default=False),
    ] = None,
    stream: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this stream.", show_default=False)
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this account.", show_default=False)
    ] = None,
    backfill: Annotated[
        bool,
        typer.Option(
            "--backfill",
            help="Look in the bucket for pictures that never came, by default in the last hour, and deliver them.",
        ),
    ] = False,
    utc: Utc = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line: each gap, then a summary.")
    ] = False,
) -> None:
    """List the pictures that never came, by the names of those that did.

    The command looks at the log, and at the gaps that the running audit has reported.
    A hole of the last two minutes is not judged yet.
    The first and the last pictures of a push, and streams whose names do not tell the screenshot task, are not audited.
    """
    from poller.control import Request, Verb
    from poller.core.selection import Selection

    times = span(since, until, utc)
    chosen = Selection(account=account, stream=stream, taken_since=times.since, taken_until=times.until)
    if backfill:
        ask_backfill(context.obj, config, chosen, json)
        return
    rows = list(fetch_rows(context.obj, config, Request(verb=Verb.AUDIT, selection=chosen)))
    if json:
        for row in rows:
            print_row(row)
    else:
        _print(rows[:-1], rows[-1], times.since, utc)


def _print(gaps: list["Row"], summary: "Row", since: datetime | None, utc: bool) -> None:
    from poller.cli.tables import print_table

    if gaps:
        print_table([_shown(gap, utc) for gap in gaps], ("stream", "from", "to", "missing", "filled"))
    looked = f"{_count(summary['pictures'], 'picture')} of {_count(summary['streams'], 'stream')} looked at"
    if not summary["pictures"] and not summary["gaps"]:
        typer.echo("there are no pictures to look at")
    elif summary["missing"]:
        missing = _count(summary["missing"], "picture")
        typer.echo(f"{looked}, {missing} missing in {_count(summary['gaps'], 'gap')}")
    else:
        typer.echo(f"{looked}, nothing is missing")
    for notice in _notices(summary, since, utc):
        typer.echo(notice, err=True)


def _notices(summary: "Row", since: datetime | None, utc: bool) -> list[str]:
    """What people should know besides."""
    from poller.cli.tables import shown

    found = []
    begins, unaudited = _time(summary["log_begins"]), _list(summary["unaudited"])
    if begins is not None and since is not None and since < begins:
        found.append(f"the log begins at {written(begins, utc)}; before that only reported gaps are known")
    if unaudited:
        names = ", ".join(shown(one["stream"]) for one in unaudited[:NAMED])
        more = ", …" if len(unaudited) > NAMED else ""
        count = _count(len(unaudited), "stream")
        found.append(f"{count} cannot be audited, because names do not tell the task: {names}{more}")
    return found


def _shown(gap: "Row", utc: bool) -> "Row":
    times = {name: _time(gap[name]) for name in ("from", "to")}
    return {**gap, **{name: at and written(at, utc) for name, at in times.items()}}


def _time(value: Any) -> datetime | None:
    """A time of a row: text from a daemon, a datetime from the spool file."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _list(value: Any) -> list[dict[str, Any]]:
    return list(value)


def _count(number: object, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
