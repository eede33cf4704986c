"""What the daemon tells the service manager, on a real socket."""

import json
import signal
from pathlib import Path

import pytest

from .running import PATIENCE, daemon, notifications, queue, spooled, until, write_config


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_ready_is_reported_when_everything_is_open_and_stopping_when_it_ends(
    tmp_path: Path, abstract: bool
) -> None:
    with queue() as platform, notifications(abstract=abstract) as service_manager:
        config = write_config(tmp_path, platform.endpoint)
        with daemon(config, NOTIFY_SOCKET=service_manager.address) as process:
            assert service_manager.next() == "READY=1"
            assert (tmp_path / "spool.db").exists()
            until(lambda: platform.answered)
            process.child.terminate()
            assert service_manager.next() == "STOPPING=1"
            assert process.wait() == 0, process.stderr
            assert service_manager.during(0.1) == []


def test_nothing_is_reported_where_no_service_manager_listens(tmp_path: Path) -> None:
    with queue() as platform:
        config = write_config(tmp_path, platform.endpoint)
        with daemon(config, NOTIFY_SOCKET=str(tmp_path / "nobody"), WATCHDOG_USEC="1000000") as process:
            until(lambda: platform.answered)
            assert process.stop() == 0, process.stderr


def test_the_watchdog_is_fed_while_polls_are_answered(tmp_path: Path) -> None:
    with queue() as platform, notifications() as service_manager:
        config = write_config(tmp_path, platform.endpoint, max_delay="250ms")
        with daemon(config, NOTIFY_SOCKET=service_manager.address, WATCHDOG_USEC="8000000") as process:
            service_manager.until("READY=1")
            for _ in range(4):
                assert (
                    service_manager.next(within=8.0) == "WATCHDOG=1"
                )  # the service manager would kill after 8 s
            assert process.stop() == 0, process.stderr


def test_the_watchdog_is_not_fed_to_another_process(tmp_path: Path) -> None:
    with queue() as platform, notifications() as service_manager:
        config = write_config(tmp_path, platform.endpoint, max_delay="250ms")
        with daemon(
            config, NOTIFY_SOCKET=service_manager.address, WATCHDOG_USEC="1000000", WATCHDOG_PID="1"
        ) as process:
            service_manager.until("READY=1")
            assert service_manager.during(1.5) == []
            assert process.stop() == 0, process.stderr


def test_a_poll_that_hangs_starves_the_watchdog_and_is_still_waited_for_at_the_stop(tmp_path: Path) -> None:
    with queue() as platform, notifications() as service_manager:
        config = write_config(tmp_path, platform.endpoint, max_delay="250ms")
        with daemon(config, NOTIFY_SOCKET=service_manager.address, WATCHDOG_USEC="4000000") as process:
            service_manager.until("WATCHDOG=1")
            platform.give = 3
            platform.open.clear()
            assert platform.hanging.acquire(timeout=PATIENCE)
            service_manager.forget()
            assert service_manager.during(6.0) == [], "fed by a timer, not by the poll loop"
            process.child.send_signal(signal.SIGTERM)
            assert service_manager.next() == "STOPPING=1"
            assert process.child.poll() is None, "the poll in flight was not waited for"
            platform.open.set()
            assert process.wait() == 0, process.stderr
        assert spooled(config) == set(platform.removed) != set()


@pytest.mark.soak
def test_a_long_pause_between_polls_is_not_taken_for_a_hang(tmp_path: Path) -> None:
    with queue() as platform, notifications() as service_manager:
        config = write_config(tmp_path, platform.endpoint, min_delay="1m", max_delay="1m")
        with daemon(config, NOTIFY_SOCKET=service_manager.address, WATCHDOG_USEC="30000000"):
            service_manager.until("WATCHDOG=1")
            assert service_manager.next(within=30.0) == "WATCHDOG=1"


def test_the_watchdogs_words_do_not_reach_the_stdout_sink(tmp_path: Path) -> None:
    with queue() as platform, notifications() as service_manager:
        platform.give = 1
        config = write_config(tmp_path, platform.endpoint, max_delay="250ms")
        with daemon(config, NOTIFY_SOCKET=service_manager.address, WATCHDOG_USEC="1000000") as process:
            service_manager.until("WATCHDOG=1")
            until(lambda: len(process.stdout.splitlines()) > 3)
            assert process.stop() == 0, process.stderr
        lines = [json.loads(line) for line in process.stdout.splitlines()]
        assert {line["type"] for line in lines} == {"com.qcloud.live.screenshot"}
