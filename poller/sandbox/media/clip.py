"""The test pattern that a stream shows when no video is given: colour bars, a moving block, a clock."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

WIDTH, HEIGHT = 640, 360
RATE = 15
# Pictures 10 s apart show another moment of a 7 s loop each time, and repeat only after 70 s.
SECONDS = 7

# Luma and the two chromas, left to right: white, yellow, cyan, green, magenta, red, blue.
BARS = (
    (180, 128, 128),
    (168, 44, 136),
    (145, 147, 44),
    (133, 63, 52),
    (63, 193, 204),
    (51, 109, 212),
    (28, 212, 120),
)

# Five columns by seven rows; each row is five bits.
GLYPHS = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    ".": (0, 0, 0, 0, 0, 12, 12),
    "#": (10, 10, 31, 10, 31, 10, 10),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


def clip(path: Path, number: int) -> Path:
    """The pattern of the stream of that number as a file, encoded unless it is there already."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{os.getpid()}-{path.name}")
        encode(half, _frames(number), WIDTH, HEIGHT)
        half.rename(path)
    return path


def encode(
    path: Path,
    frames: Iterator[VideoFrame],
    width: int,
    height: int,
    *,
    rate: int = RATE,
    aspect: Fraction = Fraction(1),
) -> None:
    """Writes the frames as H.264 in an MP4 file, a keyframe every second."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "23"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        stream.codec_context.gop_size = rate
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _frames(number: int) -> Iterator[VideoFrame]:
    shift = number % len(BARS)
    background = [_bars(shift, part) for part in range(3)]
    for at in range(SECONDS * RATE):
        luma = bytearray(background[0])
        _block(luma, at, number)
        _text(luma, f"#{number}", left=40, top=40, scale=10)
        _text(luma, f"{at / RATE:04.1f}", left=40, top=250, scale=9)
        yield picture_of([bytes(luma), *background[1:]], WIDTH, HEIGHT)


def picture_of(planes: Sequence[bytes], width: int, height: int) -> VideoFrame:
    """A frame made of its luma and its two chromas, given without padding."""
    frame = VideoFrame(width, height, "yuv420p")
    for plane, content in zip(frame.planes, planes, strict=True):
        row, stride = plane.width, plane.line_size
        lines = (content[start : start + row].ljust(stride, b"\0") for start in range(0, len(content), row))
        plane.update(b"".join(lines).ljust(plane.buffer_size, b"\0"))
    return frame


def _bars(shift: int, part: int) -> bytes:
    """One plane of the background."""
    half = 1 if part == 0 else 2
    width, height = WIDTH // half, HEIGHT // half
    colours = (BARS[(x * len(BARS) // width + shift) % len(BARS)][part] for x in range(width))
    return bytes(colours) * height


def _block(luma: bytearray, at: int, number: int) -> None:
    """A white block that crosses the picture once in the clip."""
    left = (at * (WIDTH - 60) // (SECONDS * RATE) + number * 83) % (WIDTH - 60)
    _fill(luma, left, 165, size=(60, 60), value=235)


def _text(luma: bytearray, text: str, *, left: int, top: int, scale: int) -> None:
    """White glyphs on black."""
    _fill(luma, left - scale, top - scale, size=((len(text) * 6 + 1) * scale, 9 * scale), value=16)
    for place, character in enumerate(text):
        for y, row in enumerate(GLYPHS[character]):
            for x in range(5):
                if row & (16 >> x):
                    corner = (left + (place * 6 + x) * scale, top + y * scale)
                    _fill(luma, *corner, size=(scale, scale), value=235)


def _fill(luma: bytearray, left: int, top: int, *, size: tuple[int, int], value: int) -> None:
    width, height = size
    line = bytes([value]) * width
    for y in range(top, top + height):
        start = y * WIDTH + left
        luma[start : start + width] = line
