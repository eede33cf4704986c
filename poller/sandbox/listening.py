"""One HTTP server on one address, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from poller.sandbox.options import split_address

Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def listening(address: str, answer: Answering) -> AsyncIterator[str]:
    """Yields the base URL; on leaving, requests in flight are broken off."""
    # Without handler_cancellation a fault that hangs would outlive its client.
    server = web.Server(answer, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    host, port = split_address(address)
    try:
        await web.TCPSite(runner, host, port).start()
        name, number = runner.addresses[0][:2]
        yield f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
    finally:
        await runner.cleanup()
