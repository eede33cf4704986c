"""`poller spool`: check, copy, print and salvage a spool file, and move a spool."""

import base64
import os
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from poller.cli.common import Command, Config, Group, code_of, fail, in_loop, print_failure, stored_of
from poller.cli.options import Kinds
from poller.cli.times import Since, Utc, span
from poller.core.errors import StorageError, StorageFull, StorageLocked

if TYPE_CHECKING:
    from poller.core.moving import CanBeMoved
    from poller.core.spool import KeptInFile, Salvaged
    from poller.operations.moving import Moved
    from poller.settings import Settings

TOGETHER = 1_000
"""The number of entries that salvage restores in one commit."""

spool = typer.Typer(
    name="spool",
    cls=Group,
    help="Check, copy, export or salvage a spool file, or move a spool.",
    no_args_is_help=True,
    epilog="Exit codes: 0 done, 1 failed or damaged, 2 wrong usage, 78 bad configuration.",
)


@spool.command(cls=Command)
def check(config: Config) -> None:
    """Read the whole spool file and report damage; exit 1 if there is any. Works beside a running daemon."""
    settings = stored_of(config)
    try:
        examined = _spool(settings).examine()
    except StorageError as error:
        fail(f"poller: {error}", code_of(error))
    for finding in examined.findings:
        typer.echo(finding)
    path = getattr(settings.spool, "path", "spool")
    typer.echo(f"{path}: {'damaged' if examined.findings else 'good'}: {examined.summary}")
    raise typer.Exit(1 if examined.findings else 0)


@spool.command(cls=Command)
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file for the copy.")], config: Config
) -> None:
    """Copy the spool to a new file and check the copy. Works beside a running daemon.

    The copy is complete as of the moment at which the command began.
    """
    from poller.cli.progress import Progress

    settings, progress = stored_of(config), Progress("copied")
    try:
        examined = _spool(settings).back_up(file, progress.show)
    except StorageError as error:
        fail(f"poller: {error}", code_of(error))
    finally:
        progress.end()
    if examined.findings:
        fail("\n".join((*examined.findings, "poller: the spool is damaged: no copy is kept")))
    typer.echo(f"{file}: good: {examined.summary}")


@spool.command(cls=Command)
def export(config: Config, kind: Kinds = None, since: Since = None, utc: Utc = False) -> None:
    """Print the events in the spool as CloudEvents, one a line. Works beside a running daemon."""
    first = span(since, None, utc).since
    try:
        _print(_spool(stored_of(config)).export(frozenset(kind or ()), first), sys.stdout.buffer)
    except StorageError as error:
        fail(f"poller: {error}", code_of(error))


@spool.command(cls=Command)
def salvage(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Damaged or old spool file.")],
    config: Config,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the events to this new file as JSON lines, and nothing to the spool."
        ),
    ] = None,
) -> None:
    """Read what is left of a damaged spool file, and put its undelivered events into the configured spool."""
    settings = stored_of(config)
    spool, found = _spool(settings), _Found()
    work = _to_file(spool, file, to, found) if to else _to_spool(settings, spool, file, found)
    raise typer.Exit(in_loop(work, context.obj, report=print_failure))


@spool.command(cls=Command)
def move(
    context: typer.Context,
    config: Config,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="FILE", help="Configuration file with the new spool."),
    ],
) -> None:
    """Move everything in the spool to the spool of another configuration: from a file into PostgreSQL, or back.

    Stop the daemon before, and start it with the new configuration afterwards. A command that was cut off is repeated:
    it goes on. Until it ends, the old spool can be used; afterwards a daemon refuses it.
    """
    settings, other = stored_of(config), stored_of(to)
    context.obj.give_back()
    raise typer.Exit(in_loop(_move(settings, other), context.obj, report=print_failure))


def _spool(settings: "Settings") -> "KeptInFile":
    from poller.core.spool import KeptInFile
    from poller.daemon.wiring import build_spool

    spool = build_spool(settings.spool)
    if not isinstance(spool, KeptInFile):
        fail(f"poller: a spool of type {settings.spool.type} has no file to look after")
    return spool


def _print(lines: Iterator[bytes], out: BinaryIO) -> None:
    from poller.cli.tables import safe

    terminal = out.isatty()
    try:
        for line in lines:
            out.write((safe(line.decode()).encode() if terminal else line) + b"\n")
        out.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


# ---------------------------------------------------------------- move


async def _move(settings: "Settings", other: "Settings") -> int:
    from poller.cli.progress import Progress
    from poller.operations.moving import move_spool

    progress = Progress("copied rows")
    try:
        source, target = _movable(settings), _movable(other)
        moved = await move_spool(source, target, _check_journals(settings, other), progress.show)
    except StorageError as error:
        progress.end()
        typer.echo(f"poller: {error}", err=True)
        return code_of(error)
    progress.end()
    typer.echo(f"{moved.move.to}: {_content(moved)}")
    typer.echo(f"{moved.move.origin}: it is retired: no daemon starts with it again")
    return 0


def _movable(settings: "Settings") -> "CanBeMoved":
    from poller.core.moving import CanBeMoved
    from poller.daemon.wiring import build_spool

    spool = build_spool(settings.spool)
    if not isinstance(spool, CanBeMoved):
        raise StorageError(f"a spool of type {settings.spool.type} cannot be moved")
    return spool


def _check_journals(settings: "Settings", other: "Settings") -> int:
    """The highest page number that the new journal calls committed.

    Raises `StorageError` if the old journal has answers that would stay behind.
    """
    from poller.daemon.wiring import journal_path
    from poller.pipeline.journal_file import look_at

    old, new = journal_path(settings).resolve(), journal_path(other).resolve()
    if old != new and (left := look_at(old).left):
        raise StorageError(
            f"journal {old}: {left} answers in it are not in the spool yet: start the daemon with the old configuration"
            " once more and stop it, or let the new one name this journal (journal.path)"
        )
    return look_at(new).committed


def _content(moved: "Moved") -> str:
    from poller.core.moving import Table

    if not moved.rows:
        return "it has everything, which was copied before"
    counts = [f"{moved.events} events"]
    for table, words in ((Table.DEAD, "dead letters"), (Table.QUARANTINE, "in quarantine")):
        counts.append(f"{moved.rows.get(table, 0)} {words}")
    return f"it has everything: {', '.join(counts)}"


# ---------------------------------------------------------------- salvage


class _Found:
    """Counts the salvaged entries, and reports the damage."""

    def __init__(self) -> None:
        self.events = self.dead = self.rejects = self.damage = 0

    def add(self, part: "Salvaged") -> None:
        self.events += len(part.events)
        self.dead += len(part.dead)
        self.rejects += len(part.rejects)
        self.damage += len(part.damage)
        for line in part.damage:
            typer.echo(f"not readable: {line}", err=True)

    def __str__(self) -> str:
        kept = f"{self.events} events, {self.dead} dead letters, {self.rejects} in quarantine"
        return f"{kept}; {self.damage} not readable"


async def _to_spool(settings: "Settings", spool: Any, file: Path, found: _Found) -> int:
    if _is_same(file, getattr(settings.spool, "path", file)):
        typer.echo(
            f"poller: {file} is the configured spool itself: the next start moves it aside if it is damaged",
            err=True,
        )
        return 1
    new = 0
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(spool)
        except StorageLocked as error:
            typer.echo(f"poller: {error}: stop it first, or use --to", err=True)
            return 1
        for name, sink in settings.sinks.items():
            start = sink.start.moment(datetime.now(UTC))
            await spool.attach(name, lambda event: True, ordered=sink.ordered, start=start)
        try:
            for parts in _groups(spool.salvage(file, tuple(settings.sinks)), found):
                new += await spool.restore(parts)
        except StorageFull as error:
            typer.echo(
                f"poller: {error}\n{new} events were salvaged so far: make room and run it again", err=True
            )
            return 1
    typer.echo(f"{file}: {found}; {new} of the events are new and will be delivered")
    return 0


def _is_same(file: Path, spool: Path) -> bool:
    """Whether both paths lead to the same file, even through links."""
    try:
        return file.samefile(spool)
    except OSError:
        return False


def _groups(parts: "Iterator[Salvaged]", found: _Found) -> "Iterator[list[Salvaged]]":
    group: list[Salvaged] = []
    size = 0
    for part in parts:
        found.add(part)
        group.append(part)
        size += 1 + len(part.events)
        if size >= TOGETHER:
            yield group
            group, size = [], 0
    yield group


async def _to_file(spool: "KeptInFile", file: Path, to: Path, found: _Found) -> int:
    fd = os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(fd, "wb") as out:
        for part in spool.salvage(file, ()):
            found.add(part)
            for line in _lines(part):
                out.write(line + b"\n")
        out.flush()
        os.fsync(fd)
    typer.echo(f"{file}: {found}; written to {to}")
    return 0


def _lines(part: "Salvaged") -> Iterator[bytes]:
    import msgspec

    yield from (event.encoded for event in part.events)
    for letter in part.dead:
        shown = msgspec.to_builtins(letter) | {"event": msgspec.Raw(letter.event.encoded)}
        yield msgspec.json.encode({"dead_letter": shown})
    for source, reject in part.rejects:
        body = base64.b64encode(reject.body).decode()
        yield msgspec.json.encode(
            {"quarantine": msgspec.to_builtins(reject) | {"source": source, "body": body}}
        )
