"""The three sockets plug-ins fit into: Source (or PushedSource), Spool, Sink, with every promise spelled out.

Every port is an async context manager: entering connects (and raises when it cannot), leaving closes.
Each is entered once, used by one event loop, and left once. Constructors only store.

An adapter inherits its port (`class Mine(Sink)`), so that a type checker sees a method with the wrong signature, and
a class that lacks one cannot be made. Only `__aenter__` and `__aexit__` have a default: they do nothing.

Adapters are found by the entry points `poller.sources`, `poller.spools`, `poller.sinks`. An adapter class has an
attribute `Settings`, built on `SourceSettings`, `SpoolSettings` or `SinkSettings`. It is built as
`Adapter(name, settings, accounts)`; `accounts` maps the names under `accounts:` to `Account` objects (a spool gets
none: `{}`). Its author imports all of this from `poller.api`.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import msgspec

from poller.core.catalogue import Stream
from poller.core.model import (
    EVERYTHING,
    Backlog,
    Batch,
    DeadLetter,
    Event,
    Filter,
    Outcome,
    ParsedPage,
    PushOutcome,
    Quarantined,
    RawPage,
    Reject,
    unchanged,
)

Wants = Callable[[Event], bool]
"""Whether a sink wants an event; pure and cheap."""


class Port(Protocol):
    """What all ports share: entering connects, leaving closes."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None


class Source(Port, Protocol):
    """Where events come from. The intake calls `ready`, `fetch`, `read`, in this order, for each poll."""

    name: str
    account: str
    min_delay: float
    """Seconds between two polls of which the first was not full."""
    max_delay: float
    """The longest pause, in seconds, while nothing is there and nothing is wrong."""
    max_in_flight: int
    """How many polls may be outstanding at once."""
    destructive: bool
    """Whether an answer that is lost is lost for good. If so, each page goes through the journal, and `drain` waits
    until one was empty; else the source asks again, and neither is done."""

    @abstractmethod
    async def ready(self) -> None:
        """Wait until a poll is due and allowed (throttle). May be cancelled at any time; nothing is lost by it.

        Each return is followed by one `fetch`; several lanes may wait here at once.
        """
        ...

    @abstractmethod
    async def fetch(self) -> RawPage:
        """One request, I/O only. Never cancelled: it must end by its own deadlines (60 s at the most).

        Returns the answer as it came, also a cut or a bad one (`whole`, `status`), also when only silence
        came back. Raises `NotSent` when, and only when, nothing left this machine. No layer below may
        repeat it: one call is at most one request.
        """
        ...

    @abstractmethod
    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """What is in a page: pure, without clock or I/O, the same again for the same arguments.

        `memory` is what the last reading about the same (`RawPage.about`) left, empty at first; the reading names the
        same `about`. A source that asks for one thing after the other says `FULL` for each good answer: "again at
        once, and on more lanes"; its `ready` waits until the next one is due.
        Never raises for anything the platform could send; what cannot be read is a `Reject`. If it raises
        all the same (a bug), the intake quarantines the whole page.
        """
        ...


@runtime_checkable
class Follows(Protocol):
    """What a source has besides if it follows channels."""

    @abstractmethod
    def follow(self, streams: Callable[[], Sequence[Stream]]) -> None:
        """Take the catalogue (`Spool.streams`), once, before the source is entered."""
        ...


class PushHandler(Protocol):
    """What the core gives a pushed source: where its pages go in, and where it tells of the rest."""

    async def accept(self, page: RawPage) -> None:
        """Read a page and commit what it holds; returns only when that is as durable as the spool gets.

        The page must hold nothing that may not be stored: if `read` raises (a bug), it is quarantined whole.
        Raises `StorageError` when there was no commit: the spool is full or failed, did not answer within
        seconds, or we are about to start or to stop; while that lasts, at once. Then the sender has to be
        told to repeat. What it repeats may have been committed all the same, and is stored once. May be called
        many times at once, which shares commits, and may be cancelled, which leaves open whether it committed.
        """
        ...

    def turn_away(self, outcome: PushOutcome, reason: str = "") -> None:
        """Count what came and became no page. A reason is logged: it must hold nothing of what came."""
        ...


@runtime_checkable
class PushedSource(Port, Protocol):
    """Where events come from by themselves: somebody sends, and repeats what was not taken.

    So a page needs no journal: whoever is told that it was taken is told after the commit. The core calls
    `attach`, enters it (its port is open then), calls `close`, and leaves it.
    """

    name: str
    account: str

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it listens, for people; holds no secret."""
        ...

    @abstractmethod
    def attach(self, handler: PushHandler) -> None:
        """Say where pages go; called once, before entering."""
        ...

    @abstractmethod
    async def close(self) -> None:
        """Take nothing more; returns when what was being taken is answered. May be called twice."""
        ...

    @abstractmethod
    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """What is in a page: pure, like `Source.read`. There is nothing to remember: `memory` is always empty."""
        ...


class Spool(Port, Protocol):
    """The durable log between in and out, with one position per sink.

    One process owns a spool. Entering raises `StorageLocked` when another one does. A call that raises
    `StorageError` has changed nothing. Ids are remembered for 30 days.
    """

    @abstractmethod
    async def check_writable(self) -> None:
        """Write something durably, or raise `StorageError`: asked before the first poll and after trouble."""
        ...

    @abstractmethod
    async def attach(self, sink: str, wants: Wants, ordered: bool = False) -> None:
        """Make a sink known before its first `claim`. A new sink starts at now, a known one where it was.

        Deliveries claimed but not settled before (by a crash) are pending again. A sink that is not attached
        holds nothing back. One that is may be attached anew, to be served otherwise, while nobody claims for it:
        it stays where it was, and holds back what it did meanwhile.

        For an `ordered` sink, the events of each stream (`Event.stream`) go out in the order of the log:

        - While a batch with events of a stream is in hand or waits for its retry, no later event of that stream is
          given out; other streams go on. Within a batch they are in order. A `Dead` releases the stream.
        - A `Done` behind a `Retry` of the same stream in the same batch counts as that `Retry`: the sink gets both
          again, in order. So an event may come twice, but none is settled as done before an earlier one of its
          stream is done or dead. Halves of a split batch that share a stream go out one after the other.
        - Dead letters that are pending again (`retry_dead`) go out after what is in hand of their streams and before
          what waits, oldest first.
        - After a restart, a stream may begin again at an earlier event, and goes on from there in order; what was
          settled before an event that waits for its retry does not come again.
        - Events that wait behind others of their stream count with those that wait for a retry: beyond 10,000 of both
          nothing fresh is taken until some are settled.
        - Events of no stream have no order. What waited or was in hand when the sink became ordered may come late.
        """
        ...

    @abstractmethod
    async def detach(self, sink: str) -> None:
        """Forget an attached sink, for which nobody claims, until it is attached again; it holds nothing back."""
        ...

    @abstractmethod
    async def memory(self, source: str) -> Mapping[str, bytes]:
        """The source's memories as last committed, by what they are about. Empty ones are left out; one that has not
        changed for 60 days may be forgotten."""
        ...

    @abstractmethod
    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        """Commit events, rejects and the last memory about each thing in one transaction; returns how many events
        of each kind were new. An event of which one of its `ids` was seen before changes nothing; nor does a change
        of a channel's state that another source has told.

        One exception: an event whose `id` only provisional pages brought so far (`ParsedPage.provisional`) gets the URL
        and the message of the first event with this id in another reading. It is not new, and its id, time, stream and
        place stay. A sink that delivered it does not get it again. A sink where it waits gets the corrected one, and so
        does a sink that has it in hand and fails. An attached sink that holds it as a dead letter gets it again.

        When it returns, all of it is as durable as the engine gets, and waiting claims wake. `StorageFull`
        when there is no room. Not to be cancelled by the caller; a cancelled call may have committed.
        """
        ...

    @abstractmethod
    async def claim(self, sink: str, limit: int, linger: float = 0.0) -> Batch:
        """Wait until an event is pending for the sink, and take up to `limit` of them.

        A batch that is due for its retry comes first, with the members it had. With `linger` it waits so
        many seconds more for the batch to fill. What was claimed is not given out again until it is settled.
        May be cancelled at any time: a cancelled claim has taken nothing.
        """
        ...

    @abstractmethod
    async def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Say what became of each delivery of a claimed batch, in its order.

        Holds for this process at once, also while the disk is full, and becomes durable within a second or
        on leaving: after a crash, the deliveries settled last may be carried again; after any end, also those that
        were settled while a batch claimed before them was still in hand.

        Where every delivery is to be retried after the same wait, the batch comes again with its id and its members.
        Otherwise those whose waits are alike come again together, at the latest moment that one of them asks for: no
        wait grows by more than a quarter, or to more than a second. A `Retry` that is not `counted` leaves the
        attempt as it is.
        """
        ...

    @abstractmethod
    async def split(self, batch: Batch) -> tuple[Batch, ...]:
        """Exchange a claimed batch of two or more for two claimed halves, each to be settled on its own."""
        ...

    @abstractmethod
    async def retry_now(self, sink: str) -> None:
        """Let everything that waits for an attached sink's retry be due."""
        ...

    @abstractmethod
    async def backlog(self, sink: str) -> Backlog:
        """What is pending for an attached sink."""
        ...

    @abstractmethod
    def streams(self) -> list[Stream]:
        """What is known of each stream, derived from all events committed so far (`poller.core.catalogue`).

        Survives a restart; a stream is forgotten 30 days after its last event. Cheap, and never waits.
        """
        ...

    @abstractmethod
    async def recent(self, limit: int) -> list[Event]:
        """The newest events, newest first, settled or not, as far back as they are retained."""
        ...

    @abstractmethod
    async def dead(self, limit: int, chosen: Filter = EVERYTHING) -> list[DeadLetter]:
        """Dead letters, newest first, up to `limit`; what was settled just now is among them."""
        ...

    @abstractmethod
    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, rebuild: Callable[[Event], Event] = unchanged
    ) -> int:
        """Make these dead letters pending again for an attached sink, oldest first, in batches of up to `together`;
        returns how many.

        Each event goes out as `rebuild` returns it: pure, it may only change the event's URL. It is asked once, here,
        possibly in another thread; later retries of the courier repeat the same bytes.

        When it returns they are pending as durably as the engine gets, attempts counted anew, history kept;
        a crash on the way leaves each dead or pending. Takes no more than may wait for a retry: the rest stays dead.
        Numbers that are not (or not any more) a dead letter of this sink are passed over. Not to be cancelled by
        the caller.
        """
        ...

    @abstractmethod
    async def purge_dead(self, numbers: Sequence[int]) -> int:
        """Forget these dead letters; returns how many there were."""
        ...

    @abstractmethod
    async def quarantined(self, limit: int, chosen: Filter = EVERYTHING) -> list[Quarantined]:
        """What could not be read, newest first, up to `limit`."""
        ...

    @abstractmethod
    async def read_again(self, source: str, readings: Mapping[int, ParsedPage]) -> Counter[str]:
        """Exchange rejects of a source, by their number, for what was read in them now, in one transaction; returns
        how many events of each kind were new.

        Like `append`, but the source's memories stay as they are, and a number that is not in quarantine any more
        changes nothing. Not to be cancelled by the caller.
        """
        ...

    @abstractmethod
    async def purge_quarantine(self, numbers: Sequence[int]) -> int:
        """Forget these rejects; returns how many there were."""
        ...

    @abstractmethod
    async def quarantine_size(self) -> int:
        """How many rejects are kept."""
        ...

    @abstractmethod
    async def pause(self, sink: str, paused: bool) -> None:
        """Remember, as durably as the engine gets, whether the operator paused an attached sink.

        Only remembered here: it is the courier that claims nothing then.
        """
        ...

    @abstractmethod
    async def paused(self) -> frozenset[str]:
        """The sinks that the operator paused, also those that are not attached."""
        ...

    @abstractmethod
    async def prune(self) -> "Pruned":
        """Forget, in one short step, some of what is settled by every attached sink and older than the
        engine's `retain`, of the dead letters older than `retain_dead`, and of quarantine older than
        `retain_quarantine`."""
        ...

    @abstractmethod
    async def size(self) -> int:
        """Bytes held."""
        ...


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a step of pruning took that nobody has had: dead letters by sink, and how many pieces of quarantine."""

    dead: Mapping[str, int]
    rejects: int
    more: bool
    """Whether there is more to do."""


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A spool file that was found damaged: where it lies now, and what was wrong."""

    file: Path
    reason: str


@runtime_checkable
class BeginsAnew(Protocol):
    """What a spool has besides if it moves a damaged file aside and begins a new one, rather than not start."""

    damage: Damage | None
    """What entering found; None when all was well."""

    @abstractmethod
    def files_aside(self) -> Sequence[Path]:
        """The damaged files that nobody has taken away yet."""
        ...


@runtime_checkable
class NoticesLoss(Protocol):
    """What a spool has besides if it can tell at its start that something it had committed is gone."""

    lost: str | None
    """What is gone, found by entering; None when nothing is."""
    commits_lost: int
    """How many commits that were."""
    kept_as: int
    """The highest `ParsedPage.kept_as` that was committed before; 0 when none was."""


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What an examination of a spool file found: what is in it, and all that is wrong."""

    summary: str
    findings: tuple[str, ...]


class Salvaged(msgspec.Struct, frozen=True, kw_only=True):
    """Some of what was read in a damaged file; a reject with its source; in `damage`, what could not be read."""

    events: tuple[Event, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    rejects: tuple[tuple[str, Reject], ...] = ()
    damage: tuple[str, ...] = ()


@runtime_checkable
class KeptInFile(Protocol):
    """What a spool has besides if it is one file. All but `restore` is called without entering the spool, only reads,
    and raises `StorageError` for a file that is not there or not ours."""

    @abstractmethod
    def examine(self) -> Examined:
        """Read all of the spool's file, as of one moment; also beside a running daemon."""
        ...

    @abstractmethod
    def export(self, kinds: frozenset[str], since: datetime | None) -> Iterator[bytes]:
        """The public forms of the retained events of these kinds (empty: all), received since then, oldest first; also
        beside a running daemon."""
        ...

    @abstractmethod
    def salvage(self, file: Path, sinks: Sequence[str]) -> Iterator[Salvaged]:
        """What can be read of another file, however damaged: the events that these sinks had not settled (no sinks: all
        events; also where that cannot be told), dead letters, rejects."""
        ...

    @abstractmethod
    async def restore(self, salvaged: Sequence[Salvaged]) -> int:
        """Commit it to this spool, entered, as new; what is known changes nothing. Returns how many events were new."""
        ...


class Sink(Port, Protocol):
    """A way out. It speaks by returning (all of the batch is safe on the other side) or by raising."""

    name: str

    @abstractmethod
    async def deliver(self, batch: Batch) -> None:
        """Carry a batch out; called for up to `concurrency` batches at once.

        Raises `TryLater`, `Rejected`, `Gone` for all of it, `PartlyFailed` when only some failed; any other
        exception means "again, with backoff". Cancelled when the sink's `timeout` passes or the daemon's
        grace ends; either way the batch is carried again, so the same `Event.id` may come twice, and must
        do no harm. It never retries by itself.
        """
        ...
