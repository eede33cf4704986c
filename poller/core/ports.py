"""The ports that adapters implement: `Source` or `PushedSource`, and `Sink`. `poller.core.spool` has the spool's ports.

An adapter inherits its port (`class Mine(Sink)`). A type checker then sees a method with a wrong signature, and a class
that lacks a method cannot be instantiated.

Life cycle
    An adapter is built as `Adapter(name, settings, accounts)`. `accounts` maps the names under `accounts:` to `Account`
    objects; a spool gets an empty mapping. The constructor only stores its arguments. The daemon enters each adapter
    once, uses it from one event loop, and leaves it once. Entering connects, and raises when it cannot. Leaving closes.
    Both do nothing by default.

Discovery
    Adapters are found by the entry points `poller.sources`, `poller.spools` and `poller.sinks`. An adapter class has an
    attribute `Settings`, which inherits `SourceSettings`, `SpoolSettings` or `SinkSettings`.

Authors of plug-ins import all of this from `poller.api`.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from poller.core.catalogue import Stream
from poller.core.model import Batch, Event, ParsedPage, PushOutcome, RawPage


class Port(Protocol):
    """An async context manager that does nothing on entering and leaving."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None


class Source(Port, Protocol):
    """A source that is polled. For each poll the intake calls `ready`, `fetch` and `read`, in this order."""

    name: str
    account: str
    min_delay: float
    """Seconds between two polls when the first one was not full."""
    max_delay: float
    """The longest pause between two polls, in seconds, when there is nothing new and no failure."""
    max_in_flight: int
    """The most polls that may be outstanding at once."""
    destructive: bool
    """Whether the platform gives an answer only once. Pages of a destructive source go through the journal, and `drain`
    waits until an answer was empty. Other sources simply ask again."""

    @abstractmethod
    async def ready(self) -> None:
        """Wait until the next poll is due and the throttle allows it.

        One `fetch` follows each return. Several lanes may wait here at the same time. May be cancelled at any time;
        nothing is lost.
        """
        ...

    @abstractmethod
    async def fetch(self) -> RawPage:
        """Send one request and return the answer as it came. Does I/O only.

        Returns also an answer that is cut, bad or empty (`RawPage.whole`, `RawPage.status`). Raises `NotSent` if, and
        only if, the request did not leave this machine. One call sends at most one request: no layer below may repeat
        it. Never cancelled: the call ends by its own deadlines, within 60 s.
        """
        ...

    @abstractmethod
    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """Parse a page. Pure: no clock, no I/O, and the same result for the same arguments.

        `memory` is what the last parsed page with the same `about` returned; empty at first. The result has the same
        `about`. A source that asks for one thing after the other returns `FULL` for each good answer, so that the next
        poll follows at once; its `ready` waits until that poll is due.

        Must not raise for anything that the platform could send: unreadable content becomes a `Reject`. If it raises
        all the same (a bug), the whole page goes to quarantine.
        """
        ...


@runtime_checkable
class Follows(Protocol):
    """What a source implements besides if it follows the channels that other sources have seen."""

    @abstractmethod
    def follow(self, streams: Callable[[], Sequence[Stream]]) -> None:
        """Take the catalogue (`Spool.streams`). Called once, before the source is entered."""
        ...


class PushHandler(Protocol):
    """What a pushed source calls: it accepts pages and counts refusals."""

    async def accept(self, page: RawPage) -> None:
        """Parse a page and commit its content. On return the content is as durable as the spool makes it.

        The page must hold nothing that may not be stored: if `read` raises (a bug), the whole page is quarantined.

        Raises `StorageError` if there was no commit: the spool is full, has failed or did not answer within seconds, or
        the daemon is starting or stopping. While that lasts, it raises at once. The source must then tell its sender to
        repeat. A repeated page that was committed all the same is stored once.

        May be called many times at once; such calls share commits. May be cancelled; the page may be committed or not.
        """
        ...

    def turn_away(self, outcome: PushOutcome, reason: str = "") -> None:
        """Count a request that became no page. `reason` is logged and must hold nothing of the request."""
        ...


@runtime_checkable
class PushedSource(Port, Protocol):
    """A source that others push to, and that they repeat a push to until it is accepted.

    So its pages need no journal: the sender is answered after the commit. The daemon calls `attach`, enters the source
    (its port is open then), calls `close`, and leaves it.
    """

    name: str
    account: str

    @property
    @abstractmethod
    def address(self) -> str:
        """Where the source listens, for people. Holds no secret."""
        ...

    @abstractmethod
    def attach(self, handler: PushHandler) -> None:
        """Take the handler of pages. Called once, before the source is entered."""
        ...

    @abstractmethod
    async def close(self) -> None:
        """Accept nothing more. Returns when every request in progress is answered. May be called twice."""
        ...

    @abstractmethod
    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """Parse a page, as `Source.read` does. `memory` is always empty: a push has no predecessor."""
        ...


class Sink(Port, Protocol):
    """A destination of events."""

    name: str

    @abstractmethod
    async def deliver(self, batch: Batch) -> None:
        """Deliver a batch. On return every event of it is safe at the destination.

        Called for up to `concurrency` batches at once. Raises `TryLater`, `Rejected` or `Gone` for the whole batch, or
        `PartlyFailed` if only some events failed. Any other exception means `TryLater`, with backoff. The sink itself
        never retries.

        Cancelled when the `timeout` of the sink has passed, or at the end of the daemon's grace period. A batch that
        failed or was cancelled is delivered again, so the same `Event.id` may come twice and must do no harm.
        """
        ...


@runtime_checkable
class StoresFiles(Protocol):
    """What a sink implements besides if it stores each event as a file on this machine."""

    @abstractmethod
    def path_of(self, event: Event) -> Path | None:
        """Where the file of an event lies once the event is delivered; None for an event that gets no file.

        Does no I/O. Also called before the sink is entered.
        """
        ...

    async def read_file(self, event: Event) -> bytes | None:
        """The content of the file of an event; None if there is no such file, or if it must not be read.

        Must read nothing outside of the sink's own place, whatever stands at the path, such as a link. Only called
        while the sink is entered; blocks nothing. May be cancelled. By default no file is read.
        """
        return None


@runtime_checkable
class ChecksDestination(Protocol):
    """What a sink implements besides if it can examine its destination without an event."""

    @abstractmethod
    async def check(self) -> Sequence[str]:
        """Return what is wrong at the destination, a sentence each; empty if nothing is.

        Proves that the sink may write there, that the place exists, and that it keeps what it confirms. Leaves nothing
        there. Called once the sink is entered, by `check --connect`; must end by itself within the `timeout` of the
        sink. An exception means that the destination cannot be examined. No text holds a secret.
        """
        ...
