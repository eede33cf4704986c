"""SIGTERM and SIGINT at every early moment, and more than once."""

import re
import signal
import time
from pathlib import Path

import pytest

from .running import PATIENCE, Process, Queue, daemon, notifications, queue, spooled, until, write_config

HAMMERED = 20
"""Signals that a daemon gets before it can end."""
START_UP = 1.5
"""Seconds over which the moments of the signal are spread, after it is heard; more on a slow machine."""


def time_to_the_first_answer(folder: Path) -> float:
    """Seconds from the moment at which signals are heard."""
    with queue() as platform, daemon(write_config(folder, platform.endpoint), forked=False) as process:
        until(process.hears_sigterm)
        began = time.monotonic()
        until(lambda: platform.answered)
        return time.monotonic() - began


def test_sigterm_at_any_moment_of_start_up_exits_0_and_loses_nothing(tmp_path: Path, soak: bool) -> None:
    moments, polled = 100 if soak else 6, 0
    span = max(START_UP, 2.5 * time_to_the_first_answer(tmp_path))
    for i in range(moments):
        folder = tmp_path / str(i)
        folder.mkdir()
        with queue() as platform:
            platform.give, platform.delay = 3, 0.1
            config = write_config(folder, platform.endpoint)
            with daemon(config, forked=False) as process:
                until(process.hears_sigterm)
                time.sleep(span * i / moments)
                if i == moments - 1:
                    until(lambda p=platform: p.requests)
                assert process.stop() == 0, f"after {span * i / moments:.3f} s: {process.stderr}"
                assert "Traceback" not in process.stderr
            polled += bool(platform.requests)
            platform.all_read_to_the_end()
            if platform.removed:
                assert spooled(config) == set(platform.removed)
    assert polled, "no signal came late enough to meet a poll"
    assert polled < moments, "no signal came before the first poll"


def test_sigterm_before_the_programs_first_lines_kills_and_nothing_was_begun(
    tmp_path: Path, soak: bool
) -> None:
    moments, killed = 50 if soak else 6, 0
    with queue() as platform:
        config = write_config(tmp_path, platform.endpoint)
        for i in range(moments):
            asked = len(platform.requests)
            with daemon(config, forked=False) as process:
                time.sleep(0.1 * i / moments)
                heard = process.hears_sigterm()
                code = process.stop()
                assert code == 0 or (code == -signal.SIGTERM and not heard), process.stderr
                killed += code != 0
                assert process.stderr == "" or code == 0
                if code != 0:
                    assert sorted(path.name for path in tmp_path.glob("spool*")) == []
                    assert len(platform.requests) == asked
                for path in tmp_path.glob("spool*"):
                    path.unlink()
    assert killed, "every signal came too late to see what it does before it is heard"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_polls_are_in_flight_exits_0_and_every_message_taken_is_kept(
    tmp_path: Path, number: signal.Signals, soak: bool
) -> None:
    taken = met = 0
    for i in range(30 if soak else 4):
        folder = tmp_path / str(i)
        folder.mkdir()
        with queue() as platform:
            platform.give, platform.delay = 100, 0.05
            config = write_config(folder, platform.endpoint)
            with daemon(config) as process:
                until(lambda p=platform: len(p.requests) >= 4)
                time.sleep(0.013 * i)
                met += platform.answered < len(platform.requests)
                assert process.stop(number) == 0, process.stderr
            platform.all_read_to_the_end()
            assert spooled(config) == set(platform.removed)
            taken += len(platform.removed)
    assert taken > 1000
    assert met, "no signal met a poll in flight"


def test_a_second_signal_does_not_end_a_poll(tmp_path: Path) -> None:
    with queue() as platform:
        platform.give = 3
        platform.open.clear()
        config = write_config(tmp_path, platform.endpoint)
        with daemon(config) as process:
            assert platform.hanging.acquire(timeout=PATIENCE)
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                process.child.send_signal(number)
                time.sleep(0.2)
            assert process.child.poll() is None
            platform.open.set()
            assert process.wait() == 0, process.stderr
        assert spooled(config) == set(platform.removed) != set()


def test_signals_without_end_until_the_process_is_gone_lose_nothing(tmp_path: Path, soak: bool) -> None:
    for i in range(20 if soak else 3):
        folder = tmp_path / str(i)
        folder.mkdir()
        with queue() as platform:
            platform.give, platform.delay = 3, 0.05
            config = write_config(folder, platform.endpoint)
            with daemon(config) as process:
                until(lambda p=platform: p.answered >= 2)
                hammer(process, platform)
                assert '"stopped"' in process.stderr
            platform.all_read_to_the_end()
            assert spooled(config) == set(platform.removed)


def test_signals_without_end_until_the_process_is_gone_exit_0(tmp_path: Path) -> None:
    with queue() as platform:
        config = write_config(tmp_path, platform.endpoint)
        with daemon(config) as process:
            until(lambda: platform.answered)
            hammer(process, platform)
            assert process.child.returncode == 0


def hammer(process: Process, platform: Queue) -> None:
    """SIGTERM after SIGTERM for as long as it lives. The poll in flight is not answered before it has got some."""
    platform.open.clear()
    assert platform.hanging.acquire(timeout=PATIENCE)
    sent = 0
    while process.child.poll() is None:
        process.child.send_signal(signal.SIGTERM)
        sent += 1
        if sent == HAMMERED:
            platform.open.set()
        time.sleep(0.002)
    assert sent > HAMMERED, "it has ended although a poll was in flight"


def test_the_stop_is_reported_in_the_log_and_to_the_service_manager_once(tmp_path: Path) -> None:
    with queue() as platform, notifications() as service_manager:
        config = write_config(tmp_path, platform.endpoint)
        with daemon(config, NOTIFY_SOCKET=service_manager.address) as process:
            until(lambda: platform.answered)
            assert process.stop() == 0
        assert [word for word in service_manager.during(0.1) if word == "STOPPING=1"] == ["STOPPING=1"]
        assert len(re.findall(r'"event": "stopped"', process.stderr)) == 1
