"""The stretch of the log in memory: what it holds, and that it is bounded."""

from poller.spools.tail import Chunk, Tail, cut
from poller.testing import some_event

SIZE = len(some_event(10).encoded)
"""Bytes of each event whose number has two digits."""


def pushed(most: int | None, *counts: int) -> Tail:
    """Chunks of so many events, numbered from 10 on."""
    tail, first = Tail(most), 10
    for count in counts:
        tail.push(Chunk(first, tuple(some_event(n) for n in range(first, first + count))))
        first += count
    return tail


def held(tail: Tail) -> list[int]:
    """The numbers that are there."""
    first = next((n for n in range(10, 100) if tail.members(n, 1)), 100)
    found = tail.members(first, 1000) or []
    assert [event for _, event in found] == [some_event(n) for n, _ in found]
    assert tail.bytes == len(found) * SIZE
    return [n for n, _ in found]


def test_up_to_its_bound_it_holds_everything() -> None:
    assert held(pushed(4 * SIZE, 1, 1, 1, 1)) == [10, 11, 12, 13]
    assert held(pushed(None, 40, 40)) == list(range(10, 90))


def test_beyond_its_bound_the_older_half_goes_at_once() -> None:
    assert held(pushed(4 * SIZE, 1, 1, 1, 1, 1)) == [13, 14]
    assert held(pushed(4 * SIZE, 1, 1, 1, 1, 1, 1, 1)) == [13, 14, 15, 16]


def test_the_newest_chunk_stays_however_large_it_is() -> None:
    assert held(pushed(4 * SIZE, 9)) == list(range(10, 19))
    assert held(pushed(4 * SIZE, 1, 9)) == list(range(11, 20))


def test_whole_chunks_before_a_number_can_be_forgotten() -> None:
    tail = pushed(None, 2, 2, 2, 2)
    tail.forget_before(13)
    assert held(tail) == [12, 13, 14, 15, 16, 17]
    tail.forget_before(16)
    assert held(tail) == [16, 17]
    tail.forget_before(18)
    assert held(tail) == []


def test_chunks_reported_out_of_order_lie_in_order() -> None:
    tail = Tail(None)
    for first in (12, 10, 14):
        tail.push(Chunk(first, (some_event(first), some_event(first + 1))))
    assert held(tail) == list(range(10, 16))


def test_a_stretch_is_no_longer_than_asked_for() -> None:
    tail = pushed(None, 2, 2, 2)
    for limit in range(1, 7):
        assert tail.members(10, limit) == [(n, some_event(n)) for n in range(10, 10 + limit)]


def test_a_stretch_ends_at_a_gap() -> None:
    tail = Tail(None)
    for first in (10, 14):
        tail.push(Chunk(first, (some_event(first), some_event(first + 1))))
    assert tail.members(10, 9) == [(10, some_event(10)), (11, some_event(11))]
    assert tail.members(12, 9) is None
    assert tail.members(15, 9) == [(15, some_event(15))]
    assert tail.members(9, 9) is None


def numbers(chunks: list[Chunk]) -> list[list[int]]:
    """The numbers of each chunk, whose events are checked."""
    for chunk in chunks:
        assert list(chunk.events) == [some_event(n) for n in range(chunk.first, chunk.end)]
    return [list(range(chunk.first, chunk.end)) for chunk in chunks]


def test_a_cut_begins_at_its_number_or_behind_it_and_ends_at_its_limit_or_a_gap() -> None:
    chunks = [
        Chunk(first, tuple(some_event(n) for n in range(first, end)))
        for first, end in ((10, 13), (13, 15), (17, 19))
    ]
    assert numbers(cut(chunks, 10, 9)) == [[10, 11, 12], [13, 14]]
    assert numbers(cut(chunks, 12, 2)) == [[12], [13]]
    assert numbers(cut(chunks, 4, 4)) == [[10, 11, 12], [13]]
    assert numbers(cut(chunks, 13, 2)) == [[13, 14]]
    assert numbers(cut(chunks, 15, 9)) == [[17, 18]]
    assert numbers(cut(chunks, 18, 1)) == [[18]]
    assert cut(chunks, 19, 9) == cut(chunks, 10, 0) == []


def test_a_whole_chunk_of_a_cut_is_the_chunk_itself() -> None:
    chunk = Chunk(10, (some_event(10), some_event(11)))
    assert cut([chunk], 10, 2)[0] is chunk
