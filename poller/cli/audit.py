"""`poller audit`: which pictures never came."""

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poller.cli.backfill import ask_backfill
from poller.cli.client import request, show_all
from poller.cli.common import Config
from poller.cli.options import Account, Stream
from poller.cli.times import TakenSince, TakenUntil, Utc, show_time, span, time_of

if TYPE_CHECKING:
    from poller.control import Row

NAMED = 5
"""How many streams that cannot be audited are named."""


def audit(
    context: typer.Context,
    config: Config,
    since: TakenSince = None,
    until: TakenUntil = None,
    stream: Stream = None,
    account: Account = None,
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
    from poller.core.selection import Selection

    times = span(since, until, utc)
    chosen = Selection(account=account, stream=stream, taken_since=times.since, taken_until=times.until)
    if backfill:
        ask_backfill(context.obj, config, chosen, json)
        return
    show = partial(_show, since=times.since, utc=utc)
    show_all(context.obj, config, request("audit", selection=chosen), json, show)


def _show(rows: list["Row"], since: datetime | None, utc: bool) -> None:
    from poller.cli.tables import print_table

    *gaps, summary = rows
    if gaps:
        print_table([_cells(gap, utc) for gap in gaps], ("stream", "from", "to", "missing", "filled"))
    looked = f"{_count(summary['pictures'], 'picture')} of {_count(summary['streams'], 'stream')} looked at"
    if not summary["pictures"] and not summary["gaps"]:
        typer.echo("there are no pictures to look at")
    elif summary["missing"]:
        missing = _count(summary["missing"], "picture")
        still_open = sum(gap["filled"] != gap["missing"] for gap in gaps)
        typer.echo(f"{looked}, {missing} missing in {_count(still_open, 'gap')}")
    else:
        typer.echo(f"{looked}, nothing is missing")
    for notice in _notices(summary, since, utc):
        typer.echo(notice, err=True)


def _notices(summary: "Row", since: datetime | None, utc: bool) -> list[str]:
    """What people should know besides."""
    from poller.cli.tables import shown

    found = []
    begins, unaudited = summary["log_begins"], _list(summary["unaudited"])
    if begins is not None and since is not None and since < time_of(begins):
        found.append(f"the log begins at {show_time(begins, utc)}; before that only reported gaps are known")
    if unaudited:
        names = ", ".join(shown(one["stream"]) for one in unaudited[:NAMED])
        more = ", …" if len(unaudited) > NAMED else ""
        count = _count(len(unaudited), "stream")
        found.append(f"{count} cannot be audited, because names do not tell the task: {names}{more}")
    return found


def _cells(gap: "Row", utc: bool) -> "Row":
    return {**gap, **{name: show_time(gap[name], utc) for name in ("from", "to")}}


def _list(value: Any) -> list[dict[str, Any]]:
    return list(value)


def _count(number: object, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
