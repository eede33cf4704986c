"""The part of a live push that its next picture is cut from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from poller.sandbox.media.tags import Packet, Payload, video

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a push's frames; of what is more the newest keyframe alone is remembered."""


class Coded(NamedTuple):
    """An encoded frame; its decoding and its showing time in milliseconds of the stream's own clock."""

    dts: int
    pts: int
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Frames that a decoder can begin with, in decoding order, the first of them a keyframe.

    codec:  FFmpeg's name of it
    header: the decoder's configuration, as the codec has it (AVC or HEVC decoder configuration record)
    """

    codec: str
    header: bytes
    frames: tuple[Coded, ...]

    @property
    def now(self) -> int:
        """The stream's time in milliseconds: the newest decoding time."""
        return self.frames[-1].dts


class Latest:
    """Follows a push's video. `whole` keeps all that the frame on the screen needs, else the last keyframe is kept."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._offered = ("", b"")
        """The newest header's codec and itself; they count from the next keyframe on."""
        self._counts = ("", b"")
        self._frames: list[Coded] = []
        self._keyframes: list[int] = []
        """Where in the frames."""
        self._size = 0
        self._full = False
        self._now = 0

    def add(self, timestamp: int, body: bytes) -> None:
        """One video message."""
        payload = video(body)
        if len(body) <= payload.offset:
            return  # to a decoder an empty frame is the end
        if payload.packet is Packet.HEADER:
            self._offered = (payload.codec, body[payload.offset :])
        elif payload.packet is Packet.KEYFRAME:
            self._begin(payload.codec)
            self._keep(timestamp, payload, body)
        elif payload.packet is Packet.FRAME and self._whole and self._frames and not self._full:
            self._keep(timestamp, payload, body)

    def footage(self) -> Footage | None:
        """What there is to cut from; None before the first keyframe."""
        if not self._frames:
            return None
        codec, header = self._counts
        return Footage(codec=codec, header=header, frames=tuple(self._frames))

    def _begin(self, codec: str) -> None:
        """A keyframe comes. The frames before it stay while it is not shown yet, for one of them is."""
        counts = self._offered if self._offered[0] == codec else (codec, b"")
        if not self._whole or self._full or counts != self._counts:
            self._counts = counts
            self._forget(len(self._frames))
        self._full = False
        self._keyframes.append(len(self._frames))

    def _keep(self, timestamp: int, payload: Payload, body: bytes) -> None:
        # Goes on where the timestamp wraps, after 49 days.
        self._now += (timestamp - self._now + (1 << 31)) % (1 << 32) - (1 << 31)
        self._frames.append(Coded(self._now, self._now + payload.delay, body[payload.offset :]))
        self._size += len(body) - payload.offset
        shown = [at for at in self._keyframes if self._frames[at].pts <= self._now]
        if shown:
            self._forget(shown[-1])
        if self._size > MAX_BYTES:
            self._full = True
            self._forget(self._keyframes[-1])
            del self._frames[1:]
            self._size = len(self._frames[0].content)

    def _forget(self, count: int) -> None:
        """Drops so many of the oldest frames."""
        if count:
            self._size -= sum(len(frame.content) for frame in self._frames[:count])
            del self._frames[:count]
            self._keyframes = [at - count for at in self._keyframes if at >= count]
