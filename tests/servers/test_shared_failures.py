"""Failures of daemons that share a spool which are neither a kill nor a freeze: cuts, clocks, volumes, settings."""

import asyncio
import json
import re
import signal
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from tests.scenario.environment import Environment, until
from tests.scenario.rig import Process, Scenario
from tests.scenario.test_operate import rows
from tests.scenario.test_wrong_clock import DAY, Machine
from tests.servers.databases import Database, database, started
from tests.servers.machines import LEASE, Machines, machines, no_bug, standing_by, took_over
from tests.servers.middle_box import middle_box
from tests.servers.postgres_spools import dsn_of
from tests.servers.sql_sinks import POSTGRESQL
from tests.servers.standbys import standby_away

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

NOWHERE: Final = "http://127.0.0.1:9"
"""Nobody listens there."""
KEY_DATA: Final = re.compile(rb"K\x00\x00\x00\x0c(.{4})", re.DOTALL)
"""What the server says of a connection: the number of its process."""

Box = TypeVar("Box")


@contextmanager
def beside(place: Environment, made: AbstractAsyncContextManager[Box]) -> Iterator[Box]:
    """Something that lives in the loop of the environment."""
    found = place.do(made.__aenter__())
    try:
        yield found
    finally:
        place.do(made.__aexit__(None, None, None))


def change(machine: Scenario, by: Callable[[dict[str, Any]], object]) -> None:
    """Give one machine another configuration."""
    settings = json.loads(machine.config.read_text())
    by(settings)
    machine.config.write_text(json.dumps(settings))


def database_by(machine: Scenario, server: Database, port: int) -> None:
    """Let a machine reach the database by another port."""
    dsn = dsn_of(server).replace(f":{server.port}/", f":{port}/") + "?sslmode=disable"
    change(machine, lambda settings: settings["spool"].update(dsn=dsn))


# ---------------------------------------------------------------- cuts


def test_a_daemon_that_is_cut_off_from_the_database_is_replaced_and_ends_when_it_is_joined_again(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2) as shared, beside(shared.place, middle_box(database.port)) as box:
        database_by(shared[0], database, box.port)
        first = shared[0].run()
        shared.place.turn("hang")
        shared.place.enqueue(100)
        shared.stored(100)
        until(lambda: rows(shared[0], "status")[0]["members"][0]["held"], what="for a share of the first")
        second = standing_by(shared[1].run())
        began = time.monotonic()
        shared.place.ask(lambda: setattr(box, "silent", True))
        shared.place.ask(lambda: box.lose_after(1))
        took_over(second, began)
        first.heard("lease_not_proven")
        assert first.get("/readyz")[0] == 503
        shared.place.turn(200)
        until(lambda: len(shared.place.hook.files) >= 100, what="for what the first one held")
        shared.place.enqueue(100)  # it may poll some of them, into its journal
        until(lambda: shared.place.depth == 0)
        assert first.alive, "it cannot know that it was replaced"
        shared.place.ask(lambda: setattr(box, "silent", False))
        assert first.wait() == 1
        assert "the session of this daemon has ended" in first.stderr
        no_bug(first)
        again = shared[0].run()
        shared.all_arrived(200)
        assert [again.stop(), second.stop()] == [0, 0]


def test_a_daemon_that_reaches_the_database_alone_keeps_what_it_does_until_somebody_stops_it(
    tmp_path: Path, database: Database
) -> None:
    def cut(settings: dict[str, Any]) -> None:
        settings["accounts"]["main"]["endpoint"] = f"{NOWHERE}/common_access"
        settings["sinks"]["hook"]["url"] = NOWHERE

    with machines(database, tmp_path, 2) as shared:
        change(shared[0], cut)
        first, second = shared.polling(0), standing_by(shared[1].run())
        shared.place.enqueue(100)
        first.heard("poll_failed")
        time.sleep(2 * LEASE)
        assert shared.place.depth == 100
        assert not second.said("source_taken_over"), "it lives, and has the duty"
        assert first.stop() == 0
        shared.all_arrived(100)
        assert second.stop() == 0


# ---------------------------------------------------------------- the database takes nothing


def test_while_commits_hang_polling_goes_on_into_the_journal(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 1) as shared:
        process = shared[0].run()
        shared.place.enqueue(1)
        shared.all_arrived(1)
        attempts = shared.place.hook.attempts
        with standby_away(database):
            shared.place.enqueue(2000)
            until(lambda: shared.place.depth == 0, what="for the queue to be empty")
            until(lambda: process.metric("journal_bytes") > 0)
            assert shared.place.hook.attempts == attempts
            time.sleep(2 * LEASE)
            assert process.alive, "signs of life wait for no standby"
            assert not process.said("lease_not_proven")
        shared.all_arrived(2001)
        assert process.stop() == 0
        no_bug(process)


def test_while_the_database_refuses_writes_polling_pauses(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 1) as shared:
        process = shared[0].run()
        shared.place.enqueue(1)
        shared.all_arrived(1)
        database.kill()
        shared.place.enqueue(5000)
        process.heard("polling_paused")
        shared.place.settled()
        left = shared.place.depth
        assert left > 0
        time.sleep(LEASE)
        assert shared.place.depth == left
        database.start()
        shared.all_arrived(5001)
        assert process.heard("polling_resumed")
        assert process.stop() == 0
        no_bug(process)


# ---------------------------------------------------------------- clocks


def test_clocks_that_differ_or_jump_end_no_session(tmp_path: Path, database: Database) -> None:
    with machines(database, tmp_path, 2) as shared:
        clock = Machine(tmp_path)
        first = shared.polling(0)
        clock.set_to(DAY)
        second = standing_by(clock.run(shared[1]))
        shared.place.enqueue(200)
        shared.all_arrived(200)
        clock.set_to(-DAY)
        second.heard("clock_jumped")
        time.sleep(2 * LEASE)
        assert not first.said("session_ended")
        assert not second.said("source_taken_over")
        assert second.get("/readyz")[0] == 200
        clock.set_to(0)  # else the platform refuses its signatures
        first.kill()
        shared.place.settled()
        took_over(second, time.monotonic())
        shared.place.enqueue(100)
        shared.all_arrived(300)
        assert second.stop() == 0


# ---------------------------------------------------------------- volumes


def test_of_a_lost_volume_only_the_answers_in_its_journal_are_gone(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2) as shared:
        first = shared[0].start(POLLER_FAILPOINT="page.kept")
        shared.place.enqueue(50)
        assert first.wait() == -signal.SIGKILL
        gone = shared.removed()
        assert gone
        journals = list((shared[0].folder).glob("*.journal"))
        assert journals
        for journal in journals:
            journal.unlink()
        second = shared.polling(1)
        took = standing_by(shared[0].run())
        until(lambda: shared.place.depth == 0)
        shared.place.enqueue(50)
        until(lambda: set(shared.place.hook.files) == shared.removed() - gone, what="for all other pictures")
        assert not took.said("page_recovered")
        assert not took.said("journal_damaged")
        assert [took.stop(), second.stop()] == [0, 0]


# ---------------------------------------------------------------- a rollout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"order": "stream"}),
        ({"order": "stream"}, {"order": "stream", "lanes": 4}),
        ({"order": "stream", "lanes": 4}, {}),
    ],
    ids=["ordered", "divided", "without order"],
)
def test_a_sink_is_served_in_a_new_way_when_no_daemon_serves_it_in_the_old_one(
    tmp_path: Path, database: Database, before: dict[str, Any], after: dict[str, Any]
) -> None:
    with machines(database, tmp_path, 2, sink=before) as shared:
        change(shared[1], lambda settings: _serve(settings["sinks"]["hook"], after))
        first = shared[0].run()
        shared.place.enqueue(100)
        _arrive(shared, 100)
        second = standing_by(shared[1].run())
        for _ in range(5):
            shared.place.enqueue(20)
            time.sleep(0.1)
        _arrive(shared, 200)
        assert _delivered(second) == 0
        assert first.stop() == 0
        shared.place.enqueue(100)
        _arrive(shared, 300)
        until(lambda: _delivered(second) == 100)
        assert second.stop() == 0
        assert shared.place.hook.files.total() == 300


def _arrive(shared: Machines, count: int) -> None:
    until(lambda: len(shared.place.hook.files) == count, what=f"for {count} pictures")


def _serve(sink: dict[str, Any], way: dict[str, Any]) -> None:
    for name in ("order", "lanes"):
        sink.pop(name, None)
    sink.update(way)


def _delivered(process: Process) -> float:
    return process.metric("deliveries_total", sink="hook", outcome="done")


# ---------------------------------------------------------------- refusals


@asynccontextmanager
async def pooler(target: int) -> AsyncIterator[int]:
    """A pooler before a server, as far as a client can tell: it gives connections numbers of its own. Its port."""
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", target)
        for way in (_pass(reader, forth, bytes), _pass(back, writer, _renumbered)):
            tasks.add(asyncio.ensure_future(way))

    server = await asyncio.start_server(serve, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(change(data))
            await writer.drain()
    writer.close()


def _renumbered(data: bytes) -> bytes:
    return KEY_DATA.sub(lambda found: found[0][:5] + struct.pack(">I", 1), data)


@pytest.mark.parametrize("words", [("run",), ("check", "--connect")], ids=" ".join)
def test_a_pooler_before_the_database_is_refused(
    tmp_path: Path, database: Database, words: tuple[str, ...]
) -> None:
    with machines(database, tmp_path, 1) as shared, beside(shared.place, pooler(database.port)) as port:
        database_by(shared[0], database, port)
        process = shared[0].start(*words)
        assert process.wait() == 1
        assert "a pooler stands before the database" in process.stderr
        no_bug(process)
