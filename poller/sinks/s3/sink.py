"""The sink itself: fetches pictures, checks them, and stores them side by side."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from poller.core.errors import SinkError
from poller.core.model import Batch, Event
from poller.core.ports import ChecksDestination, Sink
from poller.qcloud.pictures.fetch import Arrived
from poller.qcloud.pictures.hosts import Target
from poller.runtime.daemon_threads import DaemonThreads
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.sinks.brokers import header_value
from poller.sinks.picture_paths import Layout, parse_template
from poller.sinks.pictures import HasPictureHosts, PictureSource, report
from poller.sinks.s3.cos_store import CosBucket
from poller.sinks.s3.settings import S3Settings
from poller.sinks.s3.store import NewObject, ObjectStore
from poller.sinks.servers import check_hosts

PICTURE: Final = "image/jpeg"
EVENT: Final = "application/cloudevents+json"
LONGEST_END: Final = 10.0
"""Seconds that a stop waits for requests to a store that does not answer."""
LONGEST_VALUE: Final = 600
"""Bytes of one value of metadata: stores take 2 KB in all. A longer value is cut."""


class S3(Sink, ChecksDestination):
    """Fetches and checks pictures as `download` does, and puts them into a bucket."""

    Settings = S3Settings

    def __init__(self, name: str, settings: S3Settings, accounts: Mapping[str, HasPictureHosts]) -> None:
        self.name = name
        self._settings = settings
        self._source = PictureSource(settings, accounts)
        self._layout = Layout(parts=parse_template(settings.template), lone=len(accounts) <= 1)
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._uploads = asyncio.Semaphore(settings.uploads)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._threads = DaemonThreads(self._settings.uploads, f"s3-{self.name}")
        self._open.push_async_callback(self._end_threads)
        self._store = self._connect()
        self._open.callback(self._store.close)
        await self._open.enter_async_context(self._source)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._open.aclose()

    async def _end_threads(self) -> None:
        """Leave the library's calls that do not return: a store that hangs must not hold up a stop."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._threads.end, LONGEST_END)

    def _connect(self) -> ObjectStore:
        if self._settings.signature == "cos":
            return CosBucket(self._settings, self._guard, self._resolver, self._threads)
        from poller.sinks.s3.s3_store import S3Bucket  # noqa: PLC0415 - its library is an extra

        return S3Bucket(self._settings, self._threads)

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. An object is stored and deleted again."""
        await self._check_address()
        key = f".poller-check-{secrets.token_hex(8)}"
        try:
            await self._store.put(NewObject.of(key, b"check", "text/plain"))
        except SinkError as error:
            return [error.reason]
        try:
            await self._store.delete(key)
        except SinkError:
            return [f"the key may not delete, so that the object {key} of this check is left"]
        return []

    async def deliver(self, batch: Batch) -> None:
        """Store the pictures of all events; raises a `SinkError`, `PartlyFailed` for some of them.

        May be cancelled and repeated: a picture that is being stored then is stored whole, or not at all.
        """
        await self._check_address()
        async with self._source.fetch(batch.events) as fetched:
            errors = await asyncio.gather(*(self._keep(*one) for one in fetched.arrived))
            failures = dict(fetched.failures)
        for (event, _, _), error in zip(fetched.arrived, errors, strict=True):
            if error is not None:
                failures[event.id] = error
        report(failures, batch.events)

    async def _check_address(self) -> None:
        place = self._settings.place()
        await check_hosts(self._resolver, self._guard, [(place.host, place.port)])

    async def _keep(self, event: Event, target: Target, arrived: Arrived) -> SinkError | None:
        """Store one picture; the sidecar first, so that a picture never lacks it."""
        loop = asyncio.get_running_loop()
        async with self._uploads:
            try:
                picture = await loop.run_in_executor(self._threads, self._prepare, event, target, arrived)
                if self._settings.sidecar:
                    line = event.encoded + b"\n"
                    await self._store.put(NewObject.of(f"{picture.key}.json", line, EVENT))
                await self._store.put(picture)
            except SinkError as error:
                return error
        return None

    def _prepare(self, event: Event, target: Target, arrived: Arrived) -> NewObject:
        """Check a picture, and make an object of it. Runs in a thread. Raises a `SinkError`."""
        content = arrived.picture()
        place = self._layout.place(event, target.path)
        return NewObject.of("/".join((*place.folders, place.name)), content, PICTURE, _metadata(event))


def _metadata(event: Event) -> dict[str, str]:
    """What the store keeps beside a picture, as `x-amz-meta-…` or `x-cos-meta-…`."""
    return {
        "id": event.id,
        "account": _value(event.account),
        "stream": _value(event.stream_id),
        "time": event.occurred_at.isoformat(),
    }


def _value(text: str) -> str:
    """A value in printable ASCII, which is cut behind one of its characters where it is too long."""
    while len(value := header_value(text)) > LONGEST_VALUE:
        text = text[: min(len(text) - 1, LONGEST_VALUE)]
    return value
