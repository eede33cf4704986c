"""Fetches pictures over HTTP, with bounds on bytes, memory and time, and without following redirects."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Lock

from poller.core.errors import Rejected, SinkError, TryLater
from poller.core.model import Event
from poller.qcloud.pictures.handle import BadUrl
from poller.qcloud.pictures.hosts import Target
from poller.qcloud.pictures.jpeg import check_checksum, check_picture
from poller.qcloud.pictures.transfers import TransferRequest, Transfers
from poller.runtime.clock import Clock
from poller.runtime.outbound import wait_seconds

UPLOAD = timedelta(seconds=15)
"""The time within which a picture is uploaded after its shot (by the 2016 v1.1 document)."""
MARGIN = timedelta(seconds=30)
NOT_YET = 2.0
"""Seconds until the retry of a picture that is not uploaded yet."""
FAR_AHEAD = timedelta(hours=1)
WHOLE = frozenset({200, 203})
"""The statuses of a whole picture. 203 means that a proxy may have changed the head."""
START = b"\xff\xd8"
CHECKSUM = "x-cos-hash-crc64ecma"
LONGEST_REFUSAL = 64 * 2**10
BUSY = frozenset({408, 425, 429})


class HostTrouble(TryLater):
    """The host did not serve a picture. If that happens to a whole batch, the reason is the host, not a picture."""


class NotYet(TryLater):
    """The picture is not there, and may still be uploaded."""


class NotThere(Rejected):
    """The picture is not there, and will not be uploaded any more."""


class Memory:
    """The bytes that pictures may take in memory at once, over all threads. A picture without room is retried later."""

    def __init__(self, size: int) -> None:
        self.free = size
        self.lock = Lock()

    @contextmanager
    def leases(self, count: int) -> Iterator[list["Lease"]]:
        """A lease for each picture of a batch. Leaving the context gives them back."""
        leases = [Lease(self) for _ in range(count)]
        try:
            yield leases
        finally:
            for lease in leases:
                lease.give_back()


class Lease:
    """A picture's share of the memory."""

    def __init__(self, memory: Memory) -> None:
        self.taken = 0
        self._memory = memory
        self._ended = False

    def take(self, size: int) -> None:
        """Take more bytes, or raise `TryLater` at once. It never waits, so that leases cannot deadlock."""
        if size <= 0:
            return
        with self._memory.lock:
            if self._ended:
                raise TryLater("nobody waits for it any more")
            if size > self._memory.free:
                raise TryLater("too many large pictures at once", after=NOT_YET)
            self._memory.free -= size
            self.taken += size

    def give_back(self) -> None:
        """Give back all bytes. Later calls of `take` raise. May be repeated."""
        with self._memory.lock:
            self._ended = True
            self._memory.free += self.taken
            self.taken = 0


class Fetcher:
    """Gets pictures, and decides for each failure whether a retry may help."""

    def __init__(self, transfers: Transfers, *, max_bytes: int, max_pixels: int) -> None:
        self._transfers = transfers
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._clock = Clock()

    def _now(self, event: Event) -> datetime:
        """The time when the event was received, plus its age. So setting the clock does not make a picture late."""
        return event.received_at + timedelta(seconds=self._clock.age(event.received_at))

    async def fetch(
        self, wanted: Sequence[tuple[Event, Target]], leases: Sequence[Lease]
    ) -> list["Arrived | SinkError"]:
        """The result for each event: an answer that is still to be checked, or `TryLater` or `Rejected`.

        The texts of errors name only the host.
        """
        arriving = [
            Arrived(
                event, lease, max_bytes=self._max_bytes, max_pixels=self._max_pixels, now=self._now(event)
            )
            for (event, _), lease in zip(wanted, leases, strict=True)
        ]
        targets = [target for _, target in wanted]
        errors = await self._transfers.get(
            list(map(TransferRequest, [target.url for target in targets], arriving))
        )
        found: list[Arrived | SinkError] = []
        for target, lease, arrived, error in zip(targets, leases, arriving, errors, strict=True):
            if error is not None:
                lease.give_back()
            found.append(arrived if error is None else _failure(target.host, error))
        return found


def _failure(host: str, error: Exception) -> SinkError:
    match error:
        case SinkError():
            return error
        case TimeoutError():
            return HostTrouble(f"{host}: timed out")
        case BadUrl():
            return Rejected("not a URL that can be fetched")
        case _:
            return HostTrouble(f"{host}: {error}")


class Arrived:
    """An answer, while it arrives and later. Its bytes count against the memory. A bad answer ends the transfer."""

    def __init__(self, event: Event, lease: Lease, *, max_bytes: int, max_pixels: int, now: datetime) -> None:
        self._event = event
        self._lease = lease
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._now = now
        self._checksum: str | None = None
        self._coded = False
        self._refused: SinkError | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """Check the head; raises a `SinkError`."""
        if status not in WHOLE:
            self._refused = refusal(status, headers.get("retry-after", ""), self._event, self._now)
            return
        self._coded = headers.get("content-encoding", "identity").strip().lower() != "identity"
        if length is not None and length > self._max_bytes:
            raise Rejected(f"the picture has {length} bytes; max_bytes is {self._max_bytes}")
        self._lease.take(length or 0)
        self._checksum = headers.get(CHECKSUM)

    def take(self, piece: bytes) -> None:
        """Keep a piece of the picture. The body of a refusal is dropped, so that the connection can be reused."""
        self._size += len(piece)
        if self._refused is not None:
            if self._size > LONGEST_REFUSAL:
                raise self._refused
            return
        if self._size > self._max_bytes:
            raise TryLater(f"the picture does not end within max_bytes ({self._max_bytes})")
        self._lease.take(self._size - self._lease.taken)
        self._pieces.append(piece)
        if self._coded and self._size >= len(START):
            self._check_plain()

    def _check_plain(self) -> None:
        """Accept a plain picture with a wrong header. Refuse a compressed picture: it could be a decompression bomb."""
        self._coded = False
        if not b"".join(self._pieces).startswith(START):
            raise TryLater("the picture came compressed, which was not asked for")

    def picture(self) -> bytes:
        """The picture, whole and checked; raises `TryLater` or `Rejected`."""
        if self._refused is not None:
            raise self._refused
        body = b"".join(self._pieces)
        check_picture(body, max_pixels=self._max_pixels)
        check_checksum(body, self._checksum)
        return body


def refusal(status: int, retry_after: str, event: Event, now: datetime) -> TryLater | Rejected:
    """The error of a picture, for a status without a whole picture."""
    if status in {403, 404, 410} and now < upload_deadline(event):
        return NotYet(f"HTTP {status}: not there yet", after=NOT_YET)
    if status in {404, 410}:
        return NotThere(f"HTTP {status}: not there, {(UPLOAD + MARGIN).seconds} s after the shot or later")
    if 300 <= status < 400:
        return TryLater(f"HTTP {status}: redirect refused")
    if status >= 500 or status in BUSY:
        return HostTrouble(f"HTTP {status}", after=wait_seconds(retry_after, now))
    return TryLater(f"HTTP {status}")


def upload_deadline(event: Event) -> datetime:
    """The moment by which the picture is uploaded, unless it never will be.

    A shot that claims to be far in the future comes from a wrong clock. Its picture is not awaited until
    then.
    """
    shot = event.occurred_at
    latest = shot if event.received_at < shot <= event.received_at + FAR_AHEAD else event.received_at
    return latest + UPLOAD + MARGIN
