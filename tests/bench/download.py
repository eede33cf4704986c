"""2,000 pictures of 15 kB: the sink `download` beside `curl --parallel --parallel-max 16`, in the same run.

    python -m tests.bench.download [--pictures 2000] [--streams 20] [--rounds 3] [--directory DIR ...]

A cheap picture server is a process of its own. Each round fetches all pictures with the sink, as the courier would
(two batches at a time, `per_host` 16: checked, synced, renamed), in batches of 32 and of 100 with `sync: file`, and of
100 with `sync: filesystem`, where the directory allows that; with curl, all at once, written and nothing more, and
with one `sync -f` at the end; with curl in batches of 100, two at a time, each file fsynced (`sync FILE ...`, 8 at
once) or `sync -f` after each batch; and with aria2 and 16 jobs. The order changes from round to round. Nothing is
deleted before the end: for some seconds ext4 looks at each inode just deleted before it takes another. Directories
default to a tmpfs and a disk. Time and CPU (user and system) are those of the whole process, for the sink from the
first batch to the end of the last. The last columns give each way beside each curl: the median of the rounds' own
ratios.
"""

import argparse
import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

import msgspec
import uvloop

from poller.core.model import Batch, Event, batch_id, new_event
from poller.runtime.syncfs import why_unsupported
from poller.sandbox.media.cutting import plain_jpeg
from poller.sinks.download import Download
from poller.sinks.download.settings import DownloadSettings
from tests.bench import figures, rig
from tests.bench.figures import Figure

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


def events(count: int, server: str, streams: int) -> list[Event]:
    """One event for each picture; the streams take turns."""
    now = datetime.now(UTC)
    made = []
    for number in range(count):
        stream = f"load_{number % streams}"
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


async def stored(directory: Path, owed: Sequence[Event], server: str, each: int, sync: str) -> rig.Spent:
    """Store all pictures with the sink, two batches at a time; what that took."""
    settings = DownloadSettings.model_validate(
        {
            "type": "download",
            "directory": directory,
            "allow_hosts": [server.removeprefix("http://")],
            "allow_cidr": ["127.0.0.0/8"],
            "sync": sync,
        }
    )
    waiting = iter([owed[start : start + each] for start in range(0, len(owed), each)])
    async with Download("archive", settings, {}) as sink:

        async def carrier() -> None:
            for some in waiting:
                id = batch_id([event.id for event in some])
                await sink.deliver(Batch(id=id, sink="archive", events=tuple(some)))

        began, used = time.monotonic(), os.times()
        await asyncio.gather(carrier(), carrier())
        wall, now = time.monotonic() - began, os.times()
        return rig.Spent(user=now.user - used.user, system=now.system - used.system, wall=wall, code=0)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What each way fetches."""

    server: str
    pictures: int
    streams: int


Way = Callable[[Path, Load], rig.Spent]


def ours(each: int, sync: str) -> Way:
    """The sink in a process of its own."""

    def run(directory: Path, load: Load) -> rig.Spent:
        command = [sys.executable, "-m", "tests.bench.download", "--store", str(directory), load.server]
        command += ["--pictures", str(load.pictures), "--streams", str(load.streams)]
        done = subprocess.run(
            [*command, "--each", str(each), "--sync", sync], check=True, stdout=subprocess.PIPE
        )
        return rig.Spent(**json.loads(done.stdout))

    return run


def curl(then: str = "", *, each: int | None = None) -> Way:
    """curl with the same URLs, all at once or in batches, two at a time; `then` syncs what is in the current folder."""

    def run(directory: Path, load: Load) -> rig.Spent:
        owed = events(load.pictures, load.server, load.streams)
        size = each or len(owed)
        for first in range(0, len(owed), size):
            (directory / str(first)).mkdir()
            wishes = [f'url="{one.url}"\noutput="{one.id}.jpg"' for one in owed[first : first + size]]
            (directory / str(first) / "urls").write_text("\n".join(wishes))
        batch = f"cd $0 && curl --silent --parallel --parallel-max 16 --config urls {then}"
        command = f"ls | xargs -P 2 -n 1 sh -ec {shlex.quote(batch)}"
        return rig.spent_by(["sh", "-ec", command], cwd=directory, stderr=subprocess.DEVNULL)

    return run


def aria2(directory: Path, load: Load) -> rig.Spent:
    """aria2 with the same URLs, 16 at a time over connections that stay open; it only writes."""
    wishes = directory.with_suffix(".txt")
    owed = events(load.pictures, load.server, load.streams)
    wishes.write_text("\n".join(f"{event.url}\n  out={event.id}.jpg" for event in owed))
    command = ["aria2c", "--quiet", "--no-conf", "--max-concurrent-downloads=16", "--file-allocation=none"]
    return rig.spent_by([*command, f"--dir={directory}", f"--input-file={wishes}"], stdout=subprocess.DEVNULL)


WAYS: Mapping[str, Way] = {
    "download, batches of 32": ours(32, "file"),
    "download, batches of 100": ours(100, "file"),
    "download, sync: filesystem, batches of 100": ours(100, "filesystem"),
    "curl": curl(),
    "curl, sync -f": curl("&& sync -f ."),
    "curl of 100, fsync of each": curl("&& printf '%s\\0' *.jpg | xargs -0 -P 8 -n 13 sync", each=100),
    "curl of 100, sync -f": curl("&& sync -f .", each=100),
    "aria2c": aria2,
}


PEERS: Final = {
    name: "aria2c" if name == "aria2c" else "curl" for name in WAYS if not name.startswith("download")
}
"""The ways of others, and the program that each needs."""


def ways(place: Path) -> dict[str, Way]:
    """The ways that there are on this machine, in this place."""
    here = dict(WAYS)
    if why_unsupported(place):
        here = {name: way for name, way in here.items() if "filesystem" not in name}
    return {name: way for name, way in here.items() if name not in PEERS or shutil.which(PEERS[name])}


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    if options.store:
        directory, server = options.store
        owed = events(options.pictures, server, options.streams)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            spent = runner.run(stored(Path(directory), owed, server, options.each, options.sync))
        print(json.dumps(asdict(spent)))
        return []
    measured: list[Figure] = []
    command = [sys.executable, "-m", "tests.bench.download", "--serve"]
    with rig.process(command) as where:
        load = Load(
            server=f"http://127.0.0.1:{where['port']}", pictures=options.pictures, streams=options.streams
        )
        for place in options.directory or DIRECTORIES:
            with rig.scratch(place) as folder:
                found = _compare(folder, ways(folder), load, options.rounds)
                print(f"{place}\n{_table(found, load)}\n", flush=True)
                measured += _figures(found, load, "tmpfs" if place == DIRECTORIES[0] else "disk")
    return measured


Found = dict[str, list[rig.Spent]]

PROMISED = {"curl of 100, fsync of each": 1.5, "curl of 100, sync -f": 1.0}
"""How many times as fast as these the sink is with `sync: filesystem`."""


def _compare(folder: Path, ways: Mapping[str, Way], load: Load, rounds: int) -> Found:
    found: dict[str, list[rig.Spent]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            directory = folder / f"{number}-{names.index(name)}"
            directory.mkdir()
            spent = ways[name](directory, load)
            assert spent.code == 0
            assert sum(1 for _ in directory.rglob("*.jpg")) >= load.pictures
            found[name].append(spent)
    return found


def _figures(found: Found, load: Load, kind: str) -> list[Figure]:
    """Each way of the sink beside each peer, in pictures a second."""
    speed = {name: [load.pictures / one.wall for one in all_spent] for name, all_spent in found.items()}
    return [
        figures.beside(
            "download",
            f"{name.replace('download', kind)}, beside {peer}",
            "1/s",
            speed[name],
            speed[peer],
            at_least=PROMISED.get(peer) if "filesystem" in name else None,
        )
        if peer in speed
        else figures.alone("download", name.replace("download", kind), "1/s", speed[name], peer)
        for name in speed
        if name not in PEERS
        for peer in PEERS
    ]


def _table(found: Found, load: Load) -> str:
    names = list(found)
    rows: list[list[object]] = []
    for name, all_spent in found.items():
        cpu, wall = (rig.median([getattr(spent, what) for spent in all_spent]) for what in ("cpu", "wall"))
        ratios = [_ratio(all_spent, found[peer]) for peer in names if peer.startswith("curl")]
        rows.append([name, cpu / load.pictures * 1e6, load.pictures / wall, *ratios])
    peers = [f"/ {peer}" for peer in names if peer.startswith("curl")]
    return rig.table(["", "us of CPU a picture", "pictures/s", *peers], rows)


def _ratio(ours: Sequence[rig.Spent], theirs: Sequence[rig.Spent]) -> float:
    return rig.median([other.wall / own.wall for own, other in zip(ours, theirs, strict=True)])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, action="append")
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--each", type=int, default=32, help=argparse.SUPPRESS)
    parser.add_argument("--sync", default="file", help=argparse.SUPPRESS)
    parser.add_argument("--store", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        uvloop.run(serve())
        sys.exit()
    return options


if __name__ == "__main__":
    main()
