"""Pushes to record, made up or really encoded, and readers of what became of them."""

import io
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Self

import av
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from poller.sandbox.database import Database
from poller.sandbox.media import flv
from poller.sandbox.media.clip import picture_of
from poller.sandbox.media.recorder import Recorder
from poller.sandbox.media.recordings import Recording, Recordings
from poller.sandbox.media.tags import AUDIO, SCRIPT, VIDEO, Packet, Tag, look
from poller.sandbox.options import Customer

CUSTOMER = Customer()
STREAM = "live_1"
RATE = 25
FRAMES = (Packet.KEYFRAME, Packet.FRAME)


class Studio:
    """A database and a directory of recordings, and a wall clock that stands where it is put."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.database = Database(directory)
        self.recordings = Recordings(self.database, directory / "vod")
        self.now = 1_500_000_000.0

    def __enter__(self) -> Self:
        self.database.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.database.__exit__(*exc)

    def recorder(self, limit: float) -> Recorder:
        return Recorder(self.recordings, CUSTOMER, STREAM, limit=limit, clock=lambda: self.now)

    def record(self, tags: Iterable[Tag], limit: float) -> list[list[Tag]]:
        """One push from its beginning to its end; all segments that are listed then."""
        recorder = self.recorder(limit)
        for tag in tags:
            recorder.tag(*tag)
        recorder.end()
        return self.segments()

    def listed(self) -> list[Recording]:
        return self.recordings.page(CUSTOMER.app_id, STREAM, offset=0, limit=10_000)[1]

    def files(self) -> list[Path]:
        return [self.recordings.file(recording.vid) for recording in self.listed()]

    def segments(self) -> list[list[Tag]]:
        return [tags_of(file) for file in self.files()]


def tags_of(file: Path) -> list[Tag]:
    """Every tag of a file, which holds nothing else."""
    with file.open("rb") as content:
        pairs = list(flv.read(content))
    assert pairs[-1][1] == file.stat().st_size
    return [tag for tag, _ in pairs]


def encoded(seconds: int, gop: int, video: str = "libx264", **options: str) -> list[Tag]:
    """A push of noise and a beep: video with B-frames, AAC, interleaved as a muxer does it."""
    content = io.BytesIO()
    content.name = "source.flv"
    rng = random.Random(1)
    with av.open(content, "w", format="flv") as container:
        stream = container.add_stream(video, rate=RATE, options={"preset": "ultrafast"} | options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        stream.codec_context.gop_size = gop
        sound = container.add_stream("aac", rate=44100)
        assert isinstance(sound, AudioStream)
        planes = [bytes([128]) * (80 * 45)] * 2
        for number in range(seconds * RATE):
            frame = picture_of([rng.randbytes(160) * 90, *planes], 160, 90)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            container.mux(sound.encode(_beep(number)))
        for each in (stream, sound):
            container.mux(each.encode(None))
    content.seek(0)
    return [tag for tag, _ in flv.read(content)]


def _beep(number: int) -> AudioFrame:
    """A frame of sound as long as a picture."""
    count = 44100 // RATE
    frame = AudioFrame(format="fltp", layout="mono", samples=count)
    wave = [0.2 * ((at % 100) / 50 - 1) for at in range(number * count, (number + 1) * count)]
    frame.planes[0].update(struct.pack(f"{count}f", *wave).ljust(frame.planes[0].buffer_size, b"\0"))
    frame.sample_rate, frame.pts = 44100, number * count
    frame.time_base = Fraction(1, 44100)
    return frame


def source() -> list[Tag]:
    """13 s with a keyframe every 2 s."""
    return encoded(13, 2 * RATE, bf="2", g=str(2 * RATE), sc_threshold="0")


def ffmpeg() -> str:
    """Debian's; a test without it is skipped, in CI failed."""
    found = shutil.which("ffmpeg")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("needs Debian's ffmpeg, and CI=true allows no skipping")
    if found is None:
        pytest.skip("needs Debian's ffmpeg")
    return found


def check_decodes(file: Path) -> None:
    """The whole file decodes without a word."""
    command = [ffmpeg(), "-v", "warning", "-xerror", "-i", str(file), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def is_frame(tag: Tag) -> bool:
    return tag.kind != SCRIPT and look(tag.kind, tag.body).packet in FRAMES


def is_header(tag: Tag) -> bool:
    return tag.kind != SCRIPT and look(tag.kind, tag.body).packet is Packet.HEADER


def is_keyframe(tag: Tag) -> bool:
    return tag.kind == VIDEO and look(VIDEO, tag.body).packet is Packet.KEYFRAME


def frames(tags: Iterable[Tag]) -> list[tuple[int, str]]:
    """Kind and hash of every frame, in order."""
    return [(tag.kind, sha256(tag.body).hexdigest()) for tag in tags if is_frame(tag)]


def joined(segments: Iterable[list[Tag]]) -> list[Tag]:
    return [tag for segment in segments for tag in segment]


def duration(segment: Sequence[Tag]) -> float:
    """Seconds, as the segment's own metadata say."""
    assert segment[0].kind == SCRIPT
    at = segment[0].body.index(b"\0\x08duration\0") + 11
    return float(struct.unpack(">d", segment[0].body[at : at + 8])[0])


def keyframe(size: int = 20) -> bytes:
    return b"\x17\x01\0\0\0" + os.urandom(size)


def between(size: int = 20) -> bytes:
    return b"\x27\x01\0\0\0" + os.urandom(size)


def sound(size: int = 20) -> bytes:
    return b"\xaf\x01" + os.urandom(size)


AVC_HEADER = Tag(VIDEO, 0, b"\x17\0\0\0\0one picture's shape")
AAC_HEADER = Tag(AUDIO, 0, b"\xaf\0\x12\x10")


def push(seconds: float, *, gop: int, step: int = 40, audio: int | None = None) -> Iterator[Tag]:
    """A made-up push: frames every `step` ms, a keyframe every `gop` frames, audio every `audio` ms."""
    yield AVC_HEADER
    if audio:
        yield AAC_HEADER
    heard = 0
    for number, at in enumerate(range(0, int(seconds * 1000), step)):
        yield Tag(VIDEO, at, between() if number % gop else keyframe())
        while audio and heard < at + step:
            yield Tag(AUDIO, heard, sound())
            heard += audio


def shifted(tags: Iterable[Tag], by: int) -> list[Tag]:
    return [tag._replace(timestamp=(tag.timestamp + by) % 2**32) for tag in tags]
