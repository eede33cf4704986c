"""Screenshots of streams that run in real time: of the right moment, and there in time."""

import asyncio
import itertools
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import aiohttp
import pytest

from poller.sandbox import Customer, Options, Sandbox
from poller.sandbox.live import LivePush
from poller.sandbox.media.tags import VIDEO, Tag

from .api_client import play
from .films import decoded, film, is_keyframe, is_picture, read
from .on_air import Said, fetched, messages, on_air
from .rtmp_peer import Peer

SHOW = film([0x5A5A5A5A5A5A])
GOP = 4.0
"""Seconds between two keyframes of the wall clock."""


@asynccontextmanager
async def wall_clock(url: str, frames: dict[int, int]) -> AsyncIterator[None]:
    """A program that pushes video which shows the time. At its end, `frames` says what is shown at which time of the
    stream: epochs in milliseconds, by milliseconds."""
    command = (sys.executable, "-m", "tests.sandbox.wall_clock", str(GOP))
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(*command, cwd=root, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.stdin is not None
    process.stdin.write(f"{url}\n".encode())
    try:
        yield
        assert process.returncode is None, await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
        said, _ = await process.communicate()
        for line in said.splitlines():
            at, shows = map(int, line.split())
            frames[at] = shows


class Came(NamedTuple):
    """That a frame has come to the platform: when, as an epoch, and the frame."""

    at: float
    tag: Tag


class Seen:
    """What comes of a push, and what had come when each picture was taken, by its tick."""

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came: list[Came] = []
        self.taken: dict[int, list[Came]] = {}
        take, shots = LivePush.tag, sandbox.screenshots
        begin = shots._begin

        def tag(push: LivePush, kind: int, timestamp: int, body: bytes) -> None:
            one = Tag(kind, timestamp, body)
            if kind == VIDEO and is_picture(one):
                self.came.append(Came(time.time(), one))
            take(push, kind, timestamp, body)

        def noted(push: LivePush, tick: float) -> None:
            self.taken[round(tick)] = list(self.came)
            begin(push, tick)

        monkeypatch.setattr(LivePush, "tag", tag)
        monkeypatch.setattr(shots, "_begin", noted)

    def after_the_keyframe(self) -> float:
        """How many seconds of a GOP a picture left out at the most that shows its keyframe."""
        found = [came for came in self.taken.values() if any(is_keyframe(one.tag) for one in came)]
        return max((came[-1].tag.timestamp - keyframe(came).timestamp for came in found), default=0) / 1000

    def lateness(self, tick: int) -> float:
        """For how many seconds frames came after a tick, until its picture was taken."""
        after = [one.at for one in self.taken[tick] if one.at > tick]
        return after[-1] - after[0] if after else 0.0


def keyframe(came: Sequence[Came]) -> Tag:
    """The newest one that has come."""
    return next(one.tag for one in reversed(came) if is_keyframe(one.tag))


@pytest.mark.parametrize("exact", [False, True])
def test_a_picture_shows_the_moment_of_its_tick(
    tmp_path: Path, exact: bool, soak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keyframe before the tick, because that is shown; the frame before it in exact mode.

    The machine may hold up the pusher or the platform. So a picture is compared with what had come when it was taken,
    and frames come while it should have been taken where the platform is late by its own fault.
    """
    frames = dict[int, int]()

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        seen = Seen(sandbox, monkeypatch)
        async with wall_clock(f"{sandbox.endpoints['rtmp']}/clock", frames):
            await sandbox.until(lambda: sandbox.pictures.stored >= (12 if soak else 6))
            await sandbox.until(lambda: exact or seen.after_the_keyframe() > 1.5)
        for one in await messages(sandbox, session):
            came = seen.taken[one.at]
            shown = came[-1].tag if exact else keyframe(came)
            _, body = await fetched(sandbox, session, one.name)
            assert read(decoded(body)) == frames[shown.timestamp], (one.at, shown.timestamp, frames)
            assert seen.lateness(one.at) < 0.5
        under_way = median(one.at - frames[one.tag.timestamp] / 1000 for one in seen.came)
        assert 0.0 <= under_way < 1.0, "most frames, for the machine may hold up some"

    play(tmp_path, scene, interval=1, exact=exact)


def test_every_picture_of_many_streams_can_be_fetched_in_time(
    tmp_path: Path, soak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, interval, longest = (20, 10.0, 15.0) if soak else (6, 1.0, 2.0)

    async def scene() -> None:
        options = Options(directory=tmp_path, interval=interval, upload_delay=(0.0, longest))
        async with (
            asyncio.timeout(100),
            Sandbox(options) as sandbox,
            aiohttp.ClientSession() as session,
            AsyncExitStack() as stack,
        ):
            peers = [await stack.enter_async_context(on_air(sandbox, f"live_{n}")) for n in range(streams)]
            halts, skips = list[Halt](), _skips(sandbox, monkeypatch)
            background = [asyncio.ensure_future(work) for work in (_show(peers), _halted(halts))]
            found: list[Said] = []
            while len(found) < 3 * streams:
                for one in await messages(sandbox, session):
                    await sandbox.until(partial(_is_there, sandbox, one))
                    assert time.time() <= one.at + longest + 15, "the machine may be slow, but not that slow"
                    assert (await fetched(sandbox, session, one.name))[0] == 200
                    found.append(one)
                await asyncio.sleep(0.05)
            for task in background:
                task.cancel()
            assert {one.stream_id for one in found} == {f"live_{n}" for n in range(streams)}
            assert sandbox.screenshots.failed == 0
            for at in skips:
                held_up = any(halt.begin < at and at - interval < halt.end for halt in halts)
                assert held_up, "the one before was not cut in time, although the machine held up nothing"

    asyncio.run(scene())


async def _show(peers: Sequence[Peer]) -> None:
    """A keyframe a second on all of them, for ever."""
    for second in itertools.count():
        for peer in peers:
            await peer.push([tag._replace(timestamp=second * 1000) for tag in SHOW])
        await asyncio.sleep(1)


class Halt(NamedTuple):
    """A stretch of time, by its epochs, in which the machine let this process do nothing."""

    begin: float
    end: float


async def _halted(found: list[Halt]) -> None:
    """Note every halt of a fifth of a second or more, for ever."""
    while True:
        before = time.time()
        await asyncio.sleep(0.05)
        if (now := time.time()) - before >= 0.2:
            found.append(Halt(before, now))


def _skips(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The tick of each picture that is skipped from now on, because the one before is not cut yet."""
    found, begin = list[float](), sandbox.screenshots._begin

    def noted(push: LivePush, tick: float) -> None:
        before = sandbox.screenshots.skipped
        begin(push, tick)
        if sandbox.screenshots.skipped > before:
            found.append(tick)

    monkeypatch.setattr(sandbox.screenshots, "_begin", noted)
    return found


def _is_there(sandbox: Sandbox, one: Said) -> bool:
    return sandbox.pictures.find(Customer().host_label, one.name) is not None
