"""Gaps are found by the names of the pictures around them, and nothing else is taken for one."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.core.history import Gap
from poller.core.model import Event, identity, parse_event
from poller.pipeline.gaps import Auditor, gap_event, missing_between, run_and_offset

from .on_grid import PUSH, SETTLE, audited, by_arrival, change, picture, pictures, summed

TEN = range(0, 200, 10)
ROOM, HALL = ("main", "room"), ("main", "hall")


def without(*gone: int, cadence: int = 10, last: int = 200) -> list[Event]:
    return pictures(*(offset for offset in range(0, last, cadence) if offset not in gone))


# ---------------------------------------------------------------- what is a gap


@pytest.mark.parametrize("gone", [(50,), (50, 60), (50, 60, 70, 80), tuple(range(40, 160, 10))])
def test_pictures_of_one_task_that_are_missing_between_two_are_a_gap_with_their_number(
    gone: tuple[int, ...],
) -> None:
    (gap,) = audited(without(*gone))
    assert (gap.account, gap.stream_id, gap.missing, gap.cadence) == ("main", "room", len(gone), 10)
    assert gap.from_at == datetime.fromtimestamp(PUSH + gone[0] - 10, UTC)
    assert gap.to_at == datetime.fromtimestamp(PUSH + gone[-1] + 10, UTC)
    assert gap.task_started_at == gap.push_started_at == datetime.fromtimestamp(PUSH, UTC)
    assert gap.first_missing_offset == gone[0]
    assert f"{10 * (len(gone) + 1)} s without a picture" in gap.why


def test_two_gaps_near_each_other_are_two() -> None:
    assert summed(audited(without(50, 80))) == [(50, 1), (80, 1)]
    assert summed(audited(without(50, 70))) == [(50, 1), (70, 1)]


def test_nothing_is_missing_where_every_picture_came() -> None:
    assert audited(without()) == audited([]) == audited(pictures(10)) == []


@pytest.mark.parametrize("gone", [(0,), (190,), (0, 10, 20), (180, 190)])
def test_the_first_and_the_last_pictures_leave_no_gap(gone: tuple[int, ...]) -> None:
    assert audited(without(*gone)) == []


def test_a_gap_of_an_hour_is_one_gap() -> None:
    events = pictures(*range(0, 100, 10), *range(3_700, 3_800, 10))
    assert summed(audited(events)) == [(100, 360)]


@pytest.mark.parametrize("task", [0, PUSH])
def test_a_name_may_leave_out_the_push_or_the_task(task: int) -> None:
    push = 0 if task else PUSH
    events = [
        picture(offset, push=push, task=task, delay=1 + (PUSH if not push else 0))
        for offset in TEN
        if offset != 50
    ]
    (gap,) = audited(events)
    assert (gap.first_missing_offset, gap.missing) == (50, 1)
    assert (gap.push_started_at is None, gap.task_started_at is None) == (not push, not task)


def test_pictures_without_urls_are_audited_too() -> None:
    assert summed(audited([picture(offset, base=None) for offset in TEN if offset != 50])) == [(50, 1)]


def test_jitter_of_a_second_makes_and_hides_no_gap() -> None:
    offsets = [0, 10, 21, 30, 40, 51, 59, 70, 80, 101, 110, 120, 130]
    assert summed(audited(pictures(*offsets))) == [(90, 1)]
    assert audited(pictures(0, 2, 4, 7, 8, 10, 12, 14, 17, 18, 20)) == []


# ---------------------------------------------------------------- what is none


def test_a_new_push_is_no_gap() -> None:
    later = pictures(*TEN, push=PUSH + 400)
    assert audited(without() + later) == []


def test_a_new_task_of_the_same_push_is_no_gap() -> None:
    later = pictures(*range(400, 600, 10), task=PUSH + 390)
    assert audited(without() + later) == []


@pytest.mark.parametrize(("first", "then"), [(10, 30), (30, 10), (10, 5), (5, 60), (1, 2), (2, 1), (10, 20)])
def test_a_changed_interval_is_no_gap(first: int, then: int) -> None:
    end = 10 * first
    assert audited(pictures(*range(0, end, first), *range(end, end + 10 * then, then))) == []


def test_a_gap_after_a_changed_interval_counts_by_the_new_one() -> None:
    offsets = [*range(0, 100, 10), *range(100, 400, 30)]
    offsets.remove(250)
    assert summed(audited(pictures(*offsets))) == [(250, 1)]


@pytest.mark.parametrize("state", ["interrupted", "disabled"])
def test_an_interruption_within_the_same_task_is_no_gap(state: str) -> None:
    events = by_arrival([*without(50, 60, 70), change(52, state)])
    assert audited(events) == []
    assert summed(audited(by_arrival([*without(50, 60, 70), change(152, state)]))) == [(50, 3)]


def test_a_push_that_begins_within_a_hole_shows_an_interruption_but_a_poll_may_see_a_live_channel_late() -> (
    None
):
    assert audited(by_arrival([*without(50, 60), change(68, "live")])) == []
    seen = change(68, "live", seen_by="channel_status")
    assert summed(audited(by_arrival([*without(50, 60), seen]))) == [(50, 2)]


def test_a_change_of_another_stream_means_nothing() -> None:
    assert summed(audited(by_arrival([*without(50), change(52, stream="hall")]))) == [(50, 1)]


# ---------------------------------------------------------------- late and out of order


def test_a_picture_that_comes_within_the_time_leaves_no_gap() -> None:
    assert audited(by_arrival([*without(50), picture(50, delay=SETTLE)])) == []


def test_a_hole_stays_open_until_its_time_has_passed() -> None:
    auditor = Auditor(lambda account: SETTLE)
    for event in without(50, last=300):
        auditor.take(event)
    last = PUSH + 61.0
    assert auditor.judge(last + SETTLE - 1) == []
    assert auditor.waits
    assert auditor.judge(last + SETTLE + 30) != []
    assert not auditor.waits


def test_a_hole_before_the_present_end_of_a_stream_is_not_judged() -> None:
    auditor = Auditor(lambda account: SETTLE)
    for event in without(180):
        auditor.take(event)
    end = PUSH + 191.0
    assert auditor.judge(end + SETTLE + 30) == []
    assert audited(without(180)) == []


def test_a_picture_that_comes_after_the_gap_was_found_is_late_and_no_second_gap() -> None:
    auditor = Auditor(lambda account: SETTLE)
    assert summed(audited(without(50, 60), auditor=auditor)) == [(50, 2)]
    auditor.take(picture(60, delay=4_000))
    assert auditor.judge(PUSH + 9_000) == []
    (late,) = auditor.take_late()
    assert (late.account, late.stream_id) == ("main", "room")
    assert late.taken_at == datetime.fromtimestamp(PUSH + 60, UTC)
    assert auditor.take_late() == []


def test_an_account_that_is_not_audited_is_left_alone() -> None:
    auditor = Auditor({"main": SETTLE}.get)
    for event in [*without(50), *(picture(offset, account="other") for offset in TEN if offset != 70)]:
        auditor.take(event)
    assert summed(auditor.judge(PUSH + 9_000)) == [(50, 1)]
    assert (auditor.pictures, auditor.streams) == (19, 1)


def test_names_without_a_task_cannot_be_audited() -> None:
    auditor = Auditor(lambda account: SETTLE)
    auditor.take(picture(0, push=0, task=0))
    name = "2017-01-01/hall-screenshot-10-00-00-300x169.jpg"
    odd = picture(5, stream="hall").encoded.replace(b'"offset":5', b'"offset":null')
    assert name not in odd.decode()
    auditor.take(parse_event(odd))
    assert auditor.unnamed == {("main", "room"), ("main", "hall")}
    assert auditor.pictures == 0


@pytest.mark.parametrize("stream", ["a_b", '"push_started_at":', ',"offset":7,', "直播", "x" * 300])
def test_the_run_and_the_offset_are_those_of_the_fields(stream: str) -> None:
    event = picture(70, stream=stream)
    assert run_and_offset(event) == ("2023-11-14T22:13:20Z 2023-11-14T22:13:20Z", 70)


def test_fields_of_another_shape_say_nothing() -> None:
    event = picture(70)
    odd = event.encoded.replace(b'"offset":70', b'"offset":"70"')
    assert run_and_offset(parse_event(odd)) is None


# ---------------------------------------------------------------- states


def test_a_state_that_is_stored_and_restored_goes_on() -> None:
    events = by_arrival([*without(50, 110), change(112)])
    whole = summed(audited(events))
    assert whole == [(50, 1)]
    for cut in range(len(events)):
        first = Auditor(lambda account: SETTLE)
        found = audited_part(first, events[:cut])
        second = Auditor(lambda account: SETTLE, first.states(first.changed, cut))
        assert summed([*found, *audited(events[cut:], auditor=second)]) == whole


def test_a_state_that_is_ahead_of_the_place_where_looking_begins_again_takes_nothing_twice() -> None:
    taken_twice([*without(50, 60, 110), change(112), picture(60, delay=110)], missing=2, late=1)


def test_a_state_that_is_ahead_is_judged_when_its_place_is_reached() -> None:
    """Its pictures were received after the moment of the events that are looked at again."""
    taken_twice([*without(50, 60, last=400), picture(60, delay=SETTLE - 10)], missing=1, late=0)


def taken_twice(events: list[Event], *, missing: int, late: int) -> None:
    """Whatever the state and the place are, the gap at 50 is found once, and late pictures are counted once."""
    stream = by_arrival(events)
    numbered = list(enumerate(stream))
    for ahead in range(len(stream)):
        first = Auditor(lambda account: SETTLE)
        found = audited_part(first, stream[:ahead])
        came_late = first.take_late()
        for place in range(ahead):
            second = Auditor(lambda account: SETTLE, first.states([ROOM], ahead))
            rest: list[Gap] = []
            for number, event in numbered[place:]:
                second.take(event, number)
                rest += second.judge(event.received_at.timestamp(), number + 1)
            rest += second.judge(PUSH + 9_000, len(stream))
            assert summed([*found, *rest]) == [(50, missing)]
            assert len([*came_late, *second.take_late()]) == late


def test_a_state_says_no_less_than_it_was_restored_with() -> None:
    """Behind that number, the place of a later process is."""
    first = Auditor(lambda account: SETTLE, audited_state(upto=20))
    second = Auditor(lambda account: SETTLE, first.states([ROOM], 10))
    second.take(picture(1_000), 19)
    assert second.pictures == 0
    second.take(picture(1_000), 20)
    assert second.pictures == 1


def audited_state(upto: int) -> dict[str, bytes]:
    auditor = Auditor(lambda account: SETTLE)
    audited_part(auditor, without())
    return auditor.states([ROOM], upto)


def audited_part(auditor: Auditor, events: list[Event]) -> list[Gap]:
    found: list[Gap] = []
    for event in events:
        auditor.take(event)
        found += auditor.judge(event.received_at.timestamp())
    return found


def test_only_what_changed_is_stored_again() -> None:
    auditor = Auditor(lambda account: SETTLE)
    for event in [*without(), *pictures(0, 10, stream="hall")]:
        auditor.take(event)
    auditor.judge(PUSH + 1_000.0)
    assert auditor.changed == {ROOM, HALL}
    auditor.keep([HALL])
    assert auditor.changed == {ROOM}
    auditor.keep([ROOM])
    auditor.take(picture(200))
    assert auditor.changed == {ROOM}


def test_a_stream_is_forgotten_after_a_day() -> None:
    auditor = Auditor(lambda account: SETTLE)
    audited(without(50), auditor=auditor)
    auditor.forget(PUSH + 86_000.0)
    assert auditor.streams == 1
    auditor.forget(PUSH + 90_000.0)
    assert (auditor.streams, auditor.states(auditor.changed, 0)) == (0, {"main/room": b""})


def test_a_state_that_does_not_read_back_is_left_out() -> None:
    auditor = Auditor(lambda account: SETTLE, {"main/room": b"\xc1", "main/hall": b""})
    assert auditor.streams == 0


def test_a_long_stream_keeps_a_short_state() -> None:
    auditor = Auditor(lambda account: SETTLE)
    audited(pictures(*range(0, 20_000, 10)), auditor=auditor)
    assert len(auditor.states([ROOM], 10**9)["main/room"]) < 400


# ---------------------------------------------------------------- the event


def test_the_event_of_a_gap_says_all_of_it() -> None:
    (gap,) = audited(without(50, 60))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    event = gap_event(gap, now)
    assert (event.id, event.kind, event.account, event.stream_id) == (gap.id, "gap", "main", "room")
    assert event.id == identity(
        "gap", "main", "room\0" + "2023-11-14T22:13:20Z 2023-11-14T22:13:20Z" + "\0" + "50"
    )
    assert (event.occurred_at, event.received_at) == (datetime.fromtimestamp(PUSH + 50, UTC), now)
    assert event.fields["missing"] == 2
    assert event.fields["from"] == "2023-11-14T22:14:00Z"
    assert event.fields["to"] == "2023-11-14T22:14:30Z"
    assert (event.fields["cadence"], event.fields["first_missing_offset"]) == (10, 50)


# ---------------------------------------------------------------- any sequence

INTERVALS = st.sampled_from([1, 2, 3, 5, 10, 15, 30, 60, 300])
REGIMES = st.lists(st.tuples(INTERVALS, st.integers(5, 20)), min_size=1, max_size=6)


def on_grid(regimes: list[tuple[int, int]], start: int) -> list[int]:
    """Offsets at multiples of each interval of an absolute clock, each as often as given."""
    offsets: list[int] = []
    at = start
    for interval, count in regimes:
        at = -(-(PUSH + at) // interval) * interval - PUSH
        for _ in range(count):
            if not offsets or at > offsets[-1]:
                offsets.append(at)
            at += interval
    return offsets


@given(REGIMES, st.integers(0, 300), st.randoms(use_true_random=False))
def test_intervals_that_change_and_pictures_out_of_order_never_make_a_gap(
    regimes: list[tuple[int, int]], start: int, dice: random.Random
) -> None:
    events = [picture(offset, delay=dice.uniform(0, SETTLE - 1)) for offset in on_grid(regimes, start)]
    assert audited(by_arrival(events)) == []


@given(
    st.sampled_from([1, 2, 3, 5, 10, 30, 60]),
    st.lists(st.tuples(st.integers(4, 9), st.integers(1, 12)), max_size=6),
    st.randoms(use_true_random=False),
)
def test_every_hole_between_pictures_of_one_interval_is_found_with_its_number(
    interval: int, holes: list[tuple[int, int]], dice: random.Random
) -> None:
    place, kept, expected = 0, list[int](), list[tuple[int, int]]()
    for good, gone in holes:
        kept += range(place, place + good)
        expected.append(((place + good) * interval, gone))
        place += good + gone
    kept += range(place, place + 4)
    events = [picture(n * interval, delay=dice.uniform(0, SETTLE - 1)) for n in kept]
    assert summed(audited(by_arrival(events), each=dice.randint(1, 50))) == expected


@given(st.sets(st.integers(0, 120), min_size=1), st.randoms(use_true_random=False))
def test_whatever_comes_no_gap_holds_a_picture_that_came_and_none_is_found_twice(
    places: set[int], dice: random.Random
) -> None:
    events = by_arrival([picture(n * 5, delay=dice.uniform(0, SETTLE - 1)) for n in places])
    gaps = audited(events, each=dice.randint(1, 20))
    assert len({gap.id for gap in gaps}) == len(gaps)
    for gap in gaps:
        assert gap.missing >= 1
        assert not any(gap.from_at < event.occurred_at < gap.to_at for event in events)


# ---------------------------------------------------------------- one step


@pytest.mark.parametrize(
    ("before", "step", "after", "found"),
    [
        ([10, 10, 10], 20, [10, 10, 10], (1, 10)),
        ([10], 20, [10], (1, 10)),
        ([10, 10, 20], 20, [10, 10, 10], (1, 10)),
        ([10, 20, 20], 20, [20, 20, 20], None),
        ([10, 10, 10], 30, [30, 30, 30], None),
        ([], 20, [10, 10, 10], None),
        ([10, 10, 10], 20, [], None),
        ([10, 10, 10], 15, [10, 10, 10], None),
        ([1, 2, 1], 2, [1, 2, 1], None),
        ([1, 1, 1], 2, [1, 1, 1], (1, 1)),
        ([10, 11, 10], 1050, [10, 11, 10], (101, 62 / 6)),
    ],
)
def test_a_long_step_counts_by_the_steps_beside_it(
    before: list[int], step: int, after: list[int], found: tuple[int, float] | None
) -> None:
    assert missing_between(before, step, after) == found
