"""Real pushers: ffmpeg, GStreamer, librtmp (what OBS embeds) and PyAV; each as a process of its own."""

import asyncio
import contextlib
import ctypes.util
import itertools
import os
import shutil
import signal
import sys
from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import md5
from math import sin
from pathlib import Path

import av
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from poller.sandbox.media.clip import RATE, SECONDS, clip
from poller.sandbox.media.tags import Packet, audio, video
from poller.sandbox.rtmp.ingest import RtmpServer

from .rtmp_peer import Take, Takes, play, until

REFUSED = "forbidden"

LIBRTMP = """
import ctypes, sys, time
url, flv, pace, size = sys.argv[1].encode(), open(sys.argv[2], "rb").read(), sys.argv[3] == "paced", int(sys.argv[4])
lib = ctypes.CDLL("librtmp.so.1")
lib.RTMP_Alloc.restype = ctypes.c_void_p

class Packet(ctypes.Structure):
    _fields_ = [
        ("header", ctypes.c_uint8), ("kind", ctypes.c_uint8), ("absolute", ctypes.c_uint8), ("channel", ctypes.c_int),
        ("timestamp", ctypes.c_uint32), ("stream", ctypes.c_int32), ("size", ctypes.c_uint32),
        ("read", ctypes.c_uint32), ("chunk", ctypes.c_void_p), ("body", ctypes.c_void_p),
    ]

session = ctypes.c_void_p(lib.RTMP_Alloc())
lib.RTMP_Init(session)
kept = ctypes.create_string_buffer(url)
if not lib.RTMP_SetupURL(session, kept):
    sys.exit(2)
lib.RTMP_EnableWrite(session)
if not lib.RTMP_Connect(session, None):
    sys.exit(3)
if not lib.RTMP_ConnectStream(session, 0):
    sys.exit(4)
if size != 128:
    # As OBS does: the message by hand, then the struct's second int, m_outChunkSize.
    room = ctypes.create_string_buffer(bytes(18) + size.to_bytes(4, "big"), 64)
    packet = Packet(kind=1, channel=2, size=4, body=ctypes.addressof(room) + 18)
    if not lib.RTMP_SendPacket(session, ctypes.byref(packet), 0):
        sys.exit(5)
    ctypes.cast(session, ctypes.POINTER(ctypes.c_int))[1] = size
at, began = 13, time.monotonic()
while at < len(flv):
    length = 11 + int.from_bytes(flv[at + 1 : at + 4], "big") + 4
    moment = int.from_bytes(flv[at + 4 : at + 7], "big") / 1000
    if pace:
        time.sleep(max(0.0, began + moment - time.monotonic()))
    if lib.RTMP_Write(session, flv[at : at + length], length) <= 0:
        sys.exit(6)
    at += length
lib.RTMP_Close(session)
"""

PYAV = """
import sys, time
import av
source, url, pace = av.open(sys.argv[2]), sys.argv[1], sys.argv[3] == "paced"
try:
    target = av.open(url, "w", format="flv")
    lanes = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
    began = time.monotonic()
    for packet in source.demux():
        if packet.dts is not None:
            if pace:
                time.sleep(max(0.0, began + float(packet.dts * packet.time_base) - time.monotonic()))
            packet.stream = lanes[packet.stream.index]
            target.mux(packet)
    target.close()
except OSError as error:
    sys.exit(f"{error}")
"""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Some seconds of H.264 and AAC, in two containers, and its packets' digests in order."""

    mp4: Path
    flv: Path
    video: list[bytes]
    audio: list[bytes]


def ffmpeg(clip: Clip, url: str, paced: bool) -> list[str]:
    quiet = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", *(["-re"] if paced else [])]
    return [*quiet, "-i", str(clip.mp4), "-c", "copy", "-f", "flv", "-flvflags", "no_duration_filesize", url]


def gstreamer(clip: Clip, url: str, paced: bool) -> list[str]:
    line = (
        f"gst-launch-1.0 -q filesrc location={clip.mp4} ! qtdemux name=d"
        f" flvmux streamable=true name=m ! rtmp2sink location={url} sync={paced}"
        " d.video_0 ! queue ! h264parse ! m.video d.audio_0 ! queue ! aacparse ! m.audio"
    )
    return line.split()


def librtmp(clip: Clip, url: str, paced: bool, size: int = 128) -> list[str]:
    return [sys.executable, "-c", LIBRTMP, url, str(clip.flv), "paced" if paced else "fast", str(size)]


def librtmp_as_obs(clip: Clip, url: str, paced: bool) -> list[str]:
    return librtmp(clip, url, paced, 4096)


def pyav(clip: Clip, url: str, paced: bool) -> list[str]:
    return [sys.executable, "-c", PYAV, url, str(clip.mp4), "paced" if paced else "fast"]


Pusher = Callable[[Clip, str, bool], list[str]]
TOOLS: dict[Pusher, str] = {
    ffmpeg: "ffmpeg",
    gstreamer: "gst-launch-1.0",
    librtmp: "librtmp.so.1",
    librtmp_as_obs: "librtmp.so.1",
    pyav: "",
}


@pytest.fixture(params=TOOLS, ids=lambda pusher: pusher.__name__)
def pusher(request: pytest.FixtureRequest) -> Pusher:
    """Each real pusher that is here; in CI they all must be."""
    one: Pusher = request.param
    need(TOOLS[one])
    return one


def need(tool: str) -> None:
    there = (
        ctypes.util.find_library("rtmp") == tool if tool.startswith("lib") else not tool or shutil.which(tool)
    )
    if not there:
        assert os.environ.get("CI") != "true", f"{tool} is missing"
        pytest.skip(f"{tool} is missing")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """The test pattern, 7 s, with a tone."""
    place = tmp_path_factory.mktemp("clip")
    silent = clip(place / "silent.mp4", 1)
    mp4, flv = place / "a.mp4", place / "a.flv"
    _with_tone(silent, mp4)
    _copy(mp4, flv)
    found: dict[str, list[bytes]] = {"video": [], "audio": []}
    with av.open(str(mp4)) as container:
        for packet in container.demux():
            if packet.size:
                found[packet.stream.type].append(md5(bytes(packet)).digest())
    assert len(found["video"]) == SECONDS * RATE
    return Clip(mp4=mp4, flv=flv, video=found["video"], audio=found["audio"])


def _with_tone(silent: Path, target: Path) -> None:
    with av.open(str(silent)) as before, av.open(str(target), "w", format="mp4") as after:
        lane = after.add_stream_from_template(before.streams.video[0])
        tone = after.add_stream("aac", rate=44100, layout="mono")
        assert isinstance(tone, AudioStream)
        for packet in before.demux(video=0):
            if packet.dts is not None:
                packet.stream = lane
                after.mux(packet)
        for number in range(7 * 44100 // 1024):
            frame = AudioFrame(format="fltp", layout="mono", samples=1024)
            frame.planes[0].update(array("f", (0.3 * sin(number + at / 16) for at in range(1024))).tobytes())
            frame.sample_rate, frame.pts = 44100, number * 1024
            after.mux(tone.encode(frame))
        after.mux(tone.encode(None))


def _copy(source: Path, target: Path) -> None:
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        lanes = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.dts is not None:
                packet.stream = lanes[packet.stream.index]
                after.mux(packet)


def arrived(take: Take) -> tuple[list[bytes], list[bytes]]:
    """The digests of the video's and the audio's packets."""
    frames = (Packet.KEYFRAME, Packet.FRAME)
    pictures = [(body, video(body)) for kind, _, body in take.pieces if kind == 9]
    sounds = [(body, audio(body)) for kind, _, body in take.pieces if kind == 8]
    return (
        [md5(body[look.offset :]).digest() for body, look in pictures if look.packet in frames],
        [md5(body[look.offset :]).digest() for body, look in sounds if look.packet in frames],
    )


@contextlib.asynccontextmanager
async def running(command: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def finished(command: list[str]) -> tuple[int, str]:
    """The exit code, and what was said."""
    async with running(command) as process:
        _, said = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()


def test_every_packet_arrives_and_the_clean_stop_is_noticed(pusher: Pusher, source: Clip) -> None:
    async def pushed(ingest: RtmpServer, takes: Takes) -> None:
        url = f"{ingest.url}/a_b-c@d?txSecret=0a&txTime=5F"
        code, said = await finished(pusher(source, url, False))
        assert code == 0, said
        assert await takes.end_of("a_b-c@d") == "unpublished"
        take = takes.of("a_b-c@d")
        assert (take.request.app, take.request.query) == ("live", {"txSecret": "0a", "txTime": "5F"})
        assert arrived(take) == (source.video, source.audio)
        for kind in (8, 9):
            moments = [at for one, at, _ in take.pieces if one == kind]
            assert moments == sorted(moments)
            assert 6500 < moments[-1] - moments[0] < 7200
        assert any(body.startswith(b"\x02\0\x0aonMetaData") for kind, _, body in take.pieces if kind == 18)
        assert (ingest.broken, ingest.refused) == (0, 0)

    play(pushed)


@pytest.mark.parametrize("name", ["a%23b", "a#b"])
def test_a_name_with_a_hash_sign_arrives_raw_or_escaped(pusher: Pusher, name: str, source: Clip) -> None:
    async def pushed(ingest: RtmpServer, takes: Takes) -> None:
        code, said = await finished(pusher(source, f"{ingest.url}/{name}", False))
        assert code == 0, said
        assert [take.request.stream for take in takes.takes] == ["a#b"]

    play(pushed)


def test_a_refused_pusher_gives_up_with_an_error(pusher: Pusher, source: Clip) -> None:
    async def refused(ingest: RtmpServer, takes: Takes) -> None:
        code, _ = await finished(pusher(source, f"{ingest.url}/{REFUSED}", False))
        assert code != 0
        assert ingest.refused == 1
        assert not takes.takes

    play(refused)


def test_a_refused_ffmpeg_says_why(source: Clip) -> None:
    need("ffmpeg")

    async def refused(ingest: RtmpServer, takes: Takes) -> None:
        _, said = await finished(ffmpeg(source, f"{ingest.url}/{REFUSED}", False))
        assert "this name is not for you" in said

    play(refused)


def test_a_kill_and_a_standstill_are_told_apart(pusher: Pusher, source: Clip) -> None:
    async def ended(ingest: RtmpServer, takes: Takes) -> None:
        async with (
            running(pusher(source, f"{ingest.url}/killed", True)) as killed,
            running(pusher(source, f"{ingest.url}/stopped", True)) as stopped,
            running(pusher(source, f"{ingest.url}/unharmed", True)),
        ):
            await until(lambda: len(takes.takes) == 3 and all(len(take.pieces) > 30 for take in takes.takes))
            killed.kill()
            stopped.send_signal(signal.SIGSTOP)
            assert await takes.end_of("killed") in ("closed", "reset")
            assert await takes.end_of("stopped") == "silent"
            seen = len(takes.of("unharmed").pieces)
            await until(lambda: len(takes.of("unharmed").pieces) > seen)
            assert not takes.of("unharmed").why
        for take in takes.takes:
            pictures, sounds = arrived(take)
            assert pictures == source.video[: len(pictures)]
            assert sounds == source.audio[: len(sounds)]

    play(ended, silence=2.0)


def test_an_interrupted_ffmpeg_says_that_it_goes_and_may_come_back(source: Clip) -> None:
    need("ffmpeg")

    async def interrupted(ingest: RtmpServer, takes: Takes) -> None:
        for number in (1, 2):
            async with running(ffmpeg(source, f"{ingest.url}/a", True)) as process:
                await until(lambda: len(takes.takes) == number and len(takes.of("a").pieces) > 5)  # noqa: B023 - awaited here
                process.send_signal(signal.SIGINT)
                assert await takes.end_of("a") == "unpublished"
                await process.wait()

    play(interrupted)


def test_different_pushers_at_once_do_not_mix(source: Clip, soak: bool) -> None:
    need("ffmpeg")
    need("gst-launch-1.0")

    async def together(ingest: RtmpServer, takes: Takes) -> None:
        each = itertools.cycle([ffmpeg, gstreamer, pyav])
        pushers = {f"s{number}": next(each) for number in range(20 if soak else 3)}
        commands = [one(source, f"{ingest.url}/{name}", soak) for name, one in pushers.items()]
        assert {code for code, _ in await asyncio.gather(*map(finished, commands))} == {0}
        for name in pushers:
            assert await takes.end_of(name) == "unpublished"
            assert arrived(takes.of(name)) == (source.video, source.audio)

    play(together, deadline=60.0)
