"""Cutting pictures out of real video: H.264 in, a JPEG of the right shape out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from poller.sandbox.options import BadOption


class NoVideo(BadOption):
    """The file holds no video that a picture can be cut from."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """A file that a stream shows in a loop. `start` and `duration` are in seconds."""

    path: Path
    width: int
    height: int
    aspect: Fraction
    start: float
    duration: float

    def shot_height(self, width: int) -> int:
        """How high a picture of that width is."""
        return height_for(width, self.width, self.height, self.aspect)


def height_for(width: int, video_width: int, video_height: int, aspect: Fraction) -> int:
    """The height that keeps the shape, to the nearest pixel; `aspect` is one sample's width to its height."""
    exact = Fraction(width * video_height) / (video_width * aspect)
    return max(1, int(exact + Fraction(1, 2)))


def look_at(path: Path) -> Video:
    """Reads what there is to know of a file. Raises NoVideo."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise NoVideo(f"{path}: no video stream")
            stream = container.streams.video[0]
            unit = stream.time_base or Fraction(1, 90000)
            length = float(stream.duration * unit) if stream.duration else (container.duration or 0) / 1e6
            return Video(
                path=path,
                width=stream.width,
                height=stream.height,
                aspect=stream.sample_aspect_ratio or Fraction(1),
                start=float((stream.start_time or 0) * unit),
                duration=length,
            )
    except (av.FFmpegError, OSError) as error:
        raise NoVideo(f"{path}: {error}") from error


def picture(video: Video, moment: float, width: int) -> bytes:
    """A JPEG of the frame shown `moment` seconds after the loop first began. Takes up to a GOP's time."""
    position = moment % video.duration if video.duration > 0 else 0.0
    return jpeg(frame_at(video, position), width, video.shot_height(width))


def frame_at(video: Video, position: float) -> VideoFrame:
    """The frame that is on the screen at that position of the file."""
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # many streams share two cores
        wanted = video.start + position
        _seek(stream, wanted)
        shown: VideoFrame | None = None
        for frame in container.decode(stream):
            if shown is not None and frame.time is not None and frame.time > wanted:
                break
            shown = frame
    if shown is None:
        raise NoVideo(f"{video.path}: no frame at {position:.3f} s")
    return shown


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


def _seek(stream: VideoStream, seconds: float) -> None:
    container = stream.container
    assert isinstance(container, av.container.InputContainer)
    unit = stream.time_base or Fraction(1, 90000)
    container.seek(int(seconds / unit), stream=stream, backward=True)
