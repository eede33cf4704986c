"""Pictures cut out of encoded video: of the right moment, in the right shape, whatever the video is."""

import random
from fractions import Fraction

import pytest

from poller.sandbox.media.cutting import NoPicture, Picture, cut, height_for, plain_jpeg
from poller.sandbox.media.footage import MAX_BYTES, Latest
from poller.sandbox.media.tags import VIDEO, Tag

from .films import RATE, STEP, decoded, film, followed, is_keyframe, is_picture, read, shown

END_OF_SEQUENCE = b"\x17\x02\0\0\0"


def taken(latest: Latest, width: int = 300) -> Picture:
    footage = latest.footage()
    assert footage is not None
    return cut(footage, width)


def number_of(latest: Latest) -> int:
    return read(decoded(taken(latest).jpeg))


@pytest.mark.parametrize(
    ("width", "height", "aspect", "expected"),
    [
        (1280, 720, Fraction(1), 169),
        (640, 360, Fraction(1), 169),
        (640, 480, Fraction(1), 225),
        (720, 1280, Fraction(1), 533),
        (300, 300, Fraction(1), 300),
        (720, 576, Fraction(64, 45), 169),
        (720, 576, Fraction(16, 15), 225),
        (960, 540, Fraction(1), 169),
        (544, 960, Fraction(1), 529),
        (8000, 2, Fraction(1), 1),
    ],
)
def test_the_height_follows_the_videos_shape(
    width: int, height: int, aspect: Fraction, expected: int
) -> None:
    assert height_for(300, width, height, aspect) == expected


@pytest.mark.parametrize(
    ("size", "aspect", "expected"),
    [
        ((320, 180), Fraction(1), 169),
        ((320, 240), Fraction(1), 225),
        ((720, 576), Fraction(64, 45), 169),
        ((720, 576), Fraction(16, 15), 225),
        ((180, 320), Fraction(1), 533),
        ((1280, 720), Fraction(1), 169),
    ],
)
def test_a_picture_has_the_videos_shape(size: tuple[int, int], aspect: Fraction, expected: int) -> None:
    latest = followed(film([0xF0F0F0F0F0F0], size=size, aspect=aspect), whole=False)
    picture = taken(latest)
    frame = decoded(picture.jpeg)
    assert (frame.width, frame.height) == (picture.width, picture.height) == (300, expected)
    assert read(frame) == 0xF0F0F0F0F0F0


def test_a_picture_is_as_wide_as_it_is_asked_for() -> None:
    picture = taken(followed(film([7]), whole=False), 640)
    assert (picture.width, picture.height) == (640, 360)


OPEN_GOP = {"bf": "3", "b_strategy": "0", "x264-params": "open-gop=1:keyint=26:rc-lookahead=26"}
B_FRAMES = [{}, {"bf": "2"}, {"bf": "3", "b-pyramid": "normal", "refs": "4", "b_strategy": "0"}, OPEN_GOP]


@pytest.mark.parametrize("options", B_FRAMES)
def test_an_exact_picture_is_the_frame_on_the_screen_wherever_it_is_cut(options: dict[str, str]) -> None:
    """On the screen is the frame to be shown last of those whose time has come, also across keyframes."""
    tags = film(range(60), options)
    if options:
        assert any(shown(tag) != tag.timestamp for tag in tags)
    times = sorted(shown(tag) for tag in tags if is_picture(tag))
    latest = Latest(whole=True)
    for tag in tags:
        latest.add(tag.timestamp, tag.body)
        if is_picture(tag):
            on_screen = [number for number, at in enumerate(times) if at <= tag.timestamp]
            assert number_of(latest) == (on_screen[-1] if on_screen else 0)


@pytest.mark.parametrize("options", B_FRAMES)
def test_an_ordinary_picture_is_the_last_keyframe_wherever_it_is_cut(options: dict[str, str]) -> None:
    latest, keyframe = Latest(whole=False), -1
    tags = film(range(60), options)
    first = min(shown(tag) for tag in tags if is_picture(tag))
    for tag in tags:
        latest.add(tag.timestamp, tag.body)
        if is_keyframe(tag):
            keyframe = (shown(tag) - first) // STEP
        if is_picture(tag):
            assert number_of(latest) == keyframe
    assert keyframe >= 2 * RATE


def test_frames_that_need_what_came_before_the_keyframe_are_not_shown() -> None:
    """An open GOP: frames that are shown before its keyframe cannot be decoded from it on."""
    header, *tags = film(range(60), OPEN_GOP)
    first = min(shown(tag) for tag in tags)
    start = [at for at, tag in enumerate(tags) if is_keyframe(tag)][1]
    assert any(shown(tag) < shown(tags[start]) for tag in tags[start:]), "no open GOP"
    latest = followed([header], whole=True)
    for tag in tags[start:]:
        latest.add(tag.timestamp, tag.body)
        assert number_of(latest) >= (shown(tags[start]) - first) // STEP


def test_the_moment_is_right_where_the_timestamps_wrap() -> None:
    tags = film(range(RATE), {"bf": "2"})
    latest = Latest(whole=True)
    for tag in tags:
        latest.add((tag.timestamp + 2**32 - 500) % 2**32, tag.body)
    newest = max(tag.timestamp for tag in tags)
    assert number_of(latest) == sum(shown(tag) <= newest for tag in tags if is_picture(tag)) - 1


def test_before_the_first_keyframe_there_is_nothing_to_cut() -> None:
    tags = film(range(10))
    latest = followed([tag for tag in tags if not is_keyframe(tag)], whole=True)
    assert latest.footage() is None


@pytest.mark.parametrize("whole", [True, False])
def test_an_end_of_sequence_is_no_keyframe(whole: bool) -> None:
    latest = followed(film(range(10)), whole=whole)
    before = number_of(latest)
    latest.add(400, END_OF_SEQUENCE)
    assert number_of(latest) == before


def test_a_header_said_again_takes_no_picture_away() -> None:
    tags = film(range(10))
    latest = followed(tags[:6], whole=True)
    latest.add(tags[0].timestamp, tags[0].body)
    assert number_of(latest) == 4
    for tag in tags[6:]:
        latest.add(tag.timestamp, tag.body)
    assert number_of(latest) == 9


@pytest.mark.parametrize("whole", [True, False])
def test_a_new_resolution_counts_from_its_keyframe_on(whole: bool) -> None:
    latest = followed(film([1]), whole=whole)
    wide = film([2], size=(240, 180))
    latest.add(wide[0].timestamp, wide[0].body)
    assert (number_of(latest), taken(latest).height) == (1, 169)
    latest.add(1000, wide[1].body)
    assert (number_of(latest), taken(latest).height) == (2, 225)


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "libsvtav1"])
def test_pictures_come_out_of_the_codecs_of_enhanced_rtmp(codec: str) -> None:
    tags = film([0xABCDEF] * 4, codec=codec)
    assert tags[0].body[0] & 0x80, "not enhanced"
    for whole in (True, False):
        assert number_of(followed(tags, whole=whole)) == 0xABCDEF


def test_an_older_codec_gives_no_picture_and_says_so() -> None:
    latest = followed([Tag(VIDEO, 0, b"\x12" + bytes(50))], whole=False)
    with pytest.raises(NoPicture, match="flv1"):
        taken(latest)


def test_a_header_of_another_codec_is_not_used() -> None:
    keyframe_of_hevc = Tag(VIDEO, 40, b"\x1c\x01\x00\x00\x00" + bytes(50))
    latest = followed([*film([1]), keyframe_of_hevc], whole=False)
    footage = latest.footage()
    assert footage is not None
    assert (footage.codec, footage.header) == ("hevc", b"")


def test_a_shape_that_no_jpeg_can_have_gives_no_picture() -> None:
    latest = followed(film([1], size=(16, 1000), aspect=Fraction(1, 16)), whole=False)
    with pytest.raises(NoPicture, match="pixels high"):
        taken(latest)


def test_a_keyframe_that_is_cut_short_gives_no_picture() -> None:
    header, keyframe = film([0x123456789])
    for size in (1, 4, 5, 20, len(keyframe.body) // 2):
        latest = followed([header, keyframe._replace(body=keyframe.body[: 5 + size])], whole=False)
        with pytest.raises(NoPicture):
            taken(latest)


def test_damaged_video_gives_a_picture_or_none_and_never_an_error(soak: bool) -> None:
    tags = film(range(6), {"bf": "2"})
    outcomes = set()
    for seed in range(3000 if soak else 150):
        rng = random.Random(seed)
        latest = followed([_damaged(tag, rng) for tag in tags], whole=True)
        if latest.footage() is None:
            continue
        try:
            picture = taken(latest)
        except NoPicture:
            outcomes.add("none")
        else:
            outcomes.add("picture")
            assert decoded(picture.jpeg).width == 300
    assert outcomes == {"none", "picture"}


def _damaged(tag: Tag, rng: random.Random) -> Tag:
    """Some bytes overwritten behind the message's own first five; sometimes in the header, mostly in the frames."""
    body = bytearray(tag.body)
    if is_picture(tag) or rng.random() < 0.3:
        for _ in range(rng.randrange(4)):
            body[rng.randrange(5, len(body))] = rng.randrange(256)
    return tag._replace(body=bytes(body))


def test_a_frame_that_cannot_be_decoded_does_not_cost_the_picture() -> None:
    tags = film(range(10))
    broken = tags[-1]._replace(body=tags[-1].body[:5] + b"\0\0\1\0nothing")
    assert number_of(followed([*tags[:-1], broken], whole=True)) == 8


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("start", [b"\x17\1\0\0\0", b"\x27\1\0\0\0", b"\x17", b""])
def test_an_empty_message_changes_nothing(whole: bool, start: bytes) -> None:
    tags = film(range(10))
    latest = followed(tags[:6], whole=whole)
    before = number_of(latest)
    latest.add(5 * STEP, start)
    assert number_of(latest) == before
    for tag in tags[6:]:
        latest.add(tag.timestamp, tag.body)
    assert number_of(latest) == (9 if whole else 0)


def test_of_a_gop_without_end_the_keyframe_alone_is_remembered() -> None:
    latest = Latest(whole=True)
    latest.add(0, b"\x17\x01\0\0\0" + b"key")
    frame = b"\x27\x01\0\0\0" + bytes(100_000)
    most = MAX_BYTES // 100_000
    for number in range(1, most):
        latest.add(number * STEP, frame)
    assert held(latest) == most
    for number in range(most, 3 * most):
        latest.add(number * STEP, frame)
    assert held(latest) == 1
    latest.add(3 * most * STEP, b"\x17\x01\0\0\0" + b"next")
    latest.add(3 * most * STEP + STEP, frame)
    footage = latest.footage()
    assert footage is not None
    assert [len(one.content) for one in footage.frames] == [4, 100_000]


def test_keyframes_that_are_never_shown_are_bounded_too() -> None:
    latest = Latest(whole=True)
    late = b"\x17\x01\x7f\xff\xff" + bytes(100_000)
    for number in range(3 * MAX_BYTES // 100_000):
        latest.add(number * STEP, late)
        footage = latest.footage()
        assert footage is not None
        assert sum(len(one.content) for one in footage.frames) <= MAX_BYTES


def held(latest: Latest) -> int:
    footage = latest.footage()
    return len(footage.frames) if footage is not None else 0


def test_a_plain_picture_has_its_size() -> None:
    frame = decoded(plain_jpeg(300, 169))
    assert (frame.width, frame.height) == (300, 169)
