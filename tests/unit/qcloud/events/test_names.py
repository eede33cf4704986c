"""File names in both grammars, and names in none."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.qcloud.events.names import UNKNOWN, NamedShot, parse_name

PUSH, TASK = 1471850187, 1471850190


def at(epoch: int) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def shot_a(stream: str, offset: int = 120, width: int = 300, height: int = 169) -> NamedShot:
    return NamedShot(
        stream=stream,
        push_started_at=at(PUSH),
        task_started_at=at(TASK),
        offset=offset,
        width=width,
        height=height,
        taken_at=at(PUSH + offset),
        fixed=True,
    )


STREAMS = [
    "a",
    "5000_live",
    "3891_@v_tls#3pfnm5fw35qt",
    "_",
    "__",
    "1_2_3_4_5_6",
    "直播",
    "a b",
    "x-y",
    "%40",
    "a.jpg",
]
STREAMS += [f"8888_{PUSH}_{TASK}_10_300_169", "-screenshot-", "\u202egpj", "a'b\"c", "\0", "a" * 300]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("folder", ["", "/", "shots/", "/2016-08-22/x/"])
def test_grammar_a_is_read_from_the_right(stream: str, folder: str) -> None:
    assert parse_name(f"{folder}{stream}_{PUSH}_{TASK}_120_300_169.jpg") == shot_a(stream)


def test_a_task_that_began_at_zero_is_unknown_and_a_width_need_not_be_300() -> None:
    shot = parse_name(f"s_{PUSH}_0_120_1280_720.JPEG")
    assert (shot.task_started_at, shot.width, shot.height, shot.push_started_at) == (
        None,
        1280,
        720,
        at(PUSH),
    )


def test_grammar_b_has_its_clock_in_beijing_time() -> None:
    shot = parse_name("/2016-09-12/2016090090936-screenshot-10-03-08-1280x720.jpg")
    moment = datetime(2016, 9, 12, 2, 3, 8, tzinfo=UTC)
    assert shot == NamedShot(stream="2016090090936", width=1280, height=720, taken_at=moment, fixed=True)


@pytest.mark.parametrize(
    ("name", "stream", "taken_at"),
    [
        ("a/2016-09-12/b/s-screenshot-10-03-08-1x2.jpg", "s", datetime(2016, 9, 12, 2, 3, 8, tzinfo=UTC)),
        ("2015-01-01/2016-09-12/s-screenshot-00-00-00-1x2.jpg", "s", datetime(2016, 9, 11, 16, tzinfo=UTC)),
        ("s-screenshot-10-03-08-1x2.jpg", "s", None),
        ("live/s-screenshot-10-03-08-1x2.jpg", "s", None),
        ("/x2016-09-12/s-screenshot-10-03-08-1x2.jpg", "s", None),
        ("s-screenshot-1-screenshot-10-03-08-1x2.jpg", "s-screenshot-1", None),
        ("a_1_2_3_4_5-screenshot-10-03-08-1x2.jpg", "a_1_2_3_4_5", None),
    ],
)
def test_grammar_b_takes_other_folders_and_none(name: str, stream: str, taken_at: datetime | None) -> None:
    shot = parse_name(name)
    assert (shot.stream, shot.taken_at, shot.fixed) == (stream, taken_at, taken_at is not None)


NAMES_IN_NO_GRAMMAR = [
    "",
    "/",
    ".jpg",
    "x.jpg",
    "shihou/5659_10146_prod-320.jpg",
    f"_{PUSH}_{TASK}_120_300_169.jpg",
    f"dir/_{PUSH}_{TASK}_120_300_169.jpg",
    f"s_{PUSH}_{TASK}_120_300_169.png",
    f"s_{PUSH}_{TASK}_120_300_169.jpg.exe",
    f"s_{PUSH}_{TASK}_120_300_169.jpg\n",
    f"s_{PUSH}_{TASK}_120_300.jpg",
    f"s_{PUSH}_{TASK}_-1_300_169.jpg",
    f"s_{PUSH}_{TASK}_1.5_300_169.jpg",
    f"s_{PUSH}_{TASK}_120_300_.jpg",
    f"s_{PUSH}_{TASK}__300_169.jpg",
    f"s_{'9' * 30}_{TASK}_120_300_169.jpg",
    f"s_{PUSH}_{'9' * 30}_120_300_169.jpg",
    f"s_{PUSH}_{TASK}_{'9' * 30}_300_169.jpg",
    f"s_{PUSH}_{TASK}_120_{'9' * 5000}_169.jpg",
    f"s_{PUSH}_{TASK}_120_300_{'9' * 5000}.jpg",
    f"s_999999999999_{TASK}_120_300_169.jpg",
    f"s_{PUSH}_{TASK}_120_300_16٩.jpg",
    f"s_{PUSH}_{TASK}_1²0_300_169.jpg",
    f"s_１２３_{TASK}_120_300_169.jpg",
    "2016-13-40/s-screenshot-10-03-08-1x2.jpg",
    "0000-00-00/s-screenshot-10-03-08-1x2.jpg",
    "0001-01-01/s-screenshot-00-00-00-1x2.jpg",
    "2016-09-12/s-screenshot-25-03-08-1x2.jpg",
    "2016-09-12/s-screenshot-10-60-08-1x2.jpg",
    "2016-09-12/s-screenshot-10-03-60-1x2.jpg",
    "2016-09-12/-screenshot-10-03-08-1x2.jpg",
    "2016-09-12/s-screenshot-10-03-08-1x.jpg",
    "2016-09-12/s-screenshot-10-03-08.jpg",
    "_" * 100_000,
    "-screenshot-" * 10_000,
    "_1" * 50_000 + ".jpg",
]


@pytest.mark.parametrize("name", NAMES_IN_NO_GRAMMAR, ids=lambda name: repr(name[:40]))
def test_anything_else_is_a_name_without_fields(name: str) -> None:
    assert parse_name(name) == UNKNOWN


@given(st.text())
def test_any_text_is_a_name(name: str) -> None:
    parse_name(name)


def test_hostile_names_by_the_thousand_raise_nothing_and_invent_no_stream() -> None:
    pick = random.Random(7)
    parts = [
        "_",
        "/",
        "-",
        ".jpg",
        "screenshot",
        "..",
        "9" * 12,
        "0",
        "-1",
        "x",
        "٣",
        "\0",
        "2016-09-12",
        "300",
        "10",
    ]
    for _ in range(5000):
        name = "".join(pick.choices(parts, k=pick.randint(1, 18)))
        shot = parse_name(name)
        assert shot.stream is None or (shot.stream and shot.stream in name)


@given(
    stream=st.text(min_size=1).filter(lambda text: "/" not in text),
    offset=st.integers(0, 10**9 - 1),
    width=st.integers(0, 99999),
    height=st.integers(0, 99999),
)
def test_what_is_written_by_grammar_a_is_read_back(stream: str, offset: int, width: int, height: int) -> None:
    name = f"{stream}_{PUSH}_{TASK}_{offset}_{width}_{height}.jpg"
    assert parse_name(name) == shot_a(stream, offset, width, height)
