"""The sink `exec`: runs a command for each batch, with one CloudEvents object a line on its standard input.

Process
    The command runs without a shell, in a session of its own. Its input is a file in memory, so a command that does not
    read is no trouble. When the command has ended, or its time is over, every process of its session's group is killed.
    The group is killed before the command is reaped: until then no other process can have its number.

Secrets
    Events are given on standard input only. Arguments and environment can be seen by others on the machine, so the
    environment holds a few ordinary variables and those of the settings.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field

from poller.core.errors import Rejected, TryLater
from poller.core.event_lines import lines_of
from poller.core.model import Batch
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.preload import open_files, original_open_files
from poller.settings import BatchSettings, Duration, SinkSettings, duration_between, wrong

DEAD: Final = os.EX_DATAERR
"""The exit code for input that no retry makes good (65, from sysexits.h)."""
LATER: Final = os.EX_TEMPFAIL
"""The exit code for a failure that a retry may cure (75). Every other code means the same."""
INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "USER")
"""The variables of the daemon's environment that a command gets."""
KILL_AFTER: Final = 2.0
"""Seconds between SIGTERM and SIGKILL for a command whose time is over."""
LAST_OUTPUT: Final = 0.5
"""Seconds to wait for the rest of the output, which a process outside of the group may hold open."""
LONGEST_OUTPUT: Final = 4096
"""Bytes of output that are kept, those at the end."""
_LAUNCH: Final = ("/bin/sh", "-c", 'ulimit -S -n "$1"; shift; exec "$@"', "sh")
"""Sets the limit of open files before the command begins. Code between fork and exec is not safe with threads.

The shell also runs a file that names no interpreter, and its exit code says why a command does not begin.
"""


def _words(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words[0] or any("\0" in word for word in words):
        raise wrong("a command has a name, and holds no NUL character")
    return words


def _variables(variables: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise wrong("the name of a variable holds no =, and neither name nor value a NUL character")
    return variables


class ExecSettings(SinkSettings):
    """Settings of a sink of type `exec`."""

    command: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_words)] = Field(
        description="The command and its arguments, as a list. No shell reads it. A secret does not belong here: every "
        "user of the machine can see it.",
        examples=[["/usr/local/bin/moderate", "--queue", "live"]],
    )
    directory: Path | None = Field(
        default=None, description="The working directory of the command; by default that of the daemon."
    )
    environment: Annotated[Mapping[str, str], AfterValidator(_variables)] = Field(
        default={},
        description="Variables for the command, besides PATH, HOME, LANG, LC_*, TMPDIR, TZ and USER.",
        examples=[{"MODE": "strict"}],
    )
    timeout: Annotated[Duration, duration_between("1ms", "1h")] = Field(
        default=60.0, description="How long a command may take before it is ended and counts as failed."
    )
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=100), description="How many events one command gets."
    )


class Exec(Sink, ChecksDestination):
    """Runs a command for each batch.

    Exit code 0 means delivered, 65 that the batch is refused for good, and any other that it is tried again. The end of
    the command's output is the reason that operators see.
    """

    Settings = ExecSettings

    def __init__(self, name: str, settings: ExecSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._environment = {**inherited, **settings.environment}

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. The command itself is not run."""
        command, directory = self._settings.command[0], self._settings.directory
        if directory is not None and not directory.is_dir():
            return [f"there is no directory {directory}"]
        there = directory or Path()
        path = os.pathsep.join(str(there / one) for one in os.get_exec_path(self._environment))
        place = str(there / command) if os.sep in command else command
        found = await asyncio.to_thread(shutil.which, place, path=path)
        return [] if found else [f"there is no command {command} that this user may run"]

    async def deliver(self, batch: Batch) -> None:
        """Run the command once; raises `TryLater` or `Rejected` unless it exits with 0. May be cancelled and repeated:
        on return no process of its group is left."""
        lines = b"\n".join([*lines_of(batch.events), b""])
        async with _Command(self._start(lines)) as command:
            code = await command.exit_code()
        if code == 0:
            return
        failure = _failure(code)
        failure.said = command.output
        raise failure

    def _start(self, lines: bytes) -> subprocess.Popen[bytes]:
        """Start the command, by the shell only if there is something for it to do: its start takes as long again."""
        command, limit = self._settings.command, original_open_files()
        if limit == open_files():
            with suppress(TryLater):
                return _start(command, lines, self._environment, self._settings.directory)
        argv = (*_LAUNCH, limit, *command)
        return _start(argv, lines, self._environment, self._settings.directory)


def _failure(code: int) -> TryLater | Rejected:
    """The error for an exit code; negative codes are signals."""
    if code == DEAD:
        return Rejected(f"exit code {code}")
    if code < 0:
        return TryLater(f"ended by {_signal_name(-code)}")
    words = {126: "the command cannot be run", 127: "the command was not found", LATER: f"exit code {LATER}"}
    return TryLater(words.get(code, f"exit code {code}"))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# ---------------------------------------------------------------- processes


class _Output(asyncio.Protocol):
    """Keeps the end of a command's output. `closed` is done when no process writes there any more."""

    def __init__(self) -> None:
        self.tail = bytearray()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.tail += data
        del self.tail[:-LONGEST_OUTPUT]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class _Command:
    """A command that runs. Leaving the context ends every process of its group."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._output = _Output()
        self._exit = os.pidfd_open(process.pid)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pipe: asyncio.BaseTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._exit, self._note_end)
        try:
            self._pipe, _ = await loop.connect_read_pipe(lambda: self._output, self._process.stdout)
        except (
            BaseException
        ) as error:  # the command runs already, and who does not enter does not leave either
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        ending = asyncio.ensure_future(self._end())
        while not ending.done():
            with suppress(asyncio.CancelledError):  # who cancels twice waits for the group's end all the same
                await asyncio.wait({ending})
        await ending

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._exit)
        self._ended.set_result(None)

    async def exit_code(self) -> int:
        """Wait until the command itself has ended. A negative code is the number of a signal."""
        await asyncio.shield(self._ended)
        return _exit_code(self._exit)

    @property
    def output(self) -> bytes:
        """The end of the output, complete after leaving the context."""
        return bytes(self._output.tail)

    async def _end(self) -> None:
        if not self._ended.done():
            self._kill(signal.SIGTERM)
            await asyncio.wait({self._ended}, timeout=KILL_AFTER)
        self._kill(signal.SIGKILL)
        await self._ended
        self._process.wait()
        await asyncio.wait({self._output.closed}, timeout=LAST_OUTPUT)
        if self._pipe is not None:
            self._pipe.close()
        os.close(self._exit)

    def _kill(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _exit_code(exit: int) -> int:
    """The exit code of an ended process, which is not reaped yet: its group keeps its number."""
    found = os.waitid(os.P_PIDFD, exit, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _start(
    argv: Sequence[str], lines: bytes, environment: Mapping[str, str], directory: Path | None
) -> subprocess.Popen[bytes]:
    """Start a command. Its input is a file in memory. Raises `TryLater` if there is no directory or no memory."""
    try:
        with os.fdopen(os.memfd_create("events"), "wb") as given:
            given.write(lines)
            given.seek(0)
            return subprocess.Popen(  # noqa: S603 - the command is the operator's own
                argv,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )
    except OSError as error:
        raise TryLater(f"the command cannot be started: {error.strerror}") from None
