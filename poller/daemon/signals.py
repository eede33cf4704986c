"""The wish to stop, heard from the first line of the program to the last; imports nothing heavy."""

import signal
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stop:
    """Counts SIGTERM, SIGINT and, where it is no wish to reload, SIGHUP. The first ends polling, the second the sinks'
    grace; neither ends a poll.

    The handlers stay Python's own also while an event loop runs: a loop gives signals back to their
    default action when it closes, and a third SIGTERM would then kill what is already stopping well.
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
        """Hear signals from now on."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # nohup(1)
                signal.signal(number, self._heard)

    def listen_in_loop(self) -> None:
        """Let signals wake the running event loop."""
        import asyncio  # noqa: PLC0415 - a tenth of a second in which signals are heard already

        self._first, self._second, self._reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._wake()

    @staticmethod
    def ignore() -> None:
        """Hear nothing more: all is done, only the interpreter's own end is left."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @staticmethod
    def give_back() -> None:
        """Let signals end the process again: a command that may be killed at any moment."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def now(self) -> None:
        """One more wish to stop."""
        self.count += 1
        self._wake()

    def hear_reloads(self) -> None:
        """From now on a SIGHUP is a wish to reload, not one to stop (a terminal that is closed)."""
        self._reloads = True

    async def reload_wanted(self) -> None:
        """Wait for the next wish to reload."""
        assert self._reload is not None, "listen_in_loop first"
        await self._reload.wait()
        self._reload.clear()

    async def first(self) -> None:
        """Wait until somebody wants us to stop."""
        assert self._first is not None, "listen_in_loop first"
        await self._first.wait()

    async def second(self) -> None:
        """Wait until somebody is in a hurry."""
        assert self._second is not None, "listen_in_loop first"
        await self._second.wait()

    def _heard(self, number: int, frame: FrameType | None) -> None:
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
