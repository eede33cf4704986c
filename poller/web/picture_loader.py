"""Gets the picture of an event: from a sink that stores files, else from its host.

Invariants
    Only hosts of the event's account are asked, at public addresses or those of `allow_cidr`, and redirects are not
    followed. Everything that is returned is a whole JPEG.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import structlog

from poller.core.errors import PollerError, SinkError, StorageError
from poller.core.model import Event
from poller.core.selection import ALL_EVENTS
from poller.operations.operator_context import OperatorContext
from poller.qcloud.pictures.fetch import Fetcher, Memory, NotThere, NotYet
from poller.qcloud.pictures.hosts import HostList, Target, vet
from poller.qcloud.pictures.jpeg import check_picture
from poller.qcloud.pictures.transfers import Transfers
from poller.runtime.addresses import Network
from poller.runtime.outbound import AddressGuard
from poller.web.picture_cache import NoPicture, Picture

log = structlog.get_logger("web")

AT_ONCE: Final = 8
"""The most pictures that are read or fetched at once."""
LARGEST_FETCHED: Final = 2**20
MOST_PIXELS: Final = 50_000_000
WITHIN: Final = 5.0
"""Seconds for a fetch, and for the file of one sink."""
LONG: Final = 2**20
"""Bytes. A longer picture is checked in a thread."""

UNKNOWN: Final = NoPicture(status=404, text="The log holds no event with this number.")
PRUNED: Final = NoPicture(status=404, text="The log does not hold this event any more.", lasts=60.0)
OTHER_KIND: Final = NoPicture(status=404, text="This event is no screenshot.", lasts=60.0)
NO_HOST: Final = NoPicture(
    status=404, text="The picture is at none of its account's picture hosts.", lasts=60.0
)
NOT_THERE: Final = NoPicture(status=404, text="The picture was never uploaded, or is deleted.", lasts=60.0)
NOT_YET: Final = NoPicture(status=425, text="The picture is not uploaded yet.", retry_after=2, lasts=2.0)
NO_LOG: Final = NoPicture(status=503, text="The log cannot be read now.", retry_after=5, lasts=1.0)


class PictureLoader:
    """Entering starts the thread that fetches; leaving ends all fetches."""

    def __init__(self, context: Callable[[], OperatorContext], allow_cidr: Sequence[Network] = ()) -> None:
        self._context = context
        self._transfers = Transfers(AddressGuard(allow_cidr), per_host=AT_ONCE, timeout=WITHIN)
        self._fetcher = Fetcher(self._transfers, max_bytes=LARGEST_FETCHED, max_pixels=MOST_PIXELS)
        self._memory = Memory(AT_ONCE * LARGEST_FETCHED)

    async def __aenter__(self) -> Self:
        await self._transfers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._transfers.__aexit__(kind, error, trace)

    async def tag(self, number: int) -> str | None:
        """The tag of the picture of the event with this number, if the log holds the event."""
        event = await _event_of(self._context(), number)
        return None if isinstance(event, NoPicture) else _tag(event)

    async def load(self, number: int) -> Picture | NoPicture:
        """The picture of the event with this number in the log. May be cancelled."""
        context = self._context()
        event = await _event_of(context, number)
        if isinstance(event, NoPicture):
            return event
        found = await _stored(context, event) or await self._fetched(context, event)
        return found if isinstance(found, NoPicture) else Picture(content=found, tag=_tag(event))

    async def _fetched(self, context: OperatorContext, event: Event) -> bytes | NoPicture:
        target = _target(context, event)
        if target is None:
            return NO_HOST
        with self._memory.leases(1) as leases:
            (found,) = await self._fetcher.fetch([(event, target)], leases)
            if isinstance(found, SinkError):
                return _refusal(found)
            try:
                return found.picture()
            except SinkError as error:
                return _refusal(error)


def _tag(event: Event) -> str:
    return f'"{event.id}"'


async def _event_of(context: OperatorContext, number: int) -> Event | NoPicture:
    if number >= context.spool.head:
        return UNKNOWN
    try:
        step = await context.spool.scan(ALL_EVENTS, number, 1)
    except StorageError:
        return NO_LOG
    if not step.found or step.found[0][0] != number:
        return PRUNED
    event = step.found[0][1]
    return event if event.kind == "screenshot" else OTHER_KIND


def _target(context: OperatorContext, event: Event) -> Target | None:
    account = context.accounts.get(event.account)
    hosts = frozenset() if account is None else account.picture_hosts
    try:
        return vet(event.url, HostList(exact=frozenset((host, None) for host in hosts)))
    except SinkError:
        return None


async def _stored(context: OperatorContext, event: Event) -> bytes | None:
    """The picture of the first sink that has stored it."""
    for sink in context.settings.sinks:
        if context.wants(sink)(event) and (content := await _read(context, sink, event)) is not None:
            return content
    return None


async def _read(context: OperatorContext, sink: str, event: Event) -> bytes | None:
    try:
        async with asyncio.timeout(WITHIN):
            content = await context.read_file(sink, event)
        if content is None:
            return None
        if len(content) > LONG:
            await asyncio.to_thread(check_picture, content, max_pixels=MOST_PIXELS)
        else:
            check_picture(content, max_pixels=MOST_PIXELS)
    except Exception as error:  # a sink's own; the picture's host may help
        if not isinstance(error, PollerError | TimeoutError):
            log.info("picture_not_read", sink=sink, reason=type(error).__name__)
        return None
    return content


def _refusal(error: SinkError) -> NoPicture:
    match error:
        case NotYet():
            return NOT_YET
        case NotThere():
            return NOT_THERE
        case _:
            text = f"The picture's host did not serve it: {error.reason}."
            return NoPicture(status=502, text=text, retry_after=5, lasts=5.0)
