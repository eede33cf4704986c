"""Recording through kills, full disks and missing directories, and the mending afterwards."""

import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from poller.sandbox.media import flv
from poller.sandbox.media.recorder import forget, resume
from poller.sandbox.media.tags import VIDEO, Tag

from . import pushes
from .pushes import (
    CUSTOMER,
    STREAM,
    Studio,
    check_decodes,
    duration,
    frames,
    joined,
    keyframe,
    push,
    shifted,
    tags_of,
)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio(tmp_path) as studio:
        yield studio


@pytest.fixture(scope="module")
def source() -> list[Tag]:
    return pushes.source()


CHILD = """
import json, resource, signal, sys
from pathlib import Path
from poller.sandbox.database import Database
from poller.sandbox.media import flv
from poller.sandbox.media.recorder import Recorder
from poller.sandbox.media.recordings import Recordings
from poller.sandbox.options import Customer

directory, source, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with source.open("rb") as file:
    tags = [tag for tag, _ in flv.read(file)]
now = 1_500_000_000.0
with Database(directory) as database:
    recorder = Recorder(Recordings(database, directory / "vod"), Customer(), "live_1", limit=1800, clock=lambda: now)
    if what == "killed":
        for tag in tags:
            recorder.tag(*tag)
        print("recorded", flush=True)
        signal.pause()
    elif what == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
        for number, tag in enumerate(tags):
            if number == len(tags) // 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
                now += 20
            recorder.tag(*tag)
        recorder.end()
"""


def written(directory: Path, tags: Iterable[Tag]) -> Path:
    """The tags as a file, for a child to read."""
    path = directory / "source.flv"
    writer = flv.FlvWriter.create(path)
    for tag in tags:
        writer.write(tag.kind, tag.timestamp, tag.body)
    writer.flush()
    writer.seal()
    return path


def test_a_kill_loses_no_more_than_what_was_not_yet_written(tmp_path: Path, source: list[Tag]) -> None:
    place = tmp_path / "sandbox"
    place.mkdir()
    command = [sys.executable, "-c", CHILD, str(place), str(written(tmp_path, source)), "killed"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "recorded\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with Studio(place) as studio:
        assert studio.listed() == []
        resume(studio.recordings)
        [segment], [recording] = studio.segments(), studio.listed()
        kept = frames(segment)
        assert kept == frames(source)[: len(kept)]
        assert duration(segment) >= 11.9
        assert recording.end_time == pytest.approx(recording.start_time + duration(segment))
        check_decodes(studio.files()[0])
        assert [file.suffix for file in studio.recordings.directory.iterdir()] == [".flv"]


def test_a_part_cut_anywhere_is_repaired_to_its_last_whole_tag(studio: Studio, source: list[Tag]) -> None:
    studio.record(source, 1800)
    [whole] = studio.files()
    content = whole.read_bytes()
    rng = random.Random(2)
    for size in [0, 5, 13, 20, 200, *(rng.randrange(300, len(content)) for _ in range(40))]:
        vid = studio.recordings.begin(CUSTOMER, "cut", studio.now)
        studio.recordings.part(vid).write_bytes(content[:size] + b"\x09" * (size % 7))
        resume(studio.recordings)
        recording = studio.recordings.find(vid=vid)
        if recording is None:
            assert size < 3000
            assert not studio.recordings.part(vid).exists()
            continue
        tags = tags_of(studio.recordings.file(vid))
        assert frames(tags) == frames(source)[: len(frames(tags))]
        assert size - 20_000 < recording.size <= size
        assert duration(tags) == pytest.approx(recording.end_time - recording.start_time)
    assert recording is not None


def test_a_segment_that_was_put_in_place_and_not_listed_is_listed_after_a_kill(
    studio: Studio, source: list[Tag]
) -> None:
    studio.record(source, 1800)
    [before] = studio.listed()
    studio.database.execute("UPDATE recording SET end_time = NULL")
    resume(studio.recordings)
    [after] = studio.listed()
    assert (after.vid, after.size) == (before.vid, before.size)


def test_strays_and_what_was_never_written_are_cleared_away(studio: Studio) -> None:
    vid = studio.recordings.begin(CUSTOMER, STREAM, studio.now)
    stray = studio.recordings.part("1_stray")
    stray.write_bytes(b"x")
    resume(studio.recordings)
    assert not stray.exists()
    assert studio.recordings.open_ones() == []
    assert studio.recordings.find(vid=vid) is None


def test_a_file_that_may_not_grow_ends_its_segment_and_recording_resumes_later(
    tmp_path: Path, source: list[Tag]
) -> None:
    place = tmp_path / "sandbox"
    place.mkdir()
    long = [*source, *shifted(source[3:], 13_000)]
    command = [sys.executable, "-c", CHILD, str(place), str(written(tmp_path, long)), "full"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("paused") == 1
    with Studio(place) as studio:
        first, second = (frames(segment) for segment in studio.segments())
        assert first == frames(long)[: len(first)]
        assert second == frames(long)[-len(second) :]
        assert 100_000 < studio.listed()[0].size <= 150_000
        for file in studio.files():
            check_decodes(file)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0 and os.environ.get("CI") == "true":
        pytest.fail("needs root to mount a small disk, and CI=true allows no skipping")
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(filler: Path) -> None:
    """Not a byte more goes onto its disk."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.mark.root
def test_a_full_disk_under_files_and_database_alike_is_survived(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Studio(small_disk) as studio:
        recorder, tags = studio.recorder(2), list(push(30, gop=25))
        filler = small_disk / "filler"
        for number, tag in enumerate(tags):
            if number == 250:
                fill(filler)
            if number == 500:
                filler.unlink()
            recorder.tag(*tag)
            studio.now += 0.04
        recorder.end()
        segments = studio.segments()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert frames(joined(segments[:3])) == frames(tags)[: len(frames(joined(segments[:3])))]
        assert frames(segments[-1]) == frames(tags)[-len(frames(segments[-1])) :]
        assert sum(duration(segment) for segment in segments) > 10
        assert studio.recordings.open_ones() == []
        assert list(studio.recordings.directory.glob("*.part")) == []


def test_a_directory_taken_away_is_an_outage_like_any_other(studio: Studio, source: list[Tag]) -> None:
    recorder = studio.recorder(1800)
    half = len(source) // 2
    for tag in source[:half]:
        recorder.tag(*tag)
    shutil.rmtree(studio.recordings.directory)
    recorder.end()
    assert studio.recordings.open_ones() == []
    assert len(studio.record(source, 1800)) == 1


def test_a_place_where_no_file_can_be_made_is_said_once_and_tried_again_later(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    studio.recordings.directory.symlink_to("/proc/self")  # even root can make no file there
    recorder, tags = studio.recorder(1800), list(push(60, gop=25))
    for number, tag in enumerate(tags):
        if number == 1200:
            studio.recordings.directory.unlink()
        recorder.tag(*tag)
        studio.now += 0.04
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert len(studio.recordings.open_ones()) == 1
    recorder.end()
    [segment] = studio.segments()
    assert frames(segment) == frames(tags)[-len(frames(segment)) :]
    assert 1 < duration(segment) < 13


def test_retention_deletes_files_and_rows(studio: Studio, source: list[Tag]) -> None:
    studio.record(source, 1800)
    studio.now += 100
    studio.record(source, 1800)
    old, young = studio.files()
    forget(studio.recordings, studio.now - 50)
    assert studio.files() == [young]
    assert list(studio.recordings.directory.iterdir()) == [young]
    assert not old.exists()


@pytest.mark.parametrize("junk", [b"", b"FLV", b"FLV\x01\x05\0\0\0\x09\0\0\0\0", b"junk" * 100])
def test_what_is_no_flv_file_has_no_tags(junk: bytes) -> None:
    assert list(flv.read(io.BytesIO(junk))) == []


def test_extended_timestamps_are_written_and_read(tmp_path: Path) -> None:
    tags = [Tag(VIDEO, at, keyframe()) for at in (0, 0xFFFFFF, 0x1000000, 0x7FFFFFFF)]
    assert tags_of(written(tmp_path, tags))[1:] == tags
