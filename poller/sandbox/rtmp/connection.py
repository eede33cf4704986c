"""One connection: its socket, its deadline, its share of memory, and why it ended."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from typing import cast

from poller.sandbox.rtmp import commands
from poller.sandbox.rtmp.handshake import Handshake
from poller.sandbox.rtmp.messages import Malformed
from poller.sandbox.rtmp.publish_handler import PublishHandler
from poller.sandbox.rtmp.session import Session

MAX_REPLIES = 64 * 1024
"""Bytes of replies that may wait for a peer that does not read; as many again in the kernel."""
OWN = 1024 * 1024
"""Bytes of unfinished messages that each connection may hold."""
SHARED = 64 * 1024 * 1024
"""Bytes beyond OWN that all connections of a server together may hold."""

_PROGRESS = 4096
"""Bytes that are a sign of life even if they finish no message."""
_LINGER = 2.0
"""Seconds a refused peer has to read why: closing while its bytes lie unread would destroy the reply."""
_ACKNOWLEDGE_AFTER = 0.02
"""Seconds from a full window to its acknowledgement."""
_GRACE = 0.05
"""Seconds from a deadline to the verdict: had our own loop stood still, the sockets are read first."""

_log = logging.getLogger("poller.sandbox")


class Common:
    """The state that all connections of one server share."""

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self.connections = set[Connection]()
        self.stopping = False
        """Whether new ones are turned away."""
        self.empty = asyncio.Event()
        """Set whenever the last one ends."""
        self.refused = 0
        self.broken = 0
        self.taken = 0
        """Bytes of SHARED that are held."""


class Connection(asyncio.Protocol):
    """One connection to the port. No method raises, whatever the other side sends."""

    def __init__(self, handler: PublishHandler, silence: float, common: Common) -> None:
        self._handler = handler
        self._silence = silence
        self._common = common
        self._loop = asyncio.get_running_loop()
        self._handshake = Handshake()
        self._why = ""
        """Why we ended it, if it was us."""
        self._received = self._acknowledged = 0
        self._heard = self._loop.time()
        self._unproductive = 0
        """Bytes since the last sign of life."""
        self._taken = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._acknowledgement: asyncio.TimerHandle | None = None
        self._session: Session
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_REPLIES)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REPLIES)
        name = transport.get_extra_info("peername") or ("?", 0)
        self._session = Session(
            self._handler,
            f"{name[0]}:{name[1]}",
            send=self._send,
            leave=self._leave,
            drop=self.drop,
            quiet=self.quiet,
        )
        if self._common.stopping or len(self._common.connections) >= self._common.max_connections:
            self._common.refused += 1
            self.drop("refused")
            return
        self._common.connections.add(self)
        self._deadline = self._loop.time() + self._silence
        self._timer = self._loop.call_at(self._deadline, self._check)

    def data_received(self, data: bytes) -> None:
        if self._session.over:
            return
        self._received += len(data)
        self._heard = self._loop.time()
        self._unproductive += len(data)
        was_live = self._session.live
        try:
            messages = self._feed(data)
        except Malformed as error:
            self._break(str(error))
            return
        self._expect_acknowledgement()
        self._account()
        if messages or self._unproductive >= _PROGRESS:
            self._unproductive = 0
            if (was_live or self._session.live) and not self._session.over:
                self._deadline = self._loop.time() + self._silence

    def eof_received(self) -> None:
        self._why = self._why or "closed"

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._acknowledgement):
            if timer is not None:
                timer.cancel()
        self._common.taken -= self._taken
        self._common.connections.discard(self)
        if not self._common.connections:
            self._common.empty.set()
        self._session.over = True
        self._session.end(self._why or ("closed" if exc is None else "reset"))

    def pause_writing(self) -> None:
        self._break("replies are not read")

    def quiet(self) -> float:
        """Seconds for which nothing came; 0 where something waits to be read, because our own loop stood still."""
        alive = self._transport.is_closing() or is_drained(self._transport)
        return self._loop.time() - self._heard if alive else 0.0

    def drop(self, why: str) -> None:
        """Ends the connection at once; the push hears why a turn of the loop later."""
        self._session.over = True
        self._why = self._why or why
        self._transport.abort()

    def _feed(self, data: bytes) -> int:
        if self._handshake.rest is not None:
            return self._session.feed(data)
        self._send(self._handshake.feed(data))
        return self._session.feed(self._handshake.rest) if self._handshake.rest else 0

    def _send(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _leave(self, reply: bytes) -> None:
        self._common.refused += 1
        self._why = self._why or "broken"
        self._send(reply)
        if self._timer is not None and not self._transport.is_closing():
            self._transport.write_eof()
            self._timer.cancel()
            self._deadline = self._loop.time() + _LINGER
            self._timer = self._loop.call_at(self._deadline, self._check)

    def _break(self, what: str) -> None:
        if self._why:
            return
        self._common.broken += 1
        _log.log(logging.INFO if self._session.live else logging.DEBUG, "rtmp connection broken: %s", what)
        self.drop("broken")

    def _expect_acknowledgement(self) -> None:
        due = self._received - self._acknowledged >= self._session.window
        if due and self._acknowledgement is None:
            self._acknowledgement = self._loop.call_later(_ACKNOWLEDGE_AFTER, self._acknowledge)

    def _acknowledge(self) -> None:
        """Acknowledges the received bytes as soon as none are unread.

        A pusher that still sends does not wait for this. A pusher that has closed would answer with a reset, and its
        kernel would drop all bytes that it has not sent yet.
        """
        self._acknowledgement = None
        if self._session.over:
            return
        if not is_drained(self._transport):
            self._expect_acknowledgement()
            return
        self._acknowledged = self._received
        self._send(commands.acknowledgement(self._received))

    def _account(self) -> None:
        """Keeps the common memory bounded. A connection that needs more than is left is dropped."""
        taken = max(0, self._session.held - OWN)
        if taken != self._taken:
            self._common.taken += taken - self._taken
            self._taken = taken
            if self._common.taken > SHARED:
                self._break("the memory for unfinished messages is used up")

    def _check(self, again: bool = False) -> None:
        """Drops the connection at its deadline. Bytes that came since the timer was set have moved the deadline."""
        now = self._loop.time()
        if now < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check)
        elif not again:
            self._timer = self._loop.call_at(now + _GRACE, self._check, True)
        else:
            self.drop("silent")


def is_drained(transport: asyncio.Transport) -> bool:
    """Whether the peer is connected and the kernel has no unread bytes and no end from it."""
    if transport.is_closing():
        return False
    waiting = select.poll()
    waiting.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
    return not waiting.poll(0)
