"""The library's producer, which has threads of its own, and one more thread that takes its reports."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from poller.core.errors import TryLater
from poller.core.model import Event
from poller.sinks.kafka.answers import NO_LOGIN, code_of, refusal
from poller.sinks.kafka.options import Option, silent_logger
from poller.sinks.servers import CONNECT_WITHIN

ATTEMPTS: Final = 5
REPORTS_WITHIN: Final = 0.25
"""Seconds after which the thread that waits for reports looks whether it is to end."""
EXPLAINED_WITHIN: Final = 2.0
"""Seconds that the library may take to say why it has given up, after it has refused a message for it."""
EXPLAINS: Final = NO_LOGIN | {KafkaError._SSL}
AFTER_FATAL: Final = frozenset({KafkaError._FATAL, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})


class Message(NamedTuple):
    """An event as a message."""

    event: Event
    topic: str
    headers: list[tuple[str, str | bytes | None]]
    body: bytes


class Reports:
    """The reports that a delivery waits for. `note` is called once for each message, mostly by the producer's thread.

    `done` becomes the codes of the errors, by the event's id.
    """

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[dict[str, int]] = self._loop.create_future()
        self._count = count
        self._noted: list[tuple[str, KafkaError | None]] = []

    def note(self, id: str, error: KafkaError | None, message: object = None) -> None:
        """One message is confirmed, or failed. Needs no lock: whoever appends the last report sees all of them."""
        self._noted.append((id, error))
        if len(self._noted) == self._count:
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.done.done():  # two threads may both see the last report
            self.done.set_result({id: error.code() for id, error in self._noted if error is not None})


class KafkaProducer:
    """The library's producer, and the thread that takes its reports.

    lost:  whether the brokers have to be looked for: at first, and after none could be reached
    fatal: whether the library has given up; a new producer is needed
    """

    def __init__(self, options: Mapping[str, Option]) -> None:
        self.lost = True
        self.fatal = False
        self.topics: frozenset[str] = frozenset()
        self._explanation = 0
        """The code of the error that says why no broker can be reached, or what was fatal."""
        producer = Producer({**options, "error_cb": self._note_error, "logger": silent_logger()})
        self._producer: Producer | None = producer
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._take_reports, args=(producer.poll,), name="kafka", daemon=True
        )
        self._thread.start()

    def _take_reports(self, poll: Callable[[float], int]) -> None:
        while not self._ending.is_set():
            try:
                poll(REPORTS_WITHIN)
            except KafkaException as error:  # a fatal error is raised here too
                self._note_error(error.args[0])
                self._ending.wait(REPORTS_WITHIN)

    def _note_error(self, error: KafkaError) -> None:
        code = error.code()
        self.fatal = self.fatal or error.fatal() or code == KafkaError._FATAL
        if code in EXPLAINS or (error.fatal() and code != KafkaError._FATAL):
            self._explanation = code
        if code == KafkaError._ALL_BROKERS_DOWN or code in EXPLAINS:
            self.lost = True
            self._explanation = self._explanation or code

    async def find_brokers(self) -> list[tuple[str, int]]:
        """Ask for the brokers of the cluster, and remember its topics; raises `TryLater`."""
        assert self._producer is not None, "closed"
        self._explanation = 0
        found: Any = None
        for _ in range(ATTEMPTS):
            try:
                found = await asyncio.to_thread(self._producer.list_topics, timeout=CONNECT_WITHIN / ATTEMPTS)
                break
            except KafkaException as error:
                code = self._explanation or code_of(error)
            if self._explanation:
                break
        if found is None:
            raise TryLater(f"cannot connect: {refusal(code).reason}")
        if not found.brokers:  # a broker that its controller does not count, yet or any more
            raise TryLater(f"cannot connect: {refusal(KafkaError._PARTIAL).reason}")
        self.topics = frozenset(found.topics)
        return [(str(broker.host), int(broker.port)) for broker in found.brokers.values()]

    async def send(self, found: Sequence[Message]) -> dict[str, int]:
        """Send messages and wait for their reports; returns the codes of those that failed."""
        if self._producer is None:  # another delivery has closed it after a fatal error
            return {one.event.id: self._explained(KafkaError._FATAL) for one in found}
        reports = Reports(len(found))
        produce, note = self._producer.produce, reports.note
        for event, topic, headers, body in found:
            report = partial(note, event.id)
            try:
                produce(topic, body, event.stream_id or None, headers=headers, on_delivery=report)
            except KafkaException as error:
                report(error.args[0])
            except BufferError:
                report(KafkaError(KafkaError._QUEUE_FULL))
        failures = await reports.done
        if KafkaError._FATAL in failures.values():
            await self._until_explained()
        return {id: self._explained(code) for id, code in failures.items()}

    async def _until_explained(self) -> None:
        """Wait until it is known what was fatal: messages fail at once, and the other thread hears why."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EXPLAINED_WITHIN):
                while not self._explanation:
                    await asyncio.sleep(0.01)

    def _explained(self, code: int) -> int:
        """The code of the error behind a code; a fatal error ends all messages with codes that say nothing."""
        return self._explanation or code if code in AFTER_FATAL else code

    async def close(self) -> None:
        """Forget what is not confirmed, and end the threads."""
        self._ending.set()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """End the library's producer, which waits for its threads.

        The producer refers to this object by `error_cb`, and this object to it. It is released here, because threads
        and connections would stay until the garbage collector came.
        """
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(blocking=False)
            self._thread.join()
            producer.flush(0)
