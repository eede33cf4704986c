"""The connection that answers questions. It writes nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from poller.spools.postgres.links import ANSWER_WITHIN, Address, Link, connect, translated

Result = TypeVar("Result")


class Reader:
    """Answers one question after the other, and connects again when the connection is lost."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._turn = asyncio.Lock()
        self._link: Link | None = None

    async def read(self, question: Callable[[Link], Awaitable[Result]]) -> Result:
        """Ask the database; raises `StorageAway` if it does not answer."""
        async with self._turn:
            if self._link is None or self._link.is_closed():
                self._link = await connect(self._address)
            try:
                async with translated(self._address.name), asyncio.timeout(ANSWER_WITHIN):
                    return await question(self._link)
            except BaseException:
                self._link.terminate()  # a cancelled question may still be running
                raise

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.terminate()
