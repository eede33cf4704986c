"""Which parts of a sorted list of names hold a stream's pictures of a time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.qcloud.events.name_ranges import NameRange, days, ranges_beside, root_of
from poller.qcloud.events.names import parse_name
from poller.qcloud.wire.times import BEIJING

PUSH = 1471850187
SINCE = datetime(2016, 8, 22, 15, 30, tzinfo=UTC)  # 23:30 in UTC+8
UNTIL = datetime(2016, 8, 22, 16, 45, tzinfo=UTC)


def name_b(at: datetime, stream: str = "room-7", root: str = "") -> str:
    return f"{root}{at.astimezone(BEIJING):%Y-%m-%d/}{stream}-screenshot-{at.astimezone(BEIJING):%H-%M-%S}-300x169.jpg"


def within(name: str, one: NameRange) -> bool:
    return name.startswith(one.prefix) and name > one.after and (not one.last or name <= one.last)


@pytest.mark.parametrize("stream", ["room-7", "3891_@v_tls#3pfnm5fw35qt", "直播", "1_2_3"])
@pytest.mark.parametrize("folder", ["", "a/b/"])
def test_a_push_of_grammar_a_has_one_prefix(stream: str, folder: str) -> None:
    name = f"{folder}{stream}_{PUSH}_0_120_300_169.jpg"
    soon, late = (datetime.fromtimestamp(PUSH + seconds, UTC) for seconds in (7200, 7260))
    assert list(ranges_beside(name, soon, late)) == [NameRange(prefix=f"{folder}{stream}_{PUSH}_")]
    assert root_of(name) is None


def test_a_push_that_began_later_holds_nothing_of_that_time() -> None:
    later = int((UNTIL + timedelta(seconds=1)).timestamp())
    assert not list(ranges_beside(f"room-7_{later}_0_120_300_169.jpg", SINCE, UNTIL))


@given(
    since=st.integers(7_201, 2_000_000),
    length=st.integers(0, 200_000),
    offset=st.integers(0, 2_500_000),
    task=st.sampled_from([0, PUSH, PUSH + 60]),
)
def test_of_a_long_push_only_the_offsets_of_the_time_are_listed(
    since: int, length: int, offset: int, task: int
) -> None:
    first, last = (datetime.fromtimestamp(PUSH + n, UTC) for n in (since, since + length))
    ranges = list(ranges_beside(f"a_1_{PUSH}_{task}_{since}_300_169.jpg", first, last))
    found = any(within(f"a_1_{PUSH}_{task}_{offset}_300_169.jpg", one) for one in ranges)
    assert found or not since <= offset <= since + length, "every picture of the time is in a range"
    if len(str(offset)) == len(str(since)) == len(str(since + length)):
        assert found == (since <= offset <= since + length)


def test_a_minute_of_a_push_of_ten_days_takes_few_keys() -> None:
    first = datetime.fromtimestamp(PUSH + 864_000, UTC)
    ranges = list(ranges_beside(f"a_{PUSH}_0_864000_300_169.jpg", first, first + timedelta(minutes=1)))
    names = sorted(f"a_{PUSH}_0_{offset}_300_169.jpg" for offset in range(0, 1_000_000, 10))
    assert sum(within(name, one) for name in names for one in ranges) < 20


def test_a_stream_of_grammar_b_lies_in_the_folder_of_each_day() -> None:
    found = list(ranges_beside(name_b(SINCE, root="live/"), SINCE, UNTIL))
    assert [one.prefix for one in found] == [
        "live/2016-08-22/room-7-screenshot-",
        "live/2016-08-23/room-7-screenshot-",
    ]
    assert root_of(name_b(SINCE, root="live/")) == "live/"


@given(
    offset=st.integers(-7200, 7200), known=st.integers(0, 86_400), root=st.sampled_from(["", "live/", "a/b/"])
)
def test_by_grammar_b_exactly_the_pictures_of_the_time_are_in_range(
    offset: int, known: int, root: str
) -> None:
    at = SINCE + timedelta(seconds=offset)
    ranges = list(ranges_beside(name_b(SINCE + timedelta(seconds=known), root=root), SINCE, UNTIL))
    assert any(within(name_b(at, root=root), one) for one in ranges) == (SINCE <= at <= UNTIL)
    assert not any(within(name_b(at, stream="room-70", root=root), one) for one in ranges)


@pytest.mark.parametrize(
    "name", ["cover.jpg", "room-7-screenshot-10-32-54-960x540.jpg", "a_0_0_1_300_169.jpg"]
)
def test_a_name_that_does_not_say_its_moment_leads_nowhere(name: str) -> None:
    assert parse_name(name).taken_at is None
    assert not list(ranges_beside(name, SINCE, UNTIL))
    assert root_of(name) is None


def test_days_begin_at_midnight_in_utc_8() -> None:
    assert days(SINCE, UNTIL) == ["2016-08-22", "2016-08-23"]
    assert days(SINCE, SINCE) == ["2016-08-22"]
