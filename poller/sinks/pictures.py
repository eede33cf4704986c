"""What sinks share that keep pictures: their settings, and the fetching of a batch's pictures with all checks."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Annotated, ClassVar, Final, Protocol, Self

import msgspec
from pydantic import AfterValidator, Field

from poller.core.errors import PartlyFailed, SinkError, TryLater
from poller.core.model import Event
from poller.qcloud.pictures.fetch import Arrived, Fetcher, HostTrouble, Memory
from poller.qcloud.pictures.hosts import HostList, Target, host_list, vet
from poller.qcloud.pictures.transfers import Transfers
from poller.runtime.outbound import AddressGuard
from poller.settings import (
    BatchSettings,
    Cidr,
    Duration,
    Only,
    SinkSettings,
    Size,
    duration_between,
    size_between,
    wrong,
)
from poller.sinks.picture_paths import parse_template

LEAST_MEMORY: Final = 64 * 2**20
LONGEST_FETCH: Final = 60.0
LONGEST_COMMON_WAIT: Final = 60.0
"""The longest wait, in seconds, that one picture can ask for on behalf of a batch whose pictures all failed."""
SHARE_OF_TIMEOUT: Final = 0.75
"""The part of the timeout for fetching. A slow picture fails alone, and there is time to store the others."""


# ---------------------------------------------------------------- settings


def _template(text: str) -> str:
    try:
        parse_template(text)
    except ValueError as error:
        raise wrong(str(error)) from None
    return text


def _host(entry: str) -> str:
    try:
        host_list([entry])
    except ValueError as error:
        raise wrong(str(error)) from None
    return entry


Template = Annotated[str, AfterValidator(_template)]
"""The path of a picture, with placeholders."""
FIELDS: Final = (
    "{date} {hour} {time} (of the shot, UTC) {account} {kind} {stream} {name} {id}. "
    "It must contain {name} or {id}."
)


class PictureSettings(SinkSettings):
    """Which hosts pictures may come from, and how large they may be."""

    fetches_pictures: ClassVar[bool] = True

    allow_hosts: tuple[Annotated[str, AfterValidator(_host)], ...] | None = Field(
        default=None,
        description="Hosts that pictures may come from, such as *.example.com or 127.0.0.1:8080; "
        "by default the accounts' own picture hosts.",
    )
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed for pictures although they are not public."
    )
    max_bytes: Annotated[Size, size_between("1KiB", "1GiB")] = Field(
        default=20 * 2**20, description="The largest picture, 1KiB to 1GiB."
    )
    max_pixels: int = Field(
        default=50_000_000, ge=1, le=2**28, description="The most pixels, width times height."
    )
    per_host: int = Field(default=16, ge=1, le=256, description="The most connections to one host.")
    sidecar: bool = Field(
        default=False, description="Whether to store each event as NAME.json beside its picture."
    )
    only: Only | None = Field(
        default=Only(kinds=("screenshot",)),
        description="The events that this sink takes; only events with a picture can be stored.",
    )
    timeout: Annotated[Duration, duration_between("1ms", "1h")] = Field(
        default=120.0, description="How long one batch may take before it counts as failed."
    )
    concurrency: int = Field(default=2, ge=1, le=256, description="The most batches in hand at once.")
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=32), description="How many pictures are fetched and stored together."
    )


# ---------------------------------------------------------------- fetching


class HasPictureHosts(Protocol):
    """The part of an account that the sink uses."""

    @property
    def picture_hosts(self) -> frozenset[str]: ...


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """The pictures of a batch. `failures` has the error of each other event, by its id."""

    arrived: list[tuple[Event, Target, Arrived]]
    failures: dict[str, SinkError]


class PictureSource:
    """Fetches pictures from the hosts that are allowed. Enter it before `fetch`."""

    def __init__(self, settings: PictureSettings, accounts: Mapping[str, HasPictureHosts]) -> None:
        self._settings = settings
        own = frozenset((host, None) for account in accounts.values() for host in account.picture_hosts)
        given = settings.allow_hosts
        self.hosts = HostList(exact=own) if given is None else host_list(given)
        self._memory = Memory(max(LEAST_MEMORY, 4 * settings.max_bytes))
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        transfers = Transfers(
            AddressGuard(settings.allow_cidr),
            per_host=settings.per_host,
            timeout=min(LONGEST_FETCH, SHARE_OF_TIMEOUT * settings.timeout),
        )
        self._fetcher = Fetcher(
            await self._open.enter_async_context(transfers),
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._open.aclose()

    @asynccontextmanager
    async def fetch(self, events: Sequence[Event]) -> AsyncIterator[Fetched]:
        """The pictures of these events. Their memory is given back on leaving. May be cancelled."""
        failures: dict[str, SinkError] = {}
        wanted: list[tuple[Event, Target]] = []
        for event in events:
            try:
                wanted.append((event, vet(event.url, self.hosts)))
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
            yield Fetched(arrived=arrived, failures=failures)


class PlaceTrouble(TryLater):
    """The place for pictures failed. If that happens to a whole batch, the reason is the place, not a picture."""


def report(failures: Mapping[str, SinkError], events: Sequence[Event]) -> None:
    """Raise the error of a batch: none, `PartlyFailed`, or `TryLater` if all events failed for a common reason.

    A long wait that a single picture asks for does not apply to the others.
    """
    troubles = [error for error in failures.values() if isinstance(error, HostTrouble | PlaceTrouble)]
    if troubles and len(troubles) == len({event.id for event in events}):
        waits = {error.after for error in troubles}
        longest = max([wait for wait in waits if wait is not None], default=None)
        if longest is None or longest <= LONGEST_COMMON_WAIT or len(waits) == 1:
            raise TryLater(troubles[0].reason, after=longest)
    if failures:
        raise PartlyFailed(failures)
