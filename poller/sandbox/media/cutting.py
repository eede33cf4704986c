"""Cutting pictures out of live video: encoded frames in, a JPEG of the right shape out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from poller.sandbox.media.footage import Footage

MILLISECOND: Final = Fraction(1, 1000)
DECODERS: Final = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d", "vp9": "vp9"}
MAX_PIXELS: Final = 8192 * 4320
"""Of a frame: a header of a few bytes may claim any size."""
MAX_HEIGHT: Final = 65500
"""Of a JPEG, as FFmpeg writes it."""


class NoPicture(Exception):
    """Nothing could be decoded; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A JPEG and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def cut(footage: Footage, width: int) -> Picture:
    """The frame shown at the footage's end, that wide. Costs the decoding of all of it. Raises NoPicture."""
    try:
        frame, aspect = last_frame(footage)
        height = height_for(width, frame.width, frame.height, aspect)
        if height > MAX_HEIGHT:
            raise NoPicture(f"{footage.codec}: no JPEG is {height} pixels high")
        return Picture(jpeg=jpeg(frame, width, height), width=width, height=height)
    except (av.FFmpegError, ValueError) as error:
        raise NoPicture(f"{footage.codec}: {type(error).__name__}") from error


def last_frame(footage: Footage) -> tuple[VideoFrame, Fraction]:
    """The frame on the screen at the footage's end, and one sample's width to its height. Raises NoPicture."""
    if footage.codec not in DECODERS:
        raise NoPicture(f"no pictures out of {footage.codec}")
    decoder = av.CodecContext.create(DECODERS[footage.codec], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = footage.header or None
    decoder.thread_count = 1  # many streams share the machine
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    shown: VideoFrame | None = None
    for frame in _decode_frames(decoder, footage):
        # Frames come in the order of showing; those after the newest decoding time are not shown yet.
        if shown is None or (frame.pts or 0) <= footage.now:
            shown = frame
    if shown is None:
        raise NoPicture(f"{footage.codec}: no frame")
    if shown.is_corrupt:
        raise NoPicture(f"{footage.codec}: a damaged frame")
    return shown, decoder.sample_aspect_ratio or Fraction(1)


def _decode_frames(decoder: VideoCodecContext, footage: Footage) -> Iterator[VideoFrame]:
    """The frames that can be decoded; those that need what came before the first keyframe cannot."""
    for one in footage.frames:
        packet = av.Packet(one.content)
        packet.dts, packet.pts, packet.time_base = one.dts, one.pts, MILLISECOND
        with contextlib.suppress(av.FFmpegError):  # the next may be better
            yield from decoder.decode(packet)
    yield from decoder.decode(None)


def height_for(width: int, video_width: int, video_height: int, aspect: Fraction) -> int:
    """The height that keeps the shape, to the nearest pixel; `aspect` is one sample's width to its height."""
    exact = Fraction(width * video_height) / (video_width * aspect)
    return max(1, int(exact + Fraction(1, 2)))


def jpeg(frame: VideoFrame, width: int, height: int) -> bytes:
    """The frame, scaled and compressed."""
    scaled = frame.reformat(width=width, height=height, format="yuvj420p", dst_color_range="JPEG")
    scaled.pts, scaled.time_base = 0, Fraction(1, 25)
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.qmin, encoder.qmax = 2, 6
    return b"".join(bytes(packet) for packet in [*encoder.encode(scaled), *encoder.encode(None)])


def plain_jpeg(width: int, height: int) -> bytes:
    """A small grey picture."""
    frame = VideoFrame(width, height, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    return jpeg(frame, width, height)
