"""The code that commands share: exit codes, loading the configuration, running a coroutine to its end."""

import asyncio
import gc
import json
import os
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum, auto
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from poller.core.errors import BadConfiguration, PollerError, StorageShared
from poller.daemon.signals import Stop
from poller.runtime import failpoints, preload

if TYPE_CHECKING:
    from poller.settings import Settings

Called = TypeVar("Called", bound=Callable[..., None])


class Exit(IntEnum):
    """The exit codes of the program (78 is EX_CONFIG of sysexits(3))."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BAD_CONFIGURATION = 78


class Doubts(Enum):
    """How a command treats settings that are valid but cannot work together."""

    IGNORE = auto()
    LOG = auto()
    REFUSE = auto()


def _without_types(params: list[Any]) -> list[Any]:
    """Hide the types of flags and arguments in the help: a flag takes no value, and an argument has a name."""
    for param in params:
        if isinstance(param, TyperArgument) or param.is_flag:
            vars(param)["display_type_rich"] = lambda ctx: None
    return params


class Command(TyperCommand):
    """A command with plain help: no types, and `SINK` instead of `{SINK}`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [
            piece.translate({ord("{"): None, ord("}"): None}) for piece in super().collect_usage_pieces(ctx)
        ]


class Group(TyperGroup):
    """A group of commands with the same plain help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


VARIABLE = "POLLER_CONFIG"
USUAL = Path("poller.yaml")


def _found() -> Path:
    """The configuration file if no option names one. A line on stderr tells which file it is."""
    named = os.environ.get(VARIABLE)
    if not named and not USUAL.exists():
        raise typer.BadParameter(f"say which: -c FILE, or {VARIABLE}, or run this where {USUAL} lies")
    file, why = (Path(named), VARIABLE) if named else (USUAL, "the current folder")
    typer.echo(f"configuration: {file} (from {why})", err=True)
    return file


Config = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file.",
        default_factory=_found,
        show_default=f"${VARIABLE}, else ./{USUAL}",
    ),
]


def option(
    name: str, kind: Any, default: Any, metavar: str | None, said: str, *spelled: str, **more: Any
) -> Parameter:
    """An option as a value, for `with_options`; `...` as its default makes it required."""
    info = typer.Option(default, *spelled, metavar=metavar, help=said, **more)
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=info)


def with_options(command: Called, options: Iterable[Parameter]) -> Called:
    """The command, with these options in its `**` parameter. The help shows them before its keyword-only options."""
    own = signature(command).parameters.values()
    first = [one for one in own if one.kind is Parameter.POSITIONAL_OR_KEYWORD]
    last = [one for one in own if one.kind is Parameter.KEYWORD_ONLY]
    vars(command)["__signature__"] = Signature([*first, *options, *last])
    return command


def settings_of(config: Path, doubts: Doubts = Doubts.IGNORE) -> "Settings":
    """Load the settings from a file and set up logging. If the file is bad, print every finding on stderr; exit 78.

    `doubts` says how to treat settings that are valid but cannot work together.
    """
    from poller.settings import load_with_doubts

    return _load(lambda: load_with_doubts(config), doubts)


def stored_of(config: Path) -> "Settings":
    """Like `settings_of`, with `load_stored`: no secret is read, and unrelated sections may be broken."""
    from poller.settings import load_stored

    return _load(lambda: (load_stored(config), []), Doubts.IGNORE)


def _load(load: Callable[[], tuple["Settings", list[str]]], doubts: Doubts) -> "Settings":
    import structlog

    from poller.runtime.log import configure

    if failpoints.refused:
        fail(failpoints.refused, Exit.BAD_CONFIGURATION)
    try:
        settings, doubtful = load()
        if doubts is Doubts.REFUSE and doubtful:
            raise BadConfiguration(doubtful)
    except BadConfiguration as error:
        fail("\n".join(error.findings), Exit.BAD_CONFIGURATION)
    configure(settings.log.level, settings.log.format)
    for doubt in doubtful if doubts is Doubts.LOG else ():
        structlog.get_logger("poller").warning("configuration_doubtful", finding=doubt)
    if failpoints.at:
        structlog.get_logger("poller").warning("fail_point_armed", at=failpoints.at)
    return settings


def log_warnings(settings: "Settings") -> None:
    """From now on log nothing below a warning: the command opens parts that tell where they listen."""
    from poller.runtime.log import configure

    configure("error" if settings.log.level == "error" else "warning", settings.log.format)


def log_failure(error: BaseException) -> None:
    """Report why the process ends as one line in the log."""
    import structlog

    structlog.get_logger("poller").error("failed", error=type(error).__name__, reason=str(error))


def print_failure(error: BaseException) -> None:
    """Report why a command ends as plain lines on stderr."""
    typer.echo(f"poller: {error}", err=True)


def in_loop(
    work: Coroutine[Any, Any, int],
    stop: Stop,
    unstarted: Exit = Exit.DONE,
    report: Callable[[BaseException], None] = log_failure,
) -> int:
    """Run `work` in a new event loop and return the exit code. `report` gets each error that ends it; a bug is logged.

    Returns `unstarted`, without running `work`, if a stop was requested before.
    """
    import structlog
    import uvloop

    if stop.count:
        work.close()
        return unstarted
    preload.raise_open_files()
    preload.load_all()
    gc.freeze()  # what is loaded stays to the end: a full collection need not look at it for a twentieth of a second

    async def supervise() -> int:
        stop.listen_in_loop()
        return await work

    code = Exit.FAILED
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(supervise())
        except* (PollerError, OSError) as group:
            for error in _leaves(group):
                report(error)
                code = max(code, code_of(error))
        except* Exception as group:
            for error in _leaves(group):
                structlog.get_logger("poller").error("failed", error=type(error).__name__, exc_info=error)
    return code


def fail(text: str, code: int = Exit.FAILED) -> NoReturn:
    """Say why on stderr, and exit."""
    typer.echo(text, err=True)
    raise typer.Exit(code) from None


def code_of(error: BaseException) -> Exit:
    """The exit code for an error."""
    return Exit.BAD_CONFIGURATION if isinstance(error, StorageShared) else Exit.FAILED


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def duration(text: str, option: str) -> float:
    """The seconds of a duration in the format of the configuration. A bad one is a usage error naming the option."""
    from pydantic import TypeAdapter, ValidationError

    from poller.settings import Duration

    try:
        return TypeAdapter(Duration).validate_json(json.dumps(text))
    except ValidationError:
        raise typer.BadParameter(
            f"a duration is written 250ms, 30s, 5m, 12h or 3d, not {text!r}", param_hint=option
        ) from None


def time_ago(age: str, option: str) -> datetime:
    """The moment so long ago; a usage error that names the option where the calendar has none."""
    try:
        return datetime.now(UTC) - timedelta(seconds=duration(age, option))
    except OverflowError:
        raise typer.BadParameter(f"{age} ago is before the year 1", param_hint=option) from None
