"""The program that pushes a file: how it ends, and what it says."""

import asyncio
import logging
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from poller.sandbox import Sandbox

from .api_client import play
from .films import movie
from .on_air import CUSTOMER, over


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return movie(tmp_path_factory.mktemp("clips") / "pattern.mp4")


def live(sandbox: Sandbox, name: str) -> bool:
    return sandbox.live.find(CUSTOMER.app_id, name) is not None


@asynccontextmanager
async def program(file: Path, url: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "poller.sandbox.push", str(file), stdin=PIPE, stderr=PIPE
    )
    assert process.stdin is not None
    process.stdin.write(url.encode() + b"\n")
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_push_in_an_orderly_way(
    tmp_path: Path, pattern: Path, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with program(pattern, f"{sandbox.endpoints['rtmp']}/show") as process:
            await sandbox.until(lambda: live(sandbox, "show"))
            process.send_signal(number)
            assert (await process.communicate())[1] == b""
            assert process.returncode == 0
            await over(sandbox, "show")

    with caplog.at_level(logging.INFO):
        play(tmp_path, scene)
    assert "push ended: show of 1234, unpublished" in caplog.text


def test_a_push_that_is_refused_or_lost_ends_with_a_word_and_no_address(
    tmp_path: Path, pattern: Path
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        url = str(sandbox.endpoints["rtmp"])
        for bad in (f"{url}/a.b?txSecret=hidden", "rtmp://127.0.0.1:9/live/x?txSecret=hidden"):
            async with program(pattern, bad) as process:
                _, said = await process.communicate()
                assert process.returncode == 1
                assert said.startswith(b"push of pattern.mp4: ")
                assert b"hidden" not in said
                assert b"rtmp" not in said
        async with program(pattern, f"{url}/show") as process:
            await sandbox.until(lambda: live(sandbox, "show"))
            sandbox.live.kick(CUSTOMER.app_id, "show")
            _, said = await process.communicate()
            assert process.returncode == 1
            assert said.startswith(b"push of pattern.mp4: ")

    play(tmp_path, scene)


def test_a_program_without_a_file_says_how_it_is_used() -> None:
    async def scene() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "poller.sandbox.push", stderr=PIPE
        )
        _, said = await process.communicate()
        assert (process.returncode, said.startswith(b"usage: ")) == (2, True)

    asyncio.run(scene())


@pytest.mark.soak
def test_a_server_that_says_nothing_is_not_waited_for_for_ever(pattern: Path) -> None:
    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/show"
            async with asyncio.timeout(60), program(pattern, url) as process:
                await process.communicate()
                assert process.returncode == -signal.SIGALRM

    asyncio.run(scene())
