"""Daemons that share a spool in a real PostgreSQL: one works, the other stands by, and any part of it fails.

Each daemon has a folder of its own, as if it were another machine's, so each has its own journal.
"""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.scenario.environment import Environment, environment, until
from tests.scenario.rig import Process, Scenario, by_poll, scenario, webhook
from tests.servers.databases import PASSWORD, Database, database, started
from tests.servers.postgres_spools import dsn_of, head_of, owed_by, settings_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

LEASE: Final = 2.0
SLACK: Final = 15.0
"""Seconds that a start may take on a crowded machine."""
AWAY: Final = 12.0
"""Seconds without the database. The daemon looks at its health every ten seconds."""
LANES: Final = 4


class Pair(NamedTuple):
    """Two machines with one configuration, a town around them, and the database."""

    place: Environment
    server: Database
    folder: Path
    one: Scenario
    two: Scenario

    def stored(self, count: int) -> None:
        """Wait until the spool has `count` events."""
        until(lambda: head_of(self.server, self.folder) == count + 1, what=f"for {count} events")

    def removed(self) -> set[str]:
        """The pictures' names of all messages that were taken off the queue."""
        return {one.path for one in self.place.oracle.removed() if one.path is not None}

    def all_arrived(self, count: int) -> None:
        """Wait until `count` messages have arrived and are settled. No other message arrived."""
        until(lambda: len(self.place.hook.files) >= count, what=f"for {count} pictures")
        assert set(self.place.hook.files) == self.removed()
        assert len(self.removed()) == count
        self.settled()

    def caught_up(self) -> None:
        """Wait until all that the journal of the daemon that works has left over, and one more, is delivered."""
        self.place.enqueue(1)
        until(lambda: self.place.depth == 0)
        last = self.place.oracle.removed()[-1].path
        until(lambda: last in self.place.hook.files, what="for the last message")
        self.settled()

    def settled(self) -> None:
        """Wait until the spool owes nobody anything."""
        until(lambda: owed_by(self.server, self.folder) == 0, what="for the settlements")


@contextmanager
def pair(server: Database, folder: Path, *, lease: str = f"{LEASE:g}s", wire: bool = False) -> Iterator[Pair]:
    """Nothing runs yet. With `wire`, answers of the platform take their way."""
    with environment(folder) as place, ExitStack() as stack:
        common: dict[str, Any] = {
            "endpoint": place.wire.endpoint if wire else "",
            "spool": settings_of(server, folder, lease=lease),
            "sinks": {"hook": webhook(place, batch={"max_events": 20})},
        }
        one, two = (stack.enter_context(scenario(place, folder / name, **common)) for name in ("one", "two"))
        yield Pair(place, server, folder, one, two)


def no_bug(process: Process) -> None:
    """What went wrong was foreseen."""
    assert "Traceback" not in process.stderr
    assert [line for line in process.log if "exception" in line] == []


def standing_by(daemon: Scenario) -> Process:
    process = daemon.start()
    process.heard("standing_by")
    assert not process.said("running")
    return process


def took_over(process: Process, since: float) -> float:
    """Wait until a daemon that stood by works; returns how many seconds later it did."""
    process.until_running()
    assert process.said("spool_taken_over")
    return time.monotonic() - since


def some_time(place: Environment, process: Process, rng: random.Random) -> None:
    """Let a daemon poll until some moment."""
    target = place.counts.removed + rng.randrange(1, 1500)
    until(lambda: place.counts.removed >= target or not process.alive)
    time.sleep(rng.uniform(0, 0.05))


# ---------------------------------------------------------------- one daemon fails


def test_a_killed_daemon_is_replaced_when_its_lease_ends_and_nothing_in_the_spool_is_lost(
    tmp_path: Path, database: Database
) -> None:
    with pair(database, tmp_path) as both:
        place, first = both.place, both.one.run()
        second = standing_by(both.two)
        place.turn(503)
        place.enqueue(500)
        both.stored(500)
        assert not second.said("running")
        assert first.kill() == -signal.SIGKILL
        seconds = took_over(second, time.monotonic())
        place.settled()
        place.turn(200)
        place.enqueue(500)
        both.all_arrived(1000)
        assert second.stop() == 0
    print(f"\nkill -9: replaced after {seconds:.1f} s")
    assert seconds < LEASE + 1 + SLACK


def test_a_daemon_that_froze_for_longer_than_its_lease_writes_nothing_more_and_ends_with_the_reason(
    tmp_path: Path, database: Database
) -> None:
    with pair(database, tmp_path) as both:
        place, first = both.place, both.one.run()
        second = standing_by(both.two)
        place.turn(503)
        place.enqueue(500)
        both.stored(500)
        first.signal(signal.SIGSTOP)
        place.settled()
        took_over(second, time.monotonic())
        place.turn(200)
        place.enqueue(500)
        both.all_arrived(1000)
        first.signal(signal.SIGCONT)
        assert first.wait() == 1
        assert "the lease of this daemon ended, and another daemon has taken the spool over" in first.stderr
        no_bug(first)
        place.enqueue(500)
        both.all_arrived(1500)
        third = standing_by(both.one)
        assert second.stop() == 0
        took_over(third, time.monotonic())
        place.enqueue(100)
        both.all_arrived(1600)
        assert third.stop() == 0


def test_a_daemon_that_froze_for_less_than_its_lease_goes_on(tmp_path: Path, database: Database) -> None:
    with pair(database, tmp_path, lease="30s") as both:
        first, second = both.one.run(), standing_by(both.two)
        first.signal(signal.SIGSTOP)
        both.place.settled()
        both.place.enqueue(200)
        time.sleep(3)
        first.signal(signal.SIGCONT)
        both.all_arrived(200)
        assert not second.said("running")
        assert first.stop() == 0


@pytest.mark.parametrize("owed", [False, True])
def test_a_daemon_that_is_stopped_gives_the_lease_back(
    tmp_path: Path, database: Database, owed: bool
) -> None:
    with pair(database, tmp_path, lease="60s") as both:
        first, second = both.one.run(), standing_by(both.two)
        if owed:
            both.place.turn(503)
        both.place.enqueue(200)
        both.stored(200)
        began = time.monotonic()
        assert first.stop() == 0
        seconds = took_over(second, time.monotonic())
        assert time.monotonic() - began < 30, "it has waited for the lease's end"
        both.place.turn(200)
        both.place.enqueue(200)
        both.all_arrived(400)
        assert second.stop() == 0
    print(f"\nSIGTERM: replaced {seconds:.1f} s after the end")


def test_a_daemon_that_stands_by_stops_at_once_when_it_is_told_to(tmp_path: Path, database: Database) -> None:
    with pair(database, tmp_path, lease="60s") as both:
        first, second = both.one.run(), standing_by(both.two)
        began = time.monotonic()
        assert second.stop() == 0
        assert time.monotonic() - began < SLACK
        both.place.enqueue(100)
        both.all_arrived(100)
        assert first.stop() == 0


def test_a_daemon_that_is_started_again_after_a_kill_waits_for_its_own_lease_only(
    tmp_path: Path, database: Database
) -> None:
    """With nobody else there."""
    with pair(database, tmp_path) as both:
        first = both.one.run()
        both.place.enqueue(100)
        both.all_arrived(100)
        first.kill()
        both.place.settled()
        both.place.enqueue(100)
        began = time.monotonic()
        again = both.one.run()
        assert time.monotonic() - began < LEASE + 1 + SLACK
        both.all_arrived(200)
        assert again.stop() == 0


@pytest.mark.timeout(3600)
def test_under_load_a_kill_loses_at_most_the_polls_in_flight_whichever_daemon_it_meets(
    tmp_path: Path, database: Database, soak: bool
) -> None:
    kills, rng = 50 if soak else 4, random.Random("two daemons")
    with pair(database, tmp_path, wire=True) as both:
        place, place.wire.delay = both.place, 0.02
        (working, worker), (waiting, waiter) = (both.one, both.one.run()), (both.two, standing_by(both.two))
        polls = [0]
        with place.feeding(depth=500):
            for _ in range(kills):
                some_time(place, worker, rng)
                assert worker.kill() == -signal.SIGKILL, worker.stderr[-3000:]
                place.settled()
                polls.append(place.counts.polls)
                waiter.until_running()
                working, waiting, worker, waiter = waiting, working, waiter, standing_by(working)
        until(lambda: place.depth == 0)
        both.caught_up()
        assert worker.stop() == 0  # what the other one's journal holds is put into the spool now
        took_over(waiter, time.monotonic())
        both.caught_up()
        assert waiter.stop() == 0
        _at_most_the_polls_in_flight(both, polls)


def _at_most_the_polls_in_flight(both: Pair, polls: list[int]) -> None:
    """Polls that were lost, by the kills between the numbers of polls."""
    arrived = both.place.hook.files
    removed = both.place.oracle.removed()
    assert set(arrived) <= {one.path for one in removed}
    lost = by_poll([one for one in removed if one.path is not None and one.path not in arrived])
    taken = by_poll(removed)
    for poll, messages in lost.items():
        assert len(messages) == len(taken[poll]), "a poll is lost whole or not at all"
    for before, after in pairwise(polls):
        assert len([poll for poll in lost if before < poll <= after]) <= LANES
    assert all(poll <= polls[-1] for poll in lost), "lost without a kill"
    again = arrived.total() - len(arrived)
    print(
        f"\n{len(polls) - 1} kills: {len(removed)} removed, {len(lost)} polls lost, {again} delivered again"
    )


# ---------------------------------------------------------------- the database fails


@pytest.mark.parametrize("down", [0.0, 2 * LEASE])
def test_a_daemon_goes_on_by_itself_after_the_database_was_killed(
    tmp_path: Path, database: Database, down: float
) -> None:
    with pair(database, tmp_path) as both:
        place, process = both.place, both.one.run()
        place.enqueue(2000)
        until(lambda: len(place.hook.files) >= 200)
        database.kill()
        place.enqueue(1000)
        time.sleep(down)
        database.start()
        place.enqueue(1000)
        both.all_arrived(4000)
        assert process.alive
        assert process.stop() == 0
        no_bug(process)


def test_a_daemon_that_reads_old_events_to_deliver_them_outlives_the_database(
    tmp_path: Path, database: Database
) -> None:
    """Of an earlier process, so that none of them is in memory. The health is looked at meanwhile, too."""
    with pair(database, tmp_path, lease="30s") as both:
        place, process = both.place, both.one.run()
        place.turn(503)
        place.enqueue(4000)
        both.stored(4000)
        assert process.stop() == 0
        process = both.one.run()
        database.kill()
        time.sleep(AWAY)
        assert process.alive, process.stderr[-3000:]
        place.turn(200)
        time.sleep(1)
        database.start()
        both.all_arrived(4000)
        assert process.stop() == 0
        no_bug(process)


def test_a_daemon_says_that_it_is_not_ready_while_the_database_is_away(
    tmp_path: Path, database: Database
) -> None:
    with pair(database, tmp_path, lease="30s") as both:
        process = both.one.run()
        both.place.enqueue(100)
        both.all_arrived(100)
        until(lambda: process.get("/readyz")[0] == 200)
        database.kill()
        for words in ("", "?for=pushes"):
            status, why = process.get(f"/readyz{words}")
            assert (status, "spool: " in why, "database" in why) == (503, True, True), why
        assert process.get("/metrics")[0] == 200
        assert "poller_ready 0.0" in process.get("/metrics")[1]
        time.sleep(AWAY)
        assert process.alive, process.stderr[-3000:]
        database.start()
        until(lambda: process.get("/readyz")[0] == 200)
        assert process.said("database_away")
        assert process.said("database_back")
        assert process.stop() == 0
        no_bug(process)


def test_a_drain_of_old_events_outlives_the_database(tmp_path: Path, database: Database) -> None:
    with pair(database, tmp_path, lease="30s") as both:
        both.place.turn(503)
        process = both.one.run()
        both.place.enqueue(500)
        both.stored(500)
        assert process.stop() == 0
        polls = both.place.counts.polls
        process = both.one.start("drain")
        until(lambda: both.place.counts.polls > polls)
        time.sleep(1)  # the queue was seen empty: now the drain looks at what is pending
        database.kill()
        time.sleep(3)
        assert process.alive, process.stderr[-3000:]
        both.place.turn(200)
        database.start()
        assert process.wait() == 0
        both.all_arrived(500)
        no_bug(process)


def test_under_load_no_restart_of_the_database_loses_an_event(
    tmp_path: Path, database: Database, soak: bool
) -> None:
    rng = random.Random("restarts")
    with pair(database, tmp_path, lease="30s", wire=True) as both:
        place, process = both.place, both.one.run()
        place.wire.delay = 0.02
        with place.feeding(depth=500):
            for _ in range(30 if soak else 4):
                some_time(place, process, rng)
                database.kill()
                time.sleep(rng.choice((0.0, 1.0)))
                database.start()
        until(lambda: place.depth == 0 or not process.alive)
        assert process.alive, process.stderr[-3000:]
        until(lambda: set(place.hook.files) == both.removed(), what="for every picture")
        both.settled()
        assert process.stop() == 0
        no_bug(process)


def test_both_daemons_outlive_the_database_and_one_of_them_works_afterwards(
    tmp_path: Path, database: Database
) -> None:
    with pair(database, tmp_path, lease="30s") as both:
        first, second = both.one.run(), standing_by(both.two)
        both.place.enqueue(200)
        both.all_arrived(200)
        database.kill()
        time.sleep(3)
        assert first.alive
        assert second.alive, second.stderr[-3000:]
        database.start()
        both.place.enqueue(200)
        both.all_arrived(400)
        assert not second.said("running"), "the lease had not ended"
        assert first.stop() == 0
        took_over(second, time.monotonic())
        both.place.enqueue(200)
        both.all_arrived(600)
        assert second.stop() == 0


def test_a_daemon_stops_in_order_while_the_database_is_away_and_what_it_took_is_not_lost(
    tmp_path: Path, database: Database
) -> None:
    with pair(database, tmp_path) as both:
        process = both.one.run()
        both.place.enqueue(500)
        until(lambda: both.place.depth == 0)
        database.kill()
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        process.wait()
        print(f"\nSIGTERM without a database: ended after {time.monotonic() - began:.1f} s")
        no_bug(process)
        database.start()
        again = both.one.run()
        both.place.enqueue(100)
        both.all_arrived(600)
        assert again.stop() == 0


# ---------------------------------------------------------------- what is refused


@contextmanager
def altered(server: Database, statement: str, back: str, shows: tuple[str, str]) -> Iterator[None]:
    """The server's settings are changed for so long."""
    setting, value = shows
    server.ask_now(statement)
    try:
        if statement.startswith("ALTER SYSTEM"):
            server.ask_now("SELECT pg_reload_conf()")
            until(lambda: server.ask_now(f"SHOW {setting}") == [(value,)])
        yield
    finally:
        server.ask_now(back)
        server.ask_now("SELECT pg_reload_conf()")


REFUSED: Final = {
    "fsync": ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM RESET fsync", ("fsync", "off")),
    "user": (
        "ALTER ROLE poller SET synchronous_commit = off",
        "ALTER ROLE poller RESET synchronous_commit",
        ("synchronous_commit", "off"),
    ),
    "local": (
        "ALTER ROLE poller SET synchronous_commit = local",
        "ALTER ROLE poller RESET synchronous_commit",
        ("synchronous_commit", "local"),
    ),
    "system": (
        "ALTER SYSTEM SET synchronous_commit = off",
        "ALTER SYSTEM RESET synchronous_commit",
        ("synchronous_commit", "off"),
    ),
}


@pytest.mark.parametrize("way", REFUSED)
@pytest.mark.parametrize("made_before", [False, True])
def test_a_database_that_does_not_keep_what_it_confirms_is_refused_by_the_settings_name(
    tmp_path: Path, database: Database, way: str, made_before: bool
) -> None:
    statement, back, (setting, value) = REFUSED[way]
    with pair(database, tmp_path) as both:
        if made_before:
            assert both.one.run().stop() == 0
        both.place.enqueue(10)
        with altered(database, statement, back, (setting, value)):
            process = both.one.start()
            assert process.wait() != 0
            assert f"{setting} is {value}" in process.stderr
            no_bug(process)
        assert both.place.depth == 10
        again = both.one.run()
        both.all_arrived(10)
        assert again.stop() == 0


SECRET: Final = "never-show-this"


def bad_addresses(server: Database) -> dict[str, str]:
    """Addresses of a database, each with a password."""
    return {
        "a wrong password": dsn_of(server, SECRET),
        "a user who is not there": f"postgresql://nobody:{SECRET}@127.0.0.1:{server.port}/live",
        "a database that is not there": f"postgresql://poller:{PASSWORD}@127.0.0.1:{server.port}/missing",
        "a port that is none": f"postgresql://poller:{SECRET}@127.0.0.1:port/live",
        "another scheme": f"mysql://poller:{SECRET}@127.0.0.1:{server.port}/live",
        "an unknown option": f"{dsn_of(server, SECRET)}?sslmode=perhaps",
        "an unescaped password": f"postgresql://poller:{SECRET}/x@y#z@127.0.0.1:{server.port}/live",
    }


WAYS: Final = (
    "a wrong password",
    "a user who is not there",
    "a database that is not there",
    "a port that is none",
    "another scheme",
    "an unknown option",
    "an unescaped password",
)


@pytest.mark.parametrize("words", [("run",), ("check",), ("check", "--connect")], ids=" ".join)
@pytest.mark.parametrize("way", WAYS)
def test_no_message_about_an_address_that_does_not_work_holds_the_password(
    tmp_path: Path, database: Database, way: str, words: tuple[str, ...]
) -> None:
    dsn = bad_addresses(database)[way]
    with pair(database, tmp_path) as both:
        text = both.one.config.read_text()
        assert dsn_of(database) in text
        both.one.config.write_text(text.replace(dsn_of(database), dsn))
        process = both.one.start(*words)
        code = process.wait()
        said = process.stderr + process.stdout_file.read_text()
        assert SECRET not in said
        assert PASSWORD not in said
        no_bug(process)
        assert code != 0 or words == ("check",), said
