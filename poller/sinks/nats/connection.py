"""A connection, over which messages are confirmed."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StorageType

from poller.core.errors import Rejected, SinkError, TryLater
from poller.core.model import Event
from poller.sinks.brokers import header_value
from poller.sinks.nats.answers import (
    NO_STREAM,
    NOBODY_LISTENS,
    OTHER_STREAM,
    Confirmation,
    code_of,
    read_confirmation,
    refusal,
    translate,
)
from poller.sinks.nats.settings import NatsSettings
from poller.sinks.servers import ALIVE_WITHIN, CLOSE_WITHIN, CONNECT_WITHIN

_VIOLATION: Final = re.compile(r'permissions violation for (publish|subscription) to "(.*?)"', re.IGNORECASE)

Sent = asyncio.Future[Confirmation] | SinkError
"""A message's confirmation, or why it was not sent."""
LONGEST_SUBJECT: Final = 3800
"""Bytes of a subject. A server ends the connection after a line of more than 4096, which the subject shares."""
_BARE: Final = 12
"""Bytes of the headers of a message without any."""
_EACH: Final = 4
"""Bytes of a header besides its name and its value."""


class NatsConnection:
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
        self._pending: dict[str, tuple[str, asyncio.Future[Confirmation]]] = {}
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
        """Let all deliveries know that the connection is closed."""
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
            await self.client.flush(int(ALIVE_WITHIN))
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
            confirmed.set_result(read_confirmation(message.data) if message.data else NOBODY_LISTENS)
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
        confirmed: asyncio.Future[Confirmation] = asyncio.get_running_loop().create_future()
        self._pending[reply] = subject, confirmed
        try:
            await self.client.publish(subject, body, reply, headers=plain)
        except (nats.errors.Error, OSError) as error:
            del self._pending[reply]
            return translate(error)
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

    async def _all_or_lost(self, awaited: Sequence[asyncio.Future[Confirmation]]) -> None:
        """Wait until all confirmations are there, or the connection is lost."""
        left: set[asyncio.Future[Any]] = {one for one in awaited if not one.done()}
        if left:
            confirmed = asyncio.ensure_future(asyncio.wait(left))
            waiting: set[asyncio.Future[Any]] = {confirmed, self.lost}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                confirmed.cancel()

    def _forget(self, awaited: Sequence[asyncio.Future[Confirmation]]) -> None:
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
            return refusal(confirmation.error.err_code)
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
            return f"no stream takes {subject}: make one that does"
        except nats.errors.Error as error:
            if self._may_ask:
                return f"cannot ask for the stream of {subject}: {translate(error).reason}"
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
        if not sent.cancelled() and sent.exception() is None and code_of(sent.result()) == OTHER_STREAM:
            return ""
        error = await self._outcome(sent)
        return "" if error is None else f"cannot publish to {subject}: {error.reason}"


async def connect(settings: NatsSettings, tls: object) -> NatsConnection:
    """Open a connection; raises `TryLater`. The library does not reconnect: the courier decides when to try again."""
    connection = NatsConnection()
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
        raise TryLater(f"cannot connect: {translate(error).reason}") from None
    return connection
