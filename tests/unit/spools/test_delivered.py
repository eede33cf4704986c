"""Rows of deliveries: which numbers they cover, and how few there are."""

import random
from datetime import timedelta

from poller.core.model import Attempt
from poller.spools.delivered import LONGEST_ROW, WIDEST_HOLE, Delivered, Settled, rows
from poller.testing import START

FAILED = Attempt(at=START, reason="HTTP 503")


def settled(*numbers: int, attempt: int = 1, took: float = 0.5, second: int = 0) -> Settled:
    history = (FAILED,) * (attempt - 1)
    at = START + timedelta(seconds=second)
    return Settled(numbers=tuple(sorted(numbers)), ids=(), at=at, attempt=attempt, took=took, history=history)


def covered(found: list[Delivered], most: int) -> list[int]:
    return [number for number in range(most) for row in found if row.covers(number)]


def test_batches_of_one_commit_share_a_row() -> None:
    batches = [("a", settled(*range(start, start + 100), took=start / 100)) for start in (101, 1, 301, 201)]
    (row,) = rows(batches)
    assert (row.first, row.last, row.holes, row.count, row.took) == (1, 400, b"", 400, 3.01)


def test_rows_never_mix_sinks_attempts_or_seconds() -> None:
    batches = [
        ("a", settled(1, 2)),
        ("b", settled(3, 4)),
        ("a", settled(5, 6, attempt=2)),
        ("a", settled(7, 8, second=1)),
    ]
    found = rows(batches)
    assert [(row.sink, row.first, row.attempt, row.history) for row in found] == [
        ("a", 1, 1, ()),
        ("b", 3, 1, ()),
        ("a", 5, 2, (FAILED,)),
        ("a", 7, 1, ()),
    ]
    assert len({row.at for row in found}) == 2


def test_numbers_far_apart_get_rows_of_their_own() -> None:
    found = rows([("a", settled(1, WIDEST_HOLE + 2)), ("b", settled(1, WIDEST_HOLE + 3))])
    assert [(row.sink, row.first, row.last) for row in found] == [("a", 1, 514), ("b", 1, 1), ("b", 515, 515)]


def test_a_number_that_was_delivered_twice_is_recorded_twice() -> None:
    found = rows([("a", settled(1, 2, 3)), ("a", settled(2))])
    assert sorted(covered(found, 9)) == [1, 2, 2, 3]
    assert sum(row.count for row in found) == 4


def test_rows_cover_exactly_what_was_delivered() -> None:
    rng = random.Random(14)
    for _ in range(200):
        most = rng.choice((10, 300, 3 * LONGEST_ROW))
        numbers = rng.sample(range(1, most), min(most - 1, rng.randrange(1, 400)))
        whole = [*range(most + 1, most + 1 + rng.choice((0, 1, 2 * LONGEST_ROW)))]
        cuts = sorted(rng.sample(range(len(numbers) + 1), 2))
        parts = [numbers[: cuts[0]], numbers[cuts[0] : cuts[1]], numbers[cuts[1] :], whole]
        found = rows([("a", settled(*part)) for part in parts if part])
        assert all(row.last - row.first < LONGEST_ROW for row in found)
        assert sum(row.count for row in found) == len(numbers) + len(whole)
        for number in {*numbers, *whole[:3], *whole[-3:]}:
            assert sum(row.covers(number) for row in found) == 1
        for number in {*range(1, min(most, 999))} - {*numbers}:
            assert not any(row.covers(number) for row in found)
