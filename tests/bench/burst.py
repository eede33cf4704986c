"""10,000 messages that appear at once behind 50 ms of latency: how long until all of them are durable.

    python -m tests.bench.burst [--messages 10000] [--delay 0.05] [--lanes 4 16] [--rounds 5] [--directory DIR]
        [--streams 200] [--rate 100000/s] [--ticks 1]

A sandbox, a cheap webhook and the daemon run as processes of their own; between daemon and sandbox lies a wire on which
each answer is `delay` seconds longer on its way. The daemon polls an empty queue with `max_in_flight` as given; then
the messages appear. Timed is from the moment the first full answer arrives until the spool file has the last event.
The least that so many parallel polls need is the polls that are left then, divided among them, times the delay.
What has arrived is durable in the journal within one sync, in the spool after a commit that several pages share.
With `--streams` as many as the messages, each stream has one, as at a tick of the platform; with `--ticks`, so many
bursts follow each other, each when the one before is stored, and the last is timed. CPU is the daemon's in that burst,
deliveries included. Sandbox, wire and webhook have the same cores.
Beside it a bare loop: so many lanes from the start that only poll, and store nothing.
The promise is 1.5 times the least. Each full answer to the first lane opens one more.
"""

import argparse
import asyncio
import json
import math
import os
import signal
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from poller.qcloud.wire.account import Account
from poller.settings import AccountSettings
from poller.sources.screenshot_queue import ScreenshotQueue, ScreenshotQueueSettings
from tests.bench import rig
from tests.bench.figures import Figure

EACH = 100
FULL = 5000
"""Bytes that only an answer with many messages has."""
LOOK = 0.003
"""Seconds between two looks into the spool file."""
LULL = 5.0
"""Seconds between two bursts."""


class Wire:
    """Carries bytes to the platform at once and back after a delay; notes when full answers arrived."""

    def __init__(self, endpoint: str, delay: float) -> None:
        parts = urlsplit(endpoint)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._path = parts.path
        self._delay = delay
        self.full: list[float] = []
        self.endpoint = ""

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self._path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        telling = asyncio.ensure_future(self._tell(far_reader, writer))
        while chunk := await reader.read(65536):
            far_writer.write(chunk)
        telling.cancel()
        far_writer.close()
        writer.close()

    async def _tell(self, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await far.read(1 << 20):
            loop.call_later(self._delay, self._arrives, writer, chunk)

    def _arrives(self, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        if len(chunk) > FULL:
            self.full.append(time.monotonic())
        writer.write(chunk)


# ---------------------------------------------------------------- the two ways


async def polled(api: str, lanes: int) -> None:
    """The bare loop: poll with so many lanes until the queue is empty again."""
    async with Account("main", AccountSettings.model_validate(rig.account(api))) as account:
        asked = ScreenshotQueueSettings(type="screenshot_queue", account="main")
        queue = ScreenshotQueue("screenshots", asked, {"main": account})
        print("{}", flush=True)

        async def lane() -> None:
            met = False
            while True:
                page = await queue.fetch()
                if met and len(page.body) < FULL:
                    return
                met = met or len(page.body) > FULL

        await asyncio.gather(*[lane() for _ in range(lanes)])


async def bare(wire: Wire, queue: rig.Platform, lanes: int, count: int) -> float:
    """Seconds from the first full answer to the last."""
    async with running(["tests.bench.burst", "--bare", wire.endpoint, "--lanes", str(lanes)]) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        await asyncio.sleep(0.5)
        wire.full.clear()
        await asyncio.to_thread(queue.enqueue, count)
        async with asyncio.timeout(60):
            await process.wait()
    return wire.full[-1] - wire.full[0]


async def stored(
    wire: Wire, queue: rig.Platform, config: Path, options: argparse.Namespace
) -> tuple[float, float, float]:
    """Seconds from the first full answer until the last arrived, and until the daemon's spool holds everything.

    Then the daemon's CPU seconds until that moment.
    """
    count, end, used = options.messages, 0.0, 0.0
    async with running(["poller", "run", "-c", str(config)]) as daemon, asyncio.timeout(600):
        await until_stored(config.with_name("spool.db"), 0)
        for tick in range(1, options.ticks + 1):
            await asyncio.sleep(2.0 if tick == 1 else LULL)
            wire.full.clear()
            used = cpu_of(daemon.pid)
            await asyncio.to_thread(partial(queue.enqueue, count, streams=options.streams))
            end = await until_stored(config.with_name("spool.db"), count * tick)
            used = cpu_of(daemon.pid) - used
    return wire.full[-1] - wire.full[0], end - wire.full[0], used


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of ours, ended by SIGTERM if it has not ended; the wire goes on meanwhile."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def until_stored(file: Path, count: int) -> float:
    """When the spool holds so many events."""
    while not file.exists():
        await asyncio.sleep(LOOK)
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
        while True:
            try:
                held = db.execute("SELECT coalesce(max(last), 0) FROM page").fetchone()[0]
            except sqlite3.OperationalError:  # it has no tables yet
                held = -1
            if held >= count:
                return time.monotonic()
            await asyncio.sleep(LOOK)


async def measured(
    options: argparse.Namespace, queue: rig.Platform, hook: str, folder: Path
) -> list[list[object]]:
    """All rounds."""
    wire = Wire(queue.api, options.delay)
    await wire.open()
    found: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    for number in range(options.rounds):
        for lanes in options.lanes:
            config = rig.configuration(
                folder / f"{lanes}-{number}", wire.endpoint, {"hook": rig.webhook(hook)}
            )
            settings = json.loads(config.read_text())
            settings["accounts"]["main"]["rate"] = options.rate
            settings["sources"]["screenshots"] |= {"max_in_flight": lanes, "max_delay": "1s"}
            config.write_text(json.dumps(settings))
            ours = await stored(wire, queue, config, options)
            found[lanes].append((*ours, await bare(wire, queue, lanes, options.messages)))
            print(lanes, *found[lanes][-1], file=sys.stderr)
    rows: list[list[object]] = []
    for lanes, times in found.items():
        least = math.ceil((options.messages / EACH - 1) / lanes) * options.delay
        came, own, cpu, alone = (rig.median([one[index] for one in times]) for index in range(4))
        ratios = [one[1] / least for one in times]
        rows.append([lanes, least, alone, came, own, cpu, rig.median(ratios), min(ratios), max(ratios)])
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.bare:
            runner.run(polled(options.bare, options.lanes[0]))
            return []
        with (
            rig.scratch(options.directory) as folder,
            rig.platform(folder / "platform") as queue,
            rig.receiver() as hook,
        ):
            rows = runner.run(measured(options, queue, hook, folder))
    head = [
        "max_in_flight",
        "least s",
        "bare",
        "last answer",
        "in the spool",
        "CPU s",
        "to the least",
        "least",
        "most",
    ]
    print(rig.table(head, rows))
    return [_figure([float(str(cell)) for cell in row]) for row in rows]


def _figure(row: Sequence[float]) -> Figure:
    lanes, least, _, _, own, _, ratio, smallest, greatest = row
    name = f"a burst until all is stored, {lanes:.0f} lanes, beside the least possible"
    return Figure(
        bench="burst",
        name=name,
        unit="s",
        ours=own,
        reference=least,
        ratio=ratio,
        least=smallest,
        most=greatest,
        at_most=1.5,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--lanes", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", default="100000/s", help="the account's rate")
    parser.add_argument("--ticks", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
