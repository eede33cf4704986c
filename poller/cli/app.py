"""The command line: all commands, and how they run."""

import json
from errno import ENOSPC
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from poller import __version__
from poller.cli.audit import audit
from poller.cli.backfill import check_lists
from poller.cli.common import (
    Command,
    Config,
    Doubts,
    Exit,
    Group,
    duration,
    fail,
    in_loop,
    log_warnings,
    print_failure,
    settings_of,
)
from poller.cli.hints import print_hints, why_moved
from poller.cli.look import events, find, latest, streams, tap
from poller.cli.operate import dead, pages, pause, quarantine, reload, resume, status
from poller.cli.replay import replay, replays
from poller.cli.sandbox import import_sandbox, sandbox, seconds
from poller.cli.spool import spool
from poller.cli.top import top
from poller.cli.trace import trace
from poller.core.errors import StorageLocked
from poller.daemon.signals import Stop

if TYPE_CHECKING:
    from poller.daemon.daemon import Daemon
    from poller.runtime.outbound import AddressGuard
    from poller.settings import Settings


app = typer.Typer(
    name="poller",
    cls=Group,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 78 bad configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # pretty tracebacks print local variables, and keys may be among them
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cache
def command_line() -> Any:
    """All commands with their options. A process that runs several commands makes them once."""
    return typer.main.get_command(app)


def main(stop: Stop) -> NoReturn:
    """Run the command line. Never returns: the end is a `SystemExit`."""
    try:
        command_line()(obj=stop)
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        typer.echo(f"poller: {error}", err=True)  # most often of standard output, in a file on a full disk
        raise SystemExit(Exit.FAILED) from None
    raise SystemExit(Exit.DONE)


def _version(check_key: bool) -> None:
    if check_key:
        typer.echo(f"poller {__version__}")
        raise typer.Exit(Exit.DONE)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Get the screenshots of your live streams out of Tencent Cloud Live, without losing one."""


@app.command(cls=Command)
def run(context: typer.Context, config: Config) -> None:
    """Run the daemon: poll and deliver until SIGTERM. SIGHUP reloads the configuration."""
    context.obj.hear_reloads()
    settings = settings_of(config, Doubts.LOG)

    async def serve(stop: Stop) -> int:
        async with _daemon(settings, config) as daemon:
            await daemon.run(stop)
        return Exit.DONE

    raise typer.Exit(in_loop(serve(context.obj), context.obj))


@app.command(cls=Command)
def drain(
    context: typer.Context,
    config: Config,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="Stop after this time, and exit with 1.")
    ] = "5m",
) -> None:
    """Poll until the queue is empty, deliver everything and exit. Running replays are delivered too.

    Exit codes: 0 the queue was seen empty and every delivery was done,
    1 something is left (the log's last line says what), 2 wrong usage,
    78 bad configuration.
    """
    limit = duration(timeout, "--timeout")
    settings = settings_of(config, Doubts.LOG)

    async def serve(stop: Stop) -> int:
        async with _daemon(settings) as daemon:
            return Exit.DONE if await daemon.drain(stop, limit) else Exit.FAILED

    raise typer.Exit(in_loop(serve(context.obj), context.obj, unstarted=Exit.FAILED))


@app.command(cls=Command)
def check(
    context: typer.Context,
    config: Config,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect",
            help="Also open and close every source, spool and sink; ask the platform whether each key is right, "
            "the picture store whether each bucket exists and can be listed, and each destination whether it takes "
            "events. Nothing is left there.",
        ),
    ] = False,
) -> None:
    """Check a configuration. Nothing is polled.

    Every mistake is one line on stderr, as FILE:LINE:COLUMN: SETTING: REASON.

    Exit codes: 0 the file is good, 2 wrong usage, 78 the file has mistakes,
    1 the spool was moved to another place, or (only with --connect) a part did not open, or a key, bucket or
    destination is wrong.
    """
    from poller.daemon.wiring import build_spool

    settings = settings_of(config, Doubts.REFUSE)
    configured = build_spool(settings.spool)
    if (moved := why_moved(configured)) is not None:
        fail(f"poller: {moved}")
    if connect:
        log_warnings(settings)
        code = in_loop(_connect(settings), context.obj, report=print_failure)
        if code != Exit.DONE:
            raise typer.Exit(code)
    print_hints(settings, configured)
    typer.echo(f"{config}: good")


@app.command(name="schema", cls=Command)
def print_schema() -> None:
    """Print the JSON Schema of the configuration, which editors use for completion."""
    from poller.settings import schema

    typer.echo(json.dumps(schema(), indent=2, ensure_ascii=False))


# ---------------------------------------------------------------- how commands run


def _daemon(settings: "Settings", file: Path | None = None, *, visits: bool = False) -> "Daemon":
    from poller.daemon.daemon import Daemon  # takes half a second, which --help and completion save

    return Daemon(settings, file=file, visits=visits)


async def _connect(settings: "Settings") -> int:
    from poller.cli.destinations import check_destinations
    from poller.cli.trial import trial

    reached = True
    try:
        with trial(settings) as tried:
            async with _daemon(tried, visits=True) as daemon:
                reached = await check_destinations(tried, daemon.components.couriers)
    except StorageLocked as error:
        typer.echo(f"sinks were not asked, because a daemon runs: {error}", err=True)
    check_key, probed = await _ask_platform(settings), await _probe_buckets(settings)
    listed = Exit.DONE if await check_lists(settings) else Exit.FAILED
    return check_key or probed or listed or (Exit.DONE if reached else Exit.FAILED)


async def _ask_platform(settings: "Settings") -> int:
    """Print for each account whether its key is right. The check fails unless every key is known to be right."""
    from poller.qcloud.key_check import KeyState, check_key
    from poller.qcloud.wire.account import Account

    code = Exit.DONE
    for name, account_settings in settings.accounts.items():
        async with Account(name, account_settings) as account:
            found = await check_key(account)
        typer.echo(f"account {name}: {found}", err=found.state is not KeyState.RIGHT)
        if found.state is not KeyState.RIGHT:
            code = Exit.FAILED
    return code


async def _probe_buckets(settings: "Settings") -> int:
    """Print for each account whether its bucket exists. The check fails if a bucket does not exist. If a sink fetches
    pictures, it also fails if a bucket cannot be reached."""
    from poller.qcloud.bucket_check import BucketState, check_bucket
    from poller.qcloud.wire.addresses import addresses

    fetching, guard = _who_fetches(settings)
    bad = {BucketState.NO_BUCKET, BucketState.UNREACHABLE} if fetching else {BucketState.NO_BUCKET}
    code = Exit.DONE
    for name, account in settings.accounts.items():
        base = addresses(account).picture_base
        if base is None:
            continue
        found = await check_bucket(base, guard)
        typer.echo(f"account {name}: pictures: {found}", err=found.state is not BucketState.THERE)
        if found.state in bad:
            code = Exit.FAILED
    return code


def _who_fetches(settings: "Settings") -> tuple[bool, "AddressGuard"]:
    """Whether a sink fetches pictures, and the addresses that sinks and pages may fetch them from.

    If nobody fetches pictures, no address is refused: the file names it, and the check sends no more than one GET.
    """
    from poller.runtime.outbound import ANYWHERE, AddressGuard

    sinks = [sink for sink in settings.sinks.values() if sink.fetches_pictures]
    parts = [*sinks, *([settings.web] if settings.web is not None else [])]
    networks = [network for part in parts for network in getattr(part, "allow_cidr", ())]
    return bool(sinks), AddressGuard(networks if parts else ANYWHERE)


# ---------------------------------------------------------------- the operator's commands

LOOK, ACT, TRY = "See what is there", "Change what happens", "Try it without an account"

for command in (status, top, events, tap, find, latest, streams, trace, audit, replays, pages):
    app.command(cls=Command, rich_help_panel=LOOK)(command)
for action in (pause, resume, reload, replay):
    app.command(cls=Command, rich_help_panel=ACT)(action)
for group in (dead, quarantine, spool):
    app.add_typer(group, rich_help_panel=ACT)


# ---------------------------------------------------------------- sandbox and demo

app.command(cls=Command, rich_help_panel=TRY)(sandbox)


def _demo_interval(text: str) -> float:
    """The interval in seconds, at least 1: the names of pictures are only precise to the second."""
    if (found := seconds(text, "--interval")) < 1:
        raise typer.BadParameter(f"{text!r} is less than 1s", param_hint="--interval")
    return found


For = Annotated[
    str | None,
    typer.Option("--for", metavar="DURATION", help="End after this time.", show_default="run until Ctrl-C"),
]
Streams = Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Number of live streams.")]
Interval = Annotated[
    str, typer.Option(metavar="DURATION", help="Time between two pictures of a stream, 1s or more.")
]
Videos = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        readable=True,
        help="H.264 video to push; may be repeated.",
        show_default="a test pattern",
    ),
]


@app.command(cls=Command, rich_help_panel=TRY)
def demo(
    context: typer.Context,
    for_: For = None,
    streams: Streams = 4,
    interval: Interval = "5s",
    video: Videos = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the pages in a browser.")] = False,
) -> None:
    """Show the daemon at work on this machine. No account and no configuration are needed.

    The demo starts the sandbox and the daemon, pushes live streams over RTMP and prints what arrives.
    It prints the address of pages that show the streams.
    """
    import_sandbox()
    from poller.cli import demo as parts

    shown = parts.Demo(
        streams=streams,
        interval=_demo_interval(interval),
        seconds=duration(for_, "--for") if for_ else None,
        videos=tuple(video or ()),
        browser=browser,
    )

    async def show() -> int:
        return Exit.DONE if await parts.show(shown, context.obj) else Exit.FAILED

    raise typer.Exit(in_loop(show(), context.obj, report=print_failure))
