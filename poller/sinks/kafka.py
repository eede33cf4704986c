"""The sink `kafka`: one message for each event, into a topic of Apache Kafka.

Delivered
    Every in-sync replica of the partition has the message (`acks=all`). How many replicas these are at least is the
    topic's `min.insync.replicas`. Brokers write to their disks later, so one replica alone may lose what it confirmed.

Order
    The key of a message is its stream, so that a stream is in one partition. The producer is idempotent: the library
    repeats a request whose answer was lost, and the broker drops the repetition. The library refuses idempotence
    without repeating, so it repeats, but only until a delivery's time is over. After that the courier decides.

Twice
    A batch whose answers never came is delivered again, with the same ids (`ce_id`, or `id` in the JSON object).

The library's producer has threads of its own. One more thread here asks it for reports.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    ConfigResource,
    ResourceType,
)
from pydantic import AfterValidator, Field, model_validator

from poller.core.errors import BadConfiguration, Rejected, SinkError, TryLater
from poller.core.model import Batch, Event
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.outbound import AddressGuard, ssl_context
from poller.runtime.resolver import Resolver
from poller.settings import (
    BatchSettings,
    Cidr,
    Duration,
    Secret,
    SecretFile,
    SinkSettings,
    Size,
    TlsSettings,
    duration_between,
    size_between,
    wrong,
)
from poller.sinks.brokers import (
    LOGIN_REFUSED,
    MODE_DESCRIPTION,
    Mode,
    Template,
    check_hosts,
    fill_in,
    messages,
    raise_for,
)

Option = str | int | float | bool
"""A value of the library's options."""
LAST_PORT: Final = 65535
CONNECT_WITHIN: Final = 5.0
ATTEMPTS: Final = 5
REPORTS_WITHIN: Final = 0.25
"""Seconds after which the thread that waits for reports looks whether it is to end."""
LAST_MOMENT: Final = 2.0
"""A message expires so many seconds before the sink's timeout: the library looks once a second."""
UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
"""What the name of a topic cannot hold."""
TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
NO_TOPIC: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)
NO_PERMISSION: Final = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)
NO_LOGIN: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
EXPLAINS: Final = NO_LOGIN | {KafkaError._SSL}
AFTER_FATAL: Final = frozenset({KafkaError._FATAL, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
WRITES: Final = frozenset({AclOperation.WRITE, AclOperation.ALL})


# ---------------------------------------------------------------- settings


def place_of(server: str) -> tuple[str, int]:
    """Host and port of `host:port`, also of `[::1]:9092`; raises `ValueError`."""
    host, _, port = server.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        if not re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", server, re.ASCII):
            raise wrong("a server is written host:9092")
        if not 1 <= place_of(server)[1] <= LAST_PORT:
            raise wrong("a port is a number from 1 to 65535")
    return servers


def _topic(template: str) -> str:
    name = re.sub(r"\{\w+\}", "_", template)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name) or name in (".", ".."):
        raise wrong("the name of a topic is letters, digits, . _ and -, besides the fields")
    return template


class KafkaBatch(BatchSettings):
    """How many events are sent before the confirmations are awaited."""

    max_events: int = Field(
        default=100, ge=1, le=1000, description="The most events in one batch, 1 to 1000."
    )


class KafkaSettings(SinkSettings):
    """Settings of a sink of type `kafka`."""

    servers: Annotated[tuple[str, ...], AfterValidator(_servers)] = Field(
        min_length=1,
        description="Some brokers of the cluster (bootstrap servers). They name the others.",
        examples=[["kafka-1.example.com:9092", "kafka-2.example.com:9092"]],
    )
    topic: Annotated[Template, AfterValidator(_topic)] = Field(
        default="live",
        description="The topic, with {account}, {kind} and {stream}. In them, what a topic cannot hold becomes _.",
        examples=["live-{kind}"],
    )
    mode: Mode = Field(default="structured", description=MODE_DESCRIPTION)
    min_insync_replicas: int = Field(
        default=2,
        ge=1,
        le=32,
        description="How many replicas must have a confirmed message. check reports a topic that asks for fewer.",
    )
    max_message_bytes: Annotated[Size, size_between("1KiB", "100MiB")] = Field(
        default=976 * 1024,
        description="The largest message and request, at most the topic's max.message.bytes. A larger event becomes a "
        "dead letter.",
    )
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="How to log in: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."
    )
    user: str | None = Field(default=None, description="The user to log in as.")
    password: Secret | None = Field(default=None, description="The user's password; prefer ${NAME} to it.")
    password_file: SecretFile | None = Field(default=None, description="A file with the password.")
    tls: TlsSettings | None = Field(
        default=None, description="Certificates for TLS; {} for TLS with the system's authorities."
    )
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed as targets although they are not public."
    )
    timeout: Annotated[Duration, duration_between("3s", "1h")] = Field(
        default=30.0, description="How long one delivery may take before it counts as failed; 3s or more."
    )
    concurrency: int = Field(default=2, ge=1, le=256, description="The most batches at once.")
    batch: KafkaBatch = Field(default=KafkaBatch(), description="How events are put into batches.")

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise wrong("does not go with password: remove one", at="password_file")
        given = [self.sasl, self.user, self.password or self.password_file]
        if any(given) and not all(given):
            raise wrong("sasl needs a user, and password or password_file, and they need sasl", at="sasl")
        return self


def options(settings: KafkaSettings) -> dict[str, Option]:
    """The library's options for connecting."""
    found: dict[str, Option] = {
        "bootstrap.servers": ",".join(settings.servers),
        "client.id": "poller",
        "socket.keepalive.enable": "true",
        "socket.connection.setup.timeout.ms": int(CONNECT_WITHIN * 1000),
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
    }
    if settings.tls is not None:
        files: Mapping[str, Path | None] = {
            "ssl.ca.location": settings.tls.ca_file,
            "ssl.certificate.location": settings.tls.cert_file,
            "ssl.key.location": settings.tls.key_file,
        }
        found |= {name: str(file) for name, file in files.items() if file is not None}
    password = settings.password or settings.password_file
    if settings.sasl is not None and settings.user is not None and password is not None:
        found |= {"sasl.mechanism": settings.sasl, "sasl.username": settings.user}
        found["sasl.password"] = password.get_secret_value()
    words = [*(["SASL"] if settings.sasl else []), "PLAINTEXT" if settings.tls is None else "SSL"]
    return {**found, "security.protocol": "_".join(words)}


def producer_options(settings: KafkaSettings) -> dict[str, Option]:
    """The library's options for producing."""
    return {
        **options(settings),
        "acks": "all",
        "enable.idempotence": "true",
        "partitioner": "murmur2_random",  # the same partition for a key as the Java client's
        "linger.ms": 1,
        "message.timeout.ms": int((settings.timeout - LAST_MOMENT) * 1000),
        "topic.metadata.propagation.max.ms": 1000,
        "message.max.bytes": settings.max_message_bytes,
        "batch.size": settings.max_message_bytes,
    }


# ---------------------------------------------------------------- the sink


class Kafka(Sink, ChecksDestination):
    """Publishes events over one producer, which the first delivery opens, and a delivery after a fatal error again."""

    Settings = KafkaSettings

    def __init__(self, name: str, settings: KafkaSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._connecting = asyncio.Lock()
        self._producer: _Producer | None = None

    async def __aenter__(self) -> Self:
        try:
            ssl_context(self._settings.tls)
        except OSError as error:
            text = f"sinks.{self.name}.tls: not usable PEM files, or an encrypted key ({error.strerror})"
            raise BadConfiguration([text]) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._producer is not None:
            await self._producer.close()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. Asks for permissions and settings; no message is sent."""
        producer = await self._connected()
        return await asyncio.to_thread(_flaws, self._settings, producer.topics)

    async def deliver(self, batch: Batch) -> None:
        """Send the batch and wait for every confirmation; raises `PartlyFailed` for those that failed."""
        producer = await self._connected()
        bodies = messages(batch.events, self._settings.mode, "ce_")
        found = [
            _Message(event, fill_in(self._settings.topic, event, UNSAFE), list(headers.items()), body)
            for event, (headers, body) in zip(batch.events, bodies, strict=True)
        ]
        failures = await producer.send(found)
        suspects = [one for one in found if failures.get(one.event.id) in TOO_LARGE]
        if len(suspects) > 1:  # a request is refused whole: only alone does each one show its size
            for one in suspects:
                del failures[one.event.id]
                failures |= await producer.send([one])
        raise_for(batch, {id: _refusal(code) for id, code in failures.items()})

    async def _connected(self) -> "_Producer":
        async with self._connecting:
            if self._producer is not None and self._producer.fatal:
                await self._producer.close()
                self._producer = None
            if self._producer is None or self._producer.lost:
                await check_hosts(
                    self._resolver, self._guard, [place_of(one) for one in self._settings.servers]
                )
            if self._producer is None:
                self._producer = _Producer(producer_options(self._settings))
            if self._producer.lost:
                await check_hosts(self._resolver, self._guard, await self._producer.find_brokers())
                self._producer.lost = False
            return self._producer


class _Message(NamedTuple):
    """An event as a message."""

    event: Event
    topic: str
    headers: list[tuple[str, str | bytes | None]]
    body: bytes


class _Reports:
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


class _Producer:
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
        producer = Producer({**options, "error_cb": self._note_error, "logger": _silent()})
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
                code = self._explanation or _code(error)
            if self._explanation:
                break
        if found is None:
            raise TryLater(f"cannot connect: {_refusal(code).reason}")
        self.topics = frozenset(found.topics)
        return [(str(broker.host), int(broker.port)) for broker in found.brokers.values()]

    async def send(self, found: Sequence[_Message]) -> dict[str, int]:
        """Send messages and wait for their reports; returns the codes of those that failed."""
        if self._producer is None:  # another delivery has closed it after a fatal error
            return {one.event.id: self._explained(KafkaError._FATAL) for one in found}
        reports = _Reports(len(found))
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
        return {id: self._explained(code) for id, code in failures.items()}

    def _explained(self, code: int) -> int:
        """The code of the error behind a code; a fatal error ends all messages with codes that say nothing."""
        return self._explanation or code if code in AFTER_FATAL else code

    async def close(self) -> None:
        """Forget what is not confirmed, and end the threads."""
        self._ending.set()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """The library's producer knows this object by `error_cb`: a circle, which would keep threads and connections
        until some collection of garbage. Its end waits for its threads."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(blocking=False)
            self._thread.join()
            producer.flush(0)


def _silent() -> logging.Logger:
    """Takes the library's own lines, which would go to stderr. The errors themselves are reported here."""
    return logging.Logger("kafka", logging.CRITICAL + 1)  # noqa: LOG001 - it is nobody's child, and its lines end here


# ---------------------------------------------------------------- answers


def _code(error: KafkaException) -> int:
    return int(error.args[0].code()) if error.args and isinstance(error.args[0], KafkaError) else 0


def _refusal(code: int) -> SinkError:
    """The error for a code. The library's own text may hold more than an operator wants to see in a log."""
    if code in TOO_LARGE:
        return Rejected("the message is larger than max_message_bytes, or than the topic allows")
    if code == KafkaError.INVALID_RECORD:
        return Rejected("the topic refuses the message as invalid")
    if code == KafkaError.TOPIC_EXCEPTION:
        return Rejected("a topic cannot have the name that the event gives it")
    known: Mapping[frozenset[int], str] = {
        NO_TOPIC: "there is no such topic",
        NO_PERMISSION: "this user may not write to the topic",
        NO_LOGIN: LOGIN_REFUSED,
        frozenset(
            {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT}
        ): "no server answers",
        frozenset({KafkaError._MSG_TIMED_OUT}): "no confirmation in time",
        frozenset({KafkaError._SSL}): "TLS fails: check the certificates",
    }
    return TryLater(next((text for codes, text in known.items() if code in codes), KafkaError(code).name()))


# ---------------------------------------------------------------- the check


def _flaws(settings: KafkaSettings, topics: frozenset[str]) -> list[str]:
    """What is wrong with the topics that the template can name. Blocks."""
    pattern = re.compile(re.sub(r"\\\{\w+\\\}", "[A-Za-z0-9._-]+", re.escape(settings.topic)))
    names = sorted(topic for topic in topics if pattern.fullmatch(topic))
    if not names and "{" in settings.topic:
        return [f"no topic matches {settings.topic}"]
    admin = AdminClient(options(settings), logger=_silent())
    return [text for name in names or [settings.topic] for text in _flaws_of(admin, name, settings)]


def _flaws_of(admin: AdminClient, topic: str, settings: KafkaSettings) -> Iterator[str]:
    asked: Any = admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=CONNECT_WITHIN
    )
    try:
        about = asked[topic].result()
    except KafkaException as error:
        yield f"topic {topic}: {_refusal(_code(error)).reason}"
        return
    if about.authorized_operations is not None and WRITES.isdisjoint(about.authorized_operations):
        yield f"topic {topic}: this user may not write to the topic"
    least = settings.min_insync_replicas
    if (copies := min(len(one.replicas) for one in about.partitions)) < least:
        yield f"topic {topic} has {copies} replica(s), fewer than min_insync_replicas: {least}"
    yield from _promises_less(admin, topic, least)


def _promises_less(admin: AdminClient, topic: str, least: int) -> Iterator[str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    asked: Any = admin.describe_configs([resource], request_timeout=CONNECT_WITHIN)
    try:
        given = int(asked[resource].result()["min.insync.replicas"].value)
    except KafkaException as error:
        reason = KafkaError(_code(error)).name()
        yield f"topic {topic}: its min.insync.replicas cannot be read ({reason})"
        return
    if given < least:
        yield f"topic {topic} confirms a message once min.insync.replicas: {given} of its replicas have it"
