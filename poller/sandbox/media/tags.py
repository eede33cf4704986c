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
    """End of sequence, commands, metadata inside the stream, further tracks: nothing for a plain decoder."""


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
_ENHANCED_AUDIO = 9
# Enhanced RTMP v2 (Veovera Software Organization): the codec by its four characters.
_FOUR = {
    b"avc1": "h264", b"hvc1": "hevc", b"vvc1": "vvc", b"av01": "av1", b"vp08": "vp8", b"vp09": "vp9",
    b"mp4a": "aac", b".mp3": "mp3", b"Opus": "opus", b"fLaC": "flac", b"ac-3": "ac3", b"ec-3": "eac3",
}  # fmt: skip
_DELAYED = ("h264", "hevc", "vvc")
_START, _CODED, _CODED_AT_ONCE, _MODIFIED = 0, 1, 3, 7
_COLOURS, _MULTI_VIDEO = 4, 6
_CHANNELS, _MULTI_AUDIO = 4, 5
_FRAMES = {1: Packet.KEYFRAME, 2: Packet.FRAME, 3: Packet.FRAME, 4: Packet.KEYFRAME}


def look(kind: int, body: bytes) -> Payload:
    """An audio or a video message's payload."""
    return video(body) if kind == VIDEO else audio(body)


def video(body: bytes) -> Payload:
    """A video message's payload; one too short to tell is OTHER."""
    if not body:
        return Payload("unknown", Packet.OTHER, 0, 0)
    if body[0] & 0x80:
        return _enhanced_video(body)
    codec = _VIDEO.get(body[0] & 15, f"unknown ({body[0] & 15})")
    frame = _FRAMES.get(body[0] >> 4, Packet.OTHER)
    if codec not in ("h264", "hevc"):
        return Payload(codec, frame, 0, 1)
    if len(body) < 5 or body[1] > 1:
        return Payload(codec, Packet.OTHER, 0, len(body))  # an end of sequence also says "keyframe"
    return Payload(codec, frame if body[1] else Packet.HEADER, _signed_24(body[2:5]), 5)


def audio(body: bytes) -> Payload:
    """An audio message's payload."""
    if not body:
        return Payload("unknown", Packet.OTHER, 0, 0)
    if body[0] >> 4 == _ENHANCED_AUDIO:
        return _enhanced_audio(body)
    codec = _AUDIO.get(body[0] >> 4, f"unknown ({body[0] >> 4})")
    if codec != "aac":
        return Payload(codec, Packet.FRAME, 0, 1)
    if len(body) < 2:
        return Payload(codec, Packet.OTHER, 0, len(body))
    return Payload(codec, Packet.FRAME if body[1] else Packet.HEADER, 0, 2)


def further_header(kind: int, body: bytes) -> bytes | None:
    """What names the track whose header this is, if it is one that a plain decoder leaves alone; else None.

    Multitrack headers, the colours of HDR and the channels of surround sound: a player needs them in each file anew.
    """
    if not body or not (body[0] & 0x80 if kind == VIDEO else body[0] >> 4 == _ENHANCED_AUDIO):
        return None
    packet, at = _packet(body)
    multitrack, alone = (_MULTI_VIDEO, _COLOURS) if kind == VIDEO else (_MULTI_AUDIO, _CHANNELS)
    if packet == alone:
        return bytes([packet])
    if packet != multitrack or at >= len(body) or body[at] & 15 not in (_START, alone):
        return None
    one_track = body[at] >> 4 == 0  # else several in one message: then they change together
    return body[at : at + 1] + body[at + 5 : at + 6] if one_track else body[at : at + 1]


def _enhanced_video(body: bytes) -> Payload:
    packet, codec, at = _four(body)
    frame = _FRAMES.get(body[0] >> 4 & 7, Packet.OTHER)
    if packet == _START and len(body) > at:
        return Payload(codec, Packet.HEADER, 0, at)
    if packet == _CODED and codec in _DELAYED and len(body) >= at + 3:
        return Payload(codec, frame, _signed_24(body[at : at + 3]), at + 3)
    if packet in (_CODED, _CODED_AT_ONCE) and len(body) > at:
        return Payload(codec, frame, 0, at)
    return Payload(codec, Packet.OTHER, 0, len(body))


def _enhanced_audio(body: bytes) -> Payload:
    packet, codec, at = _four(body)
    if packet in (_START, _CODED) and len(body) > at:
        return Payload(codec, Packet.FRAME if packet else Packet.HEADER, 0, at)
    return Payload(codec, Packet.OTHER, 0, len(body))


def _four(body: bytes) -> tuple[int, str, int]:
    """The packet type, the codec, and where what follows the four characters begins."""
    packet, at = _packet(body)
    four = body[at : at + 4]
    return packet, _FOUR.get(four, f"unknown ({four.hex()})"), at + 4


def _packet(body: bytes) -> tuple[int, int]:
    """The packet type, and where what follows it begins."""
    packet, at = body[0] & 15, 1
    # ModEx: an extension's length less 1 (255: in the next two bytes), the extension, its type and the next packet's.
    while packet == _MODIFIED and at < len(body):
        size, at = body[at] + 1, at + 1
        if size == 256:
            size, at = int.from_bytes(body[at : at + 2], "big") + 1, at + 2
        at += size
        packet = body[at] & 15 if at < len(body) else _MODIFIED
        at += 1
    return packet, at


def _signed_24(three: bytes) -> int:
    return int.from_bytes(three, "big", signed=True)
