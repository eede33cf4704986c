"""The sql sink against a real PostgreSQL and a real MariaDB, which are killed, hang, and are full."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from poller.core.errors import Rejected, TryLater
from poller.core.model import Event
from poller.sinks.sql import Sql
from poller.sinks.sql.sink import ENGINES
from poller.sinks.sql.table import rows
from poller.testing import SinkContract, SinkWorld, some_batch, some_event
from poller.testing.factories import elsewhere
from tests.letters import dead_letters
from tests.ports import lasting_port
from tests.servers import through
from tests.servers.databases import PASSWORD, Database, database, started
from tests.servers.middle_box import EACH_STORY, MiddleBox, Story, middle_box
from tests.servers.processes import until
from tests.servers.reports import cases, check_report
from tests.servers.sql_sinks import (
    LOOPBACK,
    MARIADB,
    MISSING,
    POSTGRESQL,
    TABLE,
    drop_table,
    make_table,
    server,
    sink_to,
    stored_ids,
)

__all__ = ["database", "server", "started"]  # the fixtures


def with_stream(number: int, stream: str) -> Event:
    event = some_event(number)
    told = {**json.loads(event.encoded), "subject": stream}
    return msgspec.structs.replace(event, stream_id=stream, encoded=msgspec.json.encode(told))


async def refuse_rows(server: Database, code: int | str, when: str = "") -> None:
    """Let the server answer an insert with an error, as it does when its disk is full."""
    if server.engine == "postgresql":
        raises = f"BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END"
        await server.ask(
            f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {raises} $$"
        )
        kind = "CONSTRAINT TRIGGER" if when else "TRIGGER"
        place = "AFTER" if when else "BEFORE"
        await server.ask(
            f"CREATE {kind} refuse {place} INSERT ON {TABLE} {when} FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    else:
        signal = f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'refused'"
        await server.ask(f"CREATE TRIGGER refuse BEFORE INSERT ON {TABLE} FOR EACH ROW {signal}")


async def take_rows(server: Database) -> None:
    on = f" ON {TABLE}" if server.engine == "postgresql" else ""
    await server.ask(f"DROP TRIGGER refuse{on}")


class TestSql(SinkContract):
    @pytest.fixture(autouse=True)
    def _server(self, database: Database) -> None:
        self.server = database

    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        server = self.server
        await make_table(server)
        async with sink_to(server) as sink:
            yield SinkWorld(
                sink=sink,
                arrived=lambda: [id for (id,) in server.ask_now(f"SELECT id FROM {TABLE}")],
                breaks=server.kill,
                mends=server.start,
            )


# ---------------------------------------------------------------- rows


async def test_rows_hold_the_events_and_what_they_are_looked_for_by(server: Database) -> None:
    events = [*map(some_event, range(100)), with_stream(200, "房间 '\"\\ %s ;--")]
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(*events))
    found = {row[0]: row for row in await server.ask(f"SELECT * FROM {TABLE}")}
    assert found.keys() == {event.id for event in events}
    for event in events:
        *fields, told = found[event.id]
        times = [one.replace(tzinfo=None) for one in (event.occurred_at, event.received_at)]
        kept = [one.replace(tzinfo=None) if hasattr(one, "tzinfo") else one for one in fields]
        assert kept == [event.id, event.account, event.kind, event.stream_id, *times, event.url]
        assert json.loads(told) == json.loads(event.encoded)


async def test_a_second_delivery_changes_no_row_and_a_rebuilt_url_changes_its_own(server: Database) -> None:
    events = [some_event(number) for number in range(10)]
    moved = [*events[:4], *map(elsewhere, events[4:])]
    async with sink_to(server) as sink:
        connection = await ENGINES[server.scheme](sink._settings, None)
        each = 1 if server.engine == "postgresql" else 2  # MySQL counts a changed row twice
        assert await connection.store(rows(events)) == 10
        assert await connection.store(rows(events)) == 0
        assert await connection.store(rows(moved)) == 6 * each
        assert await connection.store(rows(moved)) == 0
        connection.close()
    found = {id: (url, event) for id, url, event in await server.ask(f"SELECT id, url, event FROM {TABLE}")}
    for event in moved:
        url, told = found[event.id]
        assert url == event.url
        assert json.loads(told) == json.loads(event.encoded)


async def test_an_event_that_is_in_a_batch_twice_is_stored_as_it_came_last(server: Database) -> None:
    event = some_event(1)
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(event, some_event(2), elsewhere(event)))
    assert set(await server.ask(f"SELECT id, url FROM {TABLE}")) == {
        (event.id, elsewhere(event).url),
        (some_event(2).id, some_event(2).url),
    }


async def test_a_batch_is_one_statement_and_a_carrier_has_one_connection(server: Database) -> None:
    before = await statements(server)
    async with middle_box(server.port) as box, sink_to(server, url=url_by(server, box)) as sink:
        for turn in range(10):
            await asyncio.gather(
                sink.deliver(some_batch(*(some_event(100 * turn + n) for n in range(20)))),
                sink.deliver(some_batch(*(some_event(100 * turn + 50 + n) for n in range(20)))),
            )
        assert box.accepted == 2
    assert await statements(server) - before == 20
    assert len(await stored_ids(server)) == 400


async def statements(server: Database) -> int:
    """How many statements have stored rows since the server began."""
    if server.engine == "postgresql":
        log = (server.folder / "server.log").read_text(errors="replace")
        return len(re.findall(rf'execute \S+: INSERT INTO "{TABLE}"', log))
    return int((await server.ask("SHOW GLOBAL STATUS LIKE 'Com_insert'"))[0][1])


def url_by(server: Database, box: MiddleBox) -> str:
    """The server's URL, by way of a box before it."""
    return server.url.replace(f":{server.port}/", f":{box.port}/")


# ---------------------------------------------------------------- refused rows


async def test_one_value_that_is_too_long_becomes_one_dead_letter(server: Database) -> None:
    resize = (
        "ALTER COLUMN stream TYPE varchar(20)"
        if server.engine == "postgresql"
        else "MODIFY stream varchar(20)"
    )
    await server.ask(f"ALTER TABLE {TABLE} {resize}")
    guilty = with_stream(7, "x" * 21)
    others = [some_event(number) for number in range(6)]
    async with sink_to(server) as sink:
        with pytest.raises(Rejected, match="a value is too long for its column"):
            await sink.deliver(some_batch(*others, guilty))
        assert await stored_ids(server) == set(), "one statement stores all or nothing"
        assert await reasons(sink, [*others[:3], guilty, *others[3:]]) == {
            guilty.id: "a value is too long for its column"
        }
    assert await stored_ids(server) == {event.id for event in others}


async def test_a_nul_byte_is_a_dead_letter_where_the_database_cannot_store_it(server: Database) -> None:
    guilty, hidden = with_stream(7, "a\0b"), with_stream(8, "room")
    told = {**json.loads(hidden.encoded), "subject": "a\0b"}
    hidden = msgspec.structs.replace(hidden, encoded=msgspec.json.encode(told))
    others = [some_event(number) for number in range(6)]
    async with sink_to(server) as sink:
        dead = await reasons(sink, [*others[:3], guilty, *others[3:], hidden])
    if server.engine == "postgresql":
        assert dead == dict.fromkeys((guilty.id, hidden.id), "the database stores no NUL byte")
    else:
        assert dead == {}
        kept = await server.ask(f"SELECT stream FROM {TABLE} WHERE id = '{guilty.id}'")
        assert list(kept) == [("a\0b",)]
    assert {event.id for event in others} <= await stored_ids(server)


async def reasons(sink: Sql, events: list[Event]) -> dict[str, str]:
    """Why each dead letter is one, without what the server itself says of it."""
    return {id: reason.partition(":")[0] for id, reason in (await dead_letters(sink, events)).items()}


async def test_what_the_database_says_of_a_refused_row_holds_nothing_of_the_row(server: Database) -> None:
    await server.ask(f"ALTER TABLE {TABLE} ADD CONSTRAINT empty CHECK (url IS NULL)")
    event = elsewhere(some_event(1))
    async with sink_to(server) as sink:
        with pytest.raises(Rejected, match="the database refuses a value") as raised:
            await sink.deliver(some_batch(event))
    assert b"empty" in raised.value.said
    assert b"other.example" not in raised.value.said


async def test_a_user_with_the_documented_permissions_is_enough(server: Database) -> None:
    user = "least" if server.engine == "postgresql" else "least@'127.0.0.1'"
    secret = f"PASSWORD '{PASSWORD}'" if server.engine == "postgresql" else f"BY '{PASSWORD}'"
    made = "LOGIN" if server.engine == "postgresql" else "IDENTIFIED"
    await server.ask(f"CREATE USER {user} {made} {secret}")
    await server.ask(f"GRANT SELECT, INSERT, UPDATE ON {TABLE} TO {user}")
    async with sink_to(server, user="least") as sink:
        assert await sink.check() == []
        await sink.deliver(some_batch(some_event(1)))
        await sink.deliver(some_batch(elsewhere(some_event(1))))
    await drop_table(server)
    await server.ask(f"DROP USER {user}")


@MARIADB
async def test_a_batch_that_is_larger_than_a_packet_is_halved(server: Database) -> None:
    events = [with_stream(number, "x") for number in range(40)]
    events = [
        msgspec.structs.replace(
            event, encoded=msgspec.json.encode({**json.loads(event.encoded), "filler": "x" * 50_000})
        )
        for event in events
    ]
    huge = msgspec.structs.replace(events[0], id="0" * 32, encoded=b'{"filler": "%s"}' % (b"x" * 1_100_000))
    (before,) = await server.ask("SELECT @@global.max_allowed_packet")
    await server.ask("SET GLOBAL max_allowed_packet = 1048576")
    try:
        async with sink_to(server) as sink:
            with pytest.raises(Rejected, match="larger than max_allowed_packet of the server, 1048576 bytes"):
                await sink.deliver(some_batch(*events))
            assert await reasons(sink, [*events, huge]) == {
                huge.id: "larger than max_allowed_packet of the server, 1048576 bytes"
            }
    finally:
        await server.ask(f"SET GLOBAL max_allowed_packet = {before[0]}")
    assert await stored_ids(server) == {event.id for event in events}


async def test_a_full_disk_is_tried_again_later(server: Database) -> None:
    await refuse_rows(server, "53100" if server.engine == "postgresql" else 1021)
    batch = some_batch(*map(some_event, range(3)))
    async with sink_to(server) as sink:
        with pytest.raises(TryLater, match="the server's disk is full"):
            await sink.deliver(batch)
        assert await sink.check() == [f"cannot store a row in {TABLE}: the server's disk is full"]
        await take_rows(server)
        await sink.deliver(batch)
    assert await stored_ids(server) == {event.id for event in batch.events}


@POSTGRESQL
async def test_a_commit_that_fails_is_no_delivery(server: Database) -> None:
    await refuse_rows(server, "53100", when="DEFERRABLE INITIALLY DEFERRED")
    async with sink_to(server) as sink:
        with pytest.raises(TryLater, match="disk is full"):
            await sink.deliver(some_batch(some_event(1)))
    assert await stored_ids(server) == set()


# ---------------------------------------------------------------- connections


async def test_an_address_that_is_not_public_needs_permission(server: Database) -> None:
    async with sink_to(server, allow_cidr=[]) as sink:
        with pytest.raises(TryLater, match=r"127\.0\.0\.1 is not a public address"):
            await sink.deliver(some_batch(some_event(1)))


async def test_a_wrong_password_is_told_without_it(server: Database, tmp_path: Path) -> None:
    async with sink_to(server, password="wrong-password") as sink:
        with pytest.raises(TryLater) as raised:
            await sink.deliver(some_batch(some_event(1)))
        assert str(raised.value) == "cannot connect: the server refuses the login: check user and password"
        assert b"wrong-password" not in raised.value.said
    (tmp_path / "password").write_text(PASSWORD + "\n")
    async with sink_to(server, password=None, password_file=str(tmp_path / "password")) as sink:
        assert await sink.check() == []
    async with sink_to(server, url=server.url + "er") as sink:
        with pytest.raises(TryLater, match=r"there is no such database|the user lacks a permission"):
            await sink.deliver(some_batch(some_event(1)))


async def test_a_server_with_tls_is_known_by_its_authority(server: Database) -> None:
    async with sink_to(server, tls={"ca_file": str(server.ca)}) as sink:
        await sink.deliver(some_batch(some_event(1)))
    async with sink_to(server, tls={}) as sink:
        with pytest.raises(TryLater, match="cannot connect"):
            await sink.deliver(some_batch(some_event(2)))
    assert await stored_ids(server) == {some_event(1).id}


async def test_a_server_that_is_killed_in_the_midst_loses_nothing_that_was_confirmed(
    server: Database,
) -> None:
    confirmed: set[str] = set()
    async with sink_to(server) as sink:
        for turn in range(9):
            batch = some_batch(*(some_event(100 * turn + n) for n in range(100)))
            delivering = asyncio.ensure_future(sink.deliver(batch))
            if turn % 4 == 2:
                await asyncio.sleep(0.004)
                await asyncio.to_thread(server.restart)
            for _ in range(40):
                try:
                    await delivering
                    break
                except TryLater:
                    await asyncio.sleep(0.05)
                    delivering = asyncio.ensure_future(sink.deliver(batch))
            else:
                pytest.fail("the server does not come back")
            confirmed |= {event.id for event in batch.events}
    await asyncio.to_thread(server.restart)
    assert await stored_ids(server) == confirmed


async def test_a_server_that_hangs_does_not_hold_a_cancelled_delivery(server: Database) -> None:
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1)))
        with server.frozen():
            for number in (2, 3):  # over a connection that is open, and over a new one
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await sink.deliver(some_batch(some_event(number)))
            this = asyncio.current_task()
            await until(lambda: asyncio.all_tasks() == {this}, "for the library to leave nothing behind")
        await sink.deliver(some_batch(some_event(4)))
    assert await stored_ids(server) >= {some_event(1).id, some_event(4).id}


@EACH_STORY
async def test_a_middle_box_that_cuts_loses_or_is_silent_costs_no_event(
    server: Database, story: Story
) -> None:
    async with middle_box(server.port) as box, sink_to(server, url=url_by(server, box)) as sink:
        events = await story(sink, box)
    assert await stored_ids(server) == {event.id for event in events}


# ---------------------------------------------------------------- what an operator sees


def test_an_operator_reads_what_is_wrong_and_no_secret(database: Database, tmp_path: Path) -> None:
    asyncio.run(drop_table(database))
    nobody = database.url.replace(f":{database.port}/", f":{lasting_port()}/")
    check_report(
        tmp_path / "way",
        cases(
            {
                "type": "sql",
                "url": database.url,
                "user": "poller",
                "password": PASSWORD,
                "allow_cidr": [str(LOOPBACK)],
            },
            {"url": nobody},
            {},
            ({}, MISSING, f"there is no table {TABLE}; this statement makes it:"),
        ),
    )


@pytest.mark.timeout(3600)
def test_events_pass_the_daemon_and_the_server_while_both_are_killed(
    database: Database, tmp_path: Path, soak: bool
) -> None:
    asyncio.run(make_table(database))
    events, kills = through.FULL if soak else through.ORDINARY
    address = {"url": database.url, "user": "poller", "password": PASSWORD, "allow_cidr": [str(LOOPBACK)]}
    carried = through.carry(
        tmp_path / "way",
        database,
        {"type": "sql", **address},
        lambda: database.ask_now(f"SELECT stream, id FROM {TABLE}"),  # type: ignore[arg-type,return-value]
        events=events,
        kills=kills,
    )
    # A table has no order, so that there is none to compare.
    place = {one.id: number for number, one in enumerate(carried.sent)}
    in_order = sorted(carried.stored, key=lambda one: place.get(one.id, -1))
    assert through.check(carried._replace(stored=in_order), least=events, keeps_repeats=False) == 0


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong, text in (
        ({"url": "http://a/b"}, "postgresql://host:5432/database"),
        ({"url": "mysql://a"}, "postgresql://host:5432/database"),
        ({"url": "mysql://u:p@a/b"}, "do not belong in the URL"),
        ({"url": "mysql://a:99999/b"}, "a port from 1"),
        ({"url": "mysql://a/b%00"}, "postgresql://host:5432/database"),
        ({"table": "a b"}, "table"),
        ({"table": 'a"'}, "table"),
    ):
        with pytest.raises(ValueError, match=text):
            Sql.Settings.model_validate({"type": "sql", "url": "mysql://a.example/b", "user": "u", **wrong})
