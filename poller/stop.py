"""The wish to stop, heard from the first line of the program on; imports nothing heavy."""

import asyncio
import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Counts SIGTERM and SIGINT. The first ends polling, the second the sinks' grace; neither ends a poll."""

    def __init__(self) -> None:
        self.count = 0
        self._first: asyncio.Event | None = None
        self._second: asyncio.Event | None = None

    def listen(self) -> None:
        """Hear signals from now on, before there is an event loop."""
        for number in SIGNALS:
            signal.signal(number, self._heard)

    def listen_in_loop(self) -> None:
        """Let signals wake the running event loop."""
        self._first, self._second = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.now)
        self._wake()

    def now(self) -> None:
        """One more wish to stop."""
        self.count += 1
        self._wake()

    async def first(self) -> None:
        """Wait until somebody wants us to stop."""
        assert self._first is not None, "listen_in_loop first"
        await self._first.wait()

    async def second(self) -> None:
        """Wait until somebody is in a hurry."""
        assert self._second is not None, "listen_in_loop first"
        await self._second.wait()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.now()

    def _wake(self) -> None:
        if self._first is not None and self.count >= 1:
            self._first.set()
        if self._second is not None and self.count >= 2:
            self._second.set()
