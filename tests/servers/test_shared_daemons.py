"""Daemons that share a spool in a real PostgreSQL: all work at once, and any of them fails."""

import json
import math
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from poller.control.client import HEARD_WITHIN
from tests import commands
from tests.integration.sources.pushes import post, shot, signed
from tests.scenario.environment import until
from tests.scenario.rig import Process, Scenario
from tests.scenario.test_callbacks import OK, address_of, receiver
from tests.scenario.test_operate import poller, rows, sink
from tests.servers.databases import Database, database, started
from tests.servers.machines import LEASE, Machines, machines, no_bug, standing_by, took_over
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

SLACK: Final = 15.0
"""Seconds that a takeover may take longer on a crowded machine."""
STRETCHES: Final = 4
"""The machine may hold daemons up in one stretch of time, or two. Who calls too seldom does so in each."""


def source(daemon: Scenario) -> dict[str, Any]:
    """The queue in `status`."""
    (status,) = rows(daemon, "status")
    return dict(status["sources"][0])


def members(daemon: Scenario) -> list[dict[str, Any]]:
    return list(rows(daemon, "status")[0]["members"])


@contextmanager
def running(shared: Machines) -> Iterator[list[Process]]:
    """Daemons on all machines, of which the first polls. They stop in order at the end."""
    found = [shared.polling(0), *(standing_by(machine.run()) for machine in shared.all[1:])]
    yield found
    for process in found:
        process.signal(signal.SIGTERM)
    for process in found:
        assert process.wait() == 0, process.stderr[-3000:]
        no_bug(process)


# ---------------------------------------------------------------- all work


def test_three_daemons_deliver_at_once_one_polls_and_each_event_comes_once(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, wire=True) as shared, running(shared) as processes:
        place = shared.place
        place.wire.delay = 0.02
        with place.feeding(depth=300):
            for process in processes:
                until(lambda: process.metric("deliveries_total", outcome="done") > 0, what="for deliveries")  # noqa: B023
        until(lambda: place.depth == 0)
        until(lambda: set(place.hook.files) == shared.removed(), what="for every picture")
        shared.settled()
        assert place.hook.files.total() == len(place.hook.files)
        asked = [process.metric("poll_seconds_count", source="shots") for process in processes]
        assert asked[0] > 0
        assert asked[1:] == [0, 0]


def test_status_shows_the_daemons_and_who_polls_on_each_of_them(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path) as shared, running(shared) as processes:
        until(lambda: all(process.metric("spool_members") == 3 for process in processes))
        shared.place.turn(503)
        shared.place.enqueue(30)
        shared.stored(30)
        for number, machine in enumerate(shared.all):
            until(lambda: sum(one["held"].get("hook", 0) for one in members(machine)) == 30)  # noqa: B023
            found = members(machine)
            assert [one["here"] for one in found] == [place == number for place in range(3)]
            assert all(0 < one["expires"] <= LEASE for one in found)
            polls, *others = found
            assert "source:shots" in polls["duties"]
            assert not any("source:shots" in one["duties"] for one in others)
            shown = source(machine)
            if number:
                who = f"polled by daemon {polls['number']} ({polls['name']})"
                assert (shown["state"], shown["polled_by"], shown["trouble"]) == ("stands by", who, None)
            else:
                assert (shown["state"], shown["polled_by"]) == ("polling", None)
        text = commands.poller(
            "status", "-c", str(shared[1].config), folder=shared[1].folder, COLUMNS="80"
        ).stdout
        assert f"(here)  {members(shared[1])[1]['name']}" in text
        for process in processes[1:]:
            until(lambda: process.get("/readyz")[0] == 200 or "sink" in process.get("/readyz")[1])  # noqa: B023
            assert "shots" not in process.get("/readyz")[1]
        shared.place.turn(200)
        shared.all_arrived(30)


def test_each_daemon_takes_pushes(tmp_path: Path, database: Database) -> None:
    queue = {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "50ms"}
    with (
        machines(database, tmp_path, 2, sources={"shots": queue, "pushed": receiver()}) as shared,
        running(shared) as processes,
    ):
        for number, process in enumerate(processes):
            assert post(address_of(process), signed(shot(number))) == OK
        shared.stored(2)


# ---------------------------------------------------------------- orders


def test_a_pause_and_a_resume_at_any_daemon_hold_for_all(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path) as shared, running(shared):
        for pauses, resumes in ((0, 1), (1, 2), (2, 0)):
            poller(shared[pauses], "pause", "hook")
            for machine in shared.all:
                until(lambda: sink(machine)["state"] == "paused", what="for the pause")  # noqa: B023
                assert sink(machine)["why"] == "by the operator"
            before = shared.place.hook.files.total()
            shared.place.enqueue(20)
            shared.stored(before + 20)
            time.sleep(0.3)
            assert shared.place.hook.files.total() == before
            poller(shared[resumes], "resume", "hook")
            shared.all_arrived(before + 20)
            for machine in shared.all:
                until(lambda: sink(machine)["state"] == "serving", what="for the end of the pause")  # noqa: B023


def disabled(shared: Machines) -> int:
    """At how many daemons the sink is disabled."""
    return sum(sink(machine)["state"] == "disabled" for machine in shared.all)


def test_a_sink_that_is_disabled_at_all_daemons_is_resumed_at_all_of_them(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, sink={"batch": {"max_events": 1}}) as shared, running(shared):
        shared.place.turn(410)
        for count in (1, 2, 3):
            shared.place.enqueue(3)
            shared.stored(3 * count)
            until(lambda: disabled(shared) >= count, what="for the 410")  # noqa: B023
        shared.place.turn(200)
        poller(shared[1], "resume", "hook")
        for machine in shared.all:
            until(lambda: sink(machine)["state"] == "serving")  # noqa: B023
        shared.all_arrived(9)


def test_dead_letters_and_replays_are_ordered_at_any_daemon(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path) as shared, running(shared):
        shared.place.turn(422)
        shared.place.enqueue(9)
        for machine in shared.all:
            until(lambda: len(rows(machine, "dead", "list")) == 9, what="for dead letters")  # noqa: B023
        shared.place.turn(200)
        for count, machine in enumerate(shared.all, 1):
            ids = [letter["id"] for letter in rows(machine, "dead", "list")[:3]]
            poller(machine, "dead", "retry", *ids)
            until(lambda: len(shared.place.hook.files) == 3 * count, what="for the retried")  # noqa: B023
        shared.all_arrived(9)
        for count, machine in enumerate(shared.all, 2):
            poller(machine, "replay", "hook", "--since", "1h", "--yes")
            until(lambda: shared.place.hook.files.total() == 9 * count, what="for the replay")  # noqa: B023


def test_commands_work_beside_running_daemons_on_a_machine_without_one(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2) as shared:
        idle, busy = shared.all
        process = busy.run()
        shared.place.turn(422)
        shared.place.enqueue(4)
        until(lambda: len(rows(busy, "dead", "list")) == 4, what="for dead letters")
        shared.place.turn(200)
        poller(idle, "pause", "hook")
        until(lambda: sink(busy)["state"] == "paused", what="for the pause")
        assert len(rows(idle, "dead", "list")) == 4
        poller(idle, "dead", "retry", "--all")
        (status,) = rows(idle, "status")
        assert (status["running"], [one["here"] for one in status["members"]]) == (False, [False])
        assert len(rows(idle, "events")) == 4
        letter = rows(idle, "events")[0]["id"]
        assert rows(idle, "trace", letter)
        poller(idle, "resume", "hook")
        shared.all_arrived(4)
        assert process.metric("spool_members") == 1
        assert not process.said("daemon_joined"), "a command is no daemon"
        assert process.stop() == 0
        no_bug(process)


# ---------------------------------------------------------------- who polls


def test_a_source_is_taken_over_when_the_lease_of_a_killed_daemon_ends(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2) as shared:
        first, second = shared.polling(0), standing_by(shared[1].run())
        shared.place.enqueue(100)
        shared.all_arrived(100)
        began = time.monotonic()
        first.kill()
        shared.place.settled()
        seconds = took_over(second, began)
        shared.place.enqueue(100)
        shared.all_arrived(200)
        assert second.heard("daemon_gone")
        (ended,) = second.said("session_ended")
        assert ended["daemon"] == f"{socket.gethostname()}, process {first.child.pid}"
        assert second.stop() == 0
    print(f"\nkill -9: polled again after {seconds:.1f} s")
    assert seconds < LEASE + 1 + SLACK


def test_a_source_is_taken_over_at_once_when_its_daemon_stops(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 2, lease="60s") as shared:
        first, second = shared.polling(0), standing_by(shared[1].run())
        assert first.stop() == 0
        seconds = took_over(second, time.monotonic())
        shared.place.enqueue(100)
        shared.all_arrived(100)
        assert second.stop() == 0
    print(f"\nSIGTERM: polled again {seconds:.1f} s after the end")
    assert seconds < SLACK


def test_a_source_is_taken_over_when_a_reload_removes_it_from_its_daemon(
    tmp_path: Path, database: Database
) -> None:
    pushed = {"pushed": receiver()}
    queue = {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "50ms"}
    with (
        machines(database, tmp_path, 2, lease="60s", sources={"shots": queue, **pushed}) as shared,
        ExitStack() as stack,
    ):
        first, second = shared.polling(0), standing_by(shared[1].run())
        stack.callback(first.kill)
        shared[0].config.write_text(
            json.dumps(json.loads(shared[0].config.read_text()) | {"sources": pushed})
        )
        poller(shared[0], "reload")
        took_over(second, time.monotonic())
        shared.place.enqueue(50)
        shared.all_arrived(50)
        assert [first.stop(), second.stop()] == [0, 0]


def test_the_journal_of_a_killed_daemon_is_read_when_it_returns_although_another_one_polls(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2) as shared:
        first = shared[0].start(POLLER_FAILPOINT="page.kept")
        shared.place.enqueue(50)
        assert first.wait() == -signal.SIGKILL
        kept = len(shared.removed())
        assert kept > 0
        second = shared.polling(1)
        shared.place.enqueue(50)
        until(lambda: shared.place.depth == 0)
        assert len(shared.place.hook.files) < len(shared.removed())
        again = standing_by(shared[0].run())
        assert again.heard("page_recovered")
        shared.all_arrived(100)
        assert again.metric("poll_seconds_count", source="shots") == 0
        assert [again.stop(), second.stop()] == [0, 0]


def test_with_pollers_all_every_daemon_polls_and_the_rate_of_the_account_is_divided(
    tmp_path: Path, database: Database
) -> None:
    rate, seconds = 12, 5.0
    with machines(database, tmp_path, spool={"pollers": "all"}, account={"rate": f"{rate}/s"}) as shared:
        processes = shared.run()
        until(lambda: all(process.metric("spool_members") == 3 for process in processes))
        time.sleep(1.5)  # what was asked before the last daemon came
        asked = 0
        for _ in range(STRETCHES):
            began, polls = time.monotonic(), shared.place.counts.polls
            time.sleep(seconds)
            asked = shared.place.counts.polls - polls
            assert asked <= rate * (time.monotonic() - began + 1)
            if asked >= rate * seconds / 3:
                break
        assert asked >= rate * seconds / 3, "in the best stretch"
        each = [process.metric("poll_seconds_count", source="shots") for process in processes]
        assert min(each) > 0
        shared.place.enqueue(200)
        shared.all_arrived(200)
        for process in processes:
            assert process.stop() == 0


# ---------------------------------------------------------------- sinks


def test_the_rate_of_a_sink_is_divided_by_the_daemons_and_whole_again_when_they_leave(
    tmp_path: Path, database: Database
) -> None:
    rate, seconds = 12, 4.0
    limited = {"rate": f"{rate}/s", "batch": {"max_events": 1}, "concurrency": 4}
    with machines(database, tmp_path, sink=limited) as shared:
        processes = shared.run()
        until(lambda: all(process.metric("spool_members") == 3 for process in processes))
        shared.place.enqueue(400)
        shared.stored(400)
        time.sleep(1.5)
        began, attempts = time.monotonic(), shared.place.hook.attempts
        time.sleep(seconds)
        made = shared.place.hook.attempts - attempts
        assert made <= rate * (time.monotonic() - began + 1)
        for process in processes[1:]:
            assert process.stop() == 0
        until(lambda: processes[0].metric("spool_members") == 1)
        took = math.inf
        for _ in range(STRETCHES):
            began, attempts = time.monotonic(), shared.place.hook.attempts
            until(lambda: shared.place.hook.attempts >= attempts + rate * seconds)  # noqa: B023 - called in this turn
            took = time.monotonic() - began
            if took < seconds * 2.5:
                break
        assert took < seconds * 2.5, "alone, it has more than a third of the rate"
        assert processes[0].stop() == 0


@pytest.mark.parametrize("lanes", [1, 4])
def test_an_ordered_sink_goes_on_at_another_daemon(tmp_path: Path, database: Database, lanes: int) -> None:
    with machines(database, tmp_path, 2, sink={"order": "stream", "lanes": lanes}) as shared:
        first, second = shared.polling(0), standing_by(shared[1].run())
        shared.place.enqueue(100)
        shared.all_arrived(100)
        first.kill()
        shared.place.settled()
        took_over(second, time.monotonic())
        shared.place.enqueue(100)
        shared.all_arrived(200)
        assert second.stop() == 0


@pytest.mark.parametrize("words", [("check",), ("run",)], ids=" ".join)
def test_a_folder_for_pictures_that_not_all_daemons_see_is_refused(
    tmp_path: Path, database: Database, words: tuple[str, ...]
) -> None:
    pictures = {"type": "download", "directory": str(tmp_path / "pictures")}
    with machines(database, tmp_path, 1, sinks={"archive": pictures}) as shared:
        process = shared[0].start(*words)
        assert process.wait() == 78
        assert "sinks.archive.directory: several daemons share a spool of type postgres" in process.stderr
        assert "add shared: true" in process.stderr


def test_a_folder_for_pictures_that_all_daemons_see_is_used_by_all(
    tmp_path: Path, database: Database
) -> None:
    pictures = {"type": "download", "directory": str(tmp_path / "pictures"), "shared": True}
    with machines(database, tmp_path, 2, sinks={"archive": pictures}) as shared:
        poller(shared[0], "check")


# ---------------------------------------------------------------- a daemon, or the database, is away


def test_what_a_killed_daemon_held_is_delivered_by_another(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 2) as shared:
        first, second = shared.polling(0), standing_by(shared[1].run())
        shared.place.turn("hang")
        shared.place.enqueue(500)
        shared.stored(500)
        until(lambda: members(shared[1])[0]["held"], what="for a share of the first")
        first.kill()
        shared.place.settled()
        shared.place.turn(200)
        shared.place.enqueue(100)
        until(lambda: len(shared.place.hook.files) == 600, what="for all pictures")
        shared.settled()
        assert second.stop() == 0


def test_a_daemon_that_froze_for_longer_than_its_lease_ends_with_the_reason(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2) as shared:
        first, second = shared.polling(0), standing_by(shared[1].run())
        shared.place.turn(503)
        shared.place.enqueue(100)
        shared.stored(100)
        first.signal(signal.SIGSTOP)
        asked = time.monotonic()
        frozen = poller(shared[0], "status", code=1).stderr
        assert time.monotonic() - asked < 6 * HEARD_WITHIN
        assert f"the daemon (pid {first.child.pid}) lives, and says nothing for 5 s: it is frozen" in frozen
        shared.place.settled()
        took_over(second, time.monotonic())
        shared.place.turn(200)
        shared.place.enqueue(100)
        shared.all_arrived(200)
        until(lambda: time.monotonic() > asked + LEASE + 1)  # it says whole seconds
        first.signal(signal.SIGCONT)
        assert first.wait() == 1
        reason = first.said("failed")[-1]["reason"]
        assert "the session of this daemon has ended, and other daemons have taken over" in reason
        signs = r"Its last sign of life was answered at (\S{19}Z), (\d+) s before; the lease is 6 s\."
        ((at, silent),) = re.findall(signs, reason)
        assert datetime.fromisoformat(at) < datetime.now(UTC) - timedelta(seconds=LEASE)
        assert int(silent) > LEASE
        assert "starts it again" in reason
        no_bug(first)
        third = standing_by(shared[0].run())
        assert second.stop() == 0
        took_over(third, time.monotonic())
        shared.place.enqueue(100)
        shared.all_arrived(300)
        assert third.stop() == 0


def test_deliveries_are_cancelled_once_the_lease_is_not_proven_and_go_on_afterwards(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 1) as shared:
        place, process = shared.place, shared[0].run()
        place.turn("hang")
        place.enqueue(20)
        shared.stored(20)
        until(lambda: place.hook.attempts == 1)
        database.kill()
        process.heard("lease_not_proven")
        status, why = process.get("/readyz")
        assert (status, "spool: " in why) == (503, True), why
        place.turn(200)
        time.sleep(1)
        assert place.hook.attempts == 1, "nothing is delivered meanwhile"
        database.start()
        process.heard("lease_proven_again")
        shared.all_arrived(20)
        until(lambda: process.get("/readyz")[0] == 200)
        assert process.metric("deliveries_total", outcome="retry") == 0
        assert process.stop() == 0
        no_bug(process)


# ---------------------------------------------------------------- drain


def test_a_drain_beside_a_daemon_that_polls_says_who_does(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 2) as shared:
        process = shared.polling(0)
        drain = shared[1].start("drain", "--timeout", "3s")
        assert drain.wait() == 1
        (line,) = drain.said("drain_failed")
        assert "source shots: its queue was not seen empty (another daemon polls it)" in line["reason"]
        assert process.stop() == 0


def test_a_drain_delivers_what_a_killed_daemon_held(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 2) as shared:
        shared.place.turn(503)
        first = shared[0].run()
        shared.place.enqueue(200)
        shared.stored(200)
        first.kill()
        shared.place.settled()
        shared.place.turn(200)
        assert shared[1].drain() == 0
        shared.all_arrived(200)
