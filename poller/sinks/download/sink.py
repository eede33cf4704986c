"""The sink `download`: fetches the pictures of a batch together, checks them, and stores them durably."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

import msgspec

from poller.core.errors import PartlyFailed, SinkError, TryLater
from poller.core.model import Batch, Event
from poller.core.ports import Sink, StoresFiles
from poller.qcloud.pictures.fetch import Arrived, Fetcher, HostTrouble, Memory
from poller.qcloud.pictures.hosts import HostList, Target, host_list, vet
from poller.qcloud.pictures.transfers import Transfers
from poller.runtime.outbound import AddressGuard
from poller.sinks.download.folders import read_below
from poller.sinks.download.paths import Layout, PicturePath, parse_template
from poller.sinks.download.settings import DownloadSettings
from poller.sinks.download.store import File, PathTrouble, Store

P = ParamSpec("P")
T = TypeVar("T")

LEAST_MEMORY = 64 * 2**20
LONGEST_FETCH = 60.0
LONGEST_COMMON_WAIT = 60.0
"""The longest wait, in seconds, that one picture can ask for on behalf of a batch whose pictures all failed."""
SHARE_OF_TIMEOUT = 0.75
"""The part of the timeout for fetching. A slow picture fails alone, and there is time to store the others."""


class HasPictureHosts(Protocol):
    """The part of an account that the sink uses."""

    @property
    def picture_hosts(self) -> frozenset[str]: ...


class Download(Sink, StoresFiles):
    """Stores pictures below a directory. An event that is delivered again gets the same file."""

    Settings = DownloadSettings

    def __init__(
        self, name: str, settings: DownloadSettings, accounts: Mapping[str, HasPictureHosts]
    ) -> None:
        self.name = name
        self._settings = settings
        own = frozenset((host, None) for account in accounts.values() for host in account.picture_hosts)
        given = settings.allow_hosts
        self._hosts = HostList(exact=own) if given is None else host_list(given)
        self._layout = Layout(parts=parse_template(settings.template), lone=len(accounts) <= 1)
        self._memory = Memory(max(LEAST_MEMORY, 4 * settings.max_bytes))
        self._store = Store(settings.directory)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        async with AsyncExitStack() as opening:
            self._threads = ThreadPoolExecutor(settings.concurrency, f"download-{self.name}")
            opening.push_async_callback(asyncio.to_thread, self._close_store)
            # of its own, so that who looks at pictures never waits for a delivery, and no delivery for them
            self._reader = ThreadPoolExecutor(1, f"read-{self.name}")
            opening.callback(self._reader.shutdown, wait=False)
            await self._in_thread(self._store.open)
            transfers = Transfers(
                AddressGuard(settings.allow_cidr),
                per_host=settings.per_host,
                timeout=min(LONGEST_FETCH, SHARE_OF_TIMEOUT * settings.timeout),
            )
            self._fetcher = Fetcher(
                await opening.enter_async_context(transfers),
                max_bytes=settings.max_bytes,
                max_pixels=settings.max_pixels,
            )
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._open.aclose()

    async def deliver(self, batch: Batch) -> None:
        """Store the pictures of all events; returns when all of them are durable, at the directory's path.

        Raises a `SinkError`, `PartlyFailed` for some of them. May be cancelled: the thread that stores
        pictures goes on to its end, so that every picture is whole. May be repeated.
        """
        await self._in_thread(self._store.look)
        events = batch.events
        failures: dict[str, SinkError] = {}
        wanted: list[tuple[Event, Target]] = []
        for event in events:
            try:
                wanted.append((event, vet(event.url, self._hosts)))
            except SinkError as error:
                failures[event.id] = error
        with self._memory.leases(len(wanted)) as leases:
            found = await self._fetcher.fetch(wanted, leases)
            arrived: list[tuple[Event, Target, Arrived]] = []
            for (event, target), came in zip(wanted, found, strict=True):
                if isinstance(came, SinkError):
                    failures[event.id] = came
                else:
                    arrived.append((event, target, came))
            if arrived:
                failures |= await self._in_thread(self._keep, arrived)
        _report(failures, events)

    def path_of(self, event: Event) -> Path | None:
        """See `StoresFiles.path_of`."""
        place = self._place_of(event)
        return None if place is None else self._settings.directory.joinpath(*place.folders, place.name)

    async def read_file(self, event: Event) -> bytes | None:
        """See `StoresFiles.read_file`."""
        place = self._place_of(event)
        if place is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(
            self._reader,
            read_below,
            *(self._settings.directory, place.folders, place.name, self._settings.max_bytes),
        )

    def _place_of(self, event: Event) -> PicturePath | None:
        try:
            target = vet(event.url, self._hosts)
        except SinkError:
            return None
        return self._layout_here().place(event, target.path)

    def _layout_here(self) -> Layout:
        return msgspec.structs.replace(self._layout, folds=self._store.folds)

    def _keep(self, arrived: Sequence[tuple[Event, Target, Arrived]]) -> dict[str, SinkError]:
        failures: dict[str, SinkError] = {}
        files: list[File] = []
        layout = self._layout_here()
        for event, target, came in arrived:
            try:
                picture = came.picture()
            except SinkError as error:
                failures[event.id] = error
            else:
                files += self._files(event, layout.place(event, target.path), picture)
        return failures | self._store.keep(files)

    def _files(self, event: Event, place: PicturePath, picture: bytes) -> list[File]:
        # the sidecar is stored first, so that a picture never lacks its sidecar
        contents = {place.name: picture}
        if self._settings.sidecar:
            contents = {f"{place.name}.json": event.encoded + b"\n", **contents}
        return [
            File(
                event_id=event.id,
                folders=place.folders,
                name=name,
                content=content,
                at=event.occurred_at,
            )
            for name, content in contents.items()
        ]

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    def _close_store(self) -> None:
        # the thread of a cancelled delivery may still use the descriptors of the store: wait for it
        self._threads.shutdown()
        self._store.close()


def _report(failures: Mapping[str, SinkError], events: Sequence[Event]) -> None:
    """Raise the error of a batch: none, `PartlyFailed`, or `TryLater` if all events failed for a common reason.

    A long wait that a single picture asks for does not apply to the others.
    """
    troubles = [error for error in failures.values() if isinstance(error, HostTrouble | PathTrouble)]
    if troubles and len(troubles) == len({event.id for event in events}):
        waits = {error.after for error in troubles}
        longest = max([wait for wait in waits if wait is not None], default=None)
        if longest is None or longest <= LONGEST_COMMON_WAIT or len(waits) == 1:
            raise TryLater(troubles[0].reason, after=longest)
    if failures:
        raise PartlyFailed(failures)
