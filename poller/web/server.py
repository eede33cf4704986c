"""The listener of the pages.

Life cycle
    Entering binds the address and starts to answer. On leaving, answers in progress get a second.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from poller.operations.operator_context import OperatorContext
from poller.settings import WebSettings
from poller.web import events, live, pages, pictures, status, timeline
from poller.web.backend import Backend
from poller.web.live import Hub
from poller.web.picture_loader import PictureLoader
from poller.web.pictures import Pictures

log = structlog.get_logger("web")

GRACE = 1.0


class WebServer:
    """Serves the pages at one address; `port` tells where it listens once entered."""

    def __init__(self, settings: WebSettings, context: Callable[[], OperatorContext]) -> None:
        self.host = settings.listen.host
        self.port = settings.listen.port
        self._settings = settings
        self._backend = Backend(context=context)
        self._hub = Hub(context)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(pages.routes())
        app.add_routes(status.routes(self._backend))
        app.add_routes(events.routes(self._backend))
        loader = PictureLoader(self._backend.context, self._settings.allow_cidr)
        await self._stack.enter_async_context(loader)
        app.add_routes(pictures.routes(await self._stack.enter_async_context(Pictures(loader.load))))
        app.add_routes(live.routes(self._hub))
        app.add_routes(timeline.routes(self._backend))
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=GRACE)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self.host, self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        await self._stack.enter_async_context(self._hub)
        log.info("web_listens", host=self.host, port=self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._stack.aclose()
