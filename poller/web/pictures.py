"""`GET /picture/{number}`: the picture of an event, by its number in the log.

Nothing of a request but the number is used, so that no request can name a file, a host or a URL. A picture that many
viewers ask for is read or fetched once. A viewer that goes away cancels nothing that others may wait for.

Life cycle
    Leaving cancels what is being read or fetched.
"""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final, Self

import structlog
from aiohttp import web

from poller.operations.operator_context import OperatorContext
from poller.runtime.addresses import Network
from poller.web.backend import json_answer
from poller.web.picture_cache import NoPicture, Picture, PictureCache
from poller.web.picture_loader import AT_ONCE, PictureLoader

log = structlog.get_logger("web")

Found = Picture | NoPicture

MOST_WAITING: Final = 32
"""The most pictures that wait for their turn."""
BUSY: Final = NoPicture(status=503, text="Too many pictures are asked for at once.", retry_after=1)
FAILED: Final = NoPicture(status=500, text="The picture could not be served; the log says why.", lasts=5.0)
FOR_EVER: Final = "private, max-age=31536000, immutable"


class Pictures:
    """Answers by number, from memory or with `load`. Entered once, left by the same task."""

    def __init__(self, load: Callable[[int], Awaitable[Found]]) -> None:
        self._load = load
        self._cache = PictureCache()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._loads: dict[int, asyncio.Task[Found]] = {}
        self._group = asyncio.TaskGroup()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._group)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        for task in self._loads.values():
            task.cancel()
        await self._stack.aclose()

    @property
    def bytes_held(self) -> int:
        """The bytes of the pictures in memory that nobody waits for."""
        return self._cache.bytes

    async def get(self, number: int) -> Found:
        """The picture of an event. May be cancelled."""
        known = self._cache.get(number, time.monotonic())
        if known is not None:
            return known
        if number not in self._loads:
            if len(self._loads) >= AT_ONCE + MOST_WAITING:
                return BUSY
            self._loads[number] = self._group.create_task(self._run(number))
        return await asyncio.shield(self._loads[number])

    async def _run(self, number: int) -> Found:
        try:
            async with self._turns:
                found = await self._load(number)
        except Exception as error:  # a bug would end the group, and with it the daemon
            # Frames only: an exception's own text may hold a secret.
            frames = traceback.format_tb(error.__traceback__)
            log.error("answer_failed", error=type(error).__name__, frames=frames)
            found = FAILED
        finally:
            del self._loads[number]
        self._cache.add(number, found, time.monotonic())
        return found


@asynccontextmanager
async def serve(
    context: Callable[[], OperatorContext], allow_cidr: Sequence[Network]
) -> AsyncIterator[list[web.RouteDef]]:
    """The path of this module. Leaving ends what is being read or fetched."""
    async with PictureLoader(context, allow_cidr) as loader, Pictures(loader.load) as pictures:
        yield routes(pictures)


def routes(pictures: Pictures) -> list[web.RouteDef]:
    """The path, answered by these pictures."""

    async def picture(request: web.Request) -> web.Response:
        found = await pictures.get(int(request.match_info["number"]))
        if isinstance(found, NoPicture):
            return _refused(found)
        headers = {"Cache-Control": FOR_EVER, "ETag": found.tag}
        if found.tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=found.content, content_type="image/jpeg", headers=headers)

    return [web.get("/picture/{number:[0-9]{1,18}}", picture)]


def _refused(why: NoPicture) -> web.Response:
    answer = json_answer({"error": why.text}, why.status)
    if why.retry_after is not None:
        answer.headers["Retry-After"] = str(why.retry_after)
    return answer
