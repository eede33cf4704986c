"""The operator's commands: state, pause, reload, dead letters and quarantine, with a running daemon or without."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from inspect import Parameter
from typing import Annotated, Any

import typer

from poller.cli.browser import NOT_OPENED, open_in_browser
from poller.cli.client import (
    act,
    ask_reload,
    ask_status,
    chosen_request,
    list_rows,
    request,
    show_each,
    show_rows,
)
from poller.cli.common import Command, Config, Group, option, time_ago, with_options
from poller.cli.options import Json, SinkName
from poller.cli.times import PrintUtc

EPILOG = "Exit codes: 0 done, 1 failed or no match, 2 wrong usage, 78 bad configuration."

All = Annotated[bool, typer.Option("--all", help="Choose all, where no other option chooses.")]
Expect = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Do nothing unless exactly N match.", show_default=False),
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="List at most N.")]


# ---------------------------------------------------------------- the daemon and its sinks


def status(context: typer.Context, config: Config, utc: PrintUtc = False, json: Json = False) -> None:
    """Show the state of the daemon and of every source and sink.

    Without a running daemon the command reads the spool file and shows what is pending there.
    """
    ask_status(context.obj, config, json, utc)


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


def pages(
    context: typer.Context,
    config: Config,
    show: Annotated[bool, typer.Option("--open", help="Open the address in a browser, too.")] = False,
    json: Json = False,
) -> None:
    """Print an address that opens the pages of the running daemon.

    If people have to log in, the address logs in whoever opens it first, within an hour, as one who operates.
    """
    for row in show_each(context.obj, config, request("pages"), json, lambda row: typer.echo(row["address"])):
        if show and not open_in_browser(str(row["address"])):
            typer.echo(NOT_OPENED, err=True)


# ---------------------------------------------------------------- what is stored


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A kind of stored things, and what the help of its commands says."""

    name: str
    help: str
    commands: Mapping[str, str]
    ids: str
    filters: tuple[Parameter, ...]
    """By the names of `Filter`."""
    columns: tuple[str, ...]
    """Of its table."""
    retried: str
    """What `retry` counts."""


def _filter(name: str, spelled: str, metavar: str, only: str, **more: Any) -> Parameter:
    said = f"Only those {only}."
    return option(name, str | None, None, metavar, said, spelled, show_default=False, **more)


def _moment(param: typer.CallbackParam, age: str | None) -> datetime | None:
    return None if age is None else time_ago(age, param.opts[0])


_EVERY_KIND = (
    _filter("reason", "--reason", "TEXT", "with this text in their reason"),
    _filter("before", "--older-than", "DURATION", "older than this", callback=_moment),
    _filter("since", "--newer-than", "DURATION", "newer than this", callback=_moment),
)


def _commands(stored: Stored) -> typer.Typer:
    """The four commands: list, show, retry and purge."""
    group = typer.Typer(name=stored.name, cls=Group, help=stored.help, no_args_is_help=True, epilog=EPILOG)
    choice = (_ids(stored, list[str] | None, None), *stored.filters)

    def list_(
        context: typer.Context,
        config: Config,
        *,
        limit: Limit = 100,
        utc: PrintUtc = False,
        json: Json = False,
        **chosen: Any,
    ) -> None:
        asked = request(f"{stored.name} list", chosen, limit=limit)
        list_rows(context.obj, config, asked, json, stored.columns, utc)

    def show(
        context: typer.Context, config: Config, *, utc: PrintUtc = False, json: Json = False, **chosen: Any
    ) -> None:
        show_rows(context.obj, config, request(f"{stored.name} show", chosen), json, utc)

    for word, command, options in (
        ("list", list_, choice),
        ("show", show, (_ids(stored, list[str], ...),)),
        ("retry", _change(f"{stored.name} retry", stored.retried), choice),
        ("purge", _change(f"{stored.name} purge", "purged"), choice),
    ):
        added = group.command(word, cls=Command, help=stored.commands[word], epilog=EPILOG)
        added(with_options(command, options))
    return group


def _ids(stored: Stored, kind: Any, default: Any) -> Parameter:
    info = typer.Argument(default, metavar="ID", help=stored.ids, show_default=False)
    return Parameter("ids", Parameter.KEYWORD_ONLY, annotation=kind, default=info)


def _change(verb: str, counted: str) -> Callable[..., None]:
    def change(
        context: typer.Context,
        config: Config,
        *,
        everything: All = False,
        expect: Expect = None,
        json: Json = False,
        **chosen: Any,
    ) -> None:
        act(context.obj, config, chosen_request(verb, everything, chosen, expect=expect), json, counted)

    return change


dead = _commands(
    Stored(
        name="dead",
        help="List, show, retry or purge dead letters: deliveries that were given up.",
        commands={
            "list": "List dead letters, newest first.",
            "show": "Show dead letters: every attempt, and the event as its sink gets it.",
            "retry": "Deliver dead letters again. They are pending at once, with their attempts counted from zero.",
            "purge": "Delete dead letters for good.",
        },
        ids="Ids of events.",
        filters=(
            _filter("of", "--sink", "NAME", "of this sink"),
            _filter("stream", "--stream", "ID", "of this stream"),
            *_EVERY_KIND,
        ),
        columns=("id", "sink", "stream", "died_at", "attempts", "reason"),
        retried="retried",
    )
)
quarantine = _commands(
    Stored(
        name="quarantine",
        help="List, show, retry or purge the quarantine: answers that could not be read.",
        commands={
            "list": "List the answers that could not be read, newest first.",
            "show": "Show the kept bytes of an answer, decompressed. Secrets and signatures in them are masked.",
            "retry": "Read the kept bytes again, after a fix. Events found there are delivered; "
            "the rest stays in quarantine.",
            "purge": "Delete unreadable answers for good.",
        },
        ids="Numbers, as `list` shows them.",
        filters=(_filter("of", "--source", "NAME", "of this source"), *_EVERY_KIND),
        columns=("id", "source", "received_at", "bytes", "reason"),
        retried="read",
    )
)
