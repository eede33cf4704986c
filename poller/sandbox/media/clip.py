"""What a stream shows when no video is given: discs that drift over a landscape of its own colours, and a clock."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import NamedTuple

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

WIDTH, HEIGHT = 640, 360
RATE = 10
# Pictures 10 s apart show another moment of a 7 s loop each time, and repeat only after 70 s.
SECONDS = 7

HORIZON = HEIGHT * 2 // 3
# The two chromas of colours that go well together: teal, amber, violet, green, coral, blue, rose.
COLOURS = ((150, 96), (88, 158), (160, 140), (104, 102), (104, 168), (168, 108), (134, 166))
NEUTRAL = (128, 128)

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
    background = _landscape(number)
    for at in range(SECONDS * RATE):
        planes = [Plane(plane.width, bytearray(plane.content)) for plane in background]
        for disc in range(4):
            _disc(planes, disc, at, number)
        _text(planes, f"#{number}", left=40, top=40, scale=8)
        _text(planes, f"{at / RATE:04.1f}", left=40, top=264, scale=8)
        yield picture_of([bytes(plane.content) for plane in planes], WIDTH, HEIGHT)


class Plane(NamedTuple):
    """One plane of a picture: luma, or a chroma of half the width and height."""

    width: int
    content: bytearray

    def fill(self, left: int, top: int, size: tuple[int, int], value: int) -> None:
        """Fill a rectangle, given in pixels of the picture; what lies outside to the left or right is left out."""
        half = WIDTH // self.width
        begin, end = max(0, left // half), min(self.width, (left + size[0]) // half)
        line = bytes([value]) * (end - begin)
        for y in range(top // half, max(top // half + 1, (top + size[1]) // half)):
            self.content[y * self.width + begin : y * self.width + begin + len(line)] = line


def _colour(number: int) -> tuple[int, int]:
    return COLOURS[number % len(COLOURS)]


def picture_of(planes: Sequence[bytes], width: int, height: int) -> VideoFrame:
    """A frame made of its luma and its two chromas, given without padding."""
    frame = VideoFrame(width, height, "yuv420p")
    for plane, content in zip(frame.planes, planes, strict=True):
        row, stride = plane.width, plane.line_size
        lines = (content[start : start + row].ljust(stride, b"\0") for start in range(0, len(content), row))
        plane.update(b"".join(lines).ljust(plane.buffer_size, b"\0"))
    return frame


def _landscape(number: int) -> list[Plane]:
    """A sky that grows darker towards the horizon, and the ground below."""
    planes = [Plane(WIDTH, bytearray(WIDTH * HEIGHT))]
    planes += [Plane(WIDTH // 2, bytearray(WIDTH * HEIGHT // 4)) for _ in NEUTRAL]
    for y in range(0, HEIGHT, 2):
        sky = y < HORIZON
        luma = 190 - y * 70 // HORIZON if sky else 76 - (y - HORIZON) // 4
        for plane, value in zip(planes, (luma, *_colour(number if sky else number + 3)), strict=True):
            plane.fill(0, y, (WIDTH, 2), value)
    return planes


def _disc(planes: Sequence[Plane], disc: int, at: int, number: int) -> None:
    """A disc that crosses the picture once or more in the clip, and comes back on the other side."""
    radius = 26 + (number * 7 + disc * 13) % 44
    crossed = at * WIDTH * (1 + disc % 2) // (SECONDS * RATE)
    middle = (number * 131 + disc * 197 + crossed) % WIDTH, 80 + (number * 53 + disc * 71) % 200
    values = (212 - disc * 38, *_colour(number + disc * 2 + 1))
    for dy in range(-radius & ~1, radius, 2):
        reach = isqrt(radius * radius - dy * dy) if abs(dy) < radius else 0
        for left in (middle[0] - reach, middle[0] - reach - WIDTH, middle[0] - reach + WIDTH):
            if left < WIDTH and left + 2 * reach > 0:
                for plane, value in zip(planes, values, strict=True):
                    plane.fill(left, (middle[1] + dy) & ~1, (2 * reach, 2), value)


def _text(planes: Sequence[Plane], text: str, *, left: int, top: int, scale: int) -> None:
    """White glyphs on black."""
    size = ((len(text) * 6 + 1) * scale, 9 * scale)
    for plane, value in zip(planes, (16, *NEUTRAL), strict=True):
        plane.fill(left - scale, top - scale, size, value)
    for y in range(7):
        bits = "".join(f"{GLYPHS[character][y]:05b}0" for character in text)
        line = b"".join(bytes([235 if bit == "1" else 16]) * scale for bit in bits)
        for start in range((top + y * scale) * WIDTH + left, (top + (y + 1) * scale) * WIDTH + left, WIDTH):
            planes[0].content[start : start + len(line)] = line
