"""What live streams cost the sandbox: CPU and memory with recording and pictures on, and how late pictures are.

    python -m tests.bench.streams [--streams 20] [--seconds 60] [--exact]

A clip of 720p25 at 2.65 Mb/s, a keyframe every 2 s, is pushed that many times over RTMP, each by a process of its own,
to `poller sandbox` as a process, whose CPU (utime and stime, all threads) and peak of resident memory are read from
/proc. The promise for 20 streams: at most 30 % of a core, 100 MB, the worst picture 2 s after its tick. The bare line
is a process that takes the same bytes over as many TCP connections and appends them to files: no RTMP, no pictures.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tests.bench import rig
from tests.bench.figures import Figure
from tests.bench.idle import cpu_of

WIDTH, HEIGHT, RATE, GOP, SECONDS, BITS = 1280, 720, 25, 50, 8, 2_650_000
SETTLE = 5.0


def clip(path: Path) -> Path:
    """The clip, as FLV; its rate is held by filler bytes, so that no picture content changes the figure."""
    with av.open(str(path), "w", format="flv") as out:
        options = {"preset": "ultrafast", "x264-params": "nal-hrd=cbr:scenecut=0", "maxrate": str(BITS)}
        stream = out.add_stream("libx264", rate=RATE, options={**options, "bufsize": str(BITS)})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", BITS
        stream.codec_context.gop_size = GOP
        for frame in _frames():
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def _frames() -> Iterator[VideoFrame]:
    rng = random.Random(1)
    noise = [rng.randbytes(WIDTH) * 8 for _ in range(HEIGHT // 8)]
    for number in range(SECONDS * RATE):
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        frame.planes[0].update(b"".join(noise[number % 90 :] + noise[: number % 90]))
        for plane in frame.planes[1:]:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        yield frame


def sandbox(folder: Path, video: Path, streams: int, seconds: float, exact: bool) -> dict[str, float]:
    """CPU in % of a core, peak memory in MB, the worst picture's lateness in seconds, and pictures that failed."""
    command = [sys.executable, "-m", "poller", "sandbox", "--directory", str(folder), "--streams", "0"]
    with ExitStack() as stack:
        started = stack.enter_context(
            subprocess.Popen(
                [*command, *(["--exact"] if exact else [])],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        stack.callback(started.terminate)
        assert started.stdout is not None
        places = json.loads(started.stdout.readline())
        for number in range(streams):
            push = [sys.executable, "-m", "poller.sandbox.push", str(video)]
            pusher = stack.enter_context(subprocess.Popen(push, stdin=subprocess.PIPE, text=True))
            stack.callback(pusher.terminate)
            assert pusher.stdin is not None
            pusher.stdin.write(f"{places['rtmp']}/bench_{number}\n")
            pusher.stdin.flush()
        while len(_state(places)["streams"]) < streams:
            time.sleep(0.2)
        time.sleep(SETTLE)
        used = _cpu(started.pid, seconds)
        state, status = _state(places), Path(f"/proc/{started.pid}/status").read_text()
        assert len(state["streams"]) == streams, "a stream ended early"
        shots = state["screenshots"]
        memory = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1000
    return {"cpu": used, "MB": memory, "worst": shots["worst"], "missed": shots["failed"] + shots["skipped"]}


def _state(places: dict[str, str]) -> Any:
    with urllib.request.urlopen(f"{places['control']}/state") as answer:
        return json.load(answer)


def _cpu(pid: int, seconds: float) -> float:
    before, began = cpu_of(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_of(pid) - before) / (time.monotonic() - began) * 100


# ---------------------------------------------------------------- the bare loop


class _Appending(asyncio.Protocol):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        port = cast(asyncio.Transport, transport).get_extra_info("peername")[1]
        self._file = (self._folder / str(port)).open("ab", buffering=1 << 18)

    def data_received(self, data: bytes) -> None:
        self._file.write(data)


async def _take(folder: Path) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Appending(folder), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "pid": os.getpid()}), flush=True)
    await server.serve_forever()


async def _send(port: int, content: bytes, streams: int, seconds: float) -> None:
    """The clip's bytes at the clip's rate, in 25 pieces a second."""
    writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(streams)]
    size = len(content) // (SECONDS * RATE)
    began = time.monotonic()
    for turn in range(int(seconds * RATE)):
        start = turn % (SECONDS * RATE) * size
        for writer in writers:
            writer.write(content[start : start + size])
        await asyncio.sleep(max(0.0, began + turn / RATE - time.monotonic()))


def bare(folder: Path, video: Path, streams: int, seconds: float) -> float:
    """CPU of the bare loop in % of a core."""
    folder.mkdir()
    with rig.process([sys.executable, "-m", "tests.bench.streams", "--take", str(folder)]) as where:
        before, began = cpu_of(where["pid"]), time.monotonic()
        asyncio.run(_send(where["port"], video.read_bytes(), streams, seconds))
        return (cpu_of(where["pid"]) - before) / (time.monotonic() - began) * 100


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--exact", action="store_true", help="decode whole GOPs")
    parser.add_argument("--take", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.take is not None:
        asyncio.run(_take(asked.take))
        return []
    with rig.scratch() as folder:
        video = clip(folder / "clip.flv")
        rate = video.stat().st_size * 8 / SECONDS / 1e6
        alone = bare(folder / "bare", video, asked.streams, asked.seconds)
        ours = sandbox(folder / "platform", video, asked.streams, asked.seconds, asked.exact)
    print(f"{asked.streams} streams of {rate:.2f} Mb/s over {asked.seconds:g} s")
    heads = ["", "CPU %", "MB at most", "worst s", "missed"]
    rows = [["bare", alone, "", "", ""], ["sandbox", ours["cpu"], ours["MB"], ours["worst"], ours["missed"]]]
    print(rig.table(heads, rows))
    return _figures(asked.streams, ours, alone)


def _figures(streams: int, ours: dict[str, float], alone: float) -> list[Figure]:
    def one(
        name: str, unit: str, value: float, at_most: float | None, reference: float | None = None
    ) -> Figure:
        return Figure(
            bench="streams",
            name=name,
            unit=unit,
            ours=value,
            reference=reference,
            at_most=at_most,
            absolute=True,
        )

    pushes = f"{streams} pushes of 720p25"
    return [
        one(f"CPU, {pushes}, beside files of the same bytes", "%", ours["cpu"], 30, alone),
        one(f"memory at its peak, {pushes}", "MB", ours["MB"], 100),
        one(f"the latest picture after its tick, {pushes}", "s", ours["worst"], 2),
        one(f"pictures that failed or were left out, {pushes}", "", ours["missed"], None),
    ]


if __name__ == "__main__":
    main()
