"""What this daemon hears from the others that share the spool, and what it does about it.

Invariants
    All that is heard is a hint: it may be late, or come twice. What was not heard is found within a second, or, for a
    sink that could not be served, within five.
"""

import asyncio
from collections.abc import Callable, Set
from contextlib import suppress
from functools import partial
from typing import Final

from poller.core.errors import StorageError
from poller.spools.dispatcher import Dispatcher
from poller.spools.postgres import correction_log, queries, sessions
from poller.spools.postgres.pages import load_pages
from poller.spools.postgres.reader import Reader
from poller.spools.postgres.served_sinks import ServedSinks
from poller.spools.postgres.shared_replays import SharedReplays
from poller.spools.postgres.writer import Writer
from poller.spools.sink_queue import Changes

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at what nobody holds."""
ENTER_EVERY: Final = 5
"""How many of these looks until one at sinks that could not be served. The others say when that may have changed."""
TRY_AGAIN: Final = 0.5


class Notices:
    """What was heard and is not dealt with yet. `head` gives the number up to which this daemon knows the log."""

    def __init__(self, head: Callable[[], int]) -> None:
        self._head = head
        self._words = set[str]()
        self._heard = asyncio.Event()
        self.grown = asyncio.Event()
        """Set when others have appended events that are not known here."""
        self.changed = asyncio.Event()
        """Set when pauses, replays or members may have changed."""

    def hear(self, word: str) -> None:
        """Take a word (`sessions.WORDS`), or the new head of the log."""
        kind, _, number = word.partition(" ")
        if kind == sessions.HEAD:
            if not self._is_known(int(number)):
                self.grown.set()
            return
        self._words.add(word)
        self._heard.set()
        if word == sessions.CHANGED:
            self.changed.set()

    def _is_known(self, head: int) -> bool:
        """Whether the log up to this number is known here; 0 stands for a number that was not heard."""
        return 0 < head <= self._head()

    async def take(self, within: float) -> set[str]:
        """The words that were heard; waits for the first one, `within` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._heard.wait()
        words, self._words = self._words, set()
        self._heard.clear()
        return words

    def put_back(self, words: Set[str]) -> None:
        """Keep words that could not be dealt with for the next `take`, which does not return earlier for them."""
        self._words |= words


class Follower:
    """Does here what other daemons say. `keep` takes changes to be written."""

    def __init__(
        self,
        *,
        notices: Notices,
        reader: Reader,
        writer: Writer,
        dispatcher: Dispatcher,
        sinks: ServedSinks,
        replays: SharedReplays,
        keep: Callable[[Changes], None],
    ) -> None:
        self._notices = notices
        self._reader = reader
        self._writer = writer
        self._dispatcher = dispatcher
        self._sinks = sinks
        self._replays = replays
        self._keep = keep
        self._corrected = 0
        """The newest correction that is known here."""
        self._looks = 0

    async def begin(self) -> None:
        """Learn which corrections the log has by now. Raises `StorageError`."""
        self._corrected = await self._reader.read(correction_log.last)

    async def follow_log(self) -> None:
        """Hand out what other daemons append, for ever."""
        while True:
            await self._notices.grown.wait()
            self._notices.grown.clear()
            try:
                await self._writer.follow(lambda start: self._reader.read(partial(load_pages, start)))
            except StorageError:
                self._notices.grown.set()
                await asyncio.sleep(TRY_AGAIN)

    async def follow_words(self) -> None:
        """Do what other daemons say, and look now and then in case that something was not heard, for ever."""
        while True:
            words = await self._notices.take(within=LOOK_EVERY)
            for changes in self._sinks.advances():
                self._keep(changes)
            try:
                await self._apply(words)
            except StorageError:
                self._notices.put_back(words)
                await asyncio.sleep(TRY_AGAIN)

    async def _apply(self, words: Set[str]) -> None:
        if sessions.CORRECTED in words:
            await self._correct()
        if sessions.CHANGED in words:
            await self._replays.refresh()
        await self._take_freed()
        if sessions.CHANGED in words or self._looks % ENTER_EVERY == 0:
            await self._sinks.enter_more()
        self._looks += 1

    async def _correct(self) -> None:
        found = await self._reader.read(partial(correction_log.since, self._corrected, self._writer.session))
        self._dispatcher.correct(found.known)
        self._corrected = found.last

    async def _take_freed(self) -> None:
        freed, waiting = await self._reader.read(queries.freed)
        self._sinks.look_for_freed(freed)
        await self._sinks.adopt(waiting)
