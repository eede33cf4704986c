"""The sink itself: one producer, and the addresses of the brokers."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from poller.core.model import Batch
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.sinks.brokers import fill_in, messages, raise_for
from poller.sinks.kafka.answers import TOO_LARGE, TOPIC_EXCEPTION, refusal
from poller.sinks.kafka.check import flaws
from poller.sinks.kafka.options import producer_options
from poller.sinks.kafka.producer import KafkaProducer, Message
from poller.sinks.kafka.settings import KafkaSettings, can_be_topic, place_of
from poller.sinks.servers import check_hosts, tls_context

UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
"""What the name of a topic cannot hold."""


class Kafka(Sink, ChecksDestination):
    """Publishes events over one producer. The first delivery opens it, and so does the next one after a fatal error."""

    Settings = KafkaSettings

    def __init__(self, name: str, settings: KafkaSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._connecting = asyncio.Lock()
        self._producer: KafkaProducer | None = None

    async def __aenter__(self) -> Self:
        tls_context(self.name, self._settings.tls)  # the library would say it with the first delivery only
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._producer is not None:
            await self._producer.close()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. Asks for permissions and settings; no message is sent."""
        producer = await self._ensure_connected()
        return await asyncio.to_thread(flaws, self._settings, producer.topics)

    async def deliver(self, batch: Batch) -> None:
        """Send the batch and wait for every confirmation; raises `PartlyFailed` for those that failed."""
        producer = await self._ensure_connected()
        bodies = messages(batch.events, self._settings.mode, "ce_")
        found = [
            Message(event, fill_in(self._settings.topic, event, UNSAFE), list(headers.items()), body)
            for event, (headers, body) in zip(batch.events, bodies, strict=True)
        ]
        impossible = {one.event.id: TOPIC_EXCEPTION for one in found if not can_be_topic(one.topic)}
        found = [one for one in found if one.event.id not in impossible]
        failures = impossible | (await producer.send(found) if found else {})
        suspects = [one for one in found if failures.get(one.event.id) in TOO_LARGE]
        if len(suspects) > 1:  # a request is refused whole: only alone does each one show its size
            for one in suspects:
                del failures[one.event.id]
                failures |= await producer.send([one])
        raise_for(batch, {id: refusal(code) for id, code in failures.items()})

    async def _ensure_connected(self) -> KafkaProducer:
        """The producer, which knows its brokers, and is another one after a fatal error; raises `TryLater`."""
        async with self._connecting:
            if self._producer is not None and self._producer.fatal:
                await self._producer.close()
                self._producer = None
            if self._producer is None or self._producer.lost:
                await check_hosts(
                    self._resolver, self._guard, [place_of(one) for one in self._settings.servers]
                )
            if self._producer is None:
                self._producer = KafkaProducer(producer_options(self._settings))
            if self._producer.lost:
                await check_hosts(self._resolver, self._guard, await self._producer.find_brokers())
                self._producer.lost = False
            return self._producer
