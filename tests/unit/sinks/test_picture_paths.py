"""Names on disk: whatever comes in, what comes out is plain, short, inside, and nobody else's."""

import random
import re
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.sinks.picture_paths import LONGEST_PART, Layout, PicturePath, encode_value, parse_template
from tests.integration.sinks.download.names import HOSTILE_NAMES
from tests.integration.sinks.download.shots import shot

AT = datetime(2016, 8, 22, 23, 30, tzinfo=UTC)
PLAIN = re.compile(r"[A-Za-z0-9_@#=+,%~][A-Za-z0-9_.@#=+,%~-]*")
DEFAULT = "{date}/{stream}/{name}"


def layout(template: str = DEFAULT, *, lone: bool = True, folds: bool = False) -> Layout:
    return Layout(parts=parse_template(template), lone=lone, folds=folds)


def path(place: PicturePath) -> str:
    return "/".join((*place.folders, place.name))


# ---------------------------------------------------------------- the template


def test_an_ordinary_shot_keeps_its_name_under_date_and_stream() -> None:
    name = "cam_1_1471850187_1471850187_10_300_169.jpg"
    assert path(layout().place(shot(name, stream="cam_1", at=AT), name)) == f"2016-08-22/cam_1/{name}"


def test_a_shot_in_a_date_folder_keeps_its_name_too() -> None:
    # The folder is the platform's date (UTC+8), the template's is UTC: the same moment.
    key = "2016-08-23/cam1-screenshot-07-30-00-300x169.jpg"
    event = shot("cam1-screenshot-07-30-00-300x169.jpg", key=key, at=AT)
    assert (
        path(layout().place(event, f"prefix/{key}")) == "2016-08-22/cam1/cam1-screenshot-07-30-00-300x169.jpg"
    )
    assert "~" in path(layout("{stream}/{name}").place(event, key))


def test_a_name_that_does_not_identify_its_event_gets_a_tag_of_the_event() -> None:
    event = shot("cover.jpg", key="cover.jpg?t=1", at=AT)
    assert path(layout("{name}").place(event, "cover.jpg")) == f"cover~{event.id[:16]}.jpg"


def test_several_accounts_cannot_write_over_each_other() -> None:
    ours, theirs = (shot("a_1_1_1_1_1.jpg", account=name, stream="a", at=AT) for name in ("ours", "theirs"))
    shared = layout(lone=False)
    assert shared.place(ours, "a_1_1_1_1_1.jpg") != shared.place(theirs, "a_1_1_1_1_1.jpg")
    apart = layout("{account}/{name}", lone=False)
    assert path(apart.place(ours, "a_1_1_1_1_1.jpg")) == "ours/a_1_1_1_1_1.jpg"


def test_every_placeholder_has_its_value() -> None:
    event = shot("a.jpg", at=AT)
    made = layout("{account}/{kind}/{date}-{hour}/s-{stream}/{id}-{name}").place(event, "a.jpg")
    assert path(made) == f"main/screenshot/2016-08-22-23/s-cam1/{event.id}-a.jpg"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{date}/{strem}/{name}", "did you mean {stream}"),
        ("{Name}", "did you mean {name}"),
        ("{}{name}", "there are {date}"),
        ("{date}/{stream}", "must hold {name} or {id}"),
        ("", "empty part"),
        ("/{name}", "empty part"),
        ("{name}/", "empty part"),
        ("a//{name}", "empty part"),
        ("../{name}", "begin with a dot"),
        ("a/./{name}", "begin with a dot"),
        (".incoming/{name}", "begin with a dot"),
        ("-{name}", "begin with a dot"),
        ("{name", "only letters"),
        ("{name}}", "only letters"),
        ("{{name}}", "only letters|unknown"),
        ("a b/{name}", "only letters"),
        ("{name}\n", "only letters"),
        ("a\\{name}", "only letters"),
        ("~{name}", "only letters"),
        ("{name!r}", "unknown"),
        ("{name:>99}", "unknown"),
        ("{stream}-{name}", "part of their own"),
        ("x" * 101 + "{name}", "100 characters"),
    ],
)
def test_a_bad_template_is_refused_with_a_reason(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_template(template)


# ---------------------------------------------------------------- names


def _sound(place: PicturePath) -> None:
    for part in (*place.folders, place.name):
        assert PLAIN.fullmatch(part), part
        assert len(part) <= LONGEST_PART + 2
        assert not part.endswith(".")
        assert part.partition(".")[0].upper() not in {"CON", "NUL", "AUX", "PRN", "COM1", "LPT9"}


def test_there_are_enough_hostile_names() -> None:
    assert len(HOSTILE_NAMES) == len(set(HOSTILE_NAMES)) >= 500


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize(
    "template", [DEFAULT, "{name}", "{stream}/{id}", "x{name}.jpg", "{id}/{stream}{name}"]
)
def test_no_two_hostile_names_meet_and_all_are_plain(template: str, folds: bool) -> None:
    made = set()
    for name in HOSTILE_NAMES:
        place = layout(template, folds=folds).place(shot(name, stream=name, at=AT), name)
        _sound(place)
        made.add(path(place).lower() if folds else path(place))
    assert len(made) == len(HOSTILE_NAMES)


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=300))
def test_what_is_encoded_decodes_to_what_it_was(value: str) -> None:
    made = encode_value(value)
    assert made == "%empty" if not value else unquote_to_bytes(made) == value.encode("utf-8", "surrogatepass")


@given(st.lists(st.text(max_size=260), min_size=2, max_size=20, unique=True))
def test_different_streams_get_different_folders(streams: list[str]) -> None:
    places = [layout().place(shot("a.jpg", stream=stream, at=AT), "a.jpg") for stream in streams]
    for place in places:
        _sound(place)
    assert len({place.folders for place in places}) == len(streams)


def test_long_names_that_differ_only_where_they_are_cut_stay_apart() -> None:
    names = [f"{'a' * 300}{number}.jpg" for number in range(50)] + ["é" * 120 + f"{n}.jpg" for n in range(50)]
    places = {path(layout().place(shot(name, at=AT), name)) for name in names}
    assert len(places) == 100
    assert all(place.endswith(".jpg") for place in places)


def test_a_picture_cannot_be_another_pictures_sidecar() -> None:
    picture = layout("{name}").place(shot("a.jpg"), "a.jpg").name
    assert layout("{name}").place(shot("a.jpg.json"), "a.jpg.json").name != f"{picture}.json"


def test_dates_before_the_year_1000_and_at_the_end_of_time_have_four_digits() -> None:
    for at in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)):
        [folder] = layout("{date}/{name}").place(shot("a.jpg", key="b", at=at), "x/a.jpg").folders
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", folder)


def test_random_bytes_in_names_stay_plain() -> None:
    rng = random.Random(11)
    for _ in range(2_000):
        name = rng.randbytes(rng.randint(0, 300)).decode("utf-8", "surrogateescape")
        _sound(layout().place(shot(name, stream=name, at=AT), name))
