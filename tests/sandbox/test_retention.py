"""What the platform forgets, and when."""

import asyncio
import logging
import time
from pathlib import Path

import aiohttp
import pytest

from poller.sandbox import Sandbox
from poller.sandbox.retention import Retention

from .api_client import ask, asking_status, listing, play
from .films import film
from .on_air import fetched, messages, on_air, over

SHOW = film(range(10))
RETAIN = 8
"""Seconds: longer than this process is ever held up."""


def test_pictures_recordings_and_channels_are_forgotten_in_time_and_what_is_live_is_not(
    tmp_path: Path,
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "still_live", SHOW):
            async with on_air(sandbox, "show", SHOW):
                await sandbox.until(lambda: sandbox.pictures.stored >= 2)
            await over(sandbox, "show")
            ended = time.time()
            name = next(one.name for one in await messages(sandbox, session) if one.stream_id == "show")
            assert (await fetched(sandbox, session, name))[0] == 200
            assert (await ask(sandbox, session, listing()))["output"]["all_count"] == 1
            while (await ask(sandbox, session, asking_status()))["ret"] == 0:
                await asyncio.sleep(0.05)
            assert time.time() >= ended + RETAIN
            assert (await fetched(sandbox, session, name))[0] == 404
            assert (await ask(sandbox, session, listing()))["output"].get("all_count", 0) == 0
            assert list((tmp_path / "vod").glob("*.flv")) == []
            assert (await ask(sandbox, session, asking_status(Param__s__channel_id="still_live")))["ret"] == 0
        await over(sandbox, "still_live")
        listed = await ask(sandbox, session, listing(Param__s__channel_id="still_live"))
        assert listed["output"]["all_count"] == 1

    play(tmp_path, scene, interval=1, retain=RETAIN, silence=30)


def test_what_cannot_be_forgotten_now_holds_nothing_else_back(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[float] = []

    def broken(before: float) -> None:
        raise OSError(5, "Input/output error")

    with caplog.at_level(logging.ERROR):
        Retention(100.0, [broken, asked.append]).step()
    assert asked == [pytest.approx(time.time() - 100, abs=5)]
    assert "Input/output error" in caplog.text
