"""Bare loops: for each sink the same library, used directly, that waits for the same proof. No checks, no retries.

    python -m tests.bench.sink_loops WAY SETTINGS EVENTS PICTURES

One process for one run of `tests.bench.sinks`. WAY is `sink` (the sink's `deliver` alone), `bare` (the loop), or the
address of a platform (the loop with the events of its queue). SETTINGS are those of the sink, as JSON.
"""

import asyncio
import hashlib
import json
import resource
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC
from importlib.metadata import entry_points
from typing import Any, Self
from urllib.parse import urlsplit

import aio_pika
import asyncmy
import asyncpg
import obstore
import pycurl
import uvloop
from confluent_kafka import Producer
from nats.aio.client import Client
from obstore.store import S3Store
from redis.asyncio import Redis

from poller.core.model import Batch, Event, batch_id
from poller.core.ports import Sink
from poller.qcloud.wire.account import Account
from poller.settings import AccountSettings, SinkSettings
from poller.sinks.sql import mysql, postgresql
from poller.sources.screenshot_queue import ScreenshotQueue, ScreenshotQueueSettings
from poller.testing import some_event
from tests.bench import rig

CHUNK = 20_000
"""Events that are made at once, which is not measured."""
STREAMS = 200
TYPE = "application/cloudevents+json"

Send = Callable[[Batch], Awaitable[None]]
Run = Callable[[Iterator[Batch]], Awaitable[None]]
"""Sends batches until the end of the iterator, and waits until all are proven."""


class Loop(ABC):
    """A library, used directly: `send` is called `lanes` times at once, and `finish` at the end."""

    def __init__(self, settings: dict[str, Any], lanes: int) -> None:
        self.settings = settings
        self.lanes = lanes

    async def __aenter__(self) -> Self:
        self.open = AsyncExitStack()
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.open.aclose()

    @abstractmethod
    async def begin(self) -> None:
        """Connect."""

    @abstractmethod
    async def send(self, events: Sequence[Event]) -> None:
        """Send events and wait for the proof."""

    async def finish(self) -> None:  # noqa: B027 - most loops have their proof when `send` returns
        """Wait until everything is proven."""


class Kafka(Loop):
    """confluent-kafka, idempotent, all replicas."""

    async def begin(self) -> None:
        options: dict[str, str | int | float | bool] = {
            "bootstrap.servers": ",".join(self.settings["servers"]),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 1,
        }
        self.producer = Producer(options)
        self.in_hand = deque[tuple[list[object], int]]()
        self.most, self.lanes = self.lanes, 1

    async def send(self, events: Sequence[Event]) -> None:
        """Send events, and wait until fewer batches than may be in hand have no proof."""
        reports: list[object] = []
        headers: list[tuple[str, str | bytes | None]] = [("content-type", TYPE)]
        topic, report = self.settings["topic"], _no_error(reports)
        for event in events:
            self.producer.produce(topic, event.encoded, event.stream_id, headers=headers, on_delivery=report)
        self.in_hand.append((reports, len(events)))
        self._wait(self.most - 1)

    async def finish(self) -> None:
        """See `Loop.finish`."""
        self._wait(0)

    def _wait(self, most: int) -> None:
        while len(self.in_hand) > most:
            reports, count = self.in_hand[0]
            if len(reports) == count:
                self.in_hand.popleft()
            else:
                self.producer.poll(1)


def _no_error(reports: list[object]) -> Callable[[object, object], None]:
    def report(error: object, message: object) -> None:
        assert error is None, error
        reports.append(None)

    return report


class Nats(Loop):
    """nats-py: publishes the batch, then awaits every confirmation."""

    async def begin(self) -> None:
        self.client = Client()
        await self.client.connect(self.settings["servers"])
        self.open.push_async_callback(self.client.close)
        self.jetstream = self.client.jetstream()

    async def send(self, events: Sequence[Event]) -> None:
        sent = [
            await self.jetstream.publish_async(
                f"live.{event.kind}.{event.stream_id}",
                event.encoded,
                headers={"Nats-Msg-Id": event.id, "content-type": TYPE},
            )
            for event in events
        ]
        await asyncio.gather(*sent)


class Amqp(Loop):
    """aio-pika, with a channel for each batch in hand."""

    async def begin(self) -> None:
        parts = urlsplit(self.settings["servers"][0])
        connection = await self.open.enter_async_context(
            await aio_pika.connect(
                host=parts.hostname or "",
                port=parts.port or 0,
                login=self.settings["user"],
                password=self.settings["password"],
            )
        )
        self.idle = []
        for _ in range(self.lanes):
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            self.idle.append(await channel.get_exchange(self.settings["exchange"], ensure=False))

    async def send(self, events: Sequence[Event]) -> None:
        exchange = self.idle.pop()
        sent = [
            exchange.publish(
                aio_pika.Message(
                    event.encoded,
                    content_type=TYPE,
                    message_id=event.id,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                f"{event.kind}.{event.stream_id}",
                mandatory=True,
            )
            for event in events
        ]
        await asyncio.gather(*sent)
        self.idle.append(exchange)


class RedisStream(Loop):
    """redis-py: a pipeline of XADD, and WAITAOF at its end."""

    async def begin(self) -> None:
        self.client = Redis.from_url(self.settings["url"])
        self.open.push_async_callback(self.client.aclose)

    async def send(self, events: Sequence[Event]) -> None:
        async with self.client.pipeline(transaction=False) as pipe:
            for event in events:
                fields: Any = {"id": event.id, "event": event.encoded, "stream": event.stream_id}
                pipe.xadd(f"live:{event.kind}", fields)
            pipe.execute_command("WAITAOF", 1, 0, 15_000)
            *_, proof = await pipe.execute()
        assert proof[0] == 1


class Sql(Loop):
    """asyncpg or asyncmy: one statement a batch, the sink's own."""

    async def begin(self) -> None:
        url = urlsplit(self.settings["url"])
        at = {
            "host": url.hostname,
            "port": url.port,
            "user": self.settings["user"],
            "password": self.settings["password"],
            "database": url.path[1:],
        }
        self.is_mysql = url.scheme == "mysql"
        self.idle: list[Any] = []
        for _ in range(self.lanes):
            if self.is_mysql:
                self.idle.append(await asyncmy.connect(**at, charset="utf8mb4", autocommit=True))
                self.open.callback(self.idle[-1].close)
            else:
                self.idle.append(await asyncpg.connect(**at))
                self.open.callback(self.idle[-1].terminate)

    async def send(self, events: Sequence[Event]) -> None:
        connection = self.idle.pop()
        if self.is_mysql:
            values = [
                value
                for one in events
                for value in (
                    one.id,
                    one.account,
                    one.kind,
                    one.stream_id,
                    one.occurred_at.astimezone(UTC).replace(tzinfo=None),
                    one.received_at.astimezone(UTC).replace(tzinfo=None),
                    one.url,
                    one.encoded.decode(),
                )
            ]
            async with connection.cursor() as cursor:
                await cursor.execute(mysql.statement("live_events", len(events)), values)
        else:
            await connection.execute(
                postgresql.statement("live_events"),
                [one.id for one in events],
                [one.account for one in events],
                [one.kind for one in events],
                [one.stream_id for one in events],
                [one.occurred_at for one in events],
                [one.received_at for one in events],
                [one.url for one in events],
                [one.encoded.decode() for one in events],
            )
        self.idle.append(connection)


class Command(Loop):
    """subprocess: a command for each batch."""

    async def begin(self) -> None:
        pass

    async def send(self, events: Sequence[Event]) -> None:
        lines = b"".join([event.encoded + b"\n" for event in events])
        await asyncio.to_thread(
            subprocess.run,
            self.settings["command"],
            input=lines,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )


class S3(Loop):
    """obstore, in as many threads as the sink's. Each fetches a picture by pycurl and compares the ETag."""

    async def begin(self) -> None:
        self.store = S3Store(
            self.settings["bucket"],
            endpoint=self.settings["endpoint"],
            access_key_id=self.settings["access_key"],
            secret_access_key=self.settings["secret_key"],
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
        self.threads = ThreadPoolExecutor(self.settings.get("uploads", 16))
        self.open.callback(self.threads.shutdown)
        self.local = threading.local()

    async def send(self, events: Sequence[Event]) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[loop.run_in_executor(self.threads, self._store, event) for event in events])

    def _store(self, event: Event) -> None:
        curl = self.local.__dict__.get("curl")
        if curl is None:
            curl = self.local.curl = pycurl.Curl()
        curl.setopt(pycurl.URL, event.url)
        picture = curl.perform_rb()
        assert curl.getinfo(pycurl.RESPONSE_CODE) == 200
        attributes = {"Content-Type": "image/jpeg", "id": event.id, "stream": event.stream_id}
        done = obstore.put(
            self.store, f"{event.stream_id}/{event.id}", picture, attributes=attributes, use_multipart=False
        )
        assert str(done["e_tag"]).strip('"') == hashlib.md5(picture, usedforsecurity=False).hexdigest()


LOOPS: dict[str, type[Loop]] = {
    "s3": S3,
    "kafka": Kafka,
    "amqp": Amqp,
    "nats": Nats,
    "redis": RedisStream,
    "sql": Sql,
    "exec": Command,
}


# ---------------------------------------------------------------- a run


def sink_class(kind: str) -> Any:
    """The adapter of a type."""
    (found,) = entry_points(group="poller.sinks", name=kind)
    return found.load()


def terms(settings: dict[str, Any]) -> SinkSettings:
    """The settings with their defaults."""
    found: SinkSettings = sink_class(settings["type"]).Settings.model_validate(settings)
    return found


def some_events(first: int, count: int, pictures: str) -> list[Event]:
    """Events of 200 streams in turn."""
    made = []
    for number in range(first, first + count):
        stream = f"load_{number % STREAMS}"
        url = f"{pictures}/{stream}_{number}.jpg" if pictures else None
        made.append(some_event(number, stream=stream, url=url))
    return made


def in_batches(events: Sequence[Event], each: int) -> list[Batch]:
    """Put events into batches."""
    parts = [tuple(events[start : start + each]) for start in range(0, len(events), each)]
    return [Batch(id=batch_id([one.id for one in some]), sink="bench", events=some) for some in parts]


async def in_lanes(send: Send, batches: Iterator[Batch], lanes: int) -> None:
    """Send batches, so many at once."""

    async def lane() -> None:
        for some in batches:
            await send(some)

    async with asyncio.TaskGroup() as group:
        for _ in range(lanes):
            group.create_task(lane())


async def measured(run: Run, count: int, each: int, pictures: str) -> dict[str, float]:
    """Send events in batches; seconds of wall and CPU time, and the MiB that memory grew after the first chunk."""
    await run(iter(in_batches(some_events(count, each, pictures), each)))  # connects
    wall = cpu = 0.0
    peaks = []
    for first in range(0, count, CHUNK):
        events = some_events(first, min(CHUNK, count - first), pictures)
        batches = iter(in_batches(events, each))
        began = time.perf_counter(), time.process_time()
        await run(batches)
        wall += time.perf_counter() - began[0]
        cpu += time.process_time() - began[1]
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return {"wall": wall, "cpu": cpu, "grown": (peaks[-1] - peaks[0]) / 1024}


async def of_sink(settings: dict[str, Any], count: int, pictures: str) -> dict[str, float]:
    """The sink's `deliver` alone."""
    given = terms(settings)
    sink: Sink = sink_class(settings["type"])("bench", given, {})

    async with sink:
        return await measured(
            lambda batches: in_lanes(sink.deliver, batches, given.concurrency),
            count,
            given.batch.max_events,
            pictures,
        )


async def of_loop(settings: dict[str, Any], count: int, pictures: str) -> dict[str, float]:
    """The bare loop alone."""
    given = terms(settings)
    async with LOOPS[settings["type"]](settings, given.concurrency) as loop:

        async def run(batches: Iterator[Batch]) -> None:
            await in_lanes(lambda batch: loop.send(batch.events), batches, loop.lanes)
            await loop.finish()

        return await measured(run, count, given.batch.max_events, pictures)


async def of_queue(settings: dict[str, Any], api: str) -> dict[str, float]:
    """Drain a platform's queue by the bare loop. Each lane polls until it has a batch."""
    given = terms(settings)
    account = Account("main", AccountSettings.model_validate(rig.account(api)))
    queue = ScreenshotQueueSettings(type="screenshot_queue", account="main")
    source = ScreenshotQueue("screenshots", queue, {"main": account})
    each = given.batch.max_events
    async with account, LOOPS[settings["type"]](settings, given.concurrency) as loop:

        async def lane() -> None:
            waiting: list[Event] = []
            while events := source.read(await source.fetch(), b"").events:
                waiting += events
                while len(waiting) >= each:
                    await loop.send(waiting[:each])
                    waiting = waiting[each:]
            if waiting:
                await loop.send(waiting)

        await asyncio.gather(*[lane() for _ in range(loop.lanes)])
        await loop.finish()
    return {}


def main() -> None:
    way, text, count, pictures = sys.argv[1:]
    settings = json.loads(text)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if way == "sink":
            found = runner.run(of_sink(settings, int(count), pictures))
        elif way == "bare":
            found = runner.run(of_loop(settings, int(count), pictures))
        else:
            found = runner.run(of_queue(settings, way))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
