"""The listener of the pages.

Life cycle
    Entering binds the address and starts to answer. On leaving, event streams end, and other answers get a second.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from poller.operations.operator_context import OperatorContext
from poller.runtime.http_server import CrowdLog
from poller.settings import WebSettings
from poller.web import actions, events, live, pages, pictures, status, stored, timeline
from poller.web.access import Access
from poller.web.backend import Backend
from poller.web.connections import Bounds, Runner
from poller.web.errors import errors_as_json
from poller.web.headers import secure
from poller.web.hub import Hub
from poller.web.jobs import Jobs
from poller.web.limits import EVENT_STREAMS, LARGEST_BODY, EventStreams

log = structlog.get_logger("web")

GRACE = 1.0


class WebServer:
    """Serves the pages at one address; `port` tells where it listens once entered."""

    def __init__(
        self, settings: WebSettings, context: Callable[[], OperatorContext], *, bounds: Bounds | None = None
    ) -> None:
        self.host = settings.listen.host
        self.port = settings.listen.port
        self._settings = settings
        self._bounds = bounds or Bounds()
        self._backend = Backend(context=context)
        self._streams = EventStreams()
        self._access = Access(settings, self._streams)
        self._hub = Hub(context)
        self._stack = AsyncExitStack()

    def one_time_code(self) -> str:
        """A code that logs in once, for an address such as `http://127.0.0.1:9480/login#CODE`."""
        return self._access.one_time_code()

    def address(self) -> str:
        """An address that opens the pages, with a code that logs in once if people have to log in."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = f"login#{self.one_time_code()}" if self._access.login else ""
        return f"http://{host}:{self.port}/{login}"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._hub)
            served = pictures.serve(self._backend.context, self._settings.allow_cidr)
            jobs = await stack.enter_async_context(
                Jobs(self._hub.publish)
            )  # left after the listener is closed
            more = await stack.enter_async_context(served)
            await self._listen(stack, [*more, *actions.routes(self._backend, jobs)])
            self._stack = stack.pop_all()
        log.info("web_listens", host=self.host, port=self.port)
        return self

    async def _listen(self, stack: AsyncExitStack, more: list[web.RouteDef]) -> None:
        application = self._application()
        application.add_routes(more)
        runner = Runner(application, self._bounds, grace=GRACE)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.host, self.port).start()
        self.port = runner.addresses[0][1]
        runner.crowd_log = CrowdLog(f"{self.host}:{self.port}")

    def _application(self) -> web.Application:
        middlewares = [errors_as_json, self._access.guard()]
        app = web.Application(middlewares=middlewares, client_max_size=LARGEST_BODY)
        app[EVENT_STREAMS] = self._streams
        app.on_response_prepare.append(secure)
        app.on_shutdown.append(self._streams.close)
        app.add_routes(pages.routes())
        app.add_routes(self._access.routes())
        app.add_routes(status.routes(self._backend))
        app.add_routes(stored.routes(self._backend))
        app.add_routes(events.routes(self._backend))
        app.add_routes(live.routes(self._hub))
        app.add_routes(timeline.routes(self._backend))
        return app

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._stack.aclose()
