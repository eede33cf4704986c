"""Showing a file over RTMP in a loop, at the speed at which it was made; nothing is encoded anew."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from poller.sandbox.options import BadOption

Track = VideoStream | AudioStream
CONNECT_WITHIN: Final = 10
"""Seconds; FFmpeg itself would wait for ever for a server that accepts and says nothing."""
MP3_RATES: Final = (44100, 22050, 11025)
"""What FLV can say."""


class NoVideo(BadOption):
    """The file holds no video that can be pushed as it is."""


class PushFailed(OSError):
    """The connection was refused or lost. The text holds no URL, which may hold the push secret."""


def check(path: Path) -> None:
    """Raises NoVideo if the file cannot be pushed."""
    with _open_video(path) as source:
        _start(source, _tracks(source, path), path)


def push(path: Path, url: str, stopped: Callable[[float], bool]) -> None:
    """Pushes until told to stop, then unpublishes. Raises NoVideo and PushFailed.

    stopped: waits for so many seconds at most; true, at once, when the push is to end

    Ends the process if the connection does not come up within CONNECT_WITHIN.
    """
    with _open_video(path) as source:
        tracks = _tracks(source, path)
        start = _start(source, tracks, path)
        signal.alarm(CONNECT_WITHIN)  # nothing less reaches a call that holds the interpreter's lock
        ended = False
        try:
            with av.open(url, "w", format="flv") as out:
                places = {track.index: out.add_stream_from_template(track) for track in tracks}
                out.start_encoding()
                signal.alarm(0)
                _send(_for_ever(source, tracks, start), places, out, stopped)
                ended = True
        except (av.FFmpegError, OSError) as error:
            if not ended:
                raise PushFailed(f"push of {path.name}: {type(error).__name__}") from None


def _open_video(path: Path) -> InputContainer:
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise NoVideo(f"{path}: {error}") from error


def _tracks(source: InputContainer, path: Path) -> list[Track]:
    video = next((one for one in source.streams.video if _codec(one) == "h264"), None)
    if video is None:
        raise NoVideo(f"{path}: no H.264 video")
    sound = [one for one in source.streams.audio if _can_be_pushed(one)]
    return [video, *sound[:1]]


def _can_be_pushed(sound: AudioStream) -> bool:
    return _codec(sound) == "aac" or (_codec(sound) == "mp3" and sound.rate in MP3_RATES)


def _codec(track: Track) -> str:
    """Its name; a decoder's own may differ."""
    return track.codec_context.codec.canonical_name


def _send(
    packets: Iterator[tuple[Packet[Any], float]],
    places: dict[int, Any],
    out: OutputContainer,
    stopped: Callable[[float], bool],
) -> None:
    """Sends each packet when it is due, until the stop."""
    began = time.monotonic()
    for packet, at in packets:
        if stopped(max(0.0, began + at - time.monotonic())):
            return
        packet.stream = places[packet.stream.index]
        out.mux(packet)


def _for_ever(
    source: InputContainer, tracks: list[Track], start: Fraction
) -> Iterator[tuple[Packet[Any], float]]:
    """The file's packets again and again, with the second at which each is due. Raises NoVideo if that is at once."""
    begin, end = Fraction(-1), Fraction(0)
    while end > begin:
        source.seek(0)
        begin, shift = end, end - start
        for packet in _packets_with_times(source.demux(*tracks)):
            unit = _unit(packet.stream)
            move = round(shift / unit)
            packet.dts, packet.pts = (packet.dts or 0) + move, (packet.pts or 0) + move
            end = max(end, (packet.dts + (packet.duration or 0)) * unit)
            yield packet, float(packet.dts * unit)
    raise NoVideo("the video takes no time")


def _start(source: InputContainer, tracks: list[Track], path: Path) -> Fraction:
    """The earliest decoding time, which may lie before zero. Raises NoVideo where no frame has a time."""
    first: dict[int, Fraction] = {}
    try:
        for packet in _packets_with_times(source.demux(*tracks)):
            first.setdefault(packet.stream.index, (packet.dts or 0) * _unit(packet.stream))
            if len(first) == len(tracks):
                break
    except av.FFmpegError as error:
        raise NoVideo(f"{path}: {type(error).__name__}") from error
    if tracks[0].index not in first:
        raise NoVideo(f"{path}: its frames have no time")
    return min(first.values())


def _packets_with_times(packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
    """The packets that have a time.

    Matroska has no decoding times for the first frames if later frames are shown before them. Those times are computed
    backwards from the first known one.
    """
    waiting: list[Packet[Any]] = []
    for packet in packets:
        if packet.pts is None:
            continue
        if packet.dts is not None:
            same = [one for one in waiting if one.stream_index == packet.stream_index]
            _fill_missing_times(packet.dts, packet.duration or 0, same)
        waiting.append(packet)
        if all(one.dts is not None for one in waiting):
            yield from waiting
            waiting = []


def _fill_missing_times(dts: int, step: int, earlier: list[Packet[Any]]) -> None:
    for back, one in enumerate((one for one in reversed(earlier) if one.dts is None), 1):
        one.dts = dts - back * step


def _unit(track: object) -> Fraction:
    base = getattr(track, "time_base", None)
    return base if isinstance(base, Fraction) else Fraction(1, 1000)
