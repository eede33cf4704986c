"""The clock's skew, from answers' dates."""

from email.utils import formatdate

import pytest

from poller.qcloud.skew import BEYOND, CORRECTED, RIGHT, Skew, epoch_of, measured

NOW = 1_471_850_000.0


def after(skew: Skew, ahead: float, *, at: float = NOW, trip: float = 0.1) -> Skew:
    return measured(
        skew, sent=at, received=at + trip, date=formatdate(int(at + trip / 2 + ahead), usegmt=True)
    )


@pytest.mark.parametrize(
    ("ahead", "state"),
    [
        (0.0, RIGHT),
        (3.0, RIGHT),
        (7.0, CORRECTED),
        (-7.0, CORRECTED),
        (600.0, CORRECTED),
        (-3500.0, CORRECTED),
        (7200.0, BEYOND),
        (-7200.0, BEYOND),
        (100000000.0, BEYOND),
    ],
)
def test_one_answer_tells_how_far_the_clock_is_off(ahead: float, state: str) -> None:
    skew = after(Skew(), ahead)
    assert skew.seconds == pytest.approx(ahead, abs=1.2)
    assert skew.state == state
    assert skew.correction == (0.0 if state == BEYOND else skew.seconds)


def test_many_answers_sharpen_the_measure_below_the_second_a_date_has() -> None:
    skew = Skew()
    for step in range(50):
        skew = after(skew, 600.4, at=NOW + step * 0.37)
    assert skew.seconds == pytest.approx(600.4, abs=0.15)


def test_a_slow_answer_proves_no_skew() -> None:
    skew = measured(Skew(), sent=NOW, received=NOW + 40, date=formatdate(int(NOW + 38), usegmt=True))
    assert skew.seconds == 0.0


def test_a_clock_that_is_set_right_is_noticed_with_the_next_answer() -> None:
    skew = after(after(Skew(), 600.0), 0.0, at=NOW + 5)
    assert (skew.state, skew.seconds) == (RIGHT, 0.0)


def test_a_clock_at_the_threshold_does_not_flap() -> None:
    states = []
    skew = Skew()
    for step, ahead in enumerate([6.5, 4.0, 6.0, 4.0, 0.0]):
        skew = after(skew, ahead, at=NOW + step * 5)
        states.append(skew.state)
    assert states == [CORRECTED, CORRECTED, CORRECTED, CORRECTED, RIGHT]


@pytest.mark.parametrize(
    "date",
    [
        None,
        "",
        "yesterday",
        "Mon, 99 Foo 2016 00:00:00 GMT",
        "9" * 5000,
        "Mon, 22 Aug 99999 07:16:27 GMT",
        "\x00",
        "0",
        "Mon, 22 Aug 2016 25:61:61 GMT",
    ],
)
def test_a_date_that_is_none_changes_nothing(date: str | None) -> None:
    assert epoch_of(date) is None
    skew = Skew(low=1.0, high=2.0)
    assert measured(skew, sent=NOW, received=NOW, date=date) is skew
