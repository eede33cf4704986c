"""Bounds on what viewers take: open event streams, and tries to log in."""

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web

from poller.web.callers import SESSION
from poller.web.connections import Connection
from poller.web.errors import WebError

LARGEST_BODY: Final = 64 * 1024
MOST_STREAMS: Final = 64
MOST_STREAMS_EACH: Final = 8
"""Event streams of one session."""
MOST_TRIES_EACH: Final = 5
"""Failed logins of one address within `TRIES_PERIOD`."""
MOST_TRIES: Final = 60
"""Failed logins of all addresses together within `TRIES_PERIOD`."""
TRIES_PERIOD: Final = 60.0


class EventStreams:
    """The event streams that are open now.

    A handler keeps its stream inside `place`. The body of `place` ends early, without an error, when the client goes
    away, when the session ends, and when the listener closes.
    """

    def __init__(self, *, most: int = MOST_STREAMS, each: int = MOST_STREAMS_EACH) -> None:
        self._most = most
        self._each = each
        self._open: dict[asyncio.Timeout, str | None] = {}

    @asynccontextmanager
    async def place(self, request: web.Request) -> AsyncIterator[None]:
        """A place for one event stream. Raises `WebError` (503) if there is none."""
        session = request.get(SESSION)
        key = session.key if session is not None else None
        self._check(key)
        left = session.until - asyncio.get_running_loop().time() if session is not None else None
        calls = request.protocol.when_lost if isinstance(request.protocol, Connection) else set()
        limit = asyncio.timeout(left)
        lost = partial(_end, limit)
        self._open[limit] = key
        calls.add(lost)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            calls.discard(lost)
            self._open.pop(limit, None)

    def _check(self, key: str | None) -> None:
        if len(self._open) >= self._most:
            raise WebError(
                503, f"All {self._most} places for live pages are taken.", headers={"Retry-After": "10"}
            )
        if key is not None and Counter(self._open.values())[key] >= self._each:
            raise WebError(
                503,
                f"This login has {self._each} live pages open. Close one of them.",
                headers={"Retry-After": "10"},
            )

    def end_session(self, key: str) -> None:
        """End the streams of a session."""
        for limit in [limit for limit, owner in self._open.items() if owner == key]:
            del self._open[limit]
            _end(limit)

    async def close(self, app: web.Application) -> None:
        """End all streams; called when the application shuts down."""
        for limit in list(self._open):
            _end(limit)


EVENT_STREAMS: Final = web.AppKey("event_streams", EventStreams)


def _end(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(0.0)


class Tries:
    """Failed logins of the last minute, by address.

    Successful logins do not count. The bound for everybody together holds against many addresses, and bounds the
    memory; a guess at a token of 16 characters needs ages at sixty tries a minute.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failed: deque[tuple[float, str]] = deque(maxlen=MOST_TRIES)

    def wait(self, caller: str) -> int:
        """Whole seconds until this address may try again; 0 if it may now."""
        now = self._now()
        while self._failed and self._failed[0][0] <= now - TRIES_PERIOD:
            self._failed.popleft()
        own = [at for at, who in self._failed if who == caller]
        until = [own[-MOST_TRIES_EACH]] if len(own) >= MOST_TRIES_EACH else []
        until += [self._failed[0][0]] if len(self._failed) >= MOST_TRIES else []
        return math.ceil(max(until) + TRIES_PERIOD - now) if until else 0

    def fail(self, caller: str) -> None:
        """Count a failed login."""
        self._failed.append((self._now(), caller))
