"""The commands that look at the log: events, single pictures, streams, and what passes right now."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from poller.cli.client import ask_either, fail_with, offline_rows, show_all, show_each
from poller.cli.common import Config, fail, stored_of
from poller.cli.options import Account, Json, Kinds, Stream, StreamName, check_word
from poller.cli.times import Since, Until, Utc, moment, span
from poller.core.errors import PollerError
from poller.core.moments import FORMS
from poller.daemon.signals import Stop

if TYPE_CHECKING:
    from poller.cli.event_lines import EventPrinter
    from poller.control import EventRow, Request, Row
    from poller.settings import Settings

USUAL_LIMIT: Final = 50
"""The events that people get, unless they ask for others: about two screens."""

EventJson = Annotated[
    bool, typer.Option("--json", help="Print the events themselves, as CloudEvents, one JSON object a line.")
]


# ---------------------------------------------------------------- events


def events(
    context: typer.Context,
    config: Config,
    stream: Stream = None,
    account: Account = None,
    kind: Kinds = None,
    since: Since = None,
    until: Until = None,
    utc: Utc = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            metavar="N",
            help="Show the newest N.",
            show_default=f"{USUAL_LIMIT}; all with --since or --json",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")
    ] = False,
    json: EventJson = False,
) -> None:
    """Show the events in the log, oldest first."""
    from poller.control import Request, Verb
    from poller.core.selection import Selection
    from poller.operations.requests import MOST_ROWS

    if follow and until is not None:
        raise typer.BadParameter("new events are all after --until", param_hint="--follow")
    within = span(since, until, utc)
    chosen = Selection(
        account=account, stream=stream, kinds=frozenset(kind or ()), since=within.since, until=within.until
    )
    onwards = limit is None and (json or since is not None)
    limit = MOST_ROWS if onwards else limit or USUAL_LIMIT
    asked = Request(verb=Verb.EVENTS, selection=chosen, limit=limit, onwards=onwards)
    _print_events(context.obj, config, asked, json=json, utc=utc, follow=follow)


def tap(
    context: typer.Context,
    config: Config,
    sink: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only what this sink wants; may be repeated.", show_default=False),
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only events of this stream; may be repeated.", show_default=False),
    ] = None,
    kind: Kinds = None,
    utc: Utc = False,
    json: EventJson = False,
) -> None:
    """Show events as they are stored, from now on until Ctrl-C, without missing one.

    A tap slows nobody, and says how many events were deleted before it could
    report them. At most eight taps can be open at once.
    """
    from poller.control import Request, Verb
    from poller.core.selection import Selection

    asked = Request(
        verb=Verb.TAP,
        selection=Selection(kinds=frozenset(kind or ())),
        sinks=frozenset(sink or ()),
        streams=frozenset(stream or ()),
    )
    _print_events(context.obj, config, asked, json=json, utc=utc, follow=True)


def _print_events(stop: Stop, config: Path, asked: "Request", *, json: bool, utc: bool, follow: bool) -> None:
    from poller.cli.event_lines import EventPrinter, until_the_reader_ends

    settings, out = stored_of(config), sys.stdout.buffer
    stop.give_back()  # a signal may end the command at any time
    try:
        with until_the_reader_ends(out):
            _show_events(settings, asked, EventPrinter(out, json=json, utc=utc), follow=follow)
    except (PollerError, OSError) as error:
        fail_with(error)


def _show_events(settings: "Settings", asked: "Request", printer: "EventPrinter", *, follow: bool) -> None:
    """Print the answer, and go on with new events if asked to; that never ends."""
    from poller.control import Request, Verb

    if asked.verb is Verb.EVENTS:
        head = _show_stored(settings, asked, printer, online_only=follow)
        asked = Request(verb=Verb.TAP, selection=asked.selection, start=head)
    if follow:
        _follow(settings, asked, printer)


def _show_stored(
    settings: "Settings", asked: "Request", printer: "EventPrinter", *, online_only: bool
) -> int:
    """Print the events that the log holds now, and return its head. Nothing is open while a slow reader reads."""
    from msgspec.structs import replace

    from poller.control import ask_events
    from poller.core.selection import ALL_EVENTS

    head, found = None, False
    while True:
        offline = partial(_refuse_offline if online_only else _offline_events, settings, asked)
        answer = ask_either(settings, partial(ask_events, request=asked), offline)
        *rows, last = [row for some in answer for row in some]
        head = last.head if head is None else head
        printer.show([row for row in rows if row.number < head])
        found = found or bool(rows)
        if last.more:
            typer.echo(f"only the newest {asked.limit} are shown: --limit or --since shows more", err=True)
        if not 0 < last.following < head:
            if not found and not online_only:
                typer.echo("no events that match" if asked.selection != ALL_EVENTS else "no events", err=True)
            return head
        asked = replace(asked, start=last.following)


def _follow(settings: "Settings", asked: "Request", printer: "EventPrinter") -> None:
    from poller.control import ask_events

    begun = asked.start is not None
    offline = partial(_refuse_offline, settings, asked)
    for rows in ask_either(settings, partial(ask_events, request=asked), offline):
        if not begun:
            typer.echo("events from now on, until Ctrl-C", err=True)
        begun = True
        printer.show(rows)


def _refuse_offline(settings: "Settings", asked: "Request") -> Iterator[Sequence["EventRow"]]:
    """Raise `ControlError`: without a daemon on this machine no events come."""
    from msgspec.structs import replace

    from poller.control import Verb

    list(offline_rows(settings, replace(asked, verb=Verb.TAP)))
    yield from ()


def _offline_events(settings: "Settings", asked: "Request") -> Iterator[Sequence["EventRow"]]:
    from poller.control import EventRow

    rows = list(offline_rows(settings, asked))
    yield [EventRow(**cast(Mapping[str, Any], row)) for row in rows]


# ---------------------------------------------------------------- pictures


def find(
    context: typer.Context,
    config: Config,
    stream: StreamName,
    time: Annotated[
        str,
        typer.Argument(
            metavar="TIME",
            help=f"When: {FORMS}.",
            show_default=False,
        ),
    ],
    account: Account = None,
    utc: Utc = False,
    json: Json = False,
) -> None:
    """Find the picture of a stream at a time: the nearest one, within two cadences.

    Prints when it was taken, its URL, and where a sink keeps its file. Exits with 1 if there is none.
    """
    at = moment(time, "TIME", utc)
    _print_picture(context.obj, config, _picture_request("find", stream, account, at), json=json, utc=utc)


def latest(
    context: typer.Context,
    config: Config,
    stream: StreamName,
    account: Account = None,
    utc: Utc = False,
    json: Json = False,
) -> None:
    """Show the newest picture of a stream. Prints the same line as `find`."""
    _print_picture(context.obj, config, _picture_request("latest", stream, account), json=json, utc=utc)


def _picture_request(verb: str, stream: str, account: str | None, at: datetime | None = None) -> "Request":
    from poller.control import Request, Verb
    from poller.core.selection import Selection

    return Request(verb=Verb(verb), selection=Selection(account=account, stream=stream), at=at)


def _print_picture(stop: Stop, config: Path, asked: "Request", *, json: bool, utc: bool) -> None:
    from poller.cli.picture_lines import none_found, picture_line

    def show(row: "Row") -> None:
        if (picture := row["picture"]) is not None:
            typer.echo(picture_line(cast("Row", picture), utc, terminal=sys.stdout.isatty()))

    for row in show_each(stop, config, asked, json, show):
        if row["picture"] is None:
            fail(none_found(row, utc))


# ---------------------------------------------------------------- streams


def streams(
    context: typer.Context,
    config: Config,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE",
            help="Only streams in this state, or with this word beside their !: live, interrupted, disabled, late, "
            "no pictures.",
            show_default=False,
        ),
    ] = None,
    account: Account = None,
    utc: Utc = False,
    json: Json = False,
) -> None:
    """List the streams that were seen in the last 30 days, those that need attention first.

    A ! marks streams that are interrupted or disabled, whose next picture is late, or from which no pictures have come.
    """
    from poller.control import Request, Verb
    from poller.core.selection import Selection
    from poller.operations.stream_states import CHOICES

    if state is not None:
        check_word(state, CHOICES, "--state")
    asked = Request(verb=Verb.STREAMS, selection=Selection(account=account), state=state)

    def show(rows: list["Row"]) -> None:
        from poller.cli.picture_lines import print_streams

        print_streams(rows, utc)

    if not show_all(context.obj, config, asked, json, show):
        typer.echo("no streams" if state is account is None else "no streams that match", err=True)
