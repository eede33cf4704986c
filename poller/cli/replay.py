"""`poller replay` and `poller replays`: retained events that a sink gets again."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poller.cli.client import act, ask_rows, fail_with, list_rows, print_one, request
from poller.cli.common import Config, fail
from poller.cli.options import Account, Json, Kinds, SinkName, Stream
from poller.cli.times import PrintUtc, Since, Until, Utc, span
from poller.core.errors import PollerError
from poller.core.model import LARGEST_NUMBER
from poller.daemon.signals import Stop

if TYPE_CHECKING:
    from poller.control import Row

COLUMNS = ("replay", "sink", "what", "done", "total", "state")
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def replay(
    context: typer.Context,
    config: Config,
    sink: SinkName,
    since: Since = None,
    until: Until = None,
    stream: Stream = None,
    account: Account = None,
    kind: Kinds = None,
    yes: Yes = False,
    json: Json = False,
    utc: Utc = False,
) -> None:
    """Give retained events to one sink again.

    The command counts the events and asks. Replayed events go out after all other events of the sink.
    Their ids stay the same, so a receiver that drops known ids drops them.
    Events that are pending for the sink, and its dead letters, are left out.
    """
    from poller.core.selection import Selection

    times = span(since, until, utc)
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: say --yes", param_hint="--yes")
    chosen = Selection(
        account=account,
        stream=stream,
        kinds=frozenset(kind or ()),
        since=times.since,
        until=times.until,
    )
    row = _order(context.obj, config, {"sink": sink, "selection": chosen}, yes)
    print_one(row, json)


def _order(stop: Stop, config: Path, words: dict[str, Any], yes: bool) -> "Row":
    """Count and ask until the answer is yes for the count that is ordered."""
    count = _ask(stop, config, words, dry=True)
    while True:
        if not count["events"]:
            fail(_describe_nothing(count))
        _say(count)
        if yes:
            return _ask(stop, config, words, below=count["below"])
        typer.confirm(f"Give {count['events']} events to {count['sink']} again?", abort=True, err=True)
        try:
            return ask_rows(
                stop, config, request("replay", **words, below=count["below"], expect=count["events"])
            )[-1]
        except PollerError as error:
            before, count = count, _ask(stop, config, words, dry=True)
            if count["events"] == before["events"]:
                fail_with(error)
            typer.echo(f"poller: {error}", err=True)


def _ask(stop: Stop, config: Path, words: dict[str, Any], **more: Any) -> "Row":
    try:
        return ask_rows(stop, config, request("replay", **words, **more))[-1]
    except PollerError as error:
        fail_with(error)


def _say(count: "Row") -> None:
    typer.echo(f"{count['events']} events are selected{_describe_left_out(count)}.", err=True)
    if old := count["old_pictures"]:
        typer.echo(
            f"{old} of them are pictures older than 15 days. A bucket deletes pictures after 15 days by default; a "
            "picture that is gone becomes a dead letter.",
            err=True,
        )


def _describe_left_out(count: "Row") -> str:
    parts = [f"{count['pending']} are pending anyway"] if count["pending"] else []
    if count["dead"]:
        parts.append(f"{count['dead']} are dead letters (see `poller dead retry`)")
    return f"; besides, {' and '.join(parts)}" if parts else ""


def _describe_nothing(count: "Row") -> str:
    return f"no events match{_describe_left_out(count)}"


# ---------------------------------------------------------------- the list, and changes


class Action(StrEnum):
    """What can be done with a replay."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


def replays(
    context: typer.Context,
    config: Config,
    action: Annotated[
        str | None, typer.Argument(metavar="ACTION", help="pause, resume or cancel.", show_default=False)
    ] = None,
    number: Annotated[
        str | None,
        typer.Argument(metavar="N", help="Number of the replay, from the list.", show_default=False),
    ] = None,
    utc: PrintUtc = False,
    json: Json = False,
) -> None:
    """List replays, or pause, resume or cancel one.

    Cancelling removes what still waits; a batch in hand is delivered. The replays of a sink run one after the other.
    """
    if action is None:
        list_rows(context.obj, config, request("replays"), json, COLUMNS, utc)
        return
    word, which = _action(action), _number(action, number)
    act(context.obj, config, request(f"replays {word.value}", number=which), json, utc=utc)


def _action(text: str) -> Action:
    try:
        return Action(text)
    except ValueError:
        raise typer.BadParameter(
            f"write pause N, resume N or cancel N, not {text!r}; without it, replays are listed",
            param_hint="ACTION",
        ) from None


def _number(action: str, text: str | None) -> int:
    if text is None:
        raise typer.BadParameter(f"say which replay to {action}: `poller replays` lists them", param_hint="N")
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:20]) <= LARGEST_NUMBER):
        raise typer.BadParameter(
            f"{text!r} is not the number of a replay: `poller replays` lists them", param_hint="N"
        )
    return int(text)
