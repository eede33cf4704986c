"""The clock's skew, from answers' dates."""

from email.utils import formatdate

import pytest

from poller.qcloud.wire.skew import BEYOND, CORRECTED, OFF, RIGHT, Skew, epoch_of, learn_date, learn_refusal

NOW = 1_471_850_000.0


def after(skew: Skew, ahead: float, *, at: float = NOW, trip: float = 0.1) -> Skew:
    return learn_date(
        skew, sent=at, received=at + trip, date=formatdate(int(at + trip / 2 + ahead), usegmt=True)
    )


def steadily(ahead: float, *, count: int = 3, skew: Skew = Skew()) -> Skew:  # noqa: B008 - frozen
    for step in range(count):
        skew = after(skew, ahead, at=NOW + step)
    return skew


@pytest.mark.parametrize(
    ("ahead", "state"),
    [
        (0.0, RIGHT),
        (3.0, RIGHT),
        (7.0, OFF),
        (-7.0, RIGHT),
        (-290.0, RIGHT),
        (-310.0, OFF),
        (600.0, OFF),
        (-3000.0, OFF),
        (-3500.0, OFF),
        (7200.0, BEYOND),
        (-7200.0, BEYOND),
        (100000000.0, BEYOND),
    ],
)
def test_three_answers_that_agree_are_an_alarm_and_correct_nothing(ahead: float, state: str) -> None:
    assert steadily(ahead, count=2).state == RIGHT
    skew = steadily(ahead)
    assert skew.seconds == pytest.approx(ahead, abs=1.2)
    assert (skew.state, skew.correction) == (state, 0.0)


@pytest.mark.parametrize(
    ("ahead", "corrects"),
    [
        (0.0, False),
        (20.0, False),
        (45.0, True),
        (600.0, True),
        (3590.0, True),
        (3700.0, False),
        (-600.0, False),
        (-3000.0, False),
        (-7200.0, False),
        (100000000.0, False),
    ],
)
def test_only_an_expired_signature_that_the_skew_explains_corrects(ahead: float, corrects: bool) -> None:
    for count in (1, 3):
        skew = learn_refusal(steadily(ahead, count=count), expired=True)
        assert skew.correction == (pytest.approx(ahead, abs=1.2) if corrects else 0.0)
        assert (skew.state == CORRECTED) is corrects
        assert learn_refusal(steadily(ahead, count=count), expired=False).correction == 0.0


def test_a_correction_that_brings_refusals_is_dropped_until_the_clocks_change() -> None:
    skew = learn_refusal(learn_refusal(steadily(600.0), expired=True), expired=False)
    assert (skew.correction, skew.state) == (0.0, OFF)
    assert learn_refusal(after(skew, 600.0, at=NOW + 5), expired=True).correction == 0.0
    skew = after(skew, 1200.0, at=NOW + 6)
    assert learn_refusal(skew, expired=True).correction == pytest.approx(1200, abs=1.2)


def test_one_refusal_for_another_reason_does_not_end_a_correction_for_good() -> None:
    """A firewall's 403 meets a clock that is behind: without the correction, every later poll is too old."""
    skew = learn_refusal(learn_refusal(steadily(600.0), expired=True), expired=False)
    polls = 0
    while not skew.correction and polls < 10:
        skew, polls = learn_refusal(after(skew, 600.0, at=NOW + 60 * polls), expired=True), polls + 1
    assert skew.correction == pytest.approx(600, abs=1.2)
    assert skew.state == CORRECTED
    assert polls == 4, "some polls by our own clock come first"


def test_a_correction_follows_a_clock_that_is_set_right() -> None:
    skew = steadily(0.0, skew=learn_refusal(steadily(600.0), expired=True))
    assert (skew.correction, skew.state) == (0.0, RIGHT)
    assert steadily(-600.0, skew=learn_refusal(steadily(600.0), expired=True)).correction == 0.0
    assert steadily(7200.0, skew=learn_refusal(steadily(600.0), expired=True)).state == BEYOND


def test_dates_that_flap_are_no_alarm_and_move_no_correction() -> None:
    skew, states = learn_refusal(after(Skew(), 600.0), expired=True), set()
    for step in range(20):
        skew = after(skew, (-3000.0, 600.0, 0.0, 5000.0)[step % 4], at=NOW + step)
        states.add(skew.state)
        assert skew.correction == pytest.approx(600, abs=1.2)
    assert states == {CORRECTED}


def test_a_stored_answer_is_as_old_as_its_age_says() -> None:
    skew = Skew()
    for step, old in enumerate((100, 400, 3000)):
        date = formatdate(int(NOW + step * 10 - old), usegmt=True)
        skew = learn_date(
            skew, sent=NOW + step * 10, received=NOW + step * 10 + 0.1, date=date, age=f" {old} "
        )
    assert (skew.state, skew.seconds, skew.agreeing) == (RIGHT, 0.0, 3)
    for age in ("", "-5", "soon", "1.5", "9" * 400, "\u0661"):
        assert learn_date(skew, sent=NOW, received=NOW, date=formatdate(NOW, usegmt=True), age=age) is skew


def test_many_answers_sharpen_the_measure_below_the_second_a_date_has() -> None:
    skew = Skew()
    for step in range(50):
        skew = after(skew, 600.4, at=NOW + step * 0.37)
    assert skew.seconds == pytest.approx(600.4, abs=0.15)


def test_a_slow_answer_proves_no_skew() -> None:
    skew = learn_date(Skew(), sent=NOW, received=NOW + 40, date=formatdate(int(NOW + 38), usegmt=True))
    assert skew.seconds == 0.0


def test_a_clock_at_the_threshold_does_not_flap() -> None:
    skew, states = Skew(), []
    for step, ahead in enumerate([7.0, 4.0, 6.5, 4.0, 0.0]):
        for more in range(3):
            skew = after(skew, ahead, at=NOW + step * 5 + more)
        states.append(skew.state)
    assert states == [OFF, OFF, OFF, OFF, RIGHT]


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
    assert learn_date(skew, sent=NOW, received=NOW, date=date) is skew
