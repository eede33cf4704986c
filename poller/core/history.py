"""The port for looking back: what the log holds, where each event came from, who delivered it, and the books.

Every question is answered in bounded steps, because claims and commits must not wait for it.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from poller.core.model import Attempt, Event, ParsedPage
from poller.core.selection import Aware, Scan, Selection


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The poll or push that brought an event.

    source:      the source's name in the configuration; empty for a page that was stored before this was recorded
    about:       the subject of the request (`RawPage.about`)
    asked_at:    when the request was sent (UTC); None for a push and where unknown
    received_at: when the answer had arrived (UTC)
    outcome:     the outcome of the poll (`PollOutcome`); empty where unknown
    events:      the number of new events in the page
    """

    source: str
    about: str
    asked_at: datetime | None
    received_at: datetime
    outcome: str
    events: int


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a sink has delivered.

    at:      when it was settled, to the second (UTC)
    attempt: the attempt that succeeded, counted from 1
    took:    the seconds from claim to settlement; where several batches were recorded together, those of the slowest
    history: the last ten failed attempts before it
    """

    sink: str
    at: datetime
    attempt: int
    took: float
    history: tuple[Attempt, ...]


class Stage(StrEnum):
    """The state of an event at a sink that has not delivered it. The values are shown to people."""

    PENDING = "pending"
    IN_HAND = "in hand"
    RETRYING = "retrying"
    DEAD = "dead"
    UNWANTED = "not wanted"
    SETTLED = "settled"


class SinkProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of one event at one sink.

    stage:    `UNWANTED` by the filter that the sink has now; `SETTLED` also covers an event that came before the sink,
              or whose dead letter was purged
    attempts: how many attempts have failed, without those that only asked for a wait
    due:      when the next attempt is due; None if the event does not wait for a retry
    history:  the last ten failed attempts
    reason:   the reason of the last failed attempt
    """

    sink: str
    stage: Stage
    attempts: int = 0
    due: datetime | None = None
    history: tuple[Attempt, ...] = ()
    reason: str = ""


class Book(StrEnum):
    """What is counted. The values are stored."""

    TAKEN = "taken"
    DELIVERED = "delivered"
    DEAD = "dead"
    POSSIBLY_LOST = "possibly_lost"


RESTORED = "(restored)"


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One count since the spool was made (or a file brought to schema 2), and when it last grew (UTC).

    `owner` is a source for `TAKEN`, and a sink for `DELIVERED` and `DEAD`. For `POSSIBLY_LOST` it is the part that
    noticed the loss, such as `source shots`, `journal` or `spool`. Events that were restored from another spool file
    are taken by `RESTORED`. An event that is delivered or dies twice is counted twice.
    """

    owner: str
    book: Book
    count: int
    at: datetime


class Gap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pictures of a stream that are missing between two that came, of the same task.

    id:                   that of account, stream, task and first missing offset
    from_at, to_at:       when the pictures on both sides were taken (UTC)
    missing:              how many pictures are missing, at the cadence of the stream
    why:                  how the gap was found, for people
    filled:               how many of the missing pictures came later
    cadence:              the usual seconds between two pictures around the gap
    push_started_at:      when the push started (UTC); None where the names do not say
    task_started_at:      when the screenshot task started (UTC); None where the names do not say
    first_missing_offset: the offset of the first missing picture
    """

    id: str
    account: str
    stream_id: str
    from_at: Aware
    to_at: Aware
    missing: int
    why: str
    filled: int = 0
    cadence: float = 0.0
    push_started_at: Aware | None = None
    task_started_at: Aware | None = None
    first_missing_offset: int = 0

    def is_selected(self, chosen: Selection) -> bool:
        """Whether the account and the stream are selected, and a part of the gap lies within the times of happening."""
        return (
            (chosen.account is None or self.account == chosen.account)
            and (chosen.stream is None or self.stream_id == chosen.stream)
            and (chosen.taken_since is None or self.to_at > chosen.taken_since)
            and (chosen.taken_until is None or self.from_at < chosen.taken_until)
        )


GAPS_KEPT: Final = 30 * 86_400.0
"""The least seconds for which a gap is kept after its end."""


class LatePicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that came after its place was judged. It fills the gap that it lies in, if there is one."""

    account: str
    stream_id: str
    taken_at: Aware

    def fills(self, gap: Gap) -> bool:
        """Whether the picture lies in the gap."""
        same = (self.account, self.stream_id) == (gap.account, gap.stream_id)
        return same and gap.from_at < self.taken_at < gap.to_at


class ReplayState(StrEnum):
    """The state of a replay. The values are stored and shown."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """Retained events that one sink gets again.

    number:   given by the spool, counts from 1
    chosen:   the events; only those that the sink wants are sent
    at:       the number of the next event to look at
    until:    the number at which the replay ends
    asked_at: when it was ordered (UTC)
    total:    how many events were counted when it was ordered
    queued:   how many have been queued for the sink
    """

    number: int
    sink: str
    chosen: Selection
    at: int
    until: int
    asked_at: datetime
    total: int
    queued: int
    state: ReplayState


class SpoolHistory(Protocol):
    """The part of a spool that looks back."""

    @property
    @abstractmethod
    def head(self) -> int:
        """The number that the next event gets. Numbers start at 1 and never repeat."""
        ...

    @abstractmethod
    async def wait_beyond(self, number: int) -> None:
        """Wait until the log holds an event of this number, or a later one. May be cancelled at any time."""
        ...

    @abstractmethod
    async def scan(
        self, chosen: Selection, start: int | None, limit: int, *, newest_first: bool = False
    ) -> Scan:
        """One step through the log: at most `limit` selected events.

        Begins with the event numbered `start`, and goes upwards, or downwards with `newest_first`. None begins at the
        oldest or at the newest event. A step is short; it may find nothing and still name a number to go on with. An
        event that cannot be read is left out and logged.
        """
        ...

    @abstractmethod
    async def origin(self, number: int) -> Origin | None:
        """Where the event of this number came from; None if it is not in the log."""
        ...

    @abstractmethod
    async def number_at(self, moment: datetime) -> int:
        """The number of the first retained event that was received at or after a moment, or `head`.

        The clock may have jumped: the answer is the first number from which on nothing earlier was received.
        """
        ...

    @abstractmethod
    async def deliveries(self, number: int, id: str) -> list[Delivery]:
        """Every recorded delivery of an event to any sink, oldest first. `number` is 0 for an event without a number.

        A delivery is recorded in the transaction that settles it, and deleted together with the event. A retried dead
        letter has no number any more; its delivery is found by the id.
        """
        ...

    @abstractmethod
    async def progress(self, number: int, id: str, event: Event | None) -> list[SinkProgress]:
        """The progress of an event at every sink that the spool knows, attached or not, in the order of their names.

        `event` is needed to see that a sink does not want it. Without a number and an event, dead letters and events
        that wait for a retry are still found by their id.
        """
        ...

    @abstractmethod
    async def remembers(self, id: str) -> bool:
        """Whether an event with this id was taken in the last 30 days, even if it was pruned since."""
        ...

    @abstractmethod
    async def tallies(self) -> list[Tally]:
        """All counts, in the order of owner and book.

        A count changes in the transaction that stores what it counts.
        """
        ...

    @abstractmethod
    def count_loss(self, where: str, count: int) -> None:
        """Count a possible loss that a part has noticed. Never waits; durable within a second."""
        ...

    @abstractmethod
    async def gaps(self, chosen: Selection, limit: int) -> Sequence[Gap]:
        """Up to `limit` known gaps, those that end last first.

        `account`, `stream`, `taken_since` and `taken_until` select; a gap is selected if a part of it lies within these
        times. A gap is kept for 30 days after its end, and at least as long as events.
        """
        ...

    @abstractmethod
    async def note_gaps(
        self,
        source: str,
        readings: Sequence[ParsedPage],
        gaps: Sequence[Gap],
        late: Sequence[LatePicture] = (),
    ) -> Counter[str]:
        """Append readings (`Spool.append`), add gaps and fill gaps, all in one transaction.

        A gap whose id is known stays as it is. Each late picture then fills the gap that it lies in by one, up to the
        number of missing pictures. Must not be cancelled.
        """
        ...
