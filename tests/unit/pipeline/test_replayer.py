"""The loop that queues replayed events goes on beside all others, whatever the spool says."""

import asyncio
from typing import Any

import pytest

from poller.core.errors import StorageFull
from poller.core.model import unchanged
from poller.pipeline import replayer
from poller.pipeline.replayer import Replayer

MOST = 1_000
"""More steps than a loop makes that waits in between."""


class Refusing:
    """A spool whose replays have always something to do, and that does nothing, without ever waiting."""

    def __init__(self, error: Exception | None) -> None:
        self.replays = self
        self.steps = 0
        self._error = error

    async def ready(self) -> None:
        pass

    def all(self) -> list[Any]:
        return []

    async def fill(self, sink: str, rebuild: Any) -> None:
        self.steps += 1
        assert self.steps < MOST, "nothing else goes on"
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("error", [None, StorageFull("full")], ids=["nothing to do", "no room"])
def test_a_step_that_queues_nothing_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setattr(replayer, "AGAIN", replayer.NOTHING_DONE)
    spool: Any = Refusing(error)

    async def scenario() -> None:
        running = asyncio.create_task(Replayer(spool, lambda: ["s"], lambda: unchanged).run())
        await asyncio.sleep(4.5 * replayer.NOTHING_DONE)
        assert 1 <= spool.steps <= 5
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()

    asyncio.run(scenario())
