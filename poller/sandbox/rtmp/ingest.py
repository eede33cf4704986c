"""The server: every connection to one address, for as long as a `with` block lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from poller.sandbox.options import split_address
from poller.sandbox.rtmp.connection import Common, Connection
from poller.sandbox.rtmp.publish_handler import PublishHandler


class RtmpServer:
    """An RTMP server: its URL and its counts. `serve_rtmp` makes one."""

    def __init__(self, handler: PublishHandler, *, silence: float, max_connections: int = 256) -> None:
        self.url = ""
        """The URL to push to. A slash and the stream follow."""
        self._handler = handler
        self._silence = silence
        self._common = Common(max_connections)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._common.connections)

    @property
    def refused(self) -> int:
        """The number of connections beyond the limit, and of requests that were refused."""
        return self._common.refused

    @property
    def broken(self) -> int:
        """The number of connections that were ended because of malformed or unread bytes."""
        return self._common.broken

    def connection(self) -> Connection:
        """The protocol for a new connection."""
        return Connection(self._handler, self._silence, self._common)

    async def stop(self) -> None:
        """Ends every push with `stopped`, and every connection; new ones are turned away."""
        common = self._common
        common.stopping = True
        common.empty.clear()
        for connection in list(common.connections):
            connection.drop("stopped")
        if common.connections:
            await common.empty.wait()


@contextlib.asynccontextmanager
async def serve_rtmp(
    address: str, handler: PublishHandler, *, silence: float, max_connections: int = 256
) -> AsyncIterator[RtmpServer]:
    """Takes pushes at HOST:PORT.

    silence: seconds within which a connection must come to publish, and then be heard of
    """
    host, port = split_address(address)
    ingest = RtmpServer(handler, silence=silence, max_connections=max_connections)
    server = await asyncio.get_running_loop().create_server(ingest.connection, host, port)
    name, number = server.sockets[0].getsockname()[:2]
    ingest.url = f"rtmp://[{name}]:{number}/live" if ":" in name else f"rtmp://{name}:{number}/live"
    try:
        yield ingest
    finally:
        server.close()
        await ingest.stop()
