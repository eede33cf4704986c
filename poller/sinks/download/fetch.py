"""One picture over HTTP: bounded in bytes, in memory and in time, never followed elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

from poller.errors import Rejected, SinkError, TryLater
from poller.model import Event
from poller.outbound import wait_seconds
from poller.sinks.download.hosts import Target
from poller.sinks.download.pictures import check_checksum, check_picture
from poller.sinks.download.transfers import BadUrl, TransferFailed, Transfers

UPLOAD = timedelta(seconds=15)
"""Within so much of the shot a picture is uploaded (the 2016 v1.1 document)."""
MARGIN = timedelta(seconds=30)
NOT_YET = 2.0
"""Seconds until a picture is asked for again that is not there yet."""
FAR_AHEAD = timedelta(hours=1)
CHECKSUM = "x-cos-hash-crc64ecma"
LONGEST_REFUSAL = 64 * 2**10
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
    """Gets pictures, checks them, and says of each that fails whether it may heal."""

    def __init__(self, transfers: Transfers, *, max_bytes: int, max_pixels: int) -> None:
        self._transfers = transfers
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels

    async def fetch(self, event: Event, target: Target, lease: Lease, now: datetime) -> bytes:
        """The picture, whole and checked; raises `TryLater` or `Rejected`, whose texts name only the host."""
        with lease.share() as share:
            arriving = _Arriving(event, share, max_bytes=self._max_bytes, now=now)
            try:
                await self._transfers.get(target.url, arriving)
            except TimeoutError:
                raise HostTrouble(f"{target.host}: timed out") from None
            except TransferFailed as error:
                raise HostTrouble(f"{target.host}: {error}") from None
            except BadUrl:
                raise Rejected("not a URL that can be fetched") from None
            body = arriving.body()
            check_picture(body, max_pixels=self._max_pixels)
            check_checksum(body, arriving.checksum)
            return body


class _Arriving:
    """One picture on its way: what comes of it is held against the memory, what must not come ends it."""

    def __init__(self, event: Event, share: Lease, *, max_bytes: int, now: datetime) -> None:
        self.checksum: str | None = None
        self._event = event
        self._share = share
        self._max_bytes = max_bytes
        self._now = now
        self._refused: SinkError | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """Judge the head."""
        if status != 200:
            self._refused = refusal(status, headers.get("retry-after", ""), self._event, self._now)
            return
        # Pictures do not compress; what was compressed all the same could be a bomb.
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise TryLater("the picture came compressed, which was not asked for")
        if length is not None and length > self._max_bytes:
            raise Rejected(f"the picture has {length} bytes; max_bytes is {self._max_bytes}")
        self._share.take(length or 0)
        self.checksum = headers.get(CHECKSUM)

    def take(self, piece: bytes) -> None:
        """Keep some of the picture; of a refusal so much is thrown away as keeps the connection for the next."""
        self._size += len(piece)
        if self._refused is not None:
            if self._size > LONGEST_REFUSAL:
                raise self._refused
            return
        if self._size > self._max_bytes:
            raise TryLater(f"the picture does not end within max_bytes ({self._max_bytes})")
        self._share.take(self._size - self._share.taken)
        self._pieces.append(piece)

    def body(self) -> bytes:
        """All that came; raises what a refusal means."""
        if self._refused is not None:
            raise self._refused
        return b"".join(self._pieces)


def refusal(status: int, retry_after: str, event: Event, now: datetime) -> TryLater | Rejected:
    """What a status other than 200 means for one picture."""
    if status in {403, 404, 410} and now < expected_by(event):
        return TryLater(f"HTTP {status}: not there yet", after=NOT_YET)
    if status in {404, 410}:
        return Rejected(f"HTTP {status}: not there, {(UPLOAD + MARGIN).seconds} s after the shot or later")
    if 300 <= status < 400:
        return TryLater(f"HTTP {status}: redirect refused")
    if status >= 500 or status in BUSY:
        return HostTrouble(f"HTTP {status}", after=wait_seconds(retry_after, now))
    return TryLater(f"HTTP {status}")


def expected_by(event: Event) -> datetime:
    """When the picture is there, unless it never will be.

    A shot that claims to be far in the future has a wrong clock, and must not be asked for until then.
    """
    shot = event.occurred_at
    latest = shot if event.received_at < shot <= event.received_at + FAR_AHEAD else event.received_at
    return latest + UPLOAD + MARGIN
