"""The database of a spool that daemons share fails, and daemons fail under load: nothing in the spool is lost."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from tests.scenario.environment import Environment, until
from tests.scenario.rig import Process, by_poll
from tests.scenario.test_reload import changed, hang_up
from tests.servers.databases import PASSWORD, Database, database, started
from tests.servers.machines import LEASE, Machines, machines, no_bug, standing_by, took_over
from tests.servers.postgres_spools import dsn_of, schema_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

SLACK: Final = 15.0
"""Seconds that a start may take on a crowded machine."""
AWAY: Final = 12.0
"""Seconds without the database. The daemon looks at its health every ten seconds."""
LANES: Final = 4


def some_time(place: Environment, process: Process, rng: random.Random) -> None:
    """Let a daemon poll until some moment."""
    target = place.counts.removed + rng.randrange(1, 1500)
    until(lambda: place.counts.removed >= target or not process.alive)
    time.sleep(rng.uniform(0, 0.05))


# ---------------------------------------------------------------- one daemon fails


def test_a_daemon_that_froze_for_less_than_its_lease_goes_on(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 2, lease="30s") as shared:
        first, second = shared.polling(0), standing_by(shared[1].run())
        first.signal(signal.SIGSTOP)
        shared.place.settled()
        shared.place.enqueue(200)
        time.sleep(3)
        first.signal(signal.SIGCONT)
        shared.all_arrived(200)
        assert not second.said("source_taken_over")
        assert [first.stop(), second.stop()] == [0, 0]


def test_a_daemon_that_is_started_again_after_a_kill_waits_for_its_own_lease_only(
    tmp_path: Path, database: Database
) -> None:
    """With nobody else there."""
    with machines(database, tmp_path, 2) as shared:
        first = shared[0].run()
        shared.place.enqueue(100)
        shared.all_arrived(100)
        first.kill()
        shared.place.settled()
        shared.place.enqueue(100)
        began = time.monotonic()
        again = shared[0].run()
        assert time.monotonic() - began < LEASE + 1 + SLACK
        shared.all_arrived(200)
        assert again.stop() == 0


@pytest.mark.timeout(3600)
def test_under_load_a_kill_loses_at_most_the_polls_in_flight_whichever_daemon_it_meets(
    tmp_path: Path, database: Database, soak: bool
) -> None:
    kills, rng = 50 if soak else 4, random.Random("two daemons")
    with machines(database, tmp_path, 2, wire=True) as shared:
        place, place.wire.delay = shared.place, 0.02
        (working, worker), (waiting, waiter) = (
            (shared[0], shared.polling(0)),
            (shared[1], standing_by(shared[1].run())),
        )
        polls = [0]
        with place.feeding(depth=500):
            for _ in range(kills):
                some_time(place, worker, rng)
                assert worker.kill() == -signal.SIGKILL, worker.stderr[-3000:]
                place.settled()
                polls.append(place.counts.polls)
                took_over(waiter, time.monotonic())
                working, waiting, worker, waiter = waiting, working, waiter, standing_by(working.run())
        until(lambda: place.depth == 0)
        shared.caught_up()
        assert worker.stop() == 0
        took_over(waiter, time.monotonic())
        shared.caught_up()
        assert waiter.stop() == 0
        _at_most_the_polls_in_flight(shared, polls)


def _at_most_the_polls_in_flight(shared: Machines, polls: list[int]) -> None:
    """Polls that were lost, by the kills between the numbers of polls."""
    arrived = shared.place.hook.files
    removed = shared.place.oracle.removed()
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
    with machines(database, tmp_path, 2) as shared:
        place, process = shared.place, shared[0].run()
        place.enqueue(2000)
        until(lambda: len(place.hook.files) >= 200)
        database.kill()
        place.enqueue(1000)
        time.sleep(down)
        database.start()
        place.enqueue(1000)
        shared.all_arrived(4000)
        assert process.alive
        assert process.stop() == 0
        no_bug(process)


def test_a_daemon_that_reads_old_events_to_deliver_them_outlives_the_database(
    tmp_path: Path, database: Database
) -> None:
    """Of an earlier process, so that none of them is in memory. The health is looked at meanwhile, too."""
    with machines(database, tmp_path, 2, lease="30s") as shared:
        place, process = shared.place, shared[0].run()
        place.turn(503)
        place.enqueue(4000)
        shared.stored(4000)
        assert process.stop() == 0
        process = shared[0].run()
        database.kill()
        time.sleep(AWAY)
        assert process.alive, process.stderr[-3000:]
        place.turn(200)
        time.sleep(1)
        database.start()
        shared.all_arrived(4000)
        assert process.stop() == 0
        no_bug(process)


def test_a_daemon_says_that_it_is_not_ready_while_the_database_is_away(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2, lease="30s") as shared:
        process = shared[0].run()
        shared.place.enqueue(100)
        shared.all_arrived(100)
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
        assert process.heard("database_away")
        assert process.heard("database_back")
        assert process.stop() == 0
        no_bug(process)


def test_a_reload_while_the_database_is_away_is_refused_and_works_afterwards(
    tmp_path: Path, database: Database
) -> None:
    """Its sinks could not be attached, and the daemon would have to end."""
    with machines(database, tmp_path, 1, lease="30s") as shared:
        place, daemon = shared.place, shared[0]
        process = daemon.run()
        place.enqueue(100)
        shared.all_arrived(100)
        database.kill()
        changed(daemon, lambda new: new["sinks"]["hook"].update(concurrency=3))
        hang_up(process)
        assert "database" in str(process.said("reload_refused")[0]["reason"])
        assert process.alive, process.stderr[-3000:]
        database.start()
        until(lambda: process.get("/readyz")[0] == 200)
        hang_up(process, 2)
        assert [event["event"] for event in process.log if str(event["event"]).startswith("reload")][
            -1
        ] == "reloaded"
        place.enqueue(100)
        shared.all_arrived(200)
        assert process.stop() == 0
        no_bug(process)


def test_a_daemon_whose_spool_is_full_can_be_reloaded(tmp_path: Path, database: Database) -> None:
    """A sink that is corrected may be what makes room."""
    with machines(database, tmp_path, 1, spool={"max_bytes": "64MiB"}) as shared:
        process = shared[0].run()
        database.ask_now(
            f"INSERT INTO {schema_of(tmp_path)}.quarantine (id, source, received_at, reason, encoding, body)"
            " VALUES ('1', 'shots', extract(epoch FROM now()), '', '', convert_to(repeat('x', 70000000), 'UTF8'))"
            " RETURNING 1"
        )
        until(lambda: "full: 6" in process.get("/readyz")[1])
        changed(shared[0], lambda new: new["sinks"]["hook"].update(concurrency=3))
        hang_up(process)
        assert process.said("reloaded"), process.said("reload_refused")
        assert process.stop() == 0
        no_bug(process)


def test_a_drain_of_old_events_outlives_the_database(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 2, lease="30s") as shared:
        shared.place.turn(503)
        process = shared[0].run()
        shared.place.enqueue(500)
        shared.stored(500)
        assert process.stop() == 0
        polls = shared.place.counts.polls
        process = shared[0].start("drain")
        until(lambda: shared.place.counts.polls > polls)
        time.sleep(1)  # the queue was seen empty: now the drain looks at what is pending
        database.kill()
        time.sleep(3)
        assert process.alive, process.stderr[-3000:]
        shared.place.turn(200)
        database.start()
        assert process.wait() == 0
        shared.all_arrived(500)
        no_bug(process)


def test_under_load_no_restart_of_the_database_loses_an_event(
    tmp_path: Path, database: Database, soak: bool
) -> None:
    rng = random.Random("restarts")
    with machines(database, tmp_path, 2, lease="30s", wire=True) as shared:
        place, process = shared.place, shared[0].run()
        place.wire.delay = 0.02
        with place.feeding(depth=500):
            for _ in range(30 if soak else 4):
                some_time(place, process, rng)
                database.kill()
                time.sleep(rng.choice((0.0, 1.0)))
                database.start()
        until(lambda: place.depth == 0 or not process.alive)
        assert process.alive, process.stderr[-3000:]
        until(lambda: set(place.hook.files) == shared.removed(), what="for every picture")
        shared.settled()
        assert process.stop() == 0
        no_bug(process)


def test_both_daemons_outlive_the_database_and_the_same_one_polls_afterwards(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2, lease="30s") as shared:
        first, second = shared.polling(0), standing_by(shared[1].run())
        shared.place.enqueue(200)
        shared.all_arrived(200)
        database.kill()
        time.sleep(3)
        assert first.alive
        assert second.alive, second.stderr[-3000:]
        database.start()
        shared.place.enqueue(200)
        shared.all_arrived(400)
        assert not second.said("source_taken_over"), "the lease had not ended"
        assert first.stop() == 0
        took_over(second, time.monotonic())
        shared.place.enqueue(200)
        shared.all_arrived(600)
        assert second.stop() == 0


def test_a_daemon_stops_in_order_while_the_database_is_away_and_what_it_took_is_not_lost(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2) as shared:
        process = shared[0].run()
        shared.place.enqueue(500)
        until(lambda: shared.place.depth == 0)
        database.kill()
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        process.wait()
        print(f"\nSIGTERM without a database: ended after {time.monotonic() - began:.1f} s")
        no_bug(process)
        database.start()
        again = shared[0].run()
        shared.place.enqueue(100)
        shared.all_arrived(600)
        assert again.stop() == 0


# ---------------------------------------------------------------- what is refused


@contextmanager
def altered(server: Database, statement: str, back: str, shows: tuple[str, str]) -> Iterator[None]:
    """Change a setting of the server, and put it back when the context is left."""
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


@pytest.mark.parametrize(
    ("way", "made_before"),
    [
        *((way, False) for way in REFUSED),
        ("system", True),
        *(pytest.param(way, True, marks=pytest.mark.soak) for way in REFUSED if way != "system"),
    ],
)
def test_a_database_that_does_not_keep_what_it_confirms_is_refused_by_the_settings_name(
    tmp_path: Path, database: Database, way: str, made_before: bool
) -> None:
    statement, back, (setting, value) = REFUSED[way]
    with machines(database, tmp_path, 2) as shared:
        if made_before:
            assert shared[0].run().stop() == 0
        shared.place.enqueue(10)
        with altered(database, statement, back, (setting, value)):
            process = shared[0].start()
            assert process.wait() != 0
            assert f"{setting} is {value}" in process.stderr
            remedy = "set it to on" if setting == "fsync" else "ALTER ROLE poller SET synchronous_commit = on"
            assert remedy in process.stderr
            no_bug(process)
        assert shared.place.depth == 10
        again = shared[0].run()
        shared.all_arrived(10)
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


FOUND_BY_CONNECTING: Final = (
    "a wrong password",
    "a user who is not there",
    "a database that is not there",
)
WAYS: Final = (
    *FOUND_BY_CONNECTING,
    "a port that is none",
    "another scheme",
    "an unknown option",
    "an unescaped password",
)


@pytest.mark.parametrize("way", WAYS)
def test_no_message_about_an_address_that_does_not_work_holds_the_password(
    tmp_path: Path, database: Database, way: str
) -> None:
    dsn = bad_addresses(database)[way]
    with machines(database, tmp_path, 2) as shared:
        text = shared[0].config.read_text()
        assert dsn_of(database) in text
        shared[0].config.write_text(text.replace(dsn_of(database), dsn))
        for words in (("run",), ("check",), ("check", "--connect")):
            process = shared[0].start(*words)
            code = process.wait()
            said = process.stderr + process.stdout_file.read_text()
            assert SECRET not in said
            assert PASSWORD not in said
            no_bug(process)
            assert (code == 0) == (words == ("check",) and way in FOUND_BY_CONNECTING), (words, said)
