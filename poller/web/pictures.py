"""`GET /picture/{number}`: the picture of an event, by its number in the log.

Nothing of a request but the number is used, so that no request can name a file, a host or a URL. A picture that many
viewers ask for is read or fetched once. A viewer that goes away cancels nothing that others may wait for.

Life cycle
    Leaving cancels what is being read or fetched.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from poller.operations.operator_context import OperatorContext
from poller.runtime.addresses import Network
from poller.web.errors import WebError, error_answer, report
from poller.web.picture_cache import NoPicture, Picture, PictureCache
from poller.web.picture_loader import AT_ONCE, PictureLoader

Found = Picture | NoPicture

MOST_WAITING: Final = 32
"""The most pictures that wait for their turn."""
BUSY: Final = NoPicture(status=503, text="Too many pictures are asked for at once.", retry_after=1)
FAILED: Final = NoPicture(status=500, text="The picture could not be served; the log says why.", lasts=5.0)
FOR_EVER: Final = "private, max-age=31536000, immutable"
ASK: Final = "private, no-cache"
"""Numbers begin anew with a new log: a browser has to ask whether its picture is still that of the number."""


async def _no_tag(number: int) -> str | None:
    return None


class Pictures:
    """Answers by number, from memory or with `load`. Entered once, left by the same task."""

    def __init__(
        self,
        load: Callable[[int], Awaitable[Found]],
        tag: Callable[[int], Awaitable[str | None]] = _no_tag,
    ) -> None:
        self._load = load
        self.tag = tag
        """Returns the tag of a number's picture without loading it; None if there is none."""
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
            report(error, f"/picture/{number}")
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
    async with PictureLoader(context, allow_cidr) as loader, Pictures(loader.load, loader.tag) as pictures:
        yield routes(pictures)


def routes(pictures: Pictures) -> list[web.RouteDef]:
    """The path, answered by these pictures."""

    async def picture(request: web.Request) -> web.Response:
        number, held = int(request.match_info["number"]), request.headers.get("If-None-Match")
        kept = FOR_EVER if request.query_string else ASK  # a page may make the address unique
        if held and (tag := await pictures.tag(number)) is not None and tag in held:
            return web.Response(status=304, headers={"Cache-Control": kept, "ETag": tag})
        found = await pictures.get(number)
        if isinstance(found, NoPicture):
            return _refused(found)
        headers = {"Cache-Control": kept, "ETag": found.tag}
        return web.Response(body=found.content, content_type="image/jpeg", headers=headers)

    return [web.get("/picture/{number:[0-9]{1,18}}", picture)]


def _refused(why: NoPicture) -> web.Response:
    headers = {} if why.retry_after is None else {"Retry-After": str(why.retry_after)}
    return error_answer(WebError(why.status, why.text, headers=headers))
