"""2,000 pictures of 15 kB: the sink `download` beside `curl --parallel --parallel-max 16`, in the same run.

    python -m tests.bench.download [--pictures 2000] [--rounds 3] [--directory DIR ...]

A cheap picture server is a process of its own. Each round fetches all pictures with the sink, as the courier would
(two batches at a time, `per_host` 16: checked, fsynced, renamed), once in batches of 32 and once of 100; with curl
(written, nothing more); and with aria2 and 16 jobs, if it is there. Nothing is deleted before the end: for some seconds
ext4 looks at each inode just deleted before it takes another. Directories default to a tmpfs and a disk. CPU is
user and system of the whole process, less what its start costs (none of it for the others, measured with one picture
for the sink).
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from poller.core.model import Batch, Event, batch_id, new_event
from poller.sandbox.media.cutting import plain_jpeg
from poller.sinks.download import Download
from poller.sinks.download.settings import DownloadSettings
from tests.bench import rig

SIZE = 15_000
DIRECTORIES = (Path("/dev/shm"), Path("/tmp"))


def picture() -> bytes:
    """A grey picture, padded with a comment to 15 kB."""
    grey = plain_jpeg(300, 169)
    padding = SIZE - len(grey) - 4
    return grey[:2] + b"\xff\xfe" + (padding + 2).to_bytes(2, "big") + bytes(padding) + grey[2:]


class _Server(asyncio.Protocol):
    """Answers every GET with the same picture; knows no other request and no pipelining."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # of uvloop, which has its own classes

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(self.answer)


async def serve() -> None:
    """Run the server until SIGTERM."""
    body = picture()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    _Server.answer = head.encode() + body
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Server, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


# ---------------------------------------------------------------- the two ways


def events(count: int, server: str) -> list[Event]:
    """One event for each picture, of 20 streams."""
    now = datetime.now(UTC)
    made = []
    for number in range(count):
        stream = f"load_{number % 20}"
        name = f"{stream}_1465000000_1465000000_{number * 10}_300_169.jpg"
        made.append(
            new_event(
                id=f"{number:032x}",
                kind="screenshot",
                account="main",
                stream_id=stream,
                occurred_at=now,
                received_at=now,
                url=f"{server}/{name}",
                fields={"file_name": name, "width": 300, "height": 169},
                message=msgspec.Raw(b"{}"),
            )
        )
    return made


async def stored(directory: Path, server: str, count: int, each: int) -> None:
    """Store all pictures with the sink, two batches at a time."""
    owed = events(count, server)
    settings = DownloadSettings.model_validate(
        {
            "type": "download",
            "directory": directory,
            "allow_hosts": [server.removeprefix("http://")],
            "allow_cidr": ["127.0.0.0/8"],
        }
    )
    waiting = iter([owed[start : start + each] for start in range(0, count, each)])
    async with Download("archive", settings, {}) as sink:

        async def carrier() -> None:
            for some in waiting:
                id = batch_id([event.id for event in some])
                await sink.deliver(Batch(id=id, sink="archive", events=tuple(some)))

        await asyncio.gather(carrier(), carrier())


def ours(directory: Path, server: str, count: int, each: int) -> rig.Spent:
    """The sink in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.download", "--store", str(directory), server]
    return rig.spent_by([*command, "--pictures", str(count), "--each", str(each)])


def curl(directory: Path, server: str, count: int) -> rig.Spent:
    """curl with the same URLs."""
    wishes = directory / "curl.txt"
    wishes.write_text(
        "\n".join(
            f'url="{event.url}"\noutput="{directory}/{event.id}.jpg"' for event in events(count, server)
        )
    )
    command = ["curl", "--silent", "--parallel", "--parallel-max", "16", "--config", str(wishes)]
    return rig.spent_by(command, stderr=subprocess.DEVNULL)


def aria2(directory: Path, server: str, count: int) -> rig.Spent:
    """aria2 with the same URLs, 16 at a time over connections that stay open; it too only writes."""
    wishes = directory / "aria2.txt"
    wishes.write_text("\n".join(f"{event.url}\n  out={event.id}.jpg" for event in events(count, server)))
    command = ["aria2c", "--quiet", "--no-conf", "--max-concurrent-downloads=16", "--file-allocation=none"]
    return rig.spent_by([*command, f"--dir={directory}", f"--input-file={wishes}"], stdout=subprocess.DEVNULL)


OTHERS = {"curl": curl, "aria2c": aria2}


def main() -> None:
    options = _options()
    if options.store:
        directory, server = options.store
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(stored(Path(directory), server, options.pictures, options.each))

        return
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    command = [sys.executable, "-m", "tests.bench.download", "--serve"]
    with rig.process(command) as where:
        server = f"http://127.0.0.1:{where['port']}"
        for place in options.directory or DIRECTORIES:
            with rig.scratch(place) as folder:
                for number in range(options.rounds):
                    _round(found, folder / str(number), server, options.pictures)
    rows: list[list[object]] = []
    for (place, way), times in found.items():
        cpu, wall = (rig.median([pair[index] for pair in times]) for index in (0, 1))
        rows.append([f"{way}, {place}", cpu / options.pictures * 1e6, options.pictures / wall])
    print(rig.table(["", "us of CPU a picture", "pictures/s"], rows))


def _round(
    found: dict[tuple[str, str], list[tuple[float, float]]], folder: Path, server: str, count: int
) -> None:
    place = str(folder.parents[1])
    folder.mkdir()
    start = ours(folder / "start", server, 1, 1)
    for each in (32, 100):
        spent = ours(folder / str(each), server, count, each)
        assert spent.code == 0
        found[place, f"download, batches of {each}"].append((spent.cpu - start.cpu, spent.wall - start.wall))
    for name, way in OTHERS.items():
        if shutil.which(name):
            (folder / name).mkdir()
            other = way(folder / name, server, count)
            assert other.code == 0
            assert len(os.listdir(folder / name)) == count + 1
            found[place, name].append((other.cpu, other.wall))


def _options() -> argparse.Namespace:
    assert shutil.which("curl"), "curl is needed: apt-get install -y curl"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, action="append")
    parser.add_argument("--each", type=int, default=32, help=argparse.SUPPRESS)
    parser.add_argument("--store", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve())
        sys.exit()
    return options


if __name__ == "__main__":
    main()
