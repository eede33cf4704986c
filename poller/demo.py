"""`poller demo`: the platform in a box, four live streams and the daemon, on this machine, in one temporary folder.

Everything runs as its user would run it: `poller sandbox`, `poller run` and a pusher for each stream are processes of
their own. One pusher is killed on the way and comes back, as when a cable is pulled and put back.
"""

import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from poller.qcloud.signing import sign
from poller.sandbox.media.clip import clip
from poller.spools.sqlite import SqliteSpool
from poller.stop import Stop

KEY = "5d41402abc4b2a76b9719d911017c592"  # the platform's own documented example
BUCKET = "shots-1250000000"
UP_WITHIN = 60.0
PULL_AFTER = 9.0
"""Seconds until the plug is pulled, and then until it is put back."""
OUT_FOR = 4.0
DRAIN_WITHIN = "60s"

CONFIGURATION = """\
# What `poller demo` runs. The same file with your own account is all that the daemon needs.
accounts:
  demo:
    endpoint: {api}
    app_id: 1234
    key: {key}
    cos: {{base_url: "{cos}/{bucket}"}}
sources:
  screenshots: {{type: screenshot_queue, account: demo, max_delay: 1s}}
spool: {{type: sqlite, path: spool.db}}
journal: {{size: 16MiB}}
sinks:
  console: {{type: stdout}}
  archive: {{type: download, directory: pictures, allow_cidr: [127.0.0.0/8]}}
"""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What to show: how many streams, a picture every so many seconds, and until when (None: Ctrl-C).

    The streams show the videos in turn; none: a test pattern.
    """

    streams: int = 4
    interval: float = 5.0
    seconds: float | None = None
    videos: tuple[Path, ...] = ()
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="poller-demo-")))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of every message that was taken off the queue."""

    taken: int
    spooled: int
    quarantined: int
    printed: int
    pictures: int
    dead: int

    @property
    def lost(self) -> int:
        """Taken, and neither an event nor in quarantine."""
        return self.taken - self.spooled - self.quarantined

    @property
    def good(self) -> bool:
        """Whether all of it arrived everywhere."""
        return self.lost == self.dead == 0 and self.printed == self.pictures == self.spooled


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A recorded segment, as the platform lists it. `start` and `end` are times of day in UTC+8."""

    stream_id: str
    start: str
    end: str


async def show(demo: Demo, stop: Stop) -> bool:
    """Run the demo; true if nothing was lost and everything was delivered."""
    console = Console(stderr=True, highlight=False)
    folder = demo.directory
    console.print(f"Everything is under [bold]{escape(str(folder))}[/]")
    async with AsyncExitStack() as stack:
        console.print("Starting the platform in a box, and encoding what the streams show …")
        box, places = await _sandbox(stack, demo)
        config = folder / "poller.yaml"
        config.write_text(CONFIGURATION.format(api=places["api"], cos=places["cos"], key=KEY, bucket=BUCKET))
        pushers = await _pushers(stack, demo, places["rtmp"])
        _say_where(console, demo, folder, places["rtmp"])
        daemon = await _started(stack, folder, "run", "-c", str(config))
        printed: set[str] = set()
        reading = asyncio.ensure_future(_print_events(console, daemon, folder, printed))
        plug = asyncio.ensure_future(_pull_a_plug(console, stack, demo, pushers, places["rtmp"]))
        await _until_the_end(demo, stop, daemon, box)
        plug.cancel()
        await asyncio.gather(*map(_ended, pushers))
        console.print("The streams have ended; what is still on its way is fetched and delivered …")
        await _ended(daemon)
        await reading
        drain = await _started(stack, folder, "drain", "-c", str(config), "--timeout", DRAIN_WITHIN)
        await _print_events(console, drain, folder, printed)
        await drain.wait()
        segments = await _segments(places["api"], demo)
    summary = await _summary(folder, printed)
    _print_summary(console, summary, segments, folder)
    return summary.good


def _say_where(console: Console, demo: Demo, folder: Path, rtmp: str) -> None:
    console.print(
        f"{demo.streams} streams are pushed to {rtmp}, a picture of each every {demo.interval:g} s"
        " (the real platform: 10 s). The daemon drains their queue:"
    )
    for what, where in (
        ("configuration", "poller.yaml"),
        ("pictures", "pictures/"),
        ("recordings", "platform/vod/"),
        ("events", "events.ndjson"),
        ("logs", "run.log, sandbox.log"),
    ):
        console.print(f"  {what:<14}{escape(str(folder))}/{where}")
    console.print("Ctrl-C ends it." if demo.seconds is None else f"It ends in {demo.seconds:g} s.")
    console.print()


async def _sandbox(stack: AsyncExitStack, demo: Demo) -> tuple[Process, dict[str, str]]:
    box = await _started(
        stack,
        demo.directory,
        "sandbox",
        *("--directory", str(demo.directory / "platform")),
        *("--streams", "0"),
        *("--interval", str(demo.interval)),
        *("--upload-delay", "0-3"),
    )
    assert box.stdout is not None
    async with asyncio.timeout(UP_WITHIN):
        line = await box.stdout.readline()
    if not line:
        raise OSError(f"the sandbox did not start; see {demo.directory / 'sandbox.log'}")
    return box, json.loads(line)


async def _pushers(stack: AsyncExitStack, demo: Demo, rtmp: str) -> list[Process]:
    """One for each stream, in order."""
    files = await asyncio.gather(*(asyncio.to_thread(_shown, demo, n + 1) for n in range(demo.streams)))
    pushes = (_pusher(stack, demo, file, f"{rtmp}/live_{n}") for n, file in enumerate(files, start=1))
    return list(await asyncio.gather(*pushes))


def _shown(demo: Demo, number: int) -> Path:
    """What the stream of that number shows."""
    if demo.videos:
        return demo.videos[(number - 1) % len(demo.videos)]
    return clip(demo.directory / "clips" / f"{number}.mp4", number)


async def _pusher(stack: AsyncExitStack, demo: Demo, file: Path, url: str) -> Process:
    log = stack.enter_context((demo.directory / "push.log").open("ab"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poller.sandbox.push", str(file)),
        stdin=PIPE,
        stdout=DEVNULL,
        stderr=log,
        start_new_session=True,
    )
    stack.push_async_callback(_ended, process)
    assert process.stdin is not None
    process.stdin.write(url.encode() + b"\n")
    return process


async def _pull_a_plug(
    console: Console, stack: AsyncExitStack, demo: Demo, pushers: list[Process], rtmp: str
) -> None:
    """The first stream is interrupted and comes back; its recording is in two segments therefore."""
    await asyncio.sleep(PULL_AFTER)
    pushers[0].kill()
    console.print("[yellow]The plug of live_1 is pulled.[/]")
    await asyncio.sleep(OUT_FOR)
    pushers.append(await _pusher(stack, demo, _shown(demo, 1), f"{rtmp}/live_1"))
    console.print("[yellow]And put back.[/]")


async def _started(stack: AsyncExitStack, folder: Path, *words: str) -> Process:
    log = stack.enter_context((folder / f"{words[0]}.log").open("ab"))
    # a session of its own: Ctrl-C is for us, and we stop the others in order
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "poller", *words, stdout=PIPE, stderr=log, start_new_session=True
    )
    stack.push_async_callback(_ended, process)
    return process


async def _ended(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


async def _until_the_end(demo: Demo, stop: Stop, *processes: Process) -> None:
    waits = [asyncio.ensure_future(wait) for wait in (stop.first(), *(p.wait() for p in processes))]
    await asyncio.wait(waits, timeout=demo.seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _print_events(console: Console, daemon: Process, folder: Path, printed: set[str]) -> None:
    assert daemon.stdout is not None
    with (folder / "events.ndjson").open("ab") as events:
        async for line in daemon.stdout:
            events.write(line)
            event = json.loads(line)
            printed.add(event["id"])
            shot = event["data"]
            console.print(
                f"[dim]{event['time'][11:19]}[/] {escape(shot['stream_id'])}"
                f"  {shot['width']}x{shot['height']}  [dim]{escape(shot['file_name'])}[/]"
            )


async def _segments(api: str, demo: Demo) -> list[Segment]:
    """All that was recorded, asked for as a customer asks."""
    found: list[Segment] = []
    for number in range(1, demo.streams + 1):
        t = int(time.time()) + 60
        query = {"cmd": 1234, "interface": "Live_Tape_GetFilelist", "Param.s.channel_id": f"live_{number}"}
        url = f"{api}?{urlencode({**query, 'Param.n.page_size': 100, 't': t, 'sign': sign(KEY, t)})}"
        answer = await asyncio.to_thread(_get, url)
        found += [
            Segment(stream_id=f"live_{number}", start=row["start_time"][11:], end=row["end_time"][11:])
            for row in answer["output"]["file_list"]
        ]
    return found


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - ours
        return json.load(answer)


async def _summary(folder: Path, printed: set[str]) -> Summary:
    removed = (folder / "platform" / "removed.ndjson").read_text().splitlines()
    settings = SqliteSpool.Settings(type="sqlite", path=folder / "spool.db")
    async with SqliteSpool("spool", settings, {}) as spool:
        spooled = await spool.recent(1_000_000)
        dead = await spool.dead(1_000_000)
        quarantined = await spool.quarantine_size()
    return Summary(
        taken=len({json.loads(line)["n"] for line in removed}),
        spooled=len(spooled),
        quarantined=quarantined,
        printed=len(printed),
        pictures=sum(1 for _ in (folder / "pictures").rglob("*.jpg")),
        dead=len(dead),
    )


def _print_summary(console: Console, summary: Summary, segments: list[Segment], folder: Path) -> None:
    table = Table(title="What became of every message", title_justify="left", show_header=False)
    for what, count in (
        ("taken off the queue", summary.taken),
        ("spooled", summary.spooled),
        ("delivered to stdout", summary.printed),
        ("delivered as pictures", summary.pictures),
        ("dead", summary.dead),
        ("lost", summary.lost),
    ):
        table.add_row(what, str(count))
    recorded = Table(title="What was recorded (UTC+8)", title_justify="left", show_header=False)
    for one in segments:
        recorded.add_row(one.stream_id, f"{one.start} to {one.end}")
    console.print()
    console.print(table)
    console.print(recorded)
    console.print(f"Look at them: {escape(str(folder / 'pictures'))}")
