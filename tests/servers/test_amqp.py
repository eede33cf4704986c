"""The amqp sink against a real RabbitMQ, which is killed, hangs, is full, and has no route."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp_event

from poller.core.errors import PartlyFailed, Rejected, TryLater
from poller.core.model import Batch, Event
from poller.sinks.amqp import Amqp
from poller.testing import SinkContract, SinkWorld, some_batch, some_event
from tests.patience import PATIENCE
from tests.ports import lasting_port

from . import through
from .guard import folder_kept
from .middle_box import EACH_STORY, Story, middle_box
from .processes import free_port, until
from .rabbit import LARGEST, PASSWORD, Rabbit, channel_to, control, empty, make_queue, messages_of
from .reports import cases, check_report

SECONDS_TO_LAST = 5.0
LOOPBACK = ip_network("127.0.0.0/8")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """One for all tests: a start takes seconds."""
    with folder_kept(tmp_path_factory.mktemp("rabbit")) as folder:
        one = Rabbit(folder)
        try:
            one.start()
            yield one
        finally:
            one.stop()


@pytest.fixture
def server(started: Rabbit) -> Iterator[Rabbit]:
    """The same, running for the next test too."""
    yield started
    started.mend()


@pytest.fixture(scope="module")
def first_queue(started: Rabbit) -> str:
    """A queue that outlives a kill. Version 3.10 writes a new quorum queue's place to the disk seconds later."""
    asyncio.run(make_queue(started, "first", exchange="first"))
    time.sleep(SECONDS_TO_LAST)
    return "first"


@pytest.fixture
def lasting_queue(server: Rabbit, first_queue: str) -> str:
    """The same, empty."""
    asyncio.run(empty(server, first_queue))
    return first_queue


@pytest.fixture
def queue(server: Rabbit) -> str:
    """A quorum queue that takes everything of an exchange of the same name."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    asyncio.run(make_queue(server, name, exchange=name))
    return name


def sink_to(server: Rabbit, exchange: str, **more: Any) -> Amqp:
    settings = {
        "type": "amqp",
        "servers": [server.address],
        "exchange": exchange,
        "user": "writer",
        "password": PASSWORD,
        "allow_cidr": [LOOPBACK],
    }
    return Amqp("bus", Amqp.Settings.model_validate({**settings, **more}), {})


async def ids_of(server: Rabbit, queue: str) -> list[str]:
    return [str(message.message_id) for message in await messages_of(server, queue)]


def large(number: int, size: int) -> Event:
    event = some_event(number)
    told = json.loads(event.encoded)
    told["data"]["message"]["filler"] = "x" * size
    return msgspec.structs.replace(event, encoded=msgspec.json.encode(told))


async def delivered_at_last(sink: Amqp, batch: Batch) -> None:
    """Deliver as the courier does: what failed again, until nothing has failed."""
    left = {event.id: event for event in batch.events}
    while left:
        try:
            await sink.deliver(some_batch(*left.values()))
            left = {}
        except PartlyFailed as partly:
            left = {id: left[id] for id in partly.failures}
        except TryLater:
            await asyncio.sleep(0.05)


class TestAmqp(SinkContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: Rabbit, lasting_queue: str) -> None:
        self.server, self.queue = server, lasting_queue
        self.arrived: list[str] = []

    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        async with sink_to(self.server, self.queue) as sink:
            yield SinkWorld(
                sink=sink, arrived=self._arrived, breaks=self.server.kill, mends=self.server.start
            )

    def _arrived(self) -> list[str]:
        """The contract asks from within the running loop, so that another thread has to ask the server."""
        with ThreadPoolExecutor(1) as pool:
            self.arrived += pool.submit(lambda: asyncio.run(ids_of(self.server, self.queue))).result()
        return self.arrived


# ---------------------------------------------------------------- messages


async def test_messages_are_the_events_in_order_each_with_its_id(server: Rabbit, queue: str) -> None:
    batch = some_batch(*map(some_event, range(100)))
    async with sink_to(server, queue) as sink:
        await sink.deliver(batch)
    found = await messages_of(server, queue)
    assert [message.body for message in found] == [event.encoded for event in batch.events]
    assert [message.message_id for message in found] == [event.id for event in batch.events]
    assert {message.content_type for message in found} == {"application/cloudevents+json"}
    assert {message.delivery_mode for message in found} == {2}
    assert {message.routing_key for message in found} == {"screenshot.room"}


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_another_reader_of_cloudevents_reads_the_event(server: Rabbit, queue: str, mode: str) -> None:
    event = some_event(1, stream="房间 1")
    async with sink_to(server, queue, mode=mode) as sink:
        await sink.deliver(some_batch(event))
    (one,) = await messages_of(server, queue)
    assert ("cloudEvents:id" in one.headers) is (mode == "binary")
    read = from_amqp_event(AMQPMessage({"content-type": one.content_type}, dict(one.headers), one.body))
    told = json.loads(event.encoded)
    assert (read.get_id(), read.get_source(), read.get_type(), read.get_subject()) == (
        told["id"],
        told["source"],
        told["type"],
        told["subject"],
    )
    assert read.get_time() == event.occurred_at
    assert read.get_data() == told["data"]


async def test_words_of_the_routing_key_hold_no_sign_that_means_something_else(
    server: Rabbit, queue: str
) -> None:
    event = msgspec.structs.replace(some_event(1), stream_id="a.b *#\tc")
    async with sink_to(server, queue, routing_key="{account}.{stream}") as sink:
        await sink.deliver(some_batch(event))
    (message,) = await messages_of(server, queue)
    assert message.routing_key == "main.a_b____c"


# ---------------------------------------------------------------- what fails, and how much of it


async def test_only_the_events_without_a_route_fail(server: Rabbit) -> None:
    name = f"t-{uuid.uuid4().hex[:12]}"
    await make_queue(server, name, exchange=name, key="screenshot.room")
    events = [some_event(n, stream="room" if n % 2 else "hall") for n in range(10)]
    async with sink_to(server, name) as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(*events))
    assert set(raised.value.failures) == {event.id for event in events[::2]}
    assert {str(one) for one in raised.value.failures.values()} == {"no queue takes the routing key"}
    assert all(isinstance(one, TryLater) for one in raised.value.failures.values())
    assert await ids_of(server, name) == [event.id for event in events[1::2]]


async def test_a_full_queue_names_those_that_found_no_room(server: Rabbit) -> None:
    name = f"t-{uuid.uuid4().hex[:12]}"
    full: dict[str, Any] = {"queue_type": "classic", "max_length": 3, "overflow": "reject-publish"}
    await make_queue(server, name, exchange=name, **full)
    batch = some_batch(*map(some_event, range(8)))
    async with sink_to(server, name) as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(batch)
        found = await ids_of(server, name)
        assert len(found) >= 3
        assert set(raised.value.failures) == {event.id for event in batch.events} - set(found)
        assert {type(one) for one in raised.value.failures.values()} == {TryLater}
        assert {str(one) for one in raised.value.failures.values()} == {
            "a queue refuses the message: it is full, or has failed"
        }
        await empty(server, name)
        await sink.deliver(some_batch(batch.events[-1]))


async def test_a_broker_whose_disk_is_full_is_told_and_gets_each_event_later(
    server: Rabbit, queue: str
) -> None:
    async with sink_to(server, queue) as sink:
        await sink.deliver(some_batch(some_event(1)))
        await asyncio.to_thread(control, server, "set_disk_free_limit", "900GB")
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await sink.deliver(some_batch(some_event(2)))
            for _ in range(3):
                with pytest.raises(TryLater, match="its disk or its memory is full"):
                    await sink.deliver(some_batch(some_event(2)))
        finally:
            await asyncio.to_thread(control, server, "set_disk_free_limit", "1MB")
        await until(lambda: delivers(sink, some_event(2)), "for the broker to take messages")
    found = await ids_of(server, queue)
    assert set(found) == {some_event(1).id, some_event(2).id}
    assert len(found) <= 3, "only the first attempt was sent"


async def delivers(sink: Amqp, event: Event) -> bool:
    try:
        await sink.deliver(some_batch(event))
    except TryLater:
        return False
    return True


async def test_a_message_that_is_too_large_dies_alone(server: Rabbit, queue: str) -> None:
    guilty = large(7, LARGEST)
    events = [some_event(0), guilty, *map(some_event, range(1, 5))]
    async with sink_to(server, queue) as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(*events))
        failures = raised.value.failures
        assert isinstance(failures[guilty.id], Rejected)
        assert str(failures[guilty.id]).endswith(f"the server takes {LARGEST}")
        assert all(isinstance(one, TryLater) for id, one in failures.items() if id != guilty.id)
        with pytest.raises(PartlyFailed) as raised:  # the size is known now, and nothing else suffers
            await sink.deliver(some_batch(*events))
        assert set(raised.value.failures) == {guilty.id}
    assert set(await ids_of(server, queue)) == {event.id for event in events} - {guilty.id}


async def test_a_routing_key_that_is_too_long_dies_alone(server: Rabbit, queue: str) -> None:
    guilty = some_event(1, stream="房" * 100)
    async with sink_to(server, queue) as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(some_event(0), guilty, some_event(2)))
    ((id, failure),) = raised.value.failures.items()
    assert (id, type(failure)) == (guilty.id, Rejected)
    assert len(await ids_of(server, queue)) == 2


async def test_without_an_exchange_the_batch_is_tried_again_later(server: Rabbit) -> None:
    async with sink_to(server, "nowhere") as sink:
        with pytest.raises(TryLater, match="there is no such exchange"):
            await sink.deliver(some_batch(some_event(1)))
        # The broker closes the channel in the midst of a large batch. All of it has the reason that the broker gave.
        with pytest.raises(TryLater, match=r"^there is no such exchange$"):
            await sink.deliver(some_batch(*(large(number, 20_000) for number in range(2, 302))))


async def test_a_channel_that_the_broker_closes_costs_no_connection(server: Rabbit) -> None:
    """A message that is sent on a closed channel costs the connection, and the next deliveries their reason."""
    async with (
        middle_box(server.port) as box,
        sink_to(server, "nowhere", servers=[f"amqp://127.0.0.1:{box.port}"]) as sink,
    ):
        for turn in range(20):
            with pytest.raises(TryLater, match=r"^there is no such exchange$"):
                await sink.deliver(some_batch(*(some_event(100 * turn + n) for n in range(100))))
        assert box.passed.count(b"AMQP\0\0\x09\x01") == 1, "the heads of connections"


async def test_a_batch_suffers_nothing_when_the_broker_closes_the_channel_of_another(
    server: Rabbit, queue: str
) -> None:
    batches = [some_batch(*(some_event(50 * turn + n) for n in range(50))) for turn in range(8)]
    for batch in batches:
        async with sink_to(server, queue) as sink:
            await sink.deliver(some_batch(batch.events[0]))
            refused = sink.deliver(some_batch(large(0, LARGEST), *map(some_event, range(5000, 5030))))
            delivered, failed = await asyncio.gather(sink.deliver(batch), refused, return_exceptions=True)
            assert delivered is None
            assert isinstance(failed, PartlyFailed)
    assert {event.id for batch in batches for event in batch.events} <= set(await ids_of(server, queue))


async def test_a_broker_that_is_killed_in_the_midst_loses_nothing_that_was_confirmed(
    server: Rabbit, lasting_queue: str
) -> None:
    queue = lasting_queue
    batches = [some_batch(*(some_event(100 * turn + n) for n in range(100))) for turn in range(6)]
    async with sink_to(server, queue) as sink:
        await sink.deliver(batches[0])
        delivering = [asyncio.ensure_future(delivered_at_last(sink, batch)) for batch in batches[1:]]
        await asyncio.sleep(0.02)
        await asyncio.to_thread(server.restart)
        await asyncio.gather(*delivering)
    assert set(await ids_of(server, queue)) == {event.id for batch in batches for event in batch.events}


async def test_a_broker_that_hangs_does_not_hold_a_cancelled_delivery(server: Rabbit, queue: str) -> None:
    async with sink_to(server, queue) as sink:
        await sink.deliver(some_batch(some_event(1)))
        with server.frozen():
            for number in (2, 3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await sink.deliver(some_batch(some_event(number)))
        await sink.deliver(some_batch(some_event(4)))
    found = set(await ids_of(server, queue))
    assert {some_event(1).id, some_event(4).id} <= found <= {some_event(n).id for n in (1, 2, 3, 4)}


@EACH_STORY
async def test_a_middle_box_that_cuts_loses_or_is_silent_costs_no_event(
    server: Rabbit, queue: str, story: Story
) -> None:
    async with (
        middle_box(server.port) as box,
        sink_to(server, queue, servers=[f"amqp://127.0.0.1:{box.port}"]) as sink,
    ):
        events = await story(sink, box)
    assert set(await ids_of(server, queue)) == {event.id for event in events}


async def test_an_exchange_and_a_queue_that_are_removed_and_made_again_are_used_at_once(
    server: Rabbit, queue: str
) -> None:
    async with sink_to(server, queue) as sink:
        await sink.deliver(some_batch(some_event(1)))
        async with channel_to(server) as channel:
            await channel.queue_delete(queue)
            with pytest.raises(TryLater, match="no queue takes the routing key"):
                await sink.deliver(some_batch(some_event(2), some_event(3)))
            await channel.exchange_delete(queue)
            with pytest.raises(TryLater, match="there is no such exchange"):
                await sink.deliver(some_batch(some_event(2), some_event(3)))
        await make_queue(server, queue, exchange=queue)
        await sink.deliver(some_batch(some_event(2), some_event(3)))
    assert await ids_of(server, queue) == [some_event(2).id, some_event(3).id]


async def test_a_sink_is_closed_although_its_broker_hangs(server: Rabbit, queue: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            async with sink_to(server, queue) as sink:
                await sink.deliver(some_batch(some_event(1)))
                server.freeze()
    finally:
        server.thaw()


async def test_the_next_server_is_used_where_the_first_one_does_not_listen(
    server: Rabbit, queue: str
) -> None:
    nobody = f"amqp://127.0.0.1:{free_port()}"
    async with sink_to(server, queue, servers=[nobody]) as sink:
        with pytest.raises(TryLater, match=r"^cannot connect: no server answers$"):
            await sink.deliver(some_batch(some_event(1)))
    async with sink_to(server, queue, servers=[nobody, server.address]) as sink:
        await sink.deliver(some_batch(some_event(1)))
    assert await ids_of(server, queue) == [some_event(1).id]


async def test_an_address_that_is_not_public_needs_permission(server: Rabbit, queue: str) -> None:
    async with sink_to(server, queue, allow_cidr=[]) as sink:
        with pytest.raises(TryLater, match=r"127\.0\.0\.1 is not a public address"):
            await sink.deliver(some_batch(some_event(1)))


# ---------------------------------------------------------------- the check, and logging in


async def test_check_proves_the_right_to_write_and_leaves_nothing(server: Rabbit, queue: str) -> None:
    async with sink_to(server, queue) as sink:
        assert await sink.check() == []
    async with sink_to(server, queue, user="reader") as sink:
        assert await sink.check() == [f"exchange {queue}: this user may not write to the exchange"]
        with pytest.raises(TryLater, match="this user may not write to the exchange"):
            await sink.deliver(some_batch(some_event(1)))
    async with sink_to(server, "nowhere") as sink:
        assert await sink.check() == ["exchange nowhere: there is no such exchange"]
    assert await messages_of(server, queue) == []


async def test_check_says_which_queues_may_lose_what_they_confirm(server: Rabbit, queue: str) -> None:
    await make_queue(server, f"{queue}-classic", queue_type="classic")
    await make_queue(server, f"{queue}-short", max_length=10)
    async with channel_to(server) as channel:
        await channel.declare_queue(f"{queue}-brief", durable=False)
    names = [queue, *(f"{queue}-{word}" for word in ("classic", "short", "brief", "missing"))]
    async with sink_to(server, queue, user="admin", queues=names) as sink:
        assert await sink.check() == [
            f"queue {queue}-classic is no quorum queue: it is lost with its node",
            f"queue {queue}-brief is not durable: a restart of the broker empties it",
            f"there is no queue {queue}-missing",
        ]
    async with sink_to(server, queue, queues=[queue, f"{queue}-missing"]) as sink:
        assert await sink.check() == [
            f"queue {queue}: this user may not ask whether it is a quorum queue",
            f"there is no queue {queue}-missing",
        ]
    async with sink_to(server, "", user="admin", routing_key=f"{queue}-classic") as sink:
        assert await sink.check() == [f"queue {queue}-classic is no quorum queue: it is lost with its node"]
    async with channel_to(server) as channel:
        with pytest.raises(Exception, match="NOT_FOUND"):
            await channel.declare_queue(f"{queue}-missing", passive=True)


async def test_a_wrong_password_is_told_without_it(
    server: Rabbit, queue: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with sink_to(server, queue, password="wrong-password") as sink:
        with pytest.raises(
            TryLater, match=r"^cannot connect: the server refuses the login: check user and password$"
        ):
            await sink.deliver(some_batch(some_event(1)))
    assert "wrong-password" not in "".join(capfd.readouterr())


async def test_an_unknown_virtual_host_is_told(server: Rabbit, queue: str) -> None:
    async with sink_to(server, queue, vhost="nowhere") as sink:
        with pytest.raises(TryLater, match="cannot connect: the server refuses the virtual host"):
            await sink.deliver(some_batch(some_event(1)))


async def test_events_go_over_tls_to_a_server_that_is_trusted(server: Rabbit, queue: str) -> None:
    secure = {"servers": [f"amqps://127.0.0.1:{server.secure_port}"]}
    async with sink_to(server, queue, **secure, tls={"ca_file": str(server.authority_file)}) as sink:
        await sink.deliver(some_batch(some_event(1)))
    async with sink_to(server, queue, **secure) as sink:
        with pytest.raises(TryLater, match="cannot connect: TLS fails"):
            await sink.deliver(some_batch(some_event(2)))
    assert await ids_of(server, queue) == [some_event(1).id]


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "password"
    kept.write_text("p\n")
    for wrong, text in (
        ({"servers": ["http://a"]}, "amqp://host:5672"),
        ({"servers": ["amqp://u:p@a"]}, "do not belong in the URL"),
        ({"servers": ["amqp://a/live"]}, "vhost is a setting"),
        ({"routing_key": "live.{nope}"}, "is no field"),
        ({"password": None}, "is missing: give password or password_file"),
        ({"password_file": str(kept)}, "does not go with password: remove one"),
        ({"routing_key": "live.{stream!x}"}, "without : or !"),
        ({"servers": ["amqp://a:b"]}, "a port from 1"),
    ):
        given = {"type": "amqp", "servers": ["amqp://a.example"], "password": "p", **wrong}
        with pytest.raises(ValueError, match=text):
            Amqp.Settings.model_validate(given)


# ---------------------------------------------------------------- through the daemon


def test_an_operator_reads_what_is_wrong_and_no_secret(server: Rabbit, tmp_path: Path) -> None:
    check_report(
        tmp_path / "way",
        cases(
            {
                "type": "amqp",
                "servers": [server.address],
                "user": "admin",
                "password": PASSWORD,
                "allow_cidr": [str(LOOPBACK)],
            },
            {"servers": [f"amqp://127.0.0.1:{lasting_port()}"]},
            {},
            (
                {"exchange": "nowhere"},
                "there is no such exchange",
                "exchange nowhere: there is no such exchange",
            ),
        ),
    )


@pytest.mark.timeout(3600)
def test_events_pass_the_daemon_and_the_broker_while_both_are_killed(
    server: Rabbit, lasting_queue: str, tmp_path: Path, soak: bool
) -> None:
    read: list[tuple[str, str]] = []

    def stored() -> list[tuple[str, str]]:
        found = asyncio.run(messages_of(server, lasting_queue))
        read.extend(((one.routing_key or "").split(".")[1], str(one.message_id)) for one in found)
        return read

    events, kills = through.FULL if soak else through.ORDINARY
    settings = {"type": "amqp", "servers": [server.address], "user": "writer", "password": PASSWORD}
    carried = through.carry(
        tmp_path / "way",
        server,
        {**settings, "exchange": lasting_queue, "allow_cidr": [str(LOOPBACK)]},
        stored,
        events=events,
        kills=kills,
    )
    through.check(carried, least=events)
