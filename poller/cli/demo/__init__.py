"""`poller demo`: the sandbox, live streams and the daemon, on this machine, in one temporary folder.

All parts run as a user would run them: `poller sandbox`, `poller run` and a pusher for each stream are processes of
their own. One pusher is killed and started again, as if a cable were pulled and put back.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile
import time
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from poller.cli.browser import NOT_OPENED, open_in_browser
from poller.cli.demo.summary import line_of, link, print_summary, summarize
from poller.control import Request, Row, Verb, ask, socket_path
from poller.core.errors import PollerError
from poller.daemon.signals import Stop
from poller.sandbox.media.clip import clip

KEY = "5d41402abc4b2a76b9719d911017c592"  # the example in the platform's documentation
BUCKET = "shots-1250000000"
UP_WITHIN = 60.0
UP_AGAIN = 0.1
SETTLED_WITHIN = 20.0
"""Seconds within which the platform reports all it has about streams that have ended."""
PULL_AFTER = 9.0
"""Seconds until the plug of a stream is pulled."""
OUT_FOR = 4.0
"""Seconds until the plug is put back."""
DRAIN_WITHIN = "60s"

CONFIGURATION = """\
# What `poller demo` runs, against the sandbox on this machine.
# Made for the demo: the URLs, the key, the short times, and allow_cidr, which lets a sink fetch from this machine.
# For your own account begin with the lines of README.md, "Use it".
accounts:
  demo:
    endpoint: {api}
    app_id: 1234
    key: {key}
    cos: {{base_url: "{cos}/{bucket}"}}
    vod: {{base_url: "{vod}/"}}
sources:
  screenshots: {{type: screenshot_queue, account: demo, max_delay: 1s}}
  notifications: {{type: callbacks, account: demo, listen: "127.0.0.1:{port}", path: "/{path}", key: {key}}}
  states: {{type: channel_status, account: demo, follow: seen, interval: 2s}}
  recordings: {{type: recordings, account: demo, follow: seen, while_live: 10s, after_end: [1s, 2s, 4s]}}
spool: {{type: sqlite, path: spool.db}}
journal: {{size: 16MiB}}
sinks:
  console: {{type: stdout}}
  archive: {{type: download, directory: archive, template: "{{name}}", allow_cidr: [127.0.0.0/8]}}
web: {{listen: "127.0.0.1:{pages}", token_file: token, allow_cidr: [127.0.0.0/8]}}
"""
CUSTOMER = """\
# The sandbox's customer: as by default, and with notifications pushed to the daemon.
- {{app_id: 1234, key: {key}, callback_url: "http://127.0.0.1:{port}/{path}", callback_key: {key}}}
"""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The options of a demo.

    `interval` is the time in seconds between two pictures of a stream. `seconds` is the length of the demo, None until
    Ctrl-C. The streams show the videos in turn, or a test pattern if there is none. With `browser`, a browser opens the
    pages.
    """

    streams: int = 4
    interval: float = 5.0
    seconds: float | None = None
    videos: tuple[Path, ...] = ()
    browser: bool = False
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="poller-demo-")))


async def show(demo: Demo, stop: Stop) -> bool:
    """Run the demo; true if nothing was lost and everything was delivered."""
    console = Console(stderr=True, highlight=False)
    folder = demo.directory
    for name in ("pictures", "recordings"):
        (folder / name).mkdir(exist_ok=True)
    console.print(f"Everything is under [bold]{escape(str(folder))}[/]")
    async with AsyncExitStack() as stack:
        console.print("Starting the platform in a box, and encoding what the streams show …")
        door = {"key": KEY, "port": _free_port(), "path": secrets.token_urlsafe(24)}
        (folder / "customers.yaml").write_text(CUSTOMER.format(**door))
        box, places = await _sandbox(stack, demo)
        config = folder / "poller.yaml"
        _write_token(folder / "token")
        config.write_text(CONFIGURATION.format(**places, **door, bucket=BUCKET, pages=_free_port()))
        pushers = await _pushers(stack, demo, places["rtmp"])
        _say_where(console, demo, places["rtmp"])
        daemon = await _start_process(stack, folder, "run", "-c", str(config))
        printed: set[str] = set()
        reading = asyncio.ensure_future(_print_events(console, daemon, folder, printed))
        pages = asyncio.ensure_future(_show_pages(console, demo, folder))
        plug = asyncio.ensure_future(_pull_a_plug(console, stack, demo, pushers, places["rtmp"]))
        await _until_the_end(demo, stop, daemon, box)
        plug.cancel()
        pages.cancel()
        cut_short = _say_end(console, folder, daemon, box)
        await asyncio.gather(*map(_end_process, pushers))
        await asyncio.to_thread(_until_settled, places["control"])
        await _end_process(daemon)
        await reading
        drain = await _start_process(stack, folder, "drain", "-c", str(config), "--timeout", DRAIN_WITHIN)
        await _print_events(console, drain, folder, printed)
        await drain.wait()
    summary = await summarize(folder, printed, cut_short=cut_short)
    print_summary(console, summary, folder)
    return summary.good


def _say_where(console: Console, demo: Demo, rtmp: str) -> None:
    console.print(f"{demo.streams} streams are pushed to {rtmp}")
    console.print(f"A picture of each every {demo.interval:g} s (the real platform: 10 s)")
    console.print("The daemon reads their queue, takes notifications, asks for states and")
    console.print("recordings. Each line is a picture, a recording with its length, or a")
    console.print("change of a stream's state. The folder holds")
    for what, where in (
        ("configuration", "poller.yaml"),
        ("pictures", "pictures/"),
        ("recordings", "recordings/"),
        ("events", "events.ndjson"),
        ("logs", "run.log, sandbox.log"),
        ("pages' token", "token"),
    ):
        console.print(f"  {what:<15}{where}")
    console.print("Ctrl-C ends it." if demo.seconds is None else f"It ends in {demo.seconds:g} s.")
    console.print()


def _say_end(console: Console, folder: Path, daemon: Process, box: Process) -> bool:
    """Announce the end of the streams; true if the daemon or the sandbox had ended by itself before."""
    cut_short = False
    for process, name, log in ((daemon, "daemon", "run.log"), (box, "sandbox", "sandbox.log")):
        if process.returncode is not None:
            cut_short = True
            where = escape(str(folder / log))
            console.print(f"[red]The {name} has ended by itself: see {where}[/]", soft_wrap=True)
    console.print("[yellow]The demo ends its streams. Pending events are fetched and delivered …[/]")
    return cut_short


async def _sandbox(stack: AsyncExitStack, demo: Demo) -> tuple[Process, dict[str, str]]:
    box = await _start_process(
        stack,
        demo.directory,
        "sandbox",
        *("--directory", str(demo.directory / "platform")),
        *("--customers", str(demo.directory / "customers.yaml")),
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


async def _show_pages(console: Console, demo: Demo, folder: Path) -> None:
    """Print the address of the pages as soon as the daemon serves them."""
    path = socket_path(folder / "spool.db")
    rows: list[Row] = []
    while not rows:
        with suppress(PollerError):
            rows = await asyncio.to_thread(lambda: list(ask(path, Request(verb=Verb.PAGES))))
        await asyncio.sleep(0 if rows else UP_AGAIN)
    address = str(rows[0]["address"])
    console.print(f"Look at the streams: [bold]{escape(address)}[/]", soft_wrap=True)
    console.print(
        f"It logs in once; another: poller pages -c {escape(str(folder / 'poller.yaml'))}", soft_wrap=True
    )
    if demo.browser and not await asyncio.to_thread(open_in_browser, address):
        console.print(f"({NOT_OPENED})", soft_wrap=True)


def _write_token(file: Path) -> None:
    """Write a token for the pages that only this user can read."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_urlsafe(24))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _until_settled(control: str) -> None:
    """Wait, within limits, until the queue is empty, every picture is uploaded and every notification is answered."""
    until = time.monotonic() + SETTLED_WITHIN
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{control}/state", timeout=10) as answer:  # noqa: S310 - ours
            state = json.load(answer)
        if not (state["depth"] or state["pictures"]["on_the_way"] or state["callbacks"]["waiting"]):
            return
        time.sleep(0.2)


async def _pushers(stack: AsyncExitStack, demo: Demo, rtmp: str) -> list[Process]:
    """Start a pusher for each stream; returns them in order."""
    files = await asyncio.gather(*(asyncio.to_thread(_video_of, demo, n + 1) for n in range(demo.streams)))
    pushes = (_pusher(stack, demo, file, f"{rtmp}/live_{n}") for n, file in enumerate(files, start=1))
    return list(await asyncio.gather(*pushes))


def _video_of(demo: Demo, number: int) -> Path:
    """The video that the stream with this number shows."""
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
    stack.push_async_callback(_end_process, process)
    assert process.stdin is not None
    process.stdin.write(url.encode() + b"\n")
    return process


async def _pull_a_plug(
    console: Console, stack: AsyncExitStack, demo: Demo, pushers: list[Process], rtmp: str
) -> None:
    """Interrupt the first stream and start it again. Its recording therefore has two segments."""
    await asyncio.sleep(PULL_AFTER)
    pushers[0].kill()
    console.print("[yellow]The plug of live_1 is pulled.[/]")
    await asyncio.sleep(OUT_FOR)
    pushers.append(await _pusher(stack, demo, _video_of(demo, 1), f"{rtmp}/live_1"))
    console.print("[yellow]And put back.[/]")


async def _start_process(stack: AsyncExitStack, folder: Path, *words: str) -> Process:
    log = stack.enter_context((folder / f"{words[0]}.log").open("ab"))
    # a session of its own: Ctrl-C reaches only this process, which stops the others in order
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "poller", *words, stdout=PIPE, stderr=log, start_new_session=True
    )
    stack.push_async_callback(_end_process, process)
    return process


async def _end_process(process: Process) -> None:
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
            link(folder, event)
            console.print(line_of(event, folder), soft_wrap=True)
