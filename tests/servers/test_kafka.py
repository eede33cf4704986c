"""The kafka sink against a real broker, which is killed, hangs, refuses, and has too few replicas."""

import asyncio
import gc
import json
import os
import struct
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event

from poller.core.errors import PartlyFailed, Rejected, TryLater
from poller.core.model import Event
from poller.sinks.kafka import Kafka
from poller.testing import SinkContract, SinkWorld, some_batch, some_event
from tests.ports import lasting_port

from . import through
from .kafka_broker import (
    PASSWORD,
    MockBroker,
    RealBroker,
    Record,
    add_scram_user,
    allow_to_write,
    make_topic,
    needs_real,
    open_broker,
    records,
    remove_topic,
)
from .middle_box import EACH_STORY, Story, carry, middle_box
from .processes import free_port, until
from .reports import cases, check_report

LOOPBACK = ip_network("127.0.0.0/8")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker | MockBroker]:
    """One for all tests: a start takes seconds."""
    with open_broker(tmp_path_factory.mktemp("kafka")) as one:
        yield one


@pytest.fixture
def broker(started: RealBroker | MockBroker) -> Iterator[RealBroker | MockBroker]:
    """The same, running for the next test too."""
    yield started
    if isinstance(started, RealBroker):
        started.mend()


def sink_to(broker: RealBroker | MockBroker, topic: str, **more: Any) -> Kafka:
    settings = {
        "type": "kafka",
        "servers": [broker.address],
        "topic": topic,
        "allow_cidr": [LOOPBACK],
        "timeout": "4s",
        "min_insync_replicas": 1,
    }
    return Kafka("bus", Kafka.Settings.model_validate({**settings, **more}), {})


def id_of(record: Record) -> str:
    return str(json.loads(record.body)["id"])


def large(number: int, size: int) -> Event:
    event = some_event(number)
    told = json.loads(event.encoded)
    told["data"]["message"]["filler"] = "x" * size
    return msgspec.structs.replace(event, encoded=msgspec.json.encode(told))


async def delivers(sink: Kafka, event: Event) -> bool:
    try:
        await sink.deliver(some_batch(event))
    except TryLater:
        return False
    return True


def test_this_run_uses_apache_kafka_and_not_the_mock_cluster(broker: RealBroker | MockBroker) -> None:
    assert needs_real(broker).name.startswith("Apache Kafka")


class TestKafka(SinkContract):
    @pytest.fixture(autouse=True)
    def _broker(self, broker: RealBroker | MockBroker) -> None:
        self.broker = broker

    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        broker = needs_real(self.broker)
        topic = make_topic(broker)
        async with sink_to(broker, topic) as sink:
            yield SinkWorld(
                sink=sink,
                arrived=lambda: [id_of(one) for one in records(broker, topic)],
                breaks=broker.freeze,
                mends=broker.thaw,
            )


# ---------------------------------------------------------------- messages


async def test_the_events_of_a_stream_are_in_one_partition_in_order(broker: RealBroker | MockBroker) -> None:
    topic = make_topic(broker)
    batch = some_batch(*(some_event(n, stream=f"room{n % 5}") for n in range(100)))
    async with sink_to(broker, topic) as sink:
        await sink.deliver(batch)
        found = await asyncio.to_thread(records, broker, topic)
    by_key: defaultdict[str, list[Record]] = defaultdict(list)
    for one in found:
        by_key[one.key].append(one)
    assert len(by_key) == 5
    for key, own in by_key.items():
        assert len({one.partition for one in own}) == 1
        assert all(a.offset < b.offset for a, b in pairwise(own))
        assert [one.body for one in own] == [one.encoded for one in batch.events if one.stream_id == key]
    assert {one.headers["content-type"] for one in found} == {b"application/cloudevents+json"}


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_another_reader_of_cloudevents_reads_the_event(
    broker: RealBroker | MockBroker, mode: str
) -> None:
    topic = make_topic(broker)
    event = some_event(1, stream="房间 1")
    async with sink_to(broker, topic, mode=mode) as sink:
        await sink.deliver(some_batch(event))
    (one,) = await asyncio.to_thread(records, broker, topic)
    assert one.key == "房间 1"
    assert ("ce_id" in one.headers) is (mode == "binary")
    read = from_kafka_event(KafkaMessage(dict(one.headers), one.key, one.body))
    told = json.loads(event.encoded)
    assert (read.get_id(), read.get_source(), read.get_type(), read.get_subject()) == (
        told["id"],
        told["source"],
        told["type"],
        told["subject"],
    )
    assert read.get_time() == event.occurred_at
    assert read.get_data() == told["data"]


async def test_an_event_without_a_stream_has_no_key(
    broker: RealBroker | MockBroker,
) -> None:
    topic = make_topic(broker, 1)
    event = msgspec.structs.replace(some_event(1), stream_id="")
    async with sink_to(broker, topic) as sink:
        await sink.deliver(some_batch(event))
    (one,) = await asyncio.to_thread(records, broker, topic)
    assert one.key == ""


async def test_every_request_asks_for_the_confirmation_of_all_replicas_and_knows_its_producer(
    broker: RealBroker | MockBroker,
) -> None:
    """One broker cannot show it: with a single replica, its own confirmation is that of all."""
    real = needs_real(broker)
    topic = make_topic(real, 1)
    async with (
        middle_box(real.behind_box, real.box_port) as box,
        sink_to(real, topic, servers=[f"127.0.0.1:{box.port}"]) as sink,
    ):
        await sink.deliver(some_batch(*map(some_event, range(10))))
        requests = list(_requests(bytes(box.passed)))
    assert [acks for api, acks in requests if api == PRODUCE] == [-1]
    assert [api for api, _ in requests if api == INIT_PRODUCER_ID], "an idempotent producer asks for its id"


PRODUCE, FETCH, METADATA, API_VERSIONS, INIT_PRODUCER_ID = 0, 1, 3, 18, 22
"""Numbers of requests in Kafka's protocol."""
COORDINATOR_LOADS, UNSUPPORTED_VERSION = 14, 35
"""Codes of errors there."""
KNOWN = [(PRODUCE, 0, 3), (FETCH, 0, 4), (METADATA, 0, 1), (API_VERSIONS, 0, 0), (INIT_PRODUCER_ID, 0, 0)]
"""Requests in their oldest and newest forms that the library asks for before it produces."""


def _requests(passed: bytes) -> Iterator[tuple[int, int]]:
    """The number of each request, and what stands where a request to produce has `acks`.

    Connections are mixed, but the library sends a request in one piece while there is little to send.
    """
    while passed:
        size, api, version, _, name = struct.unpack_from(">ihhih", passed)
        body = passed[14 + max(name, 0) : 4 + size]
        skipped = (
            2  # the transaction: a length, -1 for none; in newer forms a byte each for tags and for none
        )
        assert api != PRODUCE or body[:skipped] == (b"\0\0" if version >= 9 else b"\xff\xff")
        yield api, struct.unpack_from(">h", body, skipped)[0] if api == PRODUCE else 0
        passed = passed[4 + size :]


# ---------------------------------------------------------------- what fails, and how much of it


@pytest.mark.parametrize("size", [30_000, 1_500_000])
async def test_a_message_that_is_too_large_dies_alone(broker: RealBroker | MockBroker, size: int) -> None:
    """The smaller one is refused by the topic, together with all that is in its request."""
    needs_real(broker)
    topic = make_topic(broker, 1, max_message_bytes="20000")
    guilty = large(50, size)
    batch = some_batch(*map(some_event, range(50)), guilty, *map(some_event, range(51, 100)))
    async with sink_to(broker, topic) as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(batch)
    ((id, failure),) = raised.value.failures.items()
    assert id == guilty.id
    assert isinstance(failure, Rejected)
    found = {id_of(one) for one in await asyncio.to_thread(records, broker, topic)}
    assert found == {event.id for event in batch.events} - {guilty.id}


async def test_only_the_events_of_a_missing_topic_fail(broker: RealBroker | MockBroker) -> None:
    needs_real(broker)
    there = make_topic(broker)
    events = [some_event(n, stream=there if n % 2 else "nowhere") for n in range(10)]
    async with sink_to(broker, "{stream}") as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(*events))
    assert set(raised.value.failures) == {event.id for event in events[::2]}
    assert {str(one) for one in raised.value.failures.values()} == {"there is no such topic"}
    assert all(isinstance(one, TryLater) for one in raised.value.failures.values())
    assert {id_of(one) for one in await asyncio.to_thread(records, broker, there)} == {
        event.id for event in events[1::2]
    }


async def test_a_broker_that_hangs_does_not_hold_a_cancelled_delivery(
    broker: RealBroker | MockBroker,
) -> None:
    real = needs_real(broker)
    topic = make_topic(real)
    async with sink_to(real, topic) as sink:
        await sink.deliver(some_batch(some_event(1)))
        with real.frozen(), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await sink.deliver(some_batch(some_event(2)))
        await sink.deliver(some_batch(some_event(2)))
    found = [id_of(one) for one in await asyncio.to_thread(records, real, topic)]
    assert set(found) == {some_event(1).id, some_event(2).id}


async def test_a_broker_that_is_killed_in_the_midst_leaves_no_gap_and_no_repetition(
    broker: RealBroker | MockBroker,
) -> None:
    real = needs_real(broker)
    topic = make_topic(real)
    events = [some_event(n, stream=f"room{n % 5}") for n in range(600)]
    async with sink_to(real, topic, timeout="1m") as sink:
        await sink.deliver(some_batch(*events[:100]))
        delivering = [
            asyncio.ensure_future(sink.deliver(some_batch(*events[n : n + 100])))
            for n in range(100, 600, 100)
        ]
        await asyncio.sleep(0.01)
        real.kill()
        await asyncio.to_thread(real.start)
        await asyncio.gather(*delivering)
    found = await asyncio.to_thread(records, real, topic)
    for stream in {event.stream_id for event in events}:
        assert [id_of(one) for one in found if one.key == stream] == [
            event.id for event in events if event.stream_id == stream
        ]


@EACH_STORY
async def test_a_middle_box_that_cuts_loses_or_is_silent_costs_no_event(
    broker: RealBroker | MockBroker, story: Story
) -> None:
    real = needs_real(broker)
    topic = make_topic(real, 1)
    async with (
        middle_box(real.behind_box, real.box_port) as box,
        sink_to(real, topic, servers=[f"127.0.0.1:{box.port}"]) as sink,
    ):
        events = await story(sink, box)
    found = [id_of(one) for one in await asyncio.to_thread(records, real, topic)]
    assert set(found) == {event.id for event in events}


async def test_a_broker_whose_disk_is_full_gets_each_event_once_it_has_room_and_runs_again(
    broker: RealBroker | MockBroker,
) -> None:
    real = needs_real(broker)
    topic = make_topic(real, 1)
    events = list(map(some_event, range(100)))
    async with sink_to(real, topic) as sink:
        await sink.deliver(some_batch(*events[:10]))
        real.limit_files(1000)
        try:
            with pytest.raises((TryLater, PartlyFailed)):
                await sink.deliver(some_batch(*events[10:]))
        finally:
            real.stop()  # if it has not ended yet: a broker does whose only disk fails
            await asyncio.to_thread(real.start)
        await carry(sink, events[10:])
    found = [id_of(one) for one in await asyncio.to_thread(records, real, topic)]
    assert set(found) == {event.id for event in events}


async def test_a_topic_that_is_removed_and_made_again_is_used_without_a_restart(
    broker: RealBroker | MockBroker,
) -> None:
    real = needs_real(broker)
    topic = make_topic(real, 2)
    async with sink_to(real, topic) as sink:
        await sink.deliver(some_batch(*map(some_event, range(10))))
        await asyncio.to_thread(remove_topic, real, topic)
        await until(lambda: fails_for_want_of_the_topic(sink), "for the client to notice")
        await asyncio.to_thread(make_topic, real, 2, topic)
        await until(lambda: delivers(sink, some_event(20)), "for the client to find the new topic")
        await sink.deliver(some_batch(*map(some_event, range(30, 40))))
    found = [id_of(one) for one in await asyncio.to_thread(records, real, topic)]
    assert found == [some_event(n).id for n in (20, *range(30, 40))]


async def fails_for_want_of_the_topic(sink: Kafka) -> bool:
    try:
        await sink.deliver(some_batch(some_event(11)))
    except TryLater as error:
        return str(error) == "there is no such topic"
    return False


async def deliver_once(broker: RealBroker | MockBroker, topic: str) -> None:
    async with sink_to(broker, topic) as sink:
        await sink.deliver(some_batch(some_event(1)))


def of_this_process() -> tuple[int, int]:
    """How many threads of libraries and descriptors it has."""
    threads = len(os.listdir("/proc/self/task")) - threading.active_count()
    return threads, len(os.listdir("/proc/self/fd"))


async def after_a_while() -> tuple[int, int]:
    """The same, once it stays the same: what the library closes takes a moment to end."""
    before, now = (-1, -1), of_this_process()
    while now != before:
        await asyncio.sleep(0.5)
        before, now = now, of_this_process()
    return now


async def test_a_closed_sink_leaves_no_thread_and_no_connection(broker: RealBroker | MockBroker) -> None:
    topic = make_topic(broker)
    gc.disable()  # a collection would hide what is left until then
    try:
        await deliver_once(broker, topic)  # what the library makes once
        threads, descriptors = await after_a_while()
        for _ in range(3):
            await deliver_once(broker, topic)
        await until(lambda: of_this_process()[0] <= threads, "for threads to end")
        await until(lambda: of_this_process()[1] <= descriptors, "for connections to end")
    finally:
        gc.enable()


@pytest.mark.parametrize("stream", ["..", "s" * 500])
async def test_an_event_whose_topic_no_broker_can_have_dies_alone(
    broker: RealBroker | MockBroker, stream: str
) -> None:
    topic = make_topic(needs_real(broker))
    fine, odd = (
        msgspec.structs.replace(some_event(number), stream_id=name)
        for number, name in ((1, topic), (2, stream))
    )
    async with sink_to(broker, "{stream}") as sink:
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(fine, odd))
    assert raised.value.failures.keys() == {odd.id}
    assert isinstance(raised.value.failures[odd.id], Rejected)
    assert [id_of(one) for one in records(broker, topic)] == [fine.id]


async def test_where_nobody_listens_the_batch_is_tried_again_later() -> None:
    sink = Kafka(
        "bus",
        Kafka.Settings.model_validate(
            {"type": "kafka", "servers": [f"127.0.0.1:{free_port()}"], "allow_cidr": [LOOPBACK]}
        ),
        {},
    )
    async with sink:
        with pytest.raises(TryLater, match=r"^cannot connect: no server answers$"):
            await sink.deliver(some_batch(some_event(1)))


@pytest.mark.parametrize("topics", [0, 1])
async def test_a_cluster_that_names_no_broker_is_tried_again_later(topics: int) -> None:
    """What a broker answers while its controller does not count it: after it hung, or before it is registered."""
    answers = {
        API_VERSIONS: struct.pack(">hi", 0, len(KNOWN))
        + b"".join(struct.pack(">hhh", *one) for one in KNOWN),
        METADATA: struct.pack(">iii", 0, -1, topics)
        + struct.pack(">hh4s?i", 0, 4, b"live", False, 0) * topics,
        INIT_PRODUCER_ID: struct.pack(">ihqh", 0, COORDINATOR_LOADS, -1, -1),
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                api, version, number = struct.unpack_from(">hhi", await reader.readexactly(size))
                body = answers[api]
                if api == API_VERSIONS and version > 0:
                    body = struct.pack(">h", UNSUPPORTED_VERSION) + body[2:]
                writer.write(struct.pack(">ii", 4 + len(body), number) + body)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = {"type": "kafka", "servers": [f"127.0.0.1:{port}"], "allow_cidr": [LOOPBACK]}
        async with Kafka("bus", Kafka.Settings.model_validate(settings), {}) as sink:
            for _ in range(2):  # it is asked again, and not taken for found
                with pytest.raises(TryLater, match=r"^cannot connect: the cluster has no broker that runs$"):
                    await sink.deliver(some_batch(some_event(1)))


async def test_an_address_that_is_not_public_needs_permission(broker: RealBroker | MockBroker) -> None:
    async with sink_to(broker, "live", allow_cidr=[]) as sink:
        with pytest.raises(TryLater, match=r"127\.0\.0\.1 is not a public address"):
            await sink.deliver(some_batch(some_event(1)))


# ---------------------------------------------------------------- the check, and logging in


async def test_check_says_what_the_topic_lacks_and_sends_nothing(broker: RealBroker | MockBroker) -> None:
    needs_real(broker)
    topic = make_topic(broker)
    async with sink_to(broker, topic) as sink:
        assert await sink.check() == []
    async with sink_to(broker, topic, min_insync_replicas=2) as sink:
        assert await sink.check() == [
            f"topic {topic} has 1 replica(s), fewer than min_insync_replicas: 2",
            f"topic {topic} has min.insync.replicas: 1, fewer than min_insync_replicas: 2",
        ]
    asks_too_much = make_topic(broker, min_insync_replicas="3")  # 4.3 takes it, and confirms with what it has
    async with sink_to(broker, asks_too_much, min_insync_replicas=2) as sink:
        assert await sink.check() == [
            f"topic {asks_too_much} has 1 replica(s), fewer than min_insync_replicas: 2"
        ]
    async with sink_to(broker, "missing") as sink:
        assert await sink.check() == ["topic missing: there is no such topic"]
    async with sink_to(broker, "missing-{kind}") as sink:
        assert await sink.check() == ["no topic matches missing-{kind}"]
    async with sink_to(broker, f"{topic[:-1]}{{kind}}") as sink:
        assert await sink.check() == []
    assert await asyncio.to_thread(records, broker, topic) == []


@pytest.mark.parametrize("sasl", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_user_logs_in_over_tls_and_needs_the_right_to_write(
    broker: RealBroker | MockBroker, sasl: str
) -> None:
    real = needs_real(broker)
    for user in ("writer", "reader"):
        add_scram_user(real, user)
    topic = make_topic(real, 1)
    login = {
        "servers": [real.secure_address],
        "tls": {"ca_file": str(real.authority_file)},
        "sasl": sasl,
        "password": PASSWORD,
    }
    async with sink_to(real, topic, **login, user="reader") as sink:
        assert (await sink.check())[0].endswith("this user may not write to the topic")
        with pytest.raises(TryLater, match="this user may not write to the topic"):
            await sink.deliver(some_batch(some_event(1)))
        allow_to_write(real, "reader", topic)
        await until(lambda: delivers(sink, some_event(0)), "for the new right to hold")
    allow_to_write(real, "writer", topic)
    async with sink_to(real, topic, **login, user="writer") as sink:
        assert await sink.check() == []
        await until(lambda: delivers(sink, some_event(1)), "for the new right to hold")
    assert [id_of(one) for one in await asyncio.to_thread(records, real, topic)] == [
        some_event(0).id,
        some_event(1).id,
    ]


async def test_a_wrong_password_is_told_without_it(
    broker: RealBroker | MockBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    real = needs_real(broker)
    login = {"sasl": "PLAIN", "user": "writer", "password": "wrong-password"}
    tls = {"ca_file": str(real.authority_file)}
    async with sink_to(real, "live", servers=[real.secure_address], tls=tls, **login) as sink:
        with pytest.raises(TryLater) as raised:
            await sink.deliver(some_batch(some_event(1)))
    assert str(raised.value) == "cannot connect: the server refuses the login: check user and password"
    assert "wrong-password" not in "".join(capfd.readouterr())


async def test_a_server_with_another_authority_is_not_trusted(broker: RealBroker | MockBroker) -> None:
    real = needs_real(broker)
    login = {"sasl": "PLAIN", "user": "writer", "password": PASSWORD}
    async with sink_to(real, "live", servers=[real.secure_address], tls={}, **login) as sink:
        with pytest.raises(TryLater, match="cannot connect: TLS fails"):
            await sink.deliver(some_batch(some_event(1)))


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong, text in (
        ({"servers": ["http://a:1"]}, "host:9092"),
        ({"servers": ["a"]}, "host:9092"),
        ({"topic": "live.{nope}"}, "is no field"),
        ({"topic": "live events"}, "the name of a topic"),
        ({"topic": ".."}, "the name of a topic"),
        ({"servers": ["a:99999"]}, "a port is"),
        ({"user": "u"}, "sasl needs a user"),
        ({"sasl": "PLAIN", "user": "u"}, "sasl needs a user"),
        ({"timeout": "1s"}, "3s"),
    ):
        with pytest.raises(ValueError, match=text):
            Kafka.Settings.model_validate({"type": "kafka", "servers": ["a.example:9092"], **wrong})


# ---------------------------------------------------------------- through the daemon


def test_an_operator_reads_what_is_wrong_and_no_secret(
    broker: RealBroker | MockBroker, tmp_path: Path
) -> None:
    real = needs_real(broker)
    tls = {"ca_file": str(real.authority_file)}
    check_report(
        tmp_path / "way",
        cases(
            {
                "type": "kafka",
                "servers": [real.address],
                "topic": "nowhere",
                "allow_cidr": [str(LOOPBACK)],
            },
            {"servers": [f"127.0.0.1:{lasting_port()}"]},
            {"servers": [real.secure_address], "tls": tls, "sasl": "PLAIN", "user": "writer"},
            ({}, "there is no such topic", "topic nowhere: there is no such topic"),
        ),
    )


@pytest.mark.timeout(3600)
def test_events_pass_the_daemon_and_the_broker_while_both_are_killed(
    broker: RealBroker | MockBroker, tmp_path: Path, soak: bool
) -> None:
    real = needs_real(broker)
    topic = make_topic(real)
    events, kills = through.FULL if soak else through.ORDINARY
    carried = through.carry(
        tmp_path / "way",
        real,
        {"type": "kafka", "servers": [real.address], "topic": topic, "allow_cidr": [str(LOOPBACK)]},
        lambda: [(one.key, id_of(one)) for one in records(real, topic)],
        events=events,
        kills=kills,
    )
    through.check(carried, least=events)
