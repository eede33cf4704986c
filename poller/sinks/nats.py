"""The sink `nats`: one message for each event, into a stream of NATS JetStream.

Delivered
    The stream has confirmed the message (`PubAck`). The server writes a confirmed message to its disk within two
    minutes, unless its `jetstream` block says `sync_interval: always`. A stream in memory is refused.

Twice
    `Nats-Msg-Id` is the event's id. Within the stream's duplicate window the server drops a repetition.

Facts about the server are from its documentation and its error list (`server/errors.json`, 2.10 and later).
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StorageType
from pydantic import AfterValidator, Field, model_validator

from poller.core.errors import BadConfiguration, Rejected, SinkError, TryLater
from poller.core.model import Batch, Event
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.outbound import AddressGuard, ssl_context
from poller.runtime.resolver import Resolver
from poller.settings import BatchSettings, Cidr, Secret, SecretFile, SinkSettings, TlsSettings, wrong
from poller.sinks.brokers import (
    LOGIN_REFUSED,
    MODE_DESCRIPTION,
    Mode,
    Template,
    check_hosts,
    fill_in,
    header_value,
    messages,
    raise_for,
    server_parts,
    unreachable,
)

log = structlog.get_logger("sink")

PORT: Final = 4222
CONNECT_WITHIN: Final = 5.0
CLOSE_WITHIN: Final = 2.0
ALIVE_WITHIN: Final = 2
"""Seconds for a sign of life over a connection on which a delivery has waited in vain."""
UNSAFE: Final = re.compile(r"[\s.*>\x00-\x1f\x7f]")
"""What a token of a subject cannot hold."""
LONGEST_SUBJECT: Final = 3800
"""Bytes of a subject. A server ends the connection after a line of more than 4096, which the subject shares."""
_BARE: Final = 12
"""Bytes of the headers of a message without any."""
_EACH: Final = 4
"""Bytes of a header besides its name and its value."""
FULL: Final = frozenset({10023, 10047, 10077})
"""Error codes of a stream or server without room: insufficient resources, storage exceeded, maximum exceeded."""
NO_STREAM: Final = -1
"""Stands for an answer without a body: nobody listens to the subject."""
TOO_LARGE: Final = 10054
"""The error code of a message that is larger than the stream allows."""
OTHER_STREAM: Final = 10060
"""The error code of a message that is meant for another stream. The check asks for it: the message is not stored."""
_VIOLATION: Final = re.compile(r'permissions violation for (publish|subscription) to "(.*?)"', re.IGNORECASE)


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        parts = server_parts(server, form := "a server is written nats://host:4222, or tls://host:4222")
        if parts.scheme not in ("nats", "tls") or parts.path.strip("/"):
            raise wrong(form)
    return servers


def _subject(template: str) -> str:
    tokens = re.sub(r"\{\w+\}", "_", template).split(".")
    if template.startswith("$") or not all(tokens) or any(UNSAFE.search(token) for token in tokens):
        raise wrong(
            "a subject is words with dots between them, without blanks, * and >, and no $ at the start"
        )
    return template


class _Error(msgspec.Struct, frozen=True):
    err_code: int = 0


class _Confirmation(msgspec.Struct, frozen=True):
    """The server's answer to a message (`PubAck`), or its refusal."""

    stream: str = ""
    error: _Error | None = None


Sent = asyncio.Future[_Confirmation] | SinkError
"""A message's confirmation, or why it was not sent."""


class NatsBatch(BatchSettings):
    """How many events are sent before the confirmations are awaited."""

    max_events: int = Field(
        default=100, ge=1, le=1000, description="The most events in one batch, 1 to 1000."
    )


class NatsSettings(SinkSettings):
    """Settings of a sink of type `nats`."""

    servers: Annotated[tuple[str, ...], AfterValidator(_servers)] = Field(
        min_length=1,
        description="The servers of the cluster. The first one that answers is used.",
        examples=[["nats://nats-1.example.com:4222", "nats://nats-2.example.com:4222"]],
    )
    subject: Annotated[Template, AfterValidator(_subject)] = Field(
        default="live.{kind}.{stream}",
        description="The subject of a message, with {account}, {kind} and {stream}. In them, a blank . * > becomes _.",
    )
    mode: Mode = Field(default="structured", description=MODE_DESCRIPTION)
    synced: bool = Field(
        default=False,
        description="Says that the servers have sync_interval: always, so that a confirmed message survives a power "
        "cut. Without it, a warning is logged at the start.",
    )
    user: str | None = Field(default=None, description="The user to log in as.")
    password: Secret | None = Field(default=None, description="The user's password; prefer ${NAME} to it.")
    password_file: SecretFile | None = Field(default=None, description="A file with the password.")
    token: Secret | None = Field(
        default=None, description="Instead of a user: a token; prefer ${NAME} to it."
    )
    token_file: SecretFile | None = Field(default=None, description="A file with the token.")
    tls: TlsSettings | None = Field(default=None, description="Certificates for tls:// servers.")
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed as targets although they are not public."
    )
    concurrency: int = Field(default=2, ge=1, le=256, description="The most batches at once.")
    batch: NatsBatch = Field(default=NatsBatch(), description="How events are put into batches.")

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        given = [name for name in ("password", "password_file", "token", "token_file") if getattr(self, name)]
        if len(given) > 1:
            raise wrong(f"does not go with {given[0]}: remove one", at=given[1])
        if (self.user is None) != (self.password is None and self.password_file is None):
            raise wrong("a user needs password or password_file, and a password needs a user", at="user")
        return self

    def login(self) -> dict[str, str]:
        """The client's options that log in."""
        if (token := self.token or self.token_file) is not None:
            return {"token": token.get_secret_value()}
        if self.user is not None and (password := self.password or self.password_file) is not None:
            return {"user": self.user, "password": password.get_secret_value()}
        return {}


class Nats(Sink, ChecksDestination):
    """Publishes events, over one connection that the first delivery opens, and that a delivery opens again."""

    Settings = NatsSettings

    def __init__(self, name: str, settings: NatsSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        self._places = [
            (parts.hostname or "", parts.port or PORT) for parts in map(urlsplit, settings.servers)
        ]
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._connecting = asyncio.Lock()
        self._connection: _Connection | None = None

    async def __aenter__(self) -> Self:
        try:
            self._tls = ssl_context(self._settings.tls)
        except OSError as error:
            text = f"sinks.{self.name}.tls: not usable PEM files, or an encrypted key ({error.strerror})"
            raise BadConfiguration([text]) from None
        if not self._settings.synced:
            log.warning("nats_not_synced", sink=self.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. No message is published."""
        subject = re.sub(r"\{\w+\}", "_", self._settings.subject)
        connection = await self._connected()
        return [text] if (text := await connection.flaw(subject)) else []

    async def deliver(self, batch: Batch) -> None:
        """Publish the batch and wait for every confirmation; raises `PartlyFailed` for those that failed."""
        connection = await self._connected()
        named = messages(batch.events, self._settings.mode, "ce-")
        subjects = [fill_in(self._settings.subject, event, UNSAFE) for event in batch.events]
        try:
            sent = [
                await connection.send(event.id, subject, headers, body)
                for event, subject, (headers, body) in zip(batch.events, subjects, named, strict=True)
            ]
            failures = await connection.confirmations(batch.events, sent)
        except asyncio.CancelledError:
            connection.doubted = True
            raise
        raise_for(batch, failures)

    async def _connected(self) -> "_Connection":
        async with self._connecting:
            if self._connection is not None and self._connection.doubted:
                await self._connection.prove_alive()
            if self._connection is None or self._connection.lost.done():
                await check_hosts(self._resolver, self._guard, self._places)
                self._connection = await _connect(self._settings, self._tls)
            return self._connection


class _Connection:
    """A connection, and what was learned over it.

    lost:    done when it is closed, for whatever reason
    doubted: whether a delivery has waited in vain: packets may vanish, and the library would notice minutes later

    Confirmations are read here: the library's `publish_async` never reports some refusals.
    """

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.doubted = False
        self.client = Client()
        self._why_lost = "connection lost before the confirmation"
        self._may_ask = True
        """Whether this user may ask about streams. The server answers a forbidden question with an error of its own."""
        self._pending: dict[str, tuple[str, asyncio.Future[_Confirmation]]] = {}
        """The subject and the confirmation of each message, by the subject of the answer."""
        self._sent = 0
        self._durable: set[str] = set()
        """Streams that are known not to be in memory."""

    async def open(self) -> None:
        """Prepare for confirmations. The client must be connected."""
        self._jetstream = self.client.jetstream(timeout=CONNECT_WITHIN)
        self._inbox = self.client.new_inbox()
        await self.client.subscribe(f"{self._inbox}.*", cb=self._note)

    async def note_loss(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    async def note_error(self, error: Exception) -> None:
        """Take an error that the server sent by itself. A refused publication gets no other answer."""
        if (found := _VIOLATION.search(str(error))) is None:
            return
        kind, subject = (one.lower() for one in found.groups())
        if kind == "subscription":
            self._why_lost = "this user may not subscribe to _INBOX.>"
            await self.note_loss()
            return
        self._may_ask = self._may_ask and not subject.startswith("$js.api.")
        for named, confirmed in self._pending.values():
            if named.lower() == subject and not confirmed.done():  # the library makes all letters small
                confirmed.set_exception(TryLater("this user may not publish to the subject"))

    async def prove_alive(self) -> None:
        """Close the connection unless the server answers over it.

        It is closed too if the caller is cancelled: the library fails at an answer that nobody waits for.
        """
        try:
            await self.client.flush(ALIVE_WITHIN)
        except (nats.errors.Error, OSError):
            await self.close()
        except asyncio.CancelledError:
            await self.note_loss()
            self._closing = asyncio.create_task(self.close())  # a cancelled delivery does not wait for it
            raise
        self.doubted = False

    async def close(self) -> None:
        """Close without waiting for the server: `drain` of the library may take 30 seconds."""
        with suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await self.client.close()
        await self.note_loss()

    async def _note(self, message: Msg) -> None:
        _, confirmed = self._pending.pop(message.subject, ("", None))
        if confirmed is None or confirmed.done():
            return
        try:
            confirmed.set_result(_read(message.data) if message.data else _NO_STREAM)
        except msgspec.MsgspecError:
            confirmed.set_exception(TryLater("the server's confirmation cannot be read"))

    async def send(self, id: str, subject: str, headers: Mapping[str, str], body: bytes) -> Sent:
        """Send one message. Messages arrive in the order in which they are sent."""
        if len(subject.encode()) > LONGEST_SUBJECT:
            return Rejected(f"the subject is longer than {LONGEST_SUBJECT} bytes")
        plain = {"Nats-Msg-Id": id, **{name: header_value(value) for name, value in headers.items()}}
        size = len(body) + _BARE + sum(len(name) + len(value) + _EACH for name, value in plain.items())
        if size > self.client.max_payload:  # a server ends the connection of who sends more
            return Rejected(f"{size} bytes with headers; the server takes {self.client.max_payload}")
        self._sent += 1
        reply = f"{self._inbox}.{self._sent}"
        confirmed: asyncio.Future[_Confirmation] = asyncio.get_running_loop().create_future()
        self._pending[reply] = subject, confirmed
        try:
            await self.client.publish(subject, body, reply, headers=plain)
        except (nats.errors.Error, OSError) as error:
            del self._pending[reply]
            return _translate(error)
        return confirmed

    async def confirmations(self, events: Sequence[Event], sent: Sequence[Sent]) -> dict[str, SinkError]:
        """Wait for all confirmations; the errors of those that failed, by the event's id."""
        awaited = [one for one in sent if isinstance(one, asyncio.Future)]
        try:
            await self._all_or_lost(awaited)
        finally:
            self._forget(awaited)
        found = [await self._outcome(one) for one in sent]
        return {event.id: error for event, error in zip(events, found, strict=True) if error is not None}

    async def _all_or_lost(self, awaited: Sequence[asyncio.Future[_Confirmation]]) -> None:
        """Wait until all confirmations are there, or the connection is lost."""
        left: set[asyncio.Future[Any]] = {one for one in awaited if not one.done()}
        if left:
            confirmed = asyncio.ensure_future(asyncio.wait(left))
            waiting: set[asyncio.Future[Any]] = {confirmed, self.lost}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                confirmed.cancel()

    def _forget(self, awaited: Sequence[asyncio.Future[_Confirmation]]) -> None:
        """Drop the places of confirmations that nobody waits for any more."""
        for one in awaited:
            one.cancel()
        self._pending = {reply: one for reply, one in self._pending.items() if not one[1].done()}

    async def _outcome(self, sent: Sent) -> SinkError | None:
        if isinstance(sent, SinkError):
            return sent
        if sent.cancelled() or not sent.done():
            return TryLater(self._why_lost)
        if isinstance(error := sent.exception(), SinkError):
            return error
        confirmation = sent.result()
        if confirmation.error is not None:
            if confirmation.error.err_code == NO_STREAM:
                self._durable.clear()  # it may be made again, in memory
            return _refusal(confirmation.error.err_code)
        return await self._memory(confirmation.stream)

    async def _memory(self, stream: str) -> SinkError | None:
        """An error if a stream keeps its messages in memory. Asked once for each stream and connection."""
        if stream in self._durable or not self._may_ask:
            return None
        try:
            info = await self._jetstream.stream_info(stream)
        except nats.errors.Error:
            return None  # this user may not ask
        if info.config.storage == StorageType.MEMORY:
            return TryLater(f"stream {stream} keeps its messages in memory only: give it file storage")
        self._durable.add(stream)
        return None

    async def flaw(self, subject: str) -> str:
        """What is wrong with the stream that takes a subject; empty if nothing is."""
        if not self._may_ask:
            return await self._unwritable(subject)
        try:
            stream = await self._jetstream.find_stream_name_by_subject(subject)
        except nats.js.errors.NotFoundError:
            return f"no stream takes {subject}"
        except nats.errors.Error as error:
            if self._may_ask:
                return f"cannot ask for the stream of {subject}: {_translate(error).reason}"
            return await self._unwritable(subject)
        if (in_memory := await self._memory(stream)) is not None:
            return in_memory.reason
        return await self._unwritable(subject)

    async def _unwritable(self, subject: str) -> str:
        """Why this user cannot publish; empty if nothing hinders. The message asks for a stream that it is not for."""
        sent = await self.send("check", subject, {"Nats-Expected-Stream": "poller-check"}, b"")
        if isinstance(sent, SinkError):
            return sent.reason
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await self._all_or_lost([sent])
        except TimeoutError:
            return f"no answer from the stream of {subject}"
        finally:
            self._forget([sent])
        if not sent.cancelled() and sent.exception() is None and _code(sent.result()) == OTHER_STREAM:
            return ""
        error = await self._outcome(sent)
        return "" if error is None else f"cannot publish to {subject}: {error.reason}"


async def _connect(settings: NatsSettings, tls: object) -> _Connection:
    """Open a connection; raises `TryLater`. The library does not reconnect: the courier decides when to try again."""
    connection = _Connection()
    try:
        await connection.client.connect(
            list(settings.servers),
            allow_reconnect=False,
            max_reconnect_attempts=1,  # even so, the library tries each server twice at the start
            reconnect_time_wait=0,
            pending_size=0,  # else `publish` waits for room, and swallows a cancellation meanwhile
            closed_cb=connection.note_loss,
            error_cb=connection.note_error,
            connect_timeout=int(CONNECT_WITHIN),
            tls=tls,  # type: ignore[arg-type]
            **settings.login(),  # type: ignore[arg-type]
        )
        await connection.open()
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise TryLater(f"cannot connect: {_translate(error).reason}") from None
    return connection


def _translate(error: BaseException) -> SinkError:
    """The error of a connection or a question. A text of the library may hold a password, and is not passed on."""
    if isinstance(error, nats.js.errors.APIError):
        return _refusal(error.err_code or 0)
    if "authorization" in str(error).lower():  # the library has no class of its own for it
        return TryLater(LOGIN_REFUSED)
    known = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), type(error).__name__)
    return TryLater(unreachable(error) if isinstance(error, OSError) else known)


def _refusal(code: int) -> SinkError:
    if code == TOO_LARGE:
        return Rejected("the message is larger than the stream allows")
    if code == NO_STREAM:
        return TryLater("no stream takes the subject")
    return TryLater("the stream is full" if code in FULL else f"refused by the stream (error {code})")


def _code(confirmation: _Confirmation) -> int:
    """The code of a refusal; 0 for none."""
    return 0 if confirmation.error is None else confirmation.error.err_code


_read: Final = msgspec.json.Decoder(_Confirmation).decode
_NO_STREAM: Final = _Confirmation(error=_Error(err_code=NO_STREAM))
_REASONS: Final[Mapping[type[BaseException], str]] = {
    nats.errors.NoServersError: "no server answers",
    nats.errors.ConnectionClosedError: "connection closed",
}
