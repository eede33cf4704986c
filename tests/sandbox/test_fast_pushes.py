"""Pushes into the program as fast as their pushers can: every packet is in the recording, to the last."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from hashlib import md5
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from poller.sandbox.media.tags import AUDIO, VIDEO, Tag, look
from tests.integration.cli.test_cli_sandbox import box, got, recorded, until

from .pushes import encoded, is_frame, joined, shifted, tags_of
from .rtmp_peer import Writer, amf, control, handshake, opening
from .test_rtmp_pushers import LIBRTMP, PYAV, need

LOOPS = 20


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s: some 700 audio and video messages, 1.7 KB each."""
    path = tmp_path_factory.mktemp("film") / "film.flv"
    path.write_bytes(flv_of(encoded(10, 50, crf="0")))
    return path


@pytest.fixture(scope="module")
def long_film(film: Path) -> Path:
    """The film's messages again and again, more than 12,000 of them."""
    path, tags = film.with_name("long.flv"), tags_of(film)
    frames = [tag for tag in tags if is_frame(tag)]
    rest = [tag for tag in tags if not is_frame(tag)]
    path.write_bytes(flv_of([*rest, *joined(shifted(frames, 10_200 * turn) for turn in range(LOOPS))]))
    return path


def flv_of(tags: Iterable[Tag]) -> bytes:
    content = bytearray(b"FLV\x01\x05\0\0\0\x09\0\0\0\0")
    for tag in tags:
        moment = (tag.timestamp & 0xFFFFFF).to_bytes(3, "big") + bytes([tag.timestamp >> 24])
        head = bytes([tag.kind]) + len(tag.body).to_bytes(3, "big") + moment + bytes(3)
        content += head + tag.body + struct.pack(">I", len(tag.body) + 11)
    return bytes(content)


def packets(file: Path) -> list[tuple[int, bytes]]:
    """Kind and digest of every frame of a file; each kind by itself, because a pusher may interleave anew."""
    frames = [
        (tag.kind, md5(tag.body[look(tag.kind, tag.body).offset :]).digest())
        for tag in tags_of(file)
        if is_frame(tag)
    ]
    return [one for kind in (VIDEO, AUDIO) for one in frames if one[0] == kind]


def looped(film: Path, loops: int) -> list[tuple[int, bytes]]:
    """What a recording of the film in a loop has to hold."""
    once = packets(film)
    return [one for kind in (VIDEO, AUDIO) for _ in range(loops) for one in once if one[0] == kind]


def by_ffmpeg(film: Path, loops: int, url: str) -> list[str]:
    quiet = ["ffmpeg", "-nostdin", "-v", "error", "-stream_loop", str(loops - 1), "-i", str(film)]
    return [*quiet, "-c", "copy", "-f", "flv", "-flvflags", "no_duration_filesize", url]


def by_pyav(film: Path, url: str) -> None:
    run(sys.executable, "-c", PYAV, url, str(film), "fast")


def by_librtmp(film: Path, url: str) -> None:
    need("librtmp.so.1")
    run(sys.executable, "-c", LIBRTMP, url, str(film), "fast", "4096")


def by_gstreamer(film: Path, url: str) -> None:
    need("gst-launch-1.0")
    line = f"gst-launch-1.0 -q filesrc location={film} ! flvdemux name=d flvmux streamable=true name=m"
    line += f" ! rtmp2sink location={url} sync=false d.video ! queue ! m.video d.audio ! queue ! m.audio"
    run(*line.split())


def run(*command: str) -> None:
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


class Raw:
    """A pusher made by hand, which ends in its own way."""

    def __init__(self, *, window: int = 0, half: bool = False, unpublish: bool = False) -> None:
        self._before = control(5, struct.pack(">I", window)) if window else b""
        self._after = (
            Writer().message(3, 20, 0, amf("FCUnpublish", 6, None, "live_1"), 0) if unpublish else b""
        )
        self._half = half

    def __call__(self, film: Path, url: str) -> None:
        parts, writer, said = urlsplit(url), Writer(60_000), b""
        media = [writer.message(tag.kind, tag.kind, tag.timestamp, tag.body) for tag in tags_of(film)]
        with socket.create_connection((parts.hostname, parts.port or 0)) as pusher:
            pusher.sendall(handshake() + opening("live_1", chunk=60_000) + self._before)
            while b"Publish.Start" not in said:
                said += pusher.recv(65536)
            for message in media:
                pusher.sendall(message)
                with contextlib.suppress(BlockingIOError):  # unread replies would make the close a reset
                    pusher.recv(65536, socket.MSG_DONTWAIT)
            pusher.sendall(self._after)
            if self._half:
                pusher.shutdown(socket.SHUT_WR)


def recording_of(places: dict[str, str], number: int) -> Path:
    """The one segment of that push, once it is listed."""
    until(lambda: len(recorded(places)["file_list"]) > number)
    (vid,) = [row["vid"] for row in recorded(places)["file_list"][number:]]
    return Path(places["directory"]) / "vod" / f"{vid}.flv"


def compare(found: list[tuple[int, bytes]], expected: list[tuple[int, bytes]]) -> None:
    print(f"{len(found)} packets of {len(expected)}")
    assert len(found) == len(expected)
    assert found == expected


def test_the_last_packets_of_a_push_faster_than_real_time_are_recorded(
    tmp_path: Path, film: Path, soak: bool
) -> None:
    need("ffmpeg")
    expected = looped(film, LOOPS)
    assert len(expected) >= 12_000
    with box(tmp_path, "--streams", "0") as (_, places):
        for number in range(10 if soak else 3):
            run(*by_ffmpeg(film, LOOPS, f"{places['rtmp']}/live_1"))
            compare(packets(recording_of(places, number)), expected)


@pytest.mark.parametrize(
    "pusher",
    [
        pytest.param(by_pyav, id="PyAV"),
        pytest.param(by_librtmp, id="librtmp"),
        pytest.param(by_gstreamer, id="GStreamer"),
        pytest.param(Raw(), id="closes without unpublishing"),
        pytest.param(Raw(unpublish=True), id="unpublishes and closes at once"),
        pytest.param(Raw(half=True), id="ends its side first"),
        pytest.param(Raw(window=1000), id="wants an acknowledgement every 1,000 bytes"),
        pytest.param(Raw(window=1), id="wants one for every byte"),
        pytest.param(Raw(window=2_500_000, unpublish=True), id="wants one every 2.5 MB"),
    ],
)
def test_a_fast_push_is_whole_however_its_pusher_goes(
    tmp_path: Path, long_film: Path, pusher: Callable[[Path, str], None], soak: bool
) -> None:
    expected = packets(long_film)
    assert len(expected) >= 12_000
    with box(tmp_path, "--streams", "0") as (_, places):
        for number in range(10 if soak else 1):
            pusher(long_film, f"{places['rtmp']}/live_1")
            compare(packets(recording_of(places, number)), expected)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_push_in_real_time_is_recorded_to_the_last_packet(
    tmp_path: Path, film: Path, fault_seconds: float
) -> None:
    need("ffmpeg")
    loops = round(fault_seconds / 10)
    with box(tmp_path, "--streams", "0") as (_, places):
        command = by_ffmpeg(film, loops, f"{places['rtmp']}/live_1")
        command.insert(1, "-re")
        assert subprocess.run(command, timeout=fault_seconds + 120, check=False).returncode == 0
        until(lambda: json.loads(got(f"{places['control']}/state"))["streams"] == [])
        rows = recorded(places)["file_list"]
        files = [Path(places["directory"]) / "vod" / f"{row['vid']}.flv" for row in rows]
        found = [packets(file) for file in files]
        print(f"{fault_seconds:.0f} s: {[len(one) for one in found]} packets in {len(files)} segments")
        assert len(files) == fault_seconds // 1800 + 1
        kinds = [one for kind in (VIDEO, AUDIO) for part in found for one in part if one[0] == kind]
        assert kinds == looped(film, loops)
