"""The sink `download`: fetches the pictures of a batch together, checks them, and stores them durably."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import msgspec

from poller.core.errors import SinkError
from poller.core.model import Batch, Event
from poller.core.ports import Sink, StoresFiles
from poller.qcloud.pictures.fetch import Arrived
from poller.qcloud.pictures.hosts import Target, vet
from poller.sinks.download.folders import read_below
from poller.sinks.download.settings import DownloadSettings
from poller.sinks.download.store import File, Store
from poller.sinks.picture_paths import Layout, PicturePath, parse_template
from poller.sinks.pictures import HasPictureHosts, PictureSource, report

P = ParamSpec("P")
T = TypeVar("T")


class Download(Sink, StoresFiles):
    """Stores pictures below a directory. An event that is delivered again gets the same file."""

    Settings = DownloadSettings

    def __init__(
        self, name: str, settings: DownloadSettings, accounts: Mapping[str, HasPictureHosts]
    ) -> None:
        self.name = name
        self._settings = settings
        self._layout = Layout(parts=parse_template(settings.template), lone=len(accounts) <= 1)
        self._source = PictureSource(settings, accounts)
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
            await opening.enter_async_context(self._source)
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
        async with self._source.fetch(batch.events) as fetched:
            failures = fetched.failures
            if fetched.arrived:
                failures |= await self._in_thread(self._keep, fetched.arrived)
        report(failures, batch.events)

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
            target = vet(event.url, self._source.hosts)
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
