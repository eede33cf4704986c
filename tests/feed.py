"""Fills a daemon with streams: thousands of them, and hundreds of new pictures a second.

    with feeding(folder, streams=5000, rate=500) as feed:
        feed.url        # of the pages
        feed.set_rate(0)

The daemon is a process of its own, and so are the platform and whoever enqueues the pictures:

    python -m tests.feed --directory DIR [--streams 5000] [--rate 500] [--pictures]

runs a sandbox whose queue gets two pictures of every stream at once, and then so many pictures a second, as of now, of
one stream after the other. Its first line on stdout says where it listens. A line `{"rate": N}` on stdin changes the
rate.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from poller.sandbox import Customer, Options, Sandbox
from poller.sandbox.media.cutting import plain_jpeg
from poller.sandbox.names import Shot, path_of
from poller.sandbox.query.messages import Said
from tests.scenario.environment import PATIENCE, until
from tests.scenario.rig import Process

ROOT: Final = Path(__file__).parents[1]
PACE: Final = 0.05
USUAL_CADENCE: Final = 10.0
"""Seconds between two pictures of a stream where no rate is given."""
WIDTH, HEIGHT = 320, 180


def stream_name(number: int) -> str:
    """The id of a stream, counted from 0."""
    return f"room-{number:05}"


# ---------------------------------------------------------------- for tests


@dataclass(kw_only=True)
class Feed:
    """A daemon with pages, and the platform that feeds it."""

    daemon: Process
    platform: "subprocess.Popen[str]"
    streams: int
    url: str = field(default="", init=False)

    def __post_init__(self) -> None:
        until(lambda: self.daemon.said("web_listens"), what="for the daemon to serve pages")
        self.url = f"http://127.0.0.1:{self.daemon.said('web_listens')[0]['port']}"

    def get(self, path: str) -> Any:
        """An answer of the pages' port, read from JSON."""
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return json.load(answer)

    def set_rate(self, rate: int) -> None:
        """So many pictures a second from now on; 0 is none."""
        assert self.platform.stdin is not None
        self.platform.stdin.write(json.dumps({"rate": rate}) + "\n")
        self.platform.stdin.flush()

    def until_filled(self) -> None:
        """Return when the daemon has two pictures of every stream."""
        until(self._is_filled, what="for every stream")

    def _is_filled(self) -> bool:
        known = self.get("/api/streams")["streams"]
        return len(known) >= self.streams and all(row[-1] is not None for row in known)


@contextmanager
def feeding(
    folder: Path, *, streams: int = 5000, rate: int = 500, pictures: bool = False, **settings: Any
) -> Iterator[Feed]:
    """A daemon that has a picture of every stream already, and gets so many a second.

    `pictures` puts a small JPEG behind every message. `settings` replace sections of the configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.feed", "--directory", str(folder / "platform")]
    command += ["--streams", str(streams), "--rate", str(rate), *(["--pictures"] if pictures else [])]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as platform:
        assert platform.stdout is not None
        try:
            where = json.loads(platform.stdout.readline())
            config = folder / "poller.yaml"
            config.write_text(json.dumps(_configuration(folder, where) | settings))
            daemon = Process(config, "run", forked=False)
            try:
                feed = Feed(daemon=daemon, platform=platform, streams=streams)
                feed.until_filled()
                yield feed
            finally:
                daemon.kill()
        finally:
            platform.terminate()


def _configuration(folder: Path, where: Mapping[str, str]) -> dict[str, Any]:
    main = {
        "endpoint": where["api"],
        "app_id": Customer().app_id,
        "key": Customer().key,
        "rate": "1000/s",
        "cos": {"base_url": where["pictures"]},
        "audit": {"enabled": False},  # pictures come in turns, whatever the cadence
    }
    source = {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "100ms"}
    return {
        "accounts": {"main": main},
        "sources": {"shots": source},
        "spool": {"type": "sqlite", "path": str(folder / "spool.db")},
        "sinks": {"console": {"type": "stdout"}},
        "web": {"listen": "127.0.0.1:0"},
        "log": {"level": "info", "format": "json"},
    }


# ---------------------------------------------------------------- the program


class Feeder:
    """Enqueues pictures of one stream after the other, as of now."""

    def __init__(self, sandbox: Sandbox, streams: int, rate: int, pictures: bool) -> None:
        self.rate = rate
        self._sandbox = sandbox
        self._streams = streams
        self._jpeg = plain_jpeg(WIDTH, HEIGHT) if pictures else None
        self._push = int(time.time()) - 3600
        self._latest = [self._push] * streams
        self._turn = 0

    def fill(self) -> None:
        """Two pictures of every stream, as if they had been taken at the rate until now."""
        cadence = self._streams / (self.rate or self._streams / USUAL_CADENCE)
        begin = time.time() - 2 * cadence
        turns = 2 * self._streams
        self._enqueue([self._next(int(begin + 2 * cadence * turn / turns)) for turn in range(turns)])

    def enqueue(self, count: int) -> None:
        """So many pictures, taken now. No two pictures of a stream are of the same second."""
        self._enqueue([self._next(int(time.time())) for _ in range(count)])

    def _enqueue(self, said: list[Said]) -> None:
        queue, customer = self._sandbox.platform.queue(), self._sandbox.options.customers[0]
        if self._jpeg is not None:
            self._sandbox.pictures.put_many(customer.host_label, [one.path for one in said], self._jpeg)
        queue.enqueue(said)
        self._sandbox.wakeup.ring()

    async def run(self) -> None:
        """Enqueue at the rate of the moment, without end."""
        owed, last = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(PACE)
            now = time.monotonic()
            owed, last = min(owed + self.rate * (now - last), max(self.rate, 1)), now
            if owed >= 1:
                self.enqueue(int(owed))
                owed -= int(owed)

    def _next(self, now: int) -> Said:
        number, self._turn = self._turn, (self._turn + 1) % self._streams
        self._latest[number] = at = max(now, self._latest[number] + 1)
        shot = Shot(
            stream_id=stream_name(number), push=self._push, task=self._push, at=at, width=WIDTH, height=HEIGHT
        )
        path = path_of(shot, self._sandbox.options.naming)
        return Said(stream_id=shot.stream_id, path=path, create_time=at)


async def _serve(options: argparse.Namespace) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    made = Options(directory=options.directory, upload_delay=(0.0, 0.0), queue_limit=1_000_000)
    async with Sandbox(made) as sandbox:
        feeder = Feeder(sandbox, options.streams, options.rate, options.pictures)
        feeder.fill()
        loop.add_reader(sys.stdin, _read_order, feeder)
        where = {key: str(sandbox.endpoints[key]) for key in ("api", "cos", "control")}
        where["pictures"] = f"{where['cos']}/{made.customers[0].host_label}"
        print(json.dumps(where), flush=True)
        running = asyncio.ensure_future(feeder.run())
        await asyncio.wait({running, asyncio.ensure_future(stop.wait())}, return_when="FIRST_COMPLETED")
        running.cancel()


def _read_order(feeder: Feeder) -> None:
    orders = os.read(sys.stdin.fileno(), 4096).splitlines()
    if not orders:
        asyncio.get_running_loop().remove_reader(sys.stdin)
    for order in orders:
        feeder.rate = int(json.loads(order)["rate"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--pictures", action="store_true")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
