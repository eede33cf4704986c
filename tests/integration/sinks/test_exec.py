"""The exec sink with real commands: what an exit code means, and that no process is left."""

import asyncio
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poller.core.errors import Rejected, TryLater
from poller.core.model import Batch
from poller.sinks.exec import LONGEST_OUTPUT, Exec
from tests.letters import dead_letters
from tests.patience import PATIENCE

from .servers import batch


def shell(script: str, **more: object) -> Exec:
    settings = Exec.Settings.model_validate({"type": "exec", "command": ["/bin/sh", "-c", script], **more})
    return Exec("program", settings, {})


def some(count: int = 3) -> Batch:
    return batch(count)


async def deliver(sink: Exec, events: Batch) -> None:
    async with sink, asyncio.timeout(PATIENCE):
        await sink.deliver(events)


def alive(file: Path) -> bool:
    """Whether the process whose number a command wrote is still there, and is no zombie."""
    try:
        return Path(f"/proc/{int(file.read_text())}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_dead(file: Path) -> None:
    """A process that was killed takes a moment to end on a crowded machine."""
    async with asyncio.timeout(PATIENCE):
        while alive(file):
            await asyncio.sleep(0.01)


async def until_written(file: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while not file.exists() or not file.read_text().endswith("\n"):
            await asyncio.sleep(0.01)


async def test_a_command_gets_one_event_a_line(tmp_path: Path) -> None:
    events = some()
    await deliver(shell(f"cat > {tmp_path}/lines"), events)
    assert (tmp_path / "lines").read_bytes().splitlines() == [one.encoded for one in events.events]


@pytest.mark.parametrize(
    ("script", "error", "reason"),
    [
        ("exit 65", Rejected, "exit code 65"),
        ("exit 75", TryLater, "exit code 75"),
        ("exit 1", TryLater, "exit code 1"),
        ("kill -9 $$", TryLater, "ended by SIGKILL"),
        ("exec /no/such/thing", TryLater, "the command was not found"),
        ("exec /etc/passwd", TryLater, "the command cannot be run"),
    ],
)
async def test_the_exit_code_decides(script: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error) as raised:
        await deliver(shell(script), some())
    assert str(raised.value) == reason


@pytest.fixture(params=["the limit it was started with", "another limit"])
def open_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """The daemon's limit of open files, which decides whether a shell starts the command."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if request.param == "another limit":
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 7, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("open_files")
async def test_a_command_that_does_not_exist_is_told_apart_from_one_that_fails() -> None:
    settings = Exec.Settings(type="exec", command=("no-such-command",))
    with pytest.raises(TryLater, match="the command was not found") as raised:
        await deliver(Exec("program", settings, {}), some())
    assert re.fullmatch(rb"(sh: .*no-such-command.*\n)?", raised.value.said)


@pytest.mark.usefixtures("open_files")
async def test_a_command_that_may_not_be_run_is_told_apart_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o644)
    settings = Exec.Settings(type="exec", command=(str(tmp_path / "file"),))
    with pytest.raises(TryLater, match="the command cannot be run"):
        await deliver(Exec("program", settings, {}), some())


@pytest.mark.usefixtures("open_files")
async def test_a_script_that_names_no_interpreter_is_run_by_the_shell(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(f"cat > {tmp_path}/lines\n")
    (tmp_path / "script").chmod(0o755)
    settings = Exec.Settings(type="exec", command=(str(tmp_path / "script"),))
    await deliver(Exec("program", settings, {}), some())
    assert (tmp_path / "lines").read_bytes().count(b"\n") == 3


async def test_a_directory_that_is_gone_is_a_failure_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(TryLater, match="cannot be started: No such file or directory"):
        await deliver(shell("true", directory=str(tmp_path / "gone")), some())


async def test_the_end_of_the_output_is_the_reason(tmp_path: Path) -> None:
    with pytest.raises(TryLater) as raised:
        await deliver(shell("seq 100000; echo the queue is full >&2; exit 75"), some())
    assert raised.value.said.endswith(b"99999\n100000\nthe queue is full\n")
    assert len(raised.value.said) <= LONGEST_OUTPUT


async def test_a_command_that_reads_nothing_is_no_trouble() -> None:
    await deliver(shell("true"), some(1000))


async def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; wait; wait; sleep 1000"
    async with shell(script) as sink:
        delivering = asyncio.ensure_future(sink.deliver(some()))
        await until_written(tmp_path / "self")
        assert alive(tmp_path / "child")
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
    await until_dead(tmp_path / "self")
    await until_dead(tmp_path / "child")


async def test_a_command_may_tidy_up_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "poller.sinks.exec.KILL_AFTER", PATIENCE
    )  # a crowded machine needs longer for a line of shell
    script = f"trap 'echo tidy > {tmp_path}/tidy; exit 1' TERM; echo $$ > {tmp_path}/self; while :; do sleep 0.01; done"
    async with shell(script) as sink:
        delivering = asyncio.ensure_future(sink.deliver(some()))
        await until_written(tmp_path / "self")
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
    assert (tmp_path / "tidy").exists()


async def test_children_that_a_command_leaves_behind_are_ended(tmp_path: Path) -> None:
    await deliver(shell(f"sleep 1000 & echo $! > {tmp_path}/child; exit 0"), some())
    await until_dead(tmp_path / "child")


async def test_who_leaves_the_group_and_holds_the_output_does_not_hold_up_the_delivery(
    tmp_path: Path,
) -> None:
    child = tmp_path / "child"
    leaves = f"setsid sh -c 'echo $$ > {child}; exec sleep 1000' & until [ -s {child} ]; do sleep 0.01; done"
    await deliver(shell(leaves), some())
    assert alive(child), "it was not waited for"
    os.kill(int(child.read_text()), signal.SIGKILL)


async def test_a_second_cancel_still_leaves_no_process(tmp_path: Path) -> None:
    script = f"trap '' TERM; echo $$ > {tmp_path}/self; while :; do sleep 0.01; done"
    async with shell(script) as sink:
        delivering = asyncio.ensure_future(sink.deliver(some()))
        await until_written(tmp_path / "self")
        delivering.cancel()
        await asyncio.sleep(0.05)
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
    await until_dead(tmp_path / "self")


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_cancel_just_after_the_start_leaves_no_process(tmp_path: Path) -> None:
    before, others = descriptors(), children()
    sink = shell(f"echo $$ > {tmp_path}/pid; trap '' TERM; sleep 1000")
    for turns in range(4):
        delivery = asyncio.create_task(sink.deliver(some()))
        for _ in range(1 + turns):  # the start itself takes one turn of the loop
            await asyncio.sleep(0)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        assert children() == others
    assert descriptors() == before


async def test_the_environment_holds_nothing_of_the_daemons_but_ordinary_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVE_KEY", "a-secret-of-the-daemon")
    await deliver(
        shell(
            f"env > {tmp_path}/env; cat /proc/$$/cmdline > {tmp_path}/argv", environment={"MODE": "strict"}
        ),
        some(),
    )
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert "MODE" in names
    assert "PATH" in names
    assert "a-secret-of-the-daemon" not in (tmp_path / "env").read_text()
    assert some().events[0].id not in (tmp_path / "argv").read_text()


async def test_a_command_gets_the_limit_of_open_files_that_the_daemon_was_started_with(
    tmp_path: Path,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = max(1, (soft if soft != resource.RLIM_INFINITY else hard) - 7)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    try:
        await deliver(shell(f"ulimit -S -n > {tmp_path}/limit"), some())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (tmp_path / "limit").read_text().strip() == (
        "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    )


async def test_a_command_inherits_no_descriptor(tmp_path: Path) -> None:
    program = "import os, sys; sys.stdout.write(' '.join(sorted(os.listdir('/proc/self/fd'), key=int)))"
    settings = Exec.Settings(
        type="exec", command=("/bin/sh", "-c", f'"$0" -c "$1" > {tmp_path}/fds', sys.executable, program)
    )
    await deliver(Exec("program", settings, {}), some())
    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3"]  # 3 lists the folder


async def test_a_thousand_commands_leave_no_descriptor_and_no_process() -> None:
    async with shell("cat > /dev/null") as sink:
        await sink.deliver(some())
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(25):
            await asyncio.gather(*(sink.deliver(some()) for _ in range(8)))
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_full_disk_under_a_command_is_tried_again_later(tmp_path: Path) -> None:
    kept, events = tmp_path / "kept", some(1000)
    kept.symlink_to("/dev/full")
    async with shell(f"exec cat > {kept}") as sink:
        with pytest.raises(TryLater, match="exit code 1") as raised:
            await sink.deliver(events)
        assert b"No space left on device" in raised.value.said
        kept.unlink()
        await sink.deliver(events)
    assert len(kept.read_bytes().splitlines()) == 1000


async def test_a_command_that_is_removed_and_put_back_is_run_without_a_restart(tmp_path: Path) -> None:
    command, away, kept = tmp_path / "command", tmp_path / "away", tmp_path / "kept"
    command.write_text(f"#!/bin/sh\nexec cat > {kept}\n")
    command.chmod(0o700)
    settings = Exec.Settings(type="exec", command=(str(command),))
    async with Exec("program", settings, {}) as sink:
        await sink.deliver(some())
        command.rename(away)
        with pytest.raises(TryLater, match="the command was not found"):
            await sink.deliver(some())
        assert await sink.check() == [f"there is no command {command} that this user may run"]
        away.rename(command)
        command.chmod(0o600 if os.geteuid() else 0)
        with pytest.raises(TryLater, match="the command cannot be run"):
            await sink.deliver(some())
        command.chmod(0o700)
        kept.unlink()
        await sink.deliver(some())
    assert len(kept.read_bytes().splitlines()) == 3


async def test_a_command_that_is_killed_in_the_midst_gets_the_whole_batch_again(tmp_path: Path) -> None:
    kept, broken = tmp_path / "kept", tmp_path / "broken"
    broken.touch()
    async with shell(f"if [ -e {broken} ]; then read one; kill -9 $$; fi; exec cat > {kept}") as sink:
        with pytest.raises(TryLater, match="ended by SIGKILL"):
            await sink.deliver(some())
        broken.unlink()
        await sink.deliver(some())
    assert kept.read_bytes().splitlines() == [one.encoded for one in some().events]


async def test_a_command_that_refuses_one_event_of_a_batch_gets_all_others(tmp_path: Path) -> None:
    events = some(20).events
    guilty, kept = events[7], tmp_path / "kept"
    script = f"cat > given; ! grep -q {guilty.id} given || exit 65; cat given >> {kept}"
    async with shell(script, directory=str(tmp_path)) as sink:
        assert await dead_letters(sink, events) == {guilty.id: "exit code 65"}
    assert set(kept.read_bytes().splitlines()) == {one.encoded for one in events if one != guilty}


@pytest.mark.parametrize("command", ["./run", "bin/run", "run"])
async def test_check_looks_for_the_command_where_it_is_started(tmp_path: Path, command: str) -> None:
    (tmp_path / "bin").mkdir()
    for place in (tmp_path / "run", tmp_path / "bin" / "run"):
        place.write_text("#!/bin/sh\ncat > got\n")
        place.chmod(0o755)
    more = {"command": [command], "directory": str(tmp_path), "environment": {"PATH": "bin:/usr/bin:/bin"}}
    sink = shell("", **more)
    assert await sink.check() == []
    await deliver(sink, some())
    assert (tmp_path / "got").read_bytes().count(b"\n") == 3
    elsewhere = shell("", **{**more, "command": ["tests/commands.py"]})  # there from here, not from there
    assert await elsewhere.check() == ["there is no command tests/commands.py that this user may run"]


@pytest.mark.parametrize(
    "wrong",
    [{"command": [""]}, {"command": ["a\0"]}, {"environment": {"A=B": "c"}}, {"environment": {"A": "\0"}}],
)
def test_what_no_command_can_be_started_with_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        shell("true", **wrong)


async def test_check_says_which_command_is_missing(tmp_path: Path) -> None:
    async with shell("true") as sink:
        assert await sink.check() == []
    settings = Exec.Settings(type="exec", command=("no-such-command", "--secret"))
    async with Exec("program", settings, {}) as sink:
        assert await sink.check() == ["there is no command no-such-command that this user may run"]
    async with shell("true", directory=str(tmp_path / "gone")) as sink:
        assert await sink.check() == [f"there is no directory {tmp_path / 'gone'}"]
