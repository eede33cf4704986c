"""The listener of the pages.

Life cycle
    Each part is entered before the parts that use it, and left after them: the hub, then the jobs, whose progress the
    hub publishes, then the pictures, and last the listener, which serves them all. On leaving, the listener ends event
    streams at once and gives other answers a second. Then fetches of pictures are cancelled, and each job ends after
    its current step.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

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
from poller.web.login import Login

log = structlog.get_logger("web")

GRACE: Final = 1.0
"""Seconds for answers that are under way when the listener closes."""
_ON_THIS_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, never bound to
"""The address by which a browser on this machine reaches a listener on all addresses."""


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
        self._login = Login(settings, self._streams)
        self._access = Access(settings, self._login)
        self._hub = Hub(context)
        self._stack = AsyncExitStack()

    def one_time_code(self) -> str:
        """A code that logs in once, for an address such as `http://127.0.0.1:9480/login#CODE`."""
        return self._login.one_time_code()

    def address(self) -> str:
        """An address that opens the pages, with a code that logs in once if people have to log in."""
        host = _ON_THIS_MACHINE.get(self.host, self.host)
        host = f"[{host}]" if ":" in host else host
        login = f"login#{self.one_time_code()}" if self._login.required else ""
        return f"http://{host}:{self.port}/{login}"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._hub)
            jobs = await stack.enter_async_context(Jobs(self._hub.publish))
            shown = await stack.enter_async_context(
                pictures.serve(self._backend.context, self._settings.allow_cidr)
            )
            await self._listen(stack, [*shown, *actions.routes(self._backend, jobs)])
            self._stack = stack.pop_all()
        log.info("web_listens", host=self.host, port=self.port)
        return self

    async def _listen(self, stack: AsyncExitStack, more: list[web.RouteDef]) -> None:
        runner = Runner(self._application(more), self._bounds, grace=GRACE)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.host, self.port).start()
        self.port = runner.addresses[0][1]
        runner.crowd_log = CrowdLog(f"{self.host}:{self.port}")

    def _application(self, more: list[web.RouteDef]) -> web.Application:
        app = web.Application(
            middlewares=[errors_as_json, self._access.guard()], client_max_size=LARGEST_BODY
        )
        app[EVENT_STREAMS] = self._streams
        app.on_response_prepare.append(secure)
        app.on_shutdown.append(self._streams.close)
        app.add_routes(pages.routes())
        app.add_routes(self._login.routes())
        app.add_routes(status.routes(self._backend))
        app.add_routes(stored.routes(self._backend))
        app.add_routes(events.routes(self._backend))
        app.add_routes(live.routes(self._hub))
        app.add_routes(timeline.routes(self._backend))
        app.add_routes(more)
        return app

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._stack.aclose()
