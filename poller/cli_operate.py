"""What an operator looks at and puts right: through a running daemon, or on the spool file when none runs."""

from typing import Annotated

import typer

from poller.asking import act, ask_reload, ask_status, chosen_request, list_rows, request, show_rows
from poller.command import Config

EPILOG = "Exit codes: 0 done, 1 nothing matched or failed, 2 usage, 78 bad configuration."
LETTER = ("id", "sink", "stream", "died_at", "attempts", "reason")
REJECT = ("id", "source", "received_at", "bytes", "reason")

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
All = Annotated[bool, typer.Option("--all", help="All of them, if nothing else is chosen.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="The most to list, newest first.")]
Sink = Annotated[str | None, typer.Option(help="Only this sink's.", show_default=False)]
Source = Annotated[str | None, typer.Option(help="Only this source's.", show_default=False)]
Stream = Annotated[str | None, typer.Option(help="Only this stream's.", show_default=False)]
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Only those whose reason holds this.", show_default=False)
]
Older = Annotated[
    str | None, typer.Option("--older-than", metavar="DURATION", help="Only older ones.", show_default=False)
]
Newer = Annotated[
    str | None, typer.Option("--newer-than", metavar="DURATION", help="Only newer ones.", show_default=False)
]
Events = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Event ids.", show_default=False)]
Numbers = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Numbers, as listed.", show_default=False)
]
SomeEvents = Annotated[list[str], typer.Argument(metavar="ID", help="Event ids.", show_default=False)]
SomeNumbers = Annotated[
    list[str], typer.Argument(metavar="ID", help="Numbers, as listed.", show_default=False)
]
SinkName = Annotated[str, typer.Argument(metavar="SINK", help="A sink's name.", show_default=False)]

dead = typer.Typer(
    name="dead",
    help="Deliveries that were given up: look, try again, forget.",
    no_args_is_help=True,
    epilog=EPILOG,
)
quarantine = typer.Typer(
    name="quarantine",
    help="What could not be read: look, read again, forget.",
    no_args_is_help=True,
    epilog=EPILOG,
)


# ---------------------------------------------------------------- the commands


def status(context: typer.Context, config: Config, json: Json = False) -> None:
    """Say how sources, spool and sinks are; less is known while no daemon runs."""
    ask_status(context.obj, config, json)


def pause(context: typer.Context, config: Config, sink: SinkName, json: Json = False) -> None:
    """Deliver nothing more to a sink until `resume`, also after a restart; what it is owed is kept."""
    act(context.obj, config, request("pause", sink=sink), json)


def resume(context: typer.Context, config: Config, sink: SinkName, json: Json = False) -> None:
    """Deliver to a sink again, at once: ends `pause`, and a sink's own pause or disabled state."""
    act(context.obj, config, request("resume", sink=sink), json)


def reload(
    context: typer.Context,
    config: Config,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    json: Json = False,
) -> None:
    """Apply the changed configuration to the running daemon: only what changed restarts; a bad file changes nothing."""
    ask_reload(context.obj, config, json, dry=dry)


@dead.command("list", epilog=EPILOG)
def dead_list(
    context: typer.Context,
    config: Config,
    ids: Events = None,
    sink: Sink = None,
    stream: Stream = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List dead letters, newest first."""
    asked = request(
        "dead list", limit=limit, of=sink, stream=stream, reason=reason, older=older, newer=newer, ids=ids
    )
    list_rows(context.obj, config, asked, json, LETTER)


@dead.command("show", epilog=EPILOG)
def dead_show(context: typer.Context, config: Config, ids: SomeEvents, json: Json = False) -> None:
    """Show dead letters with their attempts and the event's public form."""
    show_rows(context.obj, config, request("dead show", ids=ids), json)


@dead.command("retry", epilog=EPILOG)
def dead_retry(
    context: typer.Context,
    config: Config,
    ids: Events = None,
    sink: Sink = None,
    stream: Stream = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    everything: All = False,
    json: Json = False,
) -> None:
    """Give dead letters back to their sinks: they are owed again, with their attempts counted anew."""
    asked = chosen_request(
        "dead retry", everything, of=sink, stream=stream, reason=reason, older=older, newer=newer, ids=ids
    )
    act(context.obj, config, asked, json, "retried")


@dead.command("purge", epilog=EPILOG)
def dead_purge(
    context: typer.Context,
    config: Config,
    ids: Events = None,
    sink: Sink = None,
    stream: Stream = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    everything: All = False,
    json: Json = False,
) -> None:
    """Forget dead letters for good."""
    asked = chosen_request(
        "dead purge", everything, of=sink, stream=stream, reason=reason, older=older, newer=newer, ids=ids
    )
    act(context.obj, config, asked, json, "purged")


@quarantine.command("list", epilog=EPILOG)
def quarantine_list(
    context: typer.Context,
    config: Config,
    ids: Numbers = None,
    source: Source = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List what could not be read, newest first."""
    asked = request(
        "quarantine list", limit=limit, of=source, reason=reason, older=older, newer=newer, ids=ids
    )
    list_rows(context.obj, config, asked, json, REJECT)


@quarantine.command("show", epilog=EPILOG)
def quarantine_show(context: typer.Context, config: Config, ids: SomeNumbers, json: Json = False) -> None:
    """Show the bytes that were kept, unpacked, with what signs or opens something masked."""
    show_rows(context.obj, config, request("quarantine show", ids=ids), json)


@quarantine.command("retry", epilog=EPILOG)
def quarantine_retry(
    context: typer.Context,
    config: Config,
    ids: Numbers = None,
    source: Source = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    everything: All = False,
    json: Json = False,
) -> None:
    """Read again, after a fix: what gives events now becomes events, the rest stays where it is."""
    asked = chosen_request(
        "quarantine retry", everything, of=source, reason=reason, older=older, newer=newer, ids=ids
    )
    act(context.obj, config, asked, json, "read")


@quarantine.command("purge", epilog=EPILOG)
def quarantine_purge(
    context: typer.Context,
    config: Config,
    ids: Numbers = None,
    source: Source = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    everything: All = False,
    json: Json = False,
) -> None:
    """Forget what could not be read, for good."""
    asked = chosen_request(
        "quarantine purge", everything, of=source, reason=reason, older=older, newer=newer, ids=ids
    )
    act(context.obj, config, asked, json, "purged")
