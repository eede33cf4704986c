"""Media messages: RTMP's message bodies, which are FLV's tag bodies."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

AUDIO, VIDEO, SCRIPT = 8, 9, 18


class Tag(NamedTuple):
    """One media message. `timestamp` is in milliseconds, 0 to 2^32 - 1, and wraps after 49 days."""

    kind: int
    timestamp: int
    body: bytes


class Packet(Enum):
    """What a media message carries."""

    HEADER = "header"
    """The decoder's configuration (AVC or AAC sequence header)."""
    KEYFRAME = "keyframe"
    FRAME = "frame"
    """A frame that needs earlier ones; every audio frame too."""
    OTHER = "other"
    """End of sequence, commands, metadata inside the stream: nothing to decode."""


class Payload(NamedTuple):
    """A media message, looked into.

    codec:  FFmpeg's name of it, or `unknown (N)`
    delay:  milliseconds from decoding to showing (composition time), video only
    offset: where the codec's own bytes begin in the body
    """

    codec: str
    packet: Packet
    delay: int
    offset: int


# Adobe's FLV specification 10.1, E.4.3.1; 12 is what Chinese networks use for HEVC.
_VIDEO = {2: "flv1", 3: "flashsv", 4: "vp6f", 5: "vp6a", 6: "flashsv2", 7: "h264", 12: "hevc"}
# E.4.2.1
_AUDIO = {
    0: "pcm", 1: "adpcm_swf", 2: "mp3", 3: "pcm_s16le", 4: "nellymoser", 5: "nellymoser", 6: "nellymoser",
    7: "pcm_alaw", 8: "pcm_mulaw", 10: "aac", 11: "speex", 14: "mp3",
}  # fmt: skip
# Enhanced RTMP v1 (Veovera Software Organization): the codec by its four characters.
_FOUR = {b"avc1": "h264", b"hvc1": "hevc", b"av01": "av1", b"vp09": "vp9"}
_FRAMES = {1: Packet.KEYFRAME, 2: Packet.FRAME, 3: Packet.FRAME, 4: Packet.KEYFRAME}


def video(body: bytes) -> Payload:
    """A video message's payload; one too short to tell is OTHER."""
    if not body:
        return Payload("unknown", Packet.OTHER, 0, 0)
    if body[0] & 0x80:
        return _enhanced(body)
    codec = _VIDEO.get(body[0] & 15, f"unknown ({body[0] & 15})")
    frame = _FRAMES.get(body[0] >> 4, Packet.OTHER)
    if codec not in ("h264", "hevc"):
        return Payload(codec, frame, 0, 1)
    if len(body) < 5 or body[1] > 1:
        return Payload(codec, Packet.OTHER, 0, len(body))  # an end of sequence also says "keyframe"
    return Payload(codec, frame if body[1] else Packet.HEADER, _signed(body[2:5]), 5)


def audio(body: bytes) -> Payload:
    """An audio message's payload."""
    if not body:
        return Payload("unknown", Packet.OTHER, 0, 0)
    codec = _AUDIO.get(body[0] >> 4, f"unknown ({body[0] >> 4})")
    if codec != "aac":
        return Payload(codec, Packet.FRAME, 0, 1)
    if len(body) < 2:
        return Payload(codec, Packet.OTHER, 0, len(body))
    return Payload(codec, Packet.FRAME if body[1] else Packet.HEADER, 0, 2)


def _enhanced(body: bytes) -> Payload:
    codec = _FOUR.get(body[1:5], f"unknown ({body[1:5].hex()})")
    frame, kind = _FRAMES.get(body[0] >> 4 & 7, Packet.OTHER), body[0] & 15
    if kind == 0 and len(body) > 5:
        return Payload(codec, Packet.HEADER, 0, 5)
    if kind == 1 and codec in ("h264", "hevc") and len(body) >= 8:
        return Payload(codec, frame, _signed(body[5:8]), 8)
    if kind in (1, 3) and len(body) > 5:
        return Payload(codec, frame, 0, 5)
    return Payload(codec, Packet.OTHER, 0, len(body))


def _signed(three: bytes) -> int:
    return int.from_bytes(three, "big", signed=True)
