"""One picture over HTTP: bounded in bytes, in memory and in time, never followed elsewhere."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import aiohttp

from poller.errors import Rejected, TryLater
from poller.model import Event
from poller.outbound import reason, wait_seconds
from poller.sinks.download.hosts import Target
from poller.sinks.download.pictures import check_checksum, check_picture

UPLOAD = timedelta(seconds=15)
"""Within so much of the shot a picture is uploaded (the 2016 v1.1 document)."""
MARGIN = timedelta(seconds=30)
NOT_YET = 2.0
"""Seconds until a picture is asked for again that is not there yet."""
FAR_AHEAD = timedelta(hours=1)
CHECKSUM = "x-cos-hash-crc64ecma"
BUSY = frozenset({408, 425, 429})


class HostTrouble(TryLater):
    """The host did not serve; if that befell a whole batch, it is about the host and not about a picture."""


class Memory:
    """How many bytes of pictures may be held at once; who finds no room comes again later."""

    def __init__(self, size: int) -> None:
        self._free = size

    @contextmanager
    def lease(self) -> Iterator["Lease"]:
        """What one batch holds; given back at the end."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.give_back()

    def take(self, size: int) -> None:
        """Take so many bytes, or raise `TryLater`: nobody waits, so no two can wait for each other."""
        if size > self._free:
            raise TryLater("too many large pictures at once", after=NOT_YET)
        self._free -= size

    def give(self, size: int) -> None:
        """Give so many bytes back."""
        self._free += size


class Lease:
    """Some of the memory."""

    def __init__(self, memory: Memory) -> None:
        self.taken = 0
        self._memory = memory

    def take(self, size: int) -> None:
        """Take so many bytes more; for less than one nothing happens."""
        if size > 0:
            self._memory.take(size)
            self.taken += size

    def give_back(self) -> None:
        """Give back all that was taken."""
        self._memory.give(self.taken)
        self.taken = 0

    @contextmanager
    def share(self) -> Iterator["Lease"]:
        """What one picture takes: the batch's if all goes well, else given back at once, for the others."""
        share = Lease(self._memory)
        try:
            yield share
            self.taken, share.taken = self.taken + share.taken, 0
        finally:
            share.give_back()


class Fetcher:
    """Gets pictures through a session that itself adds nothing and guards its connects."""

    def __init__(
        self, session: aiohttp.ClientSession, *, max_bytes: int, max_pixels: int, timeout: float
    ) -> None:
        self._session = session
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._timeout = timeout

    async def fetch(self, event: Event, target: Target, lease: Lease, now: datetime) -> bytes:
        """The picture, whole and checked; raises `TryLater` or `Rejected`, whose texts name only the host."""
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.get(target.url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise refusal(response, event, now)
                body = await self._body(response, lease)
        except TimeoutError:
            raise HostTrouble(f"{target.host}: timed out") from None
        except (aiohttp.ClientError, OSError) as error:
            raise HostTrouble(f"{target.host}: {reason(error)}") from None
        except ValueError:  # what the client finds wrong with a URL only when it connects
            raise Rejected("not a URL that can be fetched") from None
        check_picture(body, max_pixels=self._max_pixels)
        check_checksum(body, response.headers.get(CHECKSUM))
        return body

    async def _body(self, response: aiohttp.ClientResponse, lease: Lease) -> bytes:
        # Pictures do not compress; what was compressed all the same could be a bomb.
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise TryLater("the picture came compressed, which was not asked for")
        length = response.content_length
        if length is not None and length > self._max_bytes:
            raise Rejected(f"the picture has {length} bytes; max_bytes is {self._max_bytes}")
        with lease.share() as share:
            share.take(length or 0)
            pieces, size = [], 0
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > self._max_bytes:
                    raise TryLater(f"the picture does not end within max_bytes ({self._max_bytes})")
                share.take(size - share.taken)
                pieces.append(piece)
            if length is not None and size != length:
                raise TryLater(f"{size} bytes came, {length} were announced")
            return b"".join(pieces)


def refusal(response: aiohttp.ClientResponse, event: Event, now: datetime) -> TryLater | Rejected:
    """What a status other than 200 means for one picture."""
    status = response.status
    if status in {403, 404, 410} and now < expected_by(event):
        return TryLater(f"HTTP {status}: not there yet", after=NOT_YET)
    if status in {404, 410}:
        return Rejected(f"HTTP {status}: not there, {(UPLOAD + MARGIN).seconds} s after the shot or later")
    if 300 <= status < 400:
        return TryLater(f"HTTP {status}: redirect refused")
    if status >= 500 or status in BUSY:
        return HostTrouble(f"HTTP {status}", after=wait_seconds(response.headers.get("Retry-After", ""), now))
    return TryLater(f"HTTP {status}")


def expected_by(event: Event) -> datetime:
    """When the picture is there, unless it never will be.

    A shot that claims to be far in the future has a wrong clock, and must not be asked for until then.
    """
    shot = event.occurred_at
    latest = shot if event.received_at < shot <= event.received_at + FAR_AHEAD else event.received_at
    return latest + UPLOAD + MARGIN
