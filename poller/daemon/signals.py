"""Signals: requests to stop and to reload, from the first line of the program to the last.

The module imports nothing large, so that signals are handled before the slow imports.
"""

import signal
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stop:
    """Counts SIGTERM, SIGINT and, if it does not mean a reload, SIGHUP.

    The first signal ends polling. The second ends the grace period of the sinks. No signal ends a poll in flight.

    The handlers are Python's own even while an event loop runs. An event loop restores the default actions when it
    closes; a third SIGTERM would then kill a process that is stopping in good order.
    """

    def __init__(self) -> None:
        self.count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._first: asyncio.Event | None = None
        self._second: asyncio.Event | None = None
        self._reload: asyncio.Event | None = None
        self._reloads = False
        self._reload_asked = False

    def listen(self) -> None:
        """Handle signals from now on."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # nohup(1)
                signal.signal(number, self._note_signal)

    def listen_in_loop(self) -> None:
        """Let signals wake the running event loop."""
        import asyncio  # noqa: PLC0415 - the import takes a tenth of a second, in which signals are handled already

        self._first, self._second, self._reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._wake()

    @staticmethod
    def ignore() -> None:
        """Ignore signals from now on: the work is done, and only the interpreter has to end."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @staticmethod
    def give_back() -> None:
        """Let signals end the process again, for a command that may be killed at any moment."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def now(self) -> None:
        """Request a stop, like one more signal."""
        self.count += 1
        self._wake()

    def hear_reloads(self) -> None:
        """Make SIGHUP mean a reload from now on. Until then it means a stop, as when a terminal is closed."""
        self._reloads = True

    async def reload_wanted(self) -> None:
        """Wait for the next request to reload."""
        assert self._reload is not None, "listen_in_loop first"
        await self._reload.wait()
        self._reload.clear()

    async def first(self) -> None:
        """Wait for the first request to stop."""
        assert self._first is not None, "listen_in_loop first"
        await self._first.wait()

    async def second(self) -> None:
        """Wait for the second request to stop."""
        assert self._second is not None, "listen_in_loop first"
        await self._second.wait()

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._reloads:
            self._reload_asked = True
        else:
            self.count += 1
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._first is not None and self.count >= 1:
            self._first.set()
        if self._second is not None and self.count >= 2:
            self._second.set()
        if self._reload is not None and self._reload_asked:
            self._reload_asked = False
            self._reload.set()
