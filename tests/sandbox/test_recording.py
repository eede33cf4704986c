"""Recording: segments that keep the limit, lose nothing, and decode alone."""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.sandbox.media import flv
from poller.sandbox.media.tags import AUDIO, SCRIPT, VIDEO, Tag
from poller.sandbox.media.timeline import MAX_JUMPS, Timeline

from . import pushes
from .pushes import (
    AAC_HEADER,
    AVC_HEADER,
    RATE,
    Studio,
    between,
    check_decodes,
    duration,
    encoded,
    frames,
    is_frame,
    is_header,
    is_keyframe,
    joined,
    keyframe,
    push,
    shifted,
    sound,
)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio(tmp_path) as studio:
        yield studio


@pytest.fixture(scope="module")
def source() -> list[Tag]:
    return pushes.source()


def test_no_segment_exceeds_the_limit_and_each_decodes_alone(studio: Studio, source: list[Tag]) -> None:
    segments = studio.record(source, 6)
    assert len(segments) >= 3
    assert all(duration(segment) <= 6 for segment in segments)
    for file in studio.files():
        check_decodes(file)
        with av.open(str(file)) as container:
            assert container.duration is not None
            assert container.duration <= 6_000_000
    for segment in segments:
        assert is_keyframe(next(tag for tag in segment if tag.kind == VIDEO and is_frame(tag)))
        assert [tag.timestamp for tag in segment if is_header(tag)] == [0, 0]


def test_what_comes_in_is_what_the_segments_hold(studio: Studio, source: list[Tag]) -> None:
    assert frames(joined(studio.record(source, 6))) == frames(source)


def test_an_interruption_ends_the_segment_and_a_return_begins_one(studio: Studio, source: list[Tag]) -> None:
    middle = len(source) * 2 // 3
    studio.record(source[:middle], 1800)
    studio.now += 60
    studio.record([*filter(is_header, source), *source[middle:]], 1800)
    first, second = studio.segments()
    assert frames(first) == frames(source[:middle])
    assert frames(second) == frames(source[middle:])
    assert second[-1].timestamp < 6000
    check_decodes(studio.files()[0])


def test_a_segment_is_listed_when_it_ends_with_the_wall_clock_of_its_first_and_last_frame(
    studio: Studio, source: list[Tag]
) -> None:
    recorder = studio.recorder(1800)
    for number, tag in enumerate(source):
        studio.now = 1_500_000_000.0 + number
        recorder.tag(*tag)
    assert studio.listed() == []
    assert [file.suffix for file in studio.recordings.directory.iterdir()] == [".part"]
    recorder.end()
    [recording] = studio.listed()
    assert recording.start_time == 1_500_000_000 + next(i for i, tag in enumerate(source) if is_frame(tag))
    assert recording.end_time == 1_500_000_000 + max(i for i, tag in enumerate(source) if is_frame(tag))
    assert recording.size == studio.files()[0].stat().st_size


def test_metadata_tell_the_length_and_what_the_publisher_said(studio: Studio, source: list[Tag]) -> None:
    [segment] = studio.record(source, 1800)
    assert source[0].body.startswith(b"\x02\0\nonMetaData")
    said = dict(flv.scalars(segment[0].body))
    number = struct.Struct(">d").unpack
    assert number(said[b"\0\x05width"][1:]) == (160.0,)
    assert said[b"\0\x06stereo"] == b"\x01\x01"
    assert said[b"\0\x07encoder"].startswith(b"\x02")
    assert number(said[b"\0\x08filesize"][1:]) == (studio.files()[0].stat().st_size,)
    assert duration(segment) == pytest.approx(13, abs=0.1)
    assert len([tag for tag in segment if tag.kind == SCRIPT]) == 1


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_metadata_cut_anywhere_are_read_as_far_as_they_go(cut: int) -> None:
    entries = b"\0\x05width\0" + bytes(8) + b"\0\x01s\x02\0\x03abc" + b"\0\x01o\x03\0\0\x09"
    message = (b"\x02\0\nonMetaData\x08\0\0\0\3" + entries)[:cut]
    said = [(key[2:], value) for key, value in flv.scalars(message)]
    assert said == [(b"width", bytes(9)), (b"s", b"\x02\0\x03abc")][: len(said)]
    assert len(said) == (cut >= 34) + (cut >= 43)


def test_a_push_without_a_frame_leaves_nothing(studio: Studio) -> None:
    assert (
        studio.record([AVC_HEADER, AAC_HEADER, Tag(VIDEO, 0, b"\x17\x02\0\0\0"), Tag(AUDIO, 0, b"")], 6) == []
    )
    assert not studio.recordings.directory.exists()


def test_a_group_of_pictures_longer_than_the_limit_is_cut_at_the_limit(studio: Studio) -> None:
    tags = list(push(40, gop=500, audio=23))
    segments = studio.record(tags, 6)
    assert frames(joined(segments)) == frames(tags)
    assert all(duration(segment) <= 6 for segment in segments)
    # The keyframe at 20 s begins a segment of its own, or 6 s more could not be shown.
    [place] = [i for i, segment in enumerate(segments) if i and any(map(is_keyframe, segment))]
    assert is_keyframe(next(tag for tag in segments[place] if is_frame(tag)))


def groups(*seconds: float) -> list[Tag]:
    """Pictures, a keyframe at the beginning of each group."""
    tags, at = [AVC_HEADER], 0
    for length in seconds:
        for number in range(int(length * RATE)):
            tags.append(Tag(VIDEO, at, between() if number else keyframe()))
            at += 1000 // RATE
    return tags


def test_groups_of_many_lengths_are_never_cut_in_two(studio: Studio) -> None:
    segments = studio.record(groups(*(2, *[0.4] * 6) * 6), 6)
    assert len(segments) >= 5
    assert all(is_keyframe(next(filter(is_frame, segment))) for segment in segments)


def test_one_group_longer_than_the_limit_does_not_shorten_what_follows(studio: Studio) -> None:
    segments = studio.record(groups(2, 10, *[2] * 12), 6)
    assert [duration(segment) for segment in segments[-4:-1]] == [6, 6, 6]


def test_half_an_hour_is_kept_by_media_that_come_faster_than_the_clock(studio: Studio, soak: bool) -> None:
    tags = list(push(66 * 60, gop=125, audio=23) if soak else push(66 * 60, gop=25, step=200, audio=184))
    segments = studio.record(tags, 1800)
    lengths = [duration(segment) for segment in segments]
    assert len(lengths) == 3
    assert all(1790 < length <= 1800 for length in lengths[:2])
    assert sum(lengths) == pytest.approx(66 * 60, abs=0.5)
    assert all(is_keyframe(next(filter(is_frame, segment))) for segment in segments)
    assert frames(joined(segments)) == frames(tags)


def test_pictures_alone_fill_the_limit_to_the_last_frame(studio: Studio) -> None:
    tags = [AVC_HEADER]
    tags += [Tag(VIDEO, round(n * 1000 / 30), between() if n % 60 else keyframe()) for n in range(30 * 18)]
    assert [round(duration(segment), 2) for segment in studio.record(tags, 6)] == [6, 6, 6]


def test_sound_alone_is_recorded_and_cut(studio: Studio) -> None:
    tags = [AAC_HEADER, *(Tag(AUDIO, at, sound()) for at in range(0, 20_000, 23))]
    segments = studio.record(tags, 6)
    assert frames(joined(segments)) == frames(tags)
    assert [duration(segment) > 5.9 for segment in segments] == [True, True, True, False]
    assert all(duration(segment) <= 6 for segment in segments)
    assert all(file.read_bytes()[4] == 4 for file in studio.files())


def test_sound_that_comes_late_after_a_cut_is_kept_at_the_new_beginning(studio: Studio) -> None:
    tags = [AVC_HEADER, AAC_HEADER]
    for at in range(0, 12_000, 40):
        tags.append(Tag(VIDEO, at, between() if at % 2000 else keyframe()))
        if at >= 200:
            tags.append(Tag(AUDIO, at - 200, sound()))
    segments = studio.record(tags, 6)
    assert frames(joined(segments)) == frames(tags)
    late = [tag.timestamp for tag in segments[1] if tag.kind == AUDIO and is_frame(tag)]
    assert late[:6] == [0, 0, 0, 0, 0, 0]
    assert late[6] > 0
    assert is_keyframe(next(filter(is_frame, segments[1])))


def test_timestamps_that_wrap_change_nothing(studio: Studio) -> None:
    tags = list(push(14, gop=50, audio=23))
    plain = studio.record(tags, 6)
    wrapped = studio.record(shifted(tags, 2**32 - 5000), 6)[len(plain) :]
    assert wrapped == plain


@pytest.mark.parametrize("by", [-2000, -1_000_000, 7000, 50_000_000])
def test_a_clock_that_jumps_begins_a_new_segment(studio: Studio, by: int) -> None:
    first, second = [list(push(3, gop=50, audio=40)) for _ in range(2)]
    segments = studio.record([*first, *shifted(second, 3000 + by)], 6)
    assert [frames(segment) for segment in segments] == [frames(first), frames(second)]
    assert [duration(segment) for segment in segments] == [3, 3]


def film(*groups: int) -> list[Tag]:
    """Groups of pictures of so many frames at 25 a second, with sound."""
    tags, at = [AVC_HEADER, AAC_HEADER], 0
    for count in groups:
        for number in range(count):
            tags += [Tag(VIDEO, at, between() if number else keyframe()), Tag(AUDIO, at, sound())]
            at += 40
    return tags


def jumping(tags: list[Tag], frame: int, by: int, *, first: int = VIDEO) -> list[Tag]:
    """The same push, its clock jumping at that frame; `first` is the kind that jumps first."""
    after = [i for i, tag in enumerate(tags) if tag.kind == first and is_frame(tag)][frame]
    return [*tags[:after], *shifted(tags[after:], by)]


@pytest.mark.parametrize("first", [VIDEO, AUDIO])
@pytest.mark.parametrize("by", [-3000, -1_000_000, 7000, 50_000_000])
@pytest.mark.parametrize("frame", [1, 25, 49, 50, 51, 99])
def test_a_segment_after_a_jump_in_the_middle_of_a_group_begins_with_a_keyframe(
    studio: Studio, frame: int, by: int, first: int
) -> None:
    tags = jumping(film(50, 50, 50), frame, by, first=first)
    segments = studio.record(tags, 6)
    assert frames(joined(segments)) == frames(tags)
    assert len(segments) == 2
    for segment in segments:
        assert is_keyframe(next(tag for tag in segment if tag.kind == VIDEO and is_frame(tag)))
        assert duration(segment) <= 6
        for kind in (AUDIO, VIDEO):
            times = [tag.timestamp for tag in segment if tag.kind == kind]
            assert times == sorted(times)


def test_a_jump_is_not_waited_out_beyond_the_limit(studio: Studio) -> None:
    tags = jumping(film(400), 50, 50_000_000)
    segments = studio.record(tags, 6)
    assert frames(joined(segments)) == frames(tags)
    assert [duration(segment) <= 6 for segment in segments] == [True] * 3


def test_sound_alone_that_jumps_begins_a_segment_at_once(studio: Studio) -> None:
    tags = [AAC_HEADER, *(Tag(AUDIO, at, sound()) for at in range(0, 2000, 23))]
    later = [AAC_HEADER, *shifted(tags[1:], 50_000_000)]
    segments = studio.record([*tags, *later], 6)
    assert [frames(segment) for segment in segments] == [frames(tags), frames(later)]


def test_every_frame_after_a_jump_decodes(studio: Studio, source: list[Tag]) -> None:
    at = [i for i, tag in enumerate(source) if tag.kind == VIDEO and is_frame(tag)][3 * RATE + 7]
    studio.record([*source[:at], *shifted(source[at:], -3000)], 1800)
    shown = 0
    for file in studio.files():
        with av.open(str(file)) as container:
            shown += len(list(container.decode(video=0)))
    assert shown == 13 * RATE


FURTHER = {
    "a second track of video": Tag(VIDEO, 0, b"\x96\x00hvc1\x01its header"),
    "a second track of sound": Tag(AUDIO, 0, b"\x95\x00Opus\x01its header"),
    "several tracks at once": Tag(VIDEO, 0, b"\x96\x10avc1\0\0\0\x01a\x01\0\0\x01b"),
    "tracks of several codecs": Tag(VIDEO, 0, b"\x96\x20avc1\0\0\0\x01ahvc1\x01\0\0\x01b"),
    "colours": Tag(VIDEO, 0, b"\x94hvc1\x02\0\tcolorInfo\x03"),
    "channels": Tag(AUDIO, 0, b"\x94mp4a\x01\x06"),
}


def test_headers_of_further_tracks_before_the_first_frame_are_in_every_segment(studio: Studio) -> None:
    first, *rest = film(*[50] * 5)
    segments = studio.record([first, *FURTHER.values(), *rest], 4)
    assert len(segments) == 3
    for segment in segments:
        bodies = [tag.body for tag in segment]
        for what, tag in FURTHER.items():
            assert bodies.count(tag.body) == 1, what
            assert bodies.index(tag.body) < bodies.index(next(filter(is_frame, segment)).body), what


def test_a_new_header_of_a_further_track_takes_the_place_of_the_old_one(studio: Studio) -> None:
    old, new = b"\x96\x00avc1\x01old", b"\x96\x00avc1\x01new"
    other, frame = b"\x96\x00avc1\x02other", b"\x96\x01avc1\x01no header"
    tags = film(*[50] * 5)
    here = next(i for i, tag in enumerate(tags) if tag.timestamp == 1000)
    more = [Tag(VIDEO, 1000, body) for body in (new, frame)]
    before = [Tag(VIDEO, 0, body) for body in (old, other, frame)]
    first, *later = studio.record([*before, *tags[:here], *more, *tags[here:]], 4)
    said = [
        [tag.body for tag in segment if tag.body in (old, new, other, frame)] for segment in (first, *later)
    ]
    assert said == [[old, other, new, frame], [new, other], [new, other]]


def test_the_headers_that_are_kept_are_bounded(studio: Studio) -> None:
    many = [Tag(VIDEO, 0, b"\x96\x00avc1" + bytes([number]) + bytes(10)) for number in range(200)]
    huge = Tag(VIDEO, 0, b"\x96\x00avc1\xff" + bytes(1 << 20))
    [segment] = studio.record([huge, *many, *film(25)], 6)
    assert len([tag for tag in segment if tag.body[:2] == b"\x96\x00"]) == 64


def test_a_step_back_within_a_second_is_no_jump_and_time_does_not_run_back(studio: Studio) -> None:
    tags = [AVC_HEADER, *(Tag(VIDEO, at, keyframe()) for at in (0, 40, 80, 20, 120))]
    [segment] = studio.record(tags, 6)
    assert [tag.timestamp for tag in segment if is_frame(tag)] == [0, 40, 80, 80, 120]


def test_sound_and_pictures_with_clocks_of_their_own_share_segments(studio: Studio) -> None:
    tags = [
        tag._replace(timestamp=tag.timestamp + 10**9) if tag.kind == AUDIO else tag
        for tag in push(14, gop=50, audio=23)
    ]
    segments = studio.record(tags, 6)
    assert frames(joined(segments)) == frames(tags)
    assert len(segments) <= 4
    assert all(duration(segment) <= 6 for segment in segments)


def test_sound_that_lags_from_the_beginning_keeps_its_lag(studio: Studio) -> None:
    tags = [
        tag._replace(timestamp=(tag.timestamp - 1500) % 2**32) if tag.kind == AUDIO else tag
        for tag in push(4, gop=50, audio=40)
    ]
    [segment] = studio.record(tags, 6)
    heard = [tag.timestamp for tag in segment if tag.kind == AUDIO and is_frame(tag)]
    assert heard == [max(0, at - 1500) for at in range(0, 4000, 40)]


def test_a_clock_that_jumps_all_the_time_does_not_make_files_without_end() -> None:
    timeline = Timeline(6000)
    jumps = [timeline.place(VIDEO, 5000 * (number % 2))[1] for number in range(10 * MAX_JUMPS)]
    assert sum(jumps) == MAX_JUMPS


def test_a_media_clock_slower_than_the_wall_does_not_stretch_a_segment(studio: Studio) -> None:
    recorder = studio.recorder(6)
    tags = list(push(10, gop=50))
    for tag in tags:
        recorder.tag(*tag)
        studio.now += 0.2  # a frame's 40 ms take 200
    recorder.end()
    assert frames(joined(studio.segments())) == frames(tags)
    lengths = [recording.end_time - recording.start_time for recording in studio.listed()]
    assert len(lengths) >= 7
    assert all(length <= 7 for length in lengths)


def test_a_changed_header_is_written_where_it_changed_and_a_repeated_one_is_not(studio: Studio) -> None:
    new = AVC_HEADER._replace(timestamp=4000, body=AVC_HEADER.body + b"another")
    first, second = [list(shifted(push(4, gop=50), by)) for by in (0, 4000)]
    third = shifted(push(4, gop=50), 8000)
    [segment] = studio.record([*first, AVC_HEADER, new, *second[1:], *third[1:]], 1800)
    headers = [(tag.timestamp, tag.body) for tag in segment if is_header(tag)]
    assert headers == [(0, AVC_HEADER.body), (4000, new.body)]
    assert [
        tag.body for tag in studio.record([*first, new, *second[1:], *third[1:]], 6)[-1] if is_header(tag)
    ] == [new.body]


def test_script_data_and_ends_of_sequence_stay_in_their_place(studio: Studio) -> None:
    cue, over = Tag(SCRIPT, 40, b"\x02\0\x0aonCuePoint\x05"), Tag(VIDEO, 80, b"\x17\x02\0\0\0")
    frame = Tag(VIDEO, 40, keyframe())
    [segment] = studio.record([AVC_HEADER, frame, cue, frame._replace(timestamp=80), over], 6)
    assert [tag.body for tag in segment[2:]] == [frame.body, cue.body, frame.body, over.body]
    assert [tag.timestamp for tag in segment[2:]] == [0, 0, 40, 40]


def test_hevc_in_enhanced_rtmp_passes_through(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV has no libx265")
    tags = encoded(5, RATE, "libx265", **{"x265-params": "keyint=25:log-level=none"})
    assert tags[1].body[:1] != b"\x17"
    with caplog.at_level(logging.WARNING, "poller.sandbox"):
        segments = studio.record(tags, 3)
    assert len(segments) == 2 or len(segments) == 3
    assert frames(joined(segments)) == frames(tags)
    assert not caplog.records, "the guide says that it is recorded"
    for file in studio.files():
        with av.open(str(file)) as container:
            assert container.streams.video[0].codec.name == "hevc"
            assert len(list(container.decode(video=0))) >= RATE


BODIES = {
    "key": (VIDEO, keyframe),
    "between": (VIDEO, between),
    "sound": (AUDIO, sound),
}


@settings(max_examples=60)
@given(
    messages=st.lists(
        st.tuples(
            st.sampled_from(sorted(BODIES)),
            st.one_of(st.integers(0, 60), st.integers(0, 5000)),
            st.sampled_from([0.0, 0.02, 1.5]),
        ),
        min_size=1,
        max_size=120,
    ),
    start=st.sampled_from([0, 12345, 2**32 - 1000, 2**31 - 500]),
    skew=st.sampled_from([0, 300, -300]),
    limit=st.sampled_from([1.0, 2.5, 6.0, 1800.0]),
)
def test_whatever_comes_is_in_the_segments_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    messages: list[tuple[str, int, float]],
    start: int,
    skew: int,
    limit: float,
) -> None:
    with Studio(tmp_path_factory.mktemp("any")) as studio:
        recorder, tags, at = studio.recorder(limit), [], start
        for name, step, waited in messages:
            kind, body = BODIES[name]
            at += step
            studio.now += waited
            tags.append(Tag(kind, (at + (skew if kind == AUDIO else 0)) % 2**32, body()))
            recorder.tag(*tags[-1])
        recorder.end()
        segments = studio.segments()
        assert frames(joined(segments)) == frames(tags)
        for segment, recording in zip(segments, studio.listed(), strict=True):
            assert 0 < duration(segment) <= limit
            assert recording.end_time - recording.start_time <= limit + 1
            for kind in (AUDIO, VIDEO):
                times = [tag.timestamp for tag in segment if tag.kind == kind]
                assert times == sorted(times)
                assert all(0 <= time <= limit * 1000 for time in times)
