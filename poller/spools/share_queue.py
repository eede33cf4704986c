"""The queue of a sink that several daemons serve: it takes fresh events only from the shares that its daemon holds.

A share is a stretch of the log. Taking one moves the sink's cursor, so each number is in one share. The last share is
the current one: fresh events are taken from it, and it grows in place while no other daemon has moved the cursor.
An earlier share is kept until all batches that were taken from it are settled.
"""

from collections.abc import Iterable, Sequence

import msgspec

from poller.core.model import Batch, Outcome
from poller.core.spool import Wants
from poller.runtime.clock import Clock
from poller.spools.sink_queue import Changes, MovedShare, SinkQueue, ticket_of
from poller.spools.tail import Chunk
from poller.spools.waiting import Waiting

NOWHERE = 2**62
"""The position of a queue without a share: beyond every number of the log."""


class Share(msgspec.Struct):
    """The numbers from `first` up to `upto` (not included). `id` is that of its row."""

    id: int
    first: int
    upto: int


class ShareQueue(SinkQueue):
    """A queue over shares. An engine takes shares from the database and hands them over with `add` and `grow`."""

    def __init__(
        self, sink: str, wants: Wants, cursor: int, waiting: Iterable[Waiting], clock: Clock, *, replays: int
    ) -> None:
        self._shares: list[Share] = []
        waiting = list(waiting)
        super().__init__(sink, wants, NOWHERE, waiting, clock, replays=replays)
        self.cursor = cursor
        """The cursor of the sink when it was last seen: events from there on are in no share."""
        self.freed = True
        """Whether there may be shares that nobody holds."""
        self._adopted = {number for batch in waiting for number, _ in batch.members}
        """The numbers of events that waited elsewhere: they may lie in a share that nobody has taken over yet."""

    @property
    def current(self) -> Share | None:
        """The share that fresh events are taken from."""
        return self._shares[-1] if self._shares else None

    @property
    def position(self) -> int:
        """None of its own: see `moved`."""
        return 0

    def end(self, head: int) -> int:
        """The number up to which fresh events may be taken."""
        return self.current.upto if self.current is not None else self.next

    def at_hand(self, head: int) -> int:
        """How many events could go out now or soon, as far as other daemons leave them."""
        return self.ready + self.end(head) - self.next + max(0, head - self.cursor)

    def wants_share(self, head: int, limit: int) -> bool:
        """Whether a batch of `limit` fresh events needs more than is held, and there may be more."""
        left = self.end(head) - self.next
        return left < limit and (self.cursor < head or (self.freed and left == 0))

    def skip_to_end(self, head: int) -> None:
        """Pass what is left of the current share: the log does not hold it any more."""
        self.next = self.end(head)

    def add(self, share: Share, skip: Iterable[int]) -> None:
        """Make a share the current one. The current one before has nothing left.

        `skip` are numbers that are settled, or that wait for a retry.
        """
        self._shares.append(share)
        self.next = share.first
        self._skip = {number for number in skip if share.first <= number < share.upto}
        self.wakeup.set()

    def grow(self, upto: int, skip: Iterable[int] = ()) -> None:
        """Make the current share longer, up to the number `upto`."""
        assert self.current is not None
        self._skip.update(number for number in skip if self.current.upto <= number < upto)
        self.current.upto = upto
        self.wakeup.set()

    def take_fresh(self, log: Sequence[Chunk], limit: int) -> Batch | None:
        """Up to `limit` events that the sink wants, from a stretch of the log that begins at `next`."""
        upto = self.end(self.next)
        held = [_below(upto, chunk) for chunk in log if chunk.first < upto]
        if log and not held:  # the rest of the share was pruned while nobody served the sink
            self.next = upto
        return super().take_fresh(held, limit)

    def _first_open(self, share: Share) -> int:
        """The first number of a share that is not settled."""
        following = self.next if share is self.current else share.upto
        return min((start for start in self._spans if share.first <= start < share.upto), default=following)

    def moved(self) -> tuple[MovedShare, ...]:
        """How far each share is settled. Those that have ended are forgotten."""
        found = []
        for share in list(self._shares):
            first = self._first_open(share)
            ended = first == share.upto and share is not self.current
            if ended:
                self._shares.remove(share)
            found.append(MovedShare(share.id, first, ended))
        return tuple(found)

    def advance(self) -> Changes:
        """How far the sink is served."""
        return msgspec.structs.replace(super().advance(), shares=self.moved())

    def adopt(self, waiting: Waiting) -> None:
        """Take a batch that waited in another process. Its retry is due when it was due there."""
        self._adopted.update(number for number, _ in waiting.members)
        super().adopt(waiting)

    def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> Changes:
        """Apply the outcomes of a batch in hand, and say what to write."""
        changes = super().settle(batch, outcomes)
        ahead = {*changes.dead_ahead, *self._settled_elsewhere(ticket_of(batch).numbers, changes)}
        return msgspec.structs.replace(changes, shares=self.moved(), dead_ahead=tuple(sorted(ahead)))

    def _settled_elsewhere(self, numbers: Iterable[int], changes: Changes) -> set[int]:
        """What was adopted and is settled now. Whoever takes its share over must not hand it out again."""
        if not self._adopted:
            return set()
        again = {number for waiting in changes.put for number, _ in waiting.members}
        settled = {number for number in numbers if number in self._adopted and number not in again}
        self._adopted -= settled
        return {number for number in settled if number > 0}

    def count_unsettled(self, head: int) -> int:
        """How many events that this daemon holds are not settled."""
        return self.end(head) - self.next - len(self._skip) + self._in_hand + self.retrying

    def covers(self, number: int) -> bool:
        """Whether the number is in a share that is held here."""
        return any(share.first <= number < share.upto for share in self._shares)

    def _is_ahead(self, number: int) -> bool:
        return self.next <= number < self.end(number) and number not in self._skip


def _below(upto: int, chunk: Chunk) -> Chunk:
    """The part of a chunk below a number."""
    return chunk if chunk.end <= upto else Chunk(chunk.first, chunk.events[: upto - chunk.first])
