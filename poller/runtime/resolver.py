"""Resolves names in threads of its own, so that one owner's slow name does not delay other parts of the process.

`getaddrinfo` may block for tens of seconds and cannot be aborted. asyncio and uvloop run it in a few threads
that all parts of a process share. A `Resolver` has at most `MOST_LOOKUPS` threads, one for each name that is
being resolved. Calls for the same name wait for the same thread.
"""

import asyncio
import socket
import time
from contextlib import suppress
from threading import Thread
from typing import Any, Final

AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
Place = tuple[str, int]

MOST_LOOKUPS: Final = 4
KEPT_FOR: Final = 10.0
"""Seconds that an address is used again without a new look-up."""


class Resolver:
    """Belongs to one account or one sink, and to one event loop."""

    def __init__(self) -> None:
        self._pending: dict[Place, asyncio.Future[list[AddrInfo] | OSError]] = {}
        self._known: dict[Place, tuple[float, list[AddrInfo]]] = {}

    async def resolve(self, host: str, port: int) -> list[AddrInfo]:
        """The addresses of a name; raises `OSError` (as `socket.gaierror` is). May be cancelled."""
        with suppress(OSError, UnicodeError):  # an address needs no look-up
            return _look_up(host, port, socket.AI_NUMERICHOST)
        place = (host, port)
        until, known = self._known.get(place, (0.0, []))
        if time.monotonic() < until:
            return known
        found = await asyncio.shield(self._pending.get(place) or self._begin(place))
        if isinstance(found, OSError):
            raise found
        return found

    def _begin(self, place: Place) -> "asyncio.Future[list[AddrInfo] | OSError]":
        if len(self._pending) >= MOST_LOOKUPS:
            raise socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[AddrInfo] | OSError] = loop.create_future()
        self._pending[place] = answer
        Thread(target=self._run, args=(loop, place, answer), name="lookup", daemon=True).start()
        return answer

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        place: Place,
        answer: "asyncio.Future[list[AddrInfo] | OSError]",
    ) -> None:
        found: list[AddrInfo] | OSError
        try:
            found = _look_up(*place, socket.AI_ADDRCONFIG)
        except UnicodeError:
            found = socket.gaierror(socket.EAI_NONAME, "not a name")
        except OSError as error:
            found = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._end, place, answer, found)

    def _end(
        self,
        place: Place,
        answer: "asyncio.Future[list[AddrInfo] | OSError]",
        found: list[AddrInfo] | OSError,
    ) -> None:
        del self._pending[place]
        if not isinstance(found, OSError):
            self._known[place] = (time.monotonic() + KEPT_FOR, found)
        if not answer.done():
            answer.set_result(found)


def _look_up(host: str, port: int, flags: int) -> list[AddrInfo]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
