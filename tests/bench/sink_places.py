"""Real servers for the figures of sinks, with a way to empty a destination and to count what is in it."""

import asyncio
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from poller.sinks.sql.table import creation
from tests.bench import rig
from tests.patience import PATIENCE
from tests.servers import databases, kafka_broker, object_stores, rabbit, test_nats, test_redis
from tests.servers.processes import ServerProcess

TABLE = "live_events"
QUEUE = "live"
LOCAL = "127.0.0.0/8"
TABLES = {
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    "mariadb": "SHOW TABLES",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a sink delivers to.

    settings: of the sink, as JSON. `clear` may change them.
    clear:    makes the destination empty
    count:    how many events are there
    usual:    how many events a run has unless told otherwise: it takes seconds
    server:   the server, if there is one
    pictures: the URL of the host that has the pictures; empty for sinks that store none
    """

    settings: dict[str, Any]
    clear: Callable[[], None]
    count: Callable[[], int]
    usual: int
    server: ServerProcess | None = None
    pictures: str = ""


@contextmanager
def _started(server: ServerProcess) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.stop()


@contextmanager
def kafka() -> Iterator[Place]:
    """A topic of three partitions, a new one for each run."""
    with rig.scratch() as folder, kafka_broker.open_broker(folder) as broker:
        if not isinstance(broker, kafka_broker.RealBroker):
            raise AssertionError("needs Apache Kafka: Java, Maven, and the jars that it fetches")
        settings: dict[str, Any] = {
            "type": "kafka",
            "servers": [broker.address],
            "min_insync_replicas": 1,
            "allow_cidr": [LOCAL],
        }

        def clear() -> None:
            old = settings.get("topic")
            settings["topic"] = kafka_broker.make_topic(broker)
            if old is not None:
                client = kafka_broker.admin(broker)
                client.delete_topics([old])[old].result(PATIENCE)

        yield Place(
            settings=settings,
            clear=clear,
            count=lambda: _offsets(broker.address, settings["topic"]),
            usual=50_000,
            server=broker,
        )


def _offsets(servers: str, topic: str) -> int:
    """How many messages a topic has, if none was ever deleted."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "count", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions
        ends = [
            consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=PATIENCE) for n in partitions
        ]
        return sum(high - low for low, high in ends)
    finally:
        consumer.close()


@contextmanager
def nats() -> Iterator[Place]:
    """A stream on disk, with `sync_interval: always`."""
    with rig.scratch() as folder, _started(server := test_nats.server_in(folder / "nats")):

        async def clear() -> None:
            async with test_nats.admin(server) as jetstream:
                for stream in await jetstream.streams_info():
                    await jetstream.delete_stream(str(stream.config.name))
            await test_nats.make_stream(server)

        async def count() -> int:
            async with test_nats.admin(server) as jetstream:
                return (await jetstream.stream_info("LIVE")).state.messages

        settings = {
            "type": "nats",
            "servers": [f"nats://127.0.0.1:{server.port}"],
            "synced": True,
            "allow_cidr": [LOCAL],
        }
        yield Place(
            settings=settings,
            clear=lambda: asyncio.run(clear()),
            count=lambda: asyncio.run(count()),
            usual=5_000,
            server=server,
        )


@contextmanager
def amqp() -> Iterator[Place]:
    """A quorum queue that takes everything of a topic exchange."""
    with rig.scratch() as folder, _started(server := rabbit.Rabbit(folder)):
        asyncio.run(rabbit.make_queue(server, QUEUE, exchange=QUEUE))

        async def count() -> int:
            async with rabbit.channel_to(server) as channel:
                return (
                    await channel.declare_queue(QUEUE, passive=True)
                ).declaration_result.message_count or 0

        settings = {
            "type": "amqp",
            "servers": [server.address],
            "exchange": QUEUE,
            "user": "writer",
            "password": rabbit.PASSWORD,
            "allow_cidr": [LOCAL],
        }
        yield Place(
            settings=settings,
            clear=lambda: asyncio.run(rabbit.empty(server, QUEUE)),
            count=lambda: asyncio.run(count()),
            usual=10_000,
            server=server,
        )


@contextmanager
def redis() -> Iterator[Place]:
    """Valkey, which syncs its file before it answers."""
    with (
        rig.scratch() as folder,
        _started(server := test_redis.server_in(folder / "valkey", test_redis.valkey(), *test_redis.KEPT)),
        test_redis.admin(server) as client,
    ):
        settings = {"type": "redis", "url": f"redis://127.0.0.1:{server.port}/0", "allow_cidr": [LOCAL]}
        yield Place(
            settings=settings,
            clear=lambda: client.flushall() and None,
            count=lambda: int(client.xlen("live:screenshot")),
            usual=100_000,
            server=server,
        )


def postgresql() -> AbstractContextManager[Place]:
    """PostgreSQL with its own table."""
    return _sql(databases.postgres(), 100_000)


def mariadb() -> AbstractContextManager[Place]:
    """MariaDB with its own table."""
    return _sql(databases.mariadb(), 40_000)


@contextmanager
def _sql(opening: AbstractContextManager[databases.Database], usual: int) -> Iterator[Place]:
    with opening as server:

        def clear() -> None:
            for (table,) in server.ask_now(TABLES[server.engine]):
                server.ask_now(f"DROP TABLE {table}")
            server.ask_now(creation(server.scheme, TABLE))
            if server.engine == "postgresql":
                server.ask_now(f"ALTER TABLE {TABLE} OWNER TO poller")

        settings = {
            "type": "sql",
            "url": server.url,
            "user": "poller",
            "password": databases.PASSWORD,
            "allow_cidr": [LOCAL],
        }
        yield Place(
            settings=settings,
            clear=clear,
            count=lambda: int(server.ask_now(f"SELECT count(*) FROM {TABLE}")[0][0]),
            usual=usual,
            server=server,
        )


@contextmanager
def exec() -> Iterator[Place]:
    """A program that appends its input to a file."""
    with rig.scratch() as folder:
        file = folder / "events"
        command = [
            "dd",
            "bs=1M",
            "iflag=fullblock",
            "oflag=append",
            "conv=notrunc",
            "status=none",
            f"of={file}",
        ]
        yield Place(
            settings={"type": "exec", "command": command},
            clear=lambda: file.open("wb").close(),
            count=lambda: _lines(file),
            usual=100_000,
        )


def _lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


@contextmanager
def s3() -> Iterator[Place]:
    """A bucket of moto's server, and a cheap host with one picture of 15 kB under every name."""
    with (
        rig.scratch() as folder,
        object_stores.running("moto", folder / "s3") as store,
        rig.process([sys.executable, "-m", "tests.bench.download", "--serve"]) as host,
    ):
        assert isinstance(store, object_stores.Moto)
        pictures = f"127.0.0.1:{host['port']}"

        def clear() -> None:
            urllib.request.urlopen(
                urllib.request.Request(f"{store.url}/moto-api/reset", method="POST")
            ).close()
            store.make_bucket()

        yield Place(
            settings=store.settings(allow_hosts=[pictures]),
            clear=clear,
            count=lambda: len(store.list_keys()),
            usual=2_000,
            server=store.process,
            pictures=f"http://{pictures}",
        )


PLACES: Mapping[str, Callable[[], AbstractContextManager[Place]]] = {
    "s3": s3,
    "kafka": kafka,
    "amqp": amqp,
    "nats": nats,
    "redis": redis,
    "postgresql": postgresql,
    "mariadb": mariadb,
    "exec": exec,
}


def arrived(place: Place, wanted: int) -> int:
    """How many events are at the destination, once they are all there: a broker's own count may come later."""
    began = time.monotonic()
    while (found := place.count()) != wanted and time.monotonic() - began < PATIENCE:
        time.sleep(0.2)
    return found
