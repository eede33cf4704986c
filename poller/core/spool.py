"""The ports of the spool: `Spool` is what the pipeline uses, `SpoolAdmin` adds what operators use.

An engine implements `SpoolAdmin`, and any of the optional protocols below that apply to it.
"""

import asyncio
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from poller.core.catalogue import Stream
from poller.core.errors import StorageError
from poller.core.history import SpoolHistory
from poller.core.model import (
    EVERYTHING,
    Backlog,
    Batch,
    DeadLetter,
    Event,
    Filter,
    Outcome,
    ParsedPage,
    Quarantined,
    Reject,
    unchanged,
)
from poller.core.ports import Port
from poller.core.replays import Replays

Wants = Callable[[Event], bool]
"""Whether a sink wants an event. Pure and fast."""


def anything(event: Event) -> bool:
    """The filter of a sink that wants every event. A spool that recognises it need not ask for each event."""
    return True


class Spool(Port, Protocol):
    """The durable log between sources and sinks, with one position for each sink.

    One process owns a spool: entering raises `StorageLocked` while another process has it. A spool that several
    daemons use is `Shared`, which says what changes. A call that raises `StorageError` has changed nothing. An engine
    with a server raises `StorageFull` while the server does not answer; `claim` waits instead. Event ids are remembered
    for 30 days.
    """

    @abstractmethod
    async def check_writable(self) -> None:
        """Write something durably, or raise `StorageError`. Called before the first poll and after each failure."""
        ...

    @abstractmethod
    async def attach(
        self,
        sink: str,
        wants: Wants,
        ordered: bool = False,
        *,
        start: datetime | None = None,
        replays: int = 1,
    ) -> None:
        """Make a sink known. Must be called before its first `claim`.

        A new sink starts at the first retained event that was received at `start` or later (`number_at`); without
        `start`, at the end of the log. A known sink continues at its position, and batches that were claimed
        but not settled (before a crash) are pending again. A sink that is not attached holds nothing back.

        `replays` is the most batches of replayed events that are in hand at once.

        Calling `attach` again changes the sink's filter or ordering. No claim may be outstanding. The position is kept,
        and events appended in the meantime are still retained for the sink.

        An `ordered` sink gets the events of each stream (`Event.stream`) in the order of the log:

        - While a batch with events of a stream is in hand or waits for its retry, later events of the stream are not
          handed out. Other streams go on. Events within a batch are in order. A `Dead` releases the stream.
        - A `Done` behind a `Retry` of the same stream in the same batch counts as that `Retry`: the sink gets both
          events again, in order. So an event may come twice, but no event is settled as done before every earlier event
          of its stream is done or dead. Two halves of a split batch that share a stream go out one after the other.
        - Retried dead letters (`retry_dead`) go out after the batches in hand of their streams and before all waiting
          events, oldest first.
        - After a restart a stream may begin again at an earlier event, and continues from there in order. Events that
          were settled before an event that waits for its retry do not come again.
        - Events that wait for their stream count with the events that wait for a retry. At 10,000 of both, no fresh
          events are taken until some are settled.
        - Replayed events (`replays`) of a stream go out in the order of the log among themselves, and never while
          another event of the stream is in hand. A replayed batch holds its streams while it is in hand, so a fresh
          event waits for one attempt at most. While it waits for its retry, it holds back later replayed events of
          these streams only.
        - Events without a stream have no order. Events that were in hand or waited when the sink became ordered may
          come late.
        """
        ...

    @abstractmethod
    async def detach(self, sink: str) -> None:
        """Forget an attached sink until it is attached again. No claim may be outstanding. It holds nothing back."""
        ...

    @abstractmethod
    async def memory(self, source: str) -> Mapping[str, bytes]:
        """The committed memories of a source, by subject (`ParsedPage.about`), without empty ones.

        A memory that has not changed for 60 days may be forgotten.
        """
        ...

    @abstractmethod
    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        """Commit events, rejects and the latest memory of each subject in one transaction.

        Returns the number of new events of each kind. An event is not new if one of its `ids` was seen before, or if it
        reports a change of state that another source reported already.

        A provisional event is corrected: if only provisional pages (`ParsedPage.provisional`) have brought an `id`, the
        first event with this id in another page replaces its URL and message. Id, time, stream and place in the log
        stay. A sink that has delivered the event does not get it again. A sink where it waits gets the corrected event,
        and so does a sink that has it in hand and fails. For an attached sink that holds it as a dead letter it is
        pending again.

        On return all of it is as durable as the engine makes it, and waiting claims wake up. Raises `StorageFull` if
        there is no room. Must not be cancelled: a cancelled call may have committed.
        """
        ...

    @abstractmethod
    async def claim(self, sink: str, limit: int, linger: float = 0.0) -> Batch:
        """Wait until events are pending for the sink, and take up to `limit` of them.

        A batch whose retry is due comes first, with the members it had. Fresh events come next, and replayed events
        only when there is nothing else. `linger` is how many seconds to wait for the batch to fill. Claimed
        events are not handed out again until they are settled. May be cancelled at any time: a cancelled claim has
        taken nothing.
        """
        ...

    @abstractmethod
    async def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Report the outcome of each event of a claimed batch, in its order.

        Takes effect in this process at once, also while the disk is full. Becomes durable within a second, or on
        leaving. After a crash, the events settled last may be delivered again. After any end, so may events that were
        settled while an earlier batch was still in hand.

        If all events are retried after the same wait, the batch comes again with its id and members. Otherwise events
        with similar waits come again together, at the latest time that one of them asks for: no wait grows by more than
        a quarter, or to more than a second. A `Retry` that is not `counted` leaves the attempt number as it is.
        """
        ...

    @abstractmethod
    async def split(self, batch: Batch) -> tuple[Batch, ...]:
        """Exchange a claimed batch of two or more events for two claimed halves, each to be settled on its own."""
        ...

    @abstractmethod
    async def retry_now(self, sink: str) -> None:
        """Make all retries of an attached sink due, also those of replayed events."""
        ...

    @abstractmethod
    async def backlog(self, sink: str) -> Backlog:
        """The pending events of a sink; none of one that is not attached, as after a reload that removed it."""
        ...

    @abstractmethod
    def streams(self) -> list[Stream]:
        """The catalogue of streams, derived from all committed events (`poller.core.catalogue`).

        Survives a restart. A stream is forgotten 30 days after its last event. Fast, and never waits.
        """
        ...


class SpoolAdmin(Spool, SpoolHistory, Protocol):
    """A spool with all that operators see and do: history, dead letters, quarantine, pauses, pruning, sizes."""

    @property
    @abstractmethod
    def replays(self) -> Replays:
        """Retained events that sinks get again."""
        ...

    @abstractmethod
    async def dead(self, limit: int, chosen: Filter = EVERYTHING) -> list[DeadLetter]:
        """Up to `limit` dead letters, newest first, including those that were settled just now."""
        ...

    @abstractmethod
    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, rebuild: Callable[[Event], Event] = unchanged
    ) -> int:
        """Make these dead letters of an attached sink pending again, oldest first, in batches of up to `together`.

        Returns how many there were. `rebuild` may change the URL of an event, and nothing else. It is called once for
        each event, here, possibly in another thread; later retries send the same bytes.

        On return the events are pending as durably as the engine makes it. Their attempts count from 1 again, and their
        history is kept. A crash in between leaves each one either dead or pending. At most as many are taken as may
        wait for a retry; the rest stays dead. Numbers that are no dead letter of this sink are ignored. Must not be
        cancelled.
        """
        ...

    @abstractmethod
    async def purge_dead(self, numbers: Sequence[int]) -> int:
        """Delete these dead letters; returns how many there were."""
        ...

    @abstractmethod
    async def quarantined(self, limit: int, chosen: Filter = EVERYTHING) -> list[Quarantined]:
        """Up to `limit` pieces of quarantine, newest first."""
        ...

    @abstractmethod
    async def read_again(self, source: str, readings: Mapping[int, ParsedPage]) -> Counter[str]:
        """Replace rejects of a source, by their number, with what they parse to now, in one transaction.

        Returns the number of new events of each kind. Works like `append`, but the memories of the source stay as they
        are. Numbers that are not in quarantine any more are ignored. Must not be cancelled.
        """
        ...

    @abstractmethod
    async def purge_quarantine(self, numbers: Sequence[int]) -> int:
        """Delete these rejects; returns how many there were."""
        ...

    @abstractmethod
    async def quarantine_size(self) -> int:
        """The number of rejects in quarantine."""
        ...

    @abstractmethod
    async def pause(self, sink: str, paused: bool) -> None:
        """Record, as durably as the engine makes it, whether the operator paused an attached sink.

        The record has no effect here: the courier claims nothing for a paused sink.
        """
        ...

    @abstractmethod
    async def paused(self) -> frozenset[str]:
        """The sinks that the operator paused, also those that are not attached."""
        ...

    @abstractmethod
    async def prune(self) -> "Pruned":
        """Delete some of what has outlived its retention, in one short step.

        Deleted are events that every attached sink has settled and that are older than `retain`, dead letters older
        than `retain_dead`, and quarantine older than `retain_quarantine`. An open replay of an attached sink keeps the
        events that it has yet to queue.
        """
        ...

    @abstractmethod
    async def size(self) -> int:
        """The size of the spool in bytes."""
        ...


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a step of pruning deleted undelivered: dead letters by sink, and the number of rejects."""

    dead: Mapping[str, int]
    rejects: int
    more: bool
    """Whether there is more to prune."""


# ---------------------------------------------------------------- optional parts


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A damaged spool file: where it lies now, and what is wrong with it."""

    file: Path
    reason: str


@runtime_checkable
class BeginsAnew(Protocol):
    """A spool that moves a damaged file aside and begins a new one, instead of refusing to start."""

    damage: Damage | None
    """The damage that entering found; None for a whole file."""

    @abstractmethod
    def files_aside(self) -> Sequence[Path]:
        """The damaged files that are still there."""
        ...


@runtime_checkable
class NoticesLoss(Protocol):
    """A spool that can tell on entering that commits are missing."""

    lost: str | None
    """What is missing; None when nothing is."""
    commits_lost: int
    """The number of missing commits."""
    kept_as: int
    """The highest `ParsedPage.kept_as` that was committed before; 0 when there was none."""


@runtime_checkable
class HasLimits(Protocol):
    """A spool that says how near it is to the limits at which it takes no more events."""

    @property
    @abstractmethod
    def fullness(self) -> Mapping[str, float]:
        """By the name of the limit's setting: 1 at the limit, 0 far from it; as of the last write. Never blocks."""
        ...


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that shares a spool.

    number:  the number of its session; a later session has a higher one, and none is used twice
    name:    host and process
    since:   when the session began
    expires: seconds until the session ends if no further sign of life comes
    duties:  what this daemon alone does now
    held:    by sink, how many events this daemon has taken and not settled
    visits:  whether it is no daemon, but a command that looks at the spool or changes it, and ends
    """

    number: int
    name: str
    since: datetime
    expires: float
    duties: tuple[str, ...] = ()
    held: Mapping[str, int] = msgspec.field(default_factory=dict)
    visits: bool = False


class Away(msgspec.Struct, frozen=True, kw_only=True):
    """An outage of the database of a shared spool: since when it does not answer or takes nothing, and why."""

    since: datetime
    why: str


LOOK_AT_LEASE = 0.1
"""Seconds between two looks at whether the lease is proven."""


@runtime_checkable
class Shared(Protocol):
    """A spool that several daemons share. Each has a session, which ends when no sign of life comes for a lease.

    What a session held goes to the others when it ends. The daemon of an ended session writes nothing more: each call
    that writes raises `Fenced`. So an event comes twice only where a session ended.

    What changes for the rest of the port:

    - Several daemons may append at once. Numbers are in the order of the commits, as before.
    - `claim` gives each event to one daemon. It waits while the lease is not `proven`, while another daemon serves an
      ordered sink, and while other daemons serve the sink in another way (`ordered` or `lanes`).
    - `retry_dead`, `pause`, replays and all that is read work from each daemon, for all of them.
    - `backlog`, dead letters, quarantine and counts are those of all daemons.
    - `prune` deletes at one daemon; at the others it does nothing.
    """

    proven: asyncio.Event
    """Set while the lease is proven. It is cleared when no sign of life was confirmed for a lease: other daemons may
    have taken over by then, so what is being delivered has to be cancelled. Set again if the session goes on."""
    visits: bool = False
    """Set before entering by a command that is no daemon (`Member.visits`). It does not count in `live_members`."""
    lacks_standby: bool = False
    """Known after entering: whether only one server has what was confirmed, so that it may be lost with that server."""

    @property
    @abstractmethod
    def away(self) -> Away | None:
        """The outage of the database that goes on; None while it answers. Never blocks."""
        ...

    @abstractmethod
    def waits_for(self, sink: str) -> str:
        """Why this daemon does not serve an attached sink: others serve it in another way. Empty if it may serve it.

        Never blocks.
        """
        ...

    @property
    @abstractmethod
    def identity(self) -> str:
        """A short text that is the same at all daemons of a spool, and no secret. Known after entering."""
        ...

    @property
    @abstractmethod
    def member(self) -> int:
        """The number of this daemon's session."""
        ...

    @property
    @abstractmethod
    def live_members(self) -> int:
        """How many daemons shared the spool when it was last seen; at least 1. Never blocks."""
        ...

    @abstractmethod
    def divide(self, sink: str, lanes: int) -> None:
        """Divide an ordered sink by stream into `lanes` parts, 1 to 64, which different daemons may serve.

        Called before `attach`. All lanes keep the order of each stream. The number changes once no daemon serves the
        sink with another one.
        """
        ...

    @abstractmethod
    async def check_answers(self) -> None:
        """Prove that the database takes writes, also while the spool is full. Raises `StorageFull`."""
        ...

    @abstractmethod
    async def release(self, sink: str) -> None:
        """Free what this daemon holds of an attached sink, so that others deliver it. No claim may be outstanding.

        Retries keep the time at which they are due. The next claim serves the sink again.

        Raises `StorageFull` while the database is away; then it may be repeated.
        """
        ...

    @abstractmethod
    def duty(self, name: str) -> AbstractAsyncContextManager[None]:
        """Wait until no other daemon has this duty, and hold it until the context is left or the session ends."""
        ...

    @abstractmethod
    async def members(self) -> Sequence[Member]:
        """All daemons whose session has not ended, in the order of their numbers."""
        ...

    @abstractmethod
    async def resumed(self) -> Mapping[str, int]:
        """How often each sink was resumed (`pause` with False), by sink."""
        ...

    @abstractmethod
    async def wait_for_change(self) -> None:
        """Wait until pauses or members may have changed. May return without a change."""
        ...

    async def until_unproven(self) -> None:
        """Wait until the lease is not `proven`. Returns at once if it is not.

        It looks again and again, because an event wakes nobody when it is cleared.
        """
        while self.proven.is_set():
            await asyncio.sleep(LOOK_AT_LEASE)

    @abstractmethod
    async def failed(self) -> StorageError:
        """Wait until this daemon can write nothing more, as after the end of its session, and return why."""
        ...


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """The result of examining a spool file: its content in one line, and all that is wrong."""

    summary: str
    findings: tuple[str, ...]


class Salvaged(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a damaged file: events, dead letters, rejects with their source, and what could not be read."""

    events: tuple[Event, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    rejects: tuple[tuple[str, Reject], ...] = ()
    damage: tuple[str, ...] = ()


@runtime_checkable
class KeptInFile(Protocol):
    """A spool that is one file.

    All methods but `restore` are called without entering the spool, and only read. They raise `StorageError` if the
    file is missing or belongs to another program.
    """

    @abstractmethod
    def examine(self) -> Examined:
        """Read the whole file, as of one moment. May be called beside a running daemon."""
        ...

    @abstractmethod
    def back_up(self, to: Path, progress: Callable[[int, int], None]) -> Examined:
        """Copy the file, as of one moment, to a new file, and check the copy. May be called beside a running daemon.

        `progress` is called now and then with the parts that are copied, and with the number of all parts. A copy with
        findings is removed. Also raises `StorageError` if the target exists or cannot be written.
        """
        ...

    @abstractmethod
    def export(self, kinds: frozenset[str], since: datetime | None) -> Iterator[bytes]:
        """The public JSON of the retained events of these kinds (all kinds if empty) received since then, oldest first.

        May be called beside a running daemon.
        """
        ...

    @abstractmethod
    def sinks(self) -> frozenset[str]:
        """The names of the sinks that the file knows. May be called beside a running daemon."""
        ...

    @abstractmethod
    def known_streams(self) -> list[Stream]:
        """The streams that the file knows. Beside a running daemon their states may be two minutes old."""
        ...

    @abstractmethod
    def salvage(self, file: Path, sinks: Sequence[str]) -> Iterator[Salvaged]:
        """All that can be read of another file, however damaged.

        Of events, those that `sinks` had not settled; all events if `sinks` is empty or where that is unknown.
        """
        ...

    @abstractmethod
    async def restore(self, salvaged: Sequence[Salvaged]) -> int:
        """Commit salvaged parts to this spool, which is entered, and return the number of new events."""
        ...
