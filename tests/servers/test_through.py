"""The comparison of both sides sees each way in which a sink can fail."""

import pytest

from .through import Carried, Stored, check

SENT = [Stored("a", "1"), Stored("b", "2"), Stored("a", "3"), Stored("b", "4")]


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (SENT[:3], "1 of 4 events are missing"),
        ([*SENT, Stored("a", "9")], "events of no one"),
        ([*SENT[:3], Stored("a", "4"), SENT[3]], "of another stream"),
        ([SENT[2], SENT[1], SENT[0], SENT[3]], "the order of a stream"),
        ([*SENT, *SENT], "no kill explains 3 repeats"),
        ([*SENT, *[SENT[0]] * 4], "no kill explains 3 repeats"),
    ],
)
def test_a_difference_between_the_sides_is_found(stored: list[Stored], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        check(Carried(SENT, stored, {"1": 1}, 2), least=4)


def test_explained_repeats_and_streams_that_overtake_each_other_are_no_fault() -> None:
    stored = [SENT[1], SENT[0], SENT[1], SENT[2], SENT[0], SENT[3]]
    assert check(Carried(SENT, stored, {"1": 1}, 1), least=4) == 2


def test_each_kill_explains_one_repeat_of_an_event() -> None:
    assert check(Carried(SENT, [*SENT, *[SENT[0]] * 2], {"1": 2}, 0), least=4) == 2


def test_a_repeat_is_a_fault_at_a_server_that_drops_them() -> None:
    with pytest.raises(AssertionError, match="1 repeats"):
        check(Carried(SENT, [*SENT, SENT[0]], {"1": 1}, 2), least=4, keeps_repeats=False)


def test_too_few_events_prove_nothing() -> None:
    with pytest.raises(AssertionError, match="only 4 events"):
        check(Carried(SENT, SENT, {}, 2), least=5)
