"""Video that says in each frame which frame it is, as blocks of black and white, and readers of it."""

import io
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from poller.sandbox.media import flv
from poller.sandbox.media.clip import picture_of
from poller.sandbox.media.footage import Latest
from poller.sandbox.media.tags import VIDEO, Packet, Tag, video

RATE = 25
STEP = 1000 // RATE
COLUMNS, ROWS = 12, 4
WIDTH, HEIGHT = 320, 180


def drawn(number: int, width: int = WIDTH, height: int = HEIGHT) -> VideoFrame:
    """The number's 48 bits, the highest first, from the upper left corner on."""
    lines = []
    for row in range(ROWS):
        bits = [number >> (ROWS * COLUMNS - 1 - row * COLUMNS - column) & 1 for column in range(COLUMNS)]
        line = bytes(235 if bits[x * COLUMNS // width] else 16 for x in range(width))
        lines.append(line * (height * (row + 1) // ROWS - height * row // ROWS))
    half = bytes([128]) * (width // 2 * (height // 2))
    return picture_of([b"".join(lines), half, half], width, height)


def read(picture: VideoFrame) -> int:
    """The number drawn in a frame, however it was scaled."""
    luma = picture.reformat(format="gray").planes[0]
    content, number = bytes(luma), 0
    for row in range(ROWS):
        y = picture.height * (2 * row + 1) // (2 * ROWS)
        for column in range(COLUMNS):
            x = picture.width * (2 * column + 1) // (2 * COLUMNS)
            number = number << 1 | (content[y * luma.line_size + x] > 128)
    return number


def decoded(jpeg: bytes) -> VideoFrame:
    """The one frame of a JPEG."""
    with av.open(io.BytesIO(jpeg), "r", format="jpeg_pipe") as container:
        (frame,) = container.decode(video=0)
    return frame


def film(
    numbers: Iterable[int],
    options: Mapping[str, str] = MappingProxyType({}),
    *,
    gop: int = RATE,
    codec: str = "libx264",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    aspect: Fraction = Fraction(1),
) -> list[Tag]:
    """Frames with these numbers as the messages of a push, encoded as FFmpeg does it: a header, then the frames."""
    content = io.BytesIO()
    with av.open(content, "w", format="flv") as container:
        stream = container.add_stream(codec, rate=RATE, options={**_quick(codec, gop), **options})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        stream.codec_context.gop_size = gop
        for at, number in enumerate(numbers):
            frame = drawn(number, *size)
            frame.pts, frame.time_base = at, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content.seek(0)
    tags = [tag for tag, _ in flv.read(content) if tag.kind == VIDEO]
    return [tag for tag in tags if video(tag.body).packet is not Packet.OTHER]


def movie(
    path: Path,
    frames: int = RATE,
    *,
    codec: str | None = "libx264",
    sound: str | None = "aac",
    options: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A file with numbered frames and silence as long, of the format that its name says."""
    with av.open(str(path), "w") as container:
        stream = (
            container.add_stream(codec, rate=RATE, options={**_quick(codec, RATE), **options})
            if codec
            else None
        )
        voice = container.add_stream(sound, rate=44100) if sound else None
        if isinstance(stream, VideoStream):
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.codec_context.gop_size = RATE
            for number in range(frames):
                frame = drawn(number)
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if isinstance(voice, AudioStream):
            for number in range(frames):
                container.mux(voice.encode(_silence(number)))
            container.mux(voice.encode(None))
    return path


def _silence(number: int) -> AudioFrame:
    """As long as a picture."""
    frame = AudioFrame(format="fltp", layout="mono", samples=44100 // RATE)
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.sample_rate, frame.pts, frame.time_base = 44100, number * frame.samples, Fraction(1, 44100)
    return frame


def _quick(codec: str, gop: int) -> dict[str, str]:
    match codec:
        case "libx264":
            return {"preset": "ultrafast", "bf": "0", "sc_threshold": "0", "keyint_min": str(gop)}
        case "libx265":
            return {"preset": "ultrafast", "x265-params": f"log-level=none:keyint={gop}:min-keyint={gop}"}
        case "libvpx-vp9":
            return {"deadline": "realtime", "cpu-used": "8"}
    return {"preset": "12"}


def shown(tag: Tag) -> int:
    """When a frame is shown, in milliseconds."""
    return tag.timestamp + video(tag.body).delay


def is_picture(tag: Tag) -> bool:
    return video(tag.body).packet in (Packet.KEYFRAME, Packet.FRAME)


def is_keyframe(tag: Tag) -> bool:
    return video(tag.body).packet is Packet.KEYFRAME


def followed(tags: Sequence[Tag], *, whole: bool) -> Latest:
    """What is at hand after those messages."""
    latest = Latest(whole=whole)
    for tag in tags:
        latest.add(tag.timestamp, tag.body)
    return latest
