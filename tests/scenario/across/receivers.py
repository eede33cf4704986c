"""The other ends of the sinks: each writes down every delivery, with its moment and its sender."""

import asyncio
import time
import zlib
from array import array
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

HEADER: Final = "x-life"
THINKS: Final = 0.004
"""Seconds between what a receiver writes down and its answer: a sender that ends meanwhile delivers again."""


class _Data(msgspec.Struct):
    file_name: str


class _Event(msgspec.Struct):
    data: _Data


_events = msgspec.json.Decoder(list[_Event] | _Event).decode


class Names:
    """Numbers for the pictures' names, which stand for the events: a million deliveries are a few megabytes."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, name: object) -> bool:
        """Whether an event of that name was delivered anywhere."""
        return name in self._numbers

    def number(self, name: str) -> int:
        """The number of a name; a new one gets the next, from zero on."""
        return self._numbers.setdefault(name, len(self._numbers))


class Arrival(NamedTuple):
    """When an event was delivered, as an epoch, and by whom."""

    moment: float
    life: int


class Deliveries:
    """What was delivered, in the order of arrival: the event, the moment (epoch) and the life of the sender."""

    def __init__(self) -> None:
        self.events = array("L")
        self.moments = array("d")
        self.lives = array("L")

    def __len__(self) -> int:
        return len(self.events)

    def arrival(self, place: int) -> Arrival:
        """When a delivery came, and from which life."""
        return Arrival(self.moments[place], self.lives[place])

    def note(self, event: int, moment: float, life: int) -> None:
        """One delivery."""
        self.events.append(event)
        self.moments.append(moment)
        self.lives.append(life)


def is_refused(name: str) -> bool:
    """Whether a picky receiver never takes this event: about one in a hundred."""
    return zlib.crc32(name.encode()) % 97 == 0


class Receiver:
    """A webhook's other end. A header tells the life of the sender."""

    def __init__(self, names: Names, refuses: Callable[[str], bool] = lambda name: False) -> None:
        self.deliveries = Deliveries()
        self.url = ""
        self._names = names
        self._refuses = refuses
        self._runner: web.ServerRunner

    async def open(self, host: str) -> None:
        """Listen on a free port."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, 0).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}/hook"

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        found = _events(await request.read())
        names = [event.data.file_name for event in (found if isinstance(found, list) else [found])]
        if any(map(self._refuses, names)):
            return web.Response(status=422)
        now, life = time.time(), int(request.headers[HEADER])
        for name in names:
            self.deliveries.note(self._names.number(name), now, life)
        await asyncio.sleep(THINKS)
        return web.Response()
