"""The queue over shares of the log, without a database."""

from poller.core.model import Dead, Done, Outcome, Retry
from poller.core.spool import anything
from poller.spools.share_queue import Share, ShareQueue
from poller.spools.tail import Chunk
from poller.spools.waiting import Waiting
from poller.testing.factories import START, ManualClock, done, some_event


def a_queue(*waiting: Waiting) -> ShareQueue:
    return ShareQueue("s", anything, 1, waiting, ManualClock(), replays=1)


def events(first: int, upto: int) -> Chunk:
    return Chunk(first, tuple(some_event(number) for number in range(first, upto)))


def waits(*numbers: int) -> Waiting:
    return Waiting(
        id="waiting",
        members=tuple((number, some_event(number)) for number in numbers),
        failed=1,
        first_attempt_at=START,
        due=START,
        history=(),
    )


def test_events_behind_the_share_are_not_taken_although_its_beginning_was_pruned() -> None:
    queue = a_queue()
    queue.add(Share(1, 1, 11), ())
    batch = queue.take_fresh([events(6, 30)], 100)
    assert batch is not None
    assert batch.events == events(6, 11).events
    assert queue.next == 11


def test_a_share_that_was_pruned_is_passed() -> None:
    queue = a_queue()
    queue.add(Share(1, 1, 11), ())
    assert queue.take_fresh([events(20, 30)], 100) is None
    assert queue.next == 11
    queue.add(Share(2, 11, 31), ())
    (moved, _) = queue.moved()
    assert (moved.id, moved.ended) == (1, True)


def test_a_share_is_kept_until_all_that_was_taken_from_it_is_settled() -> None:
    queue = a_queue()
    queue.add(Share(1, 1, 5), ())
    first, second = queue.take_fresh([events(1, 5)], 2), queue.take_fresh([events(3, 5)], 2)
    assert first is not None
    assert second is not None
    queue.add(Share(2, 9, 12), ())
    (one, two) = queue.settle(second, done(second)).shares
    assert (one.first, one.ended, two.first, two.ended) == (1, False, 9, False)
    (one, two) = queue.settle(first, [Done(), Retry(after=1, reason="busy")]).shares
    assert (one.first, one.ended, two.first) == (5, True, 9)
    assert [share.id for share in queue.moved()] == [2]


def test_what_was_adopted_and_is_settled_is_noted_for_who_takes_its_share_over() -> None:
    queue = a_queue(waits(4, 5, 6))
    batch = queue.take_retry()
    assert batch is not None
    outcomes: list[Outcome] = [Done(), Dead(reason="bad"), Retry(after=0, reason="busy")]
    assert queue.settle(batch, outcomes).dead_ahead == (4, 5)
    again = queue.take_retry()
    assert again is not None
    assert queue.settle(again, done(again)).dead_ahead == (6,)


def test_what_was_taken_here_and_fails_is_not_noted() -> None:
    queue = a_queue()
    queue.add(Share(1, 1, 5), ())
    batch = queue.take_fresh([events(1, 5)], 4)
    assert batch is not None
    assert queue.settle(batch, [Retry(after=0, reason="busy")] * 4).dead_ahead == ()
    again = queue.take_retry()
    assert again is not None
    assert queue.settle(again, done(again)).dead_ahead == ()
