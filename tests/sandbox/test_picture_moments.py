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

import aiohttp
import pytest

from poller.sandbox import Customer, Options, Sandbox

from .api_client import play
from .films import decoded, film, read
from .on_air import Said, fetched, messages, on_air
from .rtmp_peer import Peer

SHOW = film([0x5A5A5A5A5A5A])
GOP = 4.0
"""Seconds between two keyframes of the wall clock."""


@asynccontextmanager
async def wall_clock(url: str) -> AsyncIterator[None]:
    """A program that pushes video which shows the time."""
    command = (sys.executable, "-m", "tests.sandbox.wall_clock", str(GOP))
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(*command, cwd=root, stdin=PIPE, stderr=PIPE)
    assert process.stdin is not None
    process.stdin.write(f"{url}\n".encode())
    try:
        yield
        assert process.returncode is None, await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("exact", [False, True])
def test_a_picture_shows_the_moment_of_its_tick(tmp_path: Path, exact: bool, soak: bool) -> None:
    """To within a GOP, because the keyframe before the tick is shown; much nearer in exact mode."""

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with wall_clock(f"{sandbox.endpoints['rtmp']}/clock"):
            await sandbox.until(lambda: sandbox.pictures.stored >= (12 if soak else 6))
        off = []
        for one in await messages(sandbox, session):
            _, body = await fetched(sandbox, session, one.name)
            off.append(one.at - read(decoded(body)) / 1000)
        oldest = 1.0 if exact else GOP + 1.0
        assert all(-1.0 < seconds < oldest for seconds in off), off
        if not exact:
            assert max(off) > 1.5, "a whole GOP was seen, and only its keyframe"

    play(tmp_path, scene, interval=1, exact=exact)


def test_every_picture_of_many_streams_can_be_fetched_in_time(tmp_path: Path, soak: bool) -> None:
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
            showing = asyncio.ensure_future(_show(peers))
            found: list[Said] = []
            while len(found) < 3 * streams:
                for one in await messages(sandbox, session):
                    await sandbox.until(partial(_is_there, sandbox, one))
                    assert time.time() <= one.at + longest + 15, "the machine may be slow, but not that slow"
                    assert (await fetched(sandbox, session, one.name))[0] == 200
                    found.append(one)
                await asyncio.sleep(0.05)
            showing.cancel()
            assert {one.stream_id for one in found} == {f"live_{n}" for n in range(streams)}
            assert sandbox.screenshots.skipped == sandbox.screenshots.failed == 0

    asyncio.run(scene())


async def _show(peers: Sequence[Peer]) -> None:
    """A keyframe a second on all of them, for ever."""
    for second in itertools.count():
        for peer in peers:
            await peer.push([tag._replace(timestamp=second * 1000) for tag in SHOW])
        await asyncio.sleep(1)


def _is_there(sandbox: Sandbox, one: Said) -> bool:
    return sandbox.pictures.find(Customer().host_label, one.name) is not None
