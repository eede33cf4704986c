"""What an operator looks at and puts right: through a running daemon, or on the spool file when none runs."""

from typing import Annotated

import typer

from poller.cli.client import act, ask_reload, ask_status, chosen_request, list_rows, request, show_rows
from poller.cli.common import Command, Config, Group

EPILOG = "Exit codes: 0 done, 1 failed or no match, 2 wrong usage, 78 bad configuration."
LETTER = ("id", "sink", "stream", "died_at", "attempts", "reason")
REJECT = ("id", "source", "received_at", "bytes", "reason")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
All = Annotated[bool, typer.Option("--all", help="Choose all, where no other option chooses.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="List at most N.")]
Sink = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only those of this sink.", show_default=False)
]
Source = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only those of this source.", show_default=False)
]
Stream = Annotated[
    str | None, typer.Option(metavar="ID", help="Only those of this stream.", show_default=False)
]
Reason = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Only those with this text in their reason.", show_default=False),
]
Older = Annotated[
    str | None,
    typer.Option("--older-than", metavar="DURATION", help="Only those older than this.", show_default=False),
]
Newer = Annotated[
    str | None,
    typer.Option("--newer-than", metavar="DURATION", help="Only those newer than this.", show_default=False),
]
Events = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of events.", show_default=False)]
Numbers = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Numbers, as `list` shows them.", show_default=False)
]
SomeEvents = Annotated[list[str], typer.Argument(metavar="ID", help="Ids of events.", show_default=False)]
SomeNumbers = Annotated[
    list[str], typer.Argument(metavar="ID", help="Numbers, as `list` shows them.", show_default=False)
]
SinkName = Annotated[str, typer.Argument(metavar="SINK", help="Name of the sink.", show_default=False)]

dead = typer.Typer(
    name="dead",
    cls=Group,
    help="List, show, retry or purge dead letters: deliveries that were given up.",
    no_args_is_help=True,
    epilog=EPILOG,
)
quarantine = typer.Typer(
    name="quarantine",
    cls=Group,
    help="List, show, retry or purge the quarantine: answers that could not be read.",
    no_args_is_help=True,
    epilog=EPILOG,
)


# ---------------------------------------------------------------- the commands


def status(context: typer.Context, config: Config, json: Json = False) -> None:
    """Show the state of the daemon and of every source and sink.

    Without a running daemon the command reads the spool file and shows what is pending there.
    """
    ask_status(context.obj, config, json)


def pause(context: typer.Context, config: Config, sink: SinkName, json: Json = False) -> None:
    """Stop deliveries to one sink until `resume`. Its events are kept, and a restart does not end the pause."""
    act(context.obj, config, request("pause", sink=sink), json)


def resume(context: typer.Context, config: Config, sink: SinkName, json: Json = False) -> None:
    """Deliver to a sink again at once. This ends `pause`, a sink's own pause and its disabled state."""
    act(context.obj, config, request("resume", sink=sink), json)


def reload(
    context: typer.Context,
    config: Config,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Apply a changed configuration to the running daemon. Only changed parts restart; a bad file changes nothing."""
    ask_reload(context.obj, config, json, dry=dry)


@dead.command("list", cls=Command, epilog=EPILOG)
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


@dead.command("show", cls=Command, epilog=EPILOG)
def dead_show(context: typer.Context, config: Config, ids: SomeEvents, json: Json = False) -> None:
    """Show dead letters: every attempt, and the event as its sink gets it."""
    show_rows(context.obj, config, request("dead show", ids=ids), json)


@dead.command("retry", cls=Command, epilog=EPILOG)
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
    """Deliver dead letters again. They are pending at once, with their attempts counted from zero."""
    asked = chosen_request(
        "dead retry", everything, of=sink, stream=stream, reason=reason, older=older, newer=newer, ids=ids
    )
    act(context.obj, config, asked, json, "retried")


@dead.command("purge", cls=Command, epilog=EPILOG)
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
    """Delete dead letters for good."""
    asked = chosen_request(
        "dead purge", everything, of=sink, stream=stream, reason=reason, older=older, newer=newer, ids=ids
    )
    act(context.obj, config, asked, json, "purged")


@quarantine.command("list", cls=Command, epilog=EPILOG)
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
    """List the answers that could not be read, newest first."""
    asked = request(
        "quarantine list", limit=limit, of=source, reason=reason, older=older, newer=newer, ids=ids
    )
    list_rows(context.obj, config, asked, json, REJECT)


@quarantine.command("show", cls=Command, epilog=EPILOG)
def quarantine_show(context: typer.Context, config: Config, ids: SomeNumbers, json: Json = False) -> None:
    """Show the kept bytes of an answer, decompressed. Secrets and signatures in them are masked."""
    show_rows(context.obj, config, request("quarantine show", ids=ids), json)


@quarantine.command("retry", cls=Command, epilog=EPILOG)
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
    """Read the kept bytes again, after a fix. Events found there are delivered; the rest stays in quarantine."""
    asked = chosen_request(
        "quarantine retry", everything, of=source, reason=reason, older=older, newer=newer, ids=ids
    )
    act(context.obj, config, asked, json, "read")


@quarantine.command("purge", cls=Command, epilog=EPILOG)
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
    """Delete unreadable answers for good."""
    asked = chosen_request(
        "quarantine purge", everything, of=source, reason=reason, older=older, newer=newer, ids=ids
    )
    act(context.obj, config, asked, json, "purged")
