"""A picture server: for every name a JPEG of its own, always the same."""

import asyncio
import random
import struct
import threading
from functools import cache
from types import TracebackType
from typing import Self

from aiohttp import web

from poller.sandbox.media.cutting import plain_jpeg
from tests.patience import PATIENCE


@cache
def _plain() -> bytes:
    return plain_jpeg(320, 176)


def picture(name: str) -> bytes:
    """A whole JPEG with a comment of 100 B to 12 kB that no other name has."""
    rng = random.Random(name)
    comment = rng.randbytes(rng.randint(100, 12_000))
    plain = _plain()
    return plain[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + plain[2:]


class PictureServer:
    """Serves `picture(name)` under `url` + name, in a thread of its own."""

    url: str

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pictures", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _open(self) -> None:
        application = web.Application()
        application.router.add_get("/{name}", _answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"


async def _answer(request: web.Request) -> web.Response:
    return web.Response(body=picture(request.match_info["name"]), content_type="image/jpeg")
