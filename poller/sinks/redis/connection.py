"""A connection, which may be asked for what proves that its server keeps what it confirms."""

from collections.abc import Sequence
from contextlib import suppress
from ssl import SSLContext
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import (
    RedisError,
    ResponseError,
)

from poller.sinks.redis.answers import Answer, Command, evicts, never_synced, not_always, not_waited
from poller.sinks.redis.settings import RedisSettings
from poller.sinks.servers import CONNECT_WITHIN

PROVE_WITHIN: Final = 1000
"""Milliseconds that a new connection waits for replicas to be there."""
POLICY: Final[Command] = ("CONFIG", "GET", "append*")


def new_client(settings: RedisSettings, place: tuple[str, int], tls: SSLContext | None) -> Connection:
    """The library's connection, not open yet. It tries nothing twice, and says nothing about itself."""
    parts = urlsplit(settings.url)
    options: dict[str, Any] = {
        "host": place[0],
        "port": place[1],
        "db": int(parts.path.strip("/") or 0),
        "username": settings.user,
        "password": settings.secret,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_WITHIN,
        "driver_info": None,
        "protocol": 2,
    }
    if parts.scheme == "redis":
        return Connection(**options)
    client = SSLConnection(**options)
    if tls is not None:
        client.ssl_context.context = tls
    return client


class RedisConnection:
    """A connection, and how its server proves that it keeps what it confirms."""

    proven = False
    """Whether the server was asked over this connection, before anything was written."""

    def __init__(self, client: Connection, replicas: int) -> None:
        self._client = client
        self._replicas = replicas
        self._waits = True

    async def open(self) -> None:
        await self._client.connect()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close without waiting for the server."""
        with suppress(RedisError, OSError):
            await self._client.disconnect(nowait=True)

    async def is_good(self) -> bool:
        """Whether the connection is open and has no answer left in it."""
        try:
            return not await self._client.can_read()
        except (RedisError, OSError):
            return False

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Send commands in one go, and return the answer to each."""
        packed = self._client.pack_commands(commands)
        await self._client.send_packed_command(packed, check_health=False)
        return [await self._answer() for _ in commands]

    async def _answer(self) -> Answer:
        try:
            return await self._client.read_response(disconnect_on_error=False)
        except ResponseError as refused:
            return refused

    async def flaw(self) -> str:
        """Why this server does not keep what it confirms; empty if it does. Learns which proof it can give."""
        waited, policy, memory = await self.ask([self._waitaof(PROVE_WITHIN), POLICY, ("INFO", "memory")])
        self._waits = not (isinstance(waited, ResponseError) and "unknown command" in str(waited).lower())
        if self._waits:
            return not_waited(waited, self._replicas) or never_synced(policy) or evicts(memory)
        if self._replicas:
            return "the server has no WAITAOF, so that replicas needs Valkey, or Redis 7.2 or later"
        return not_always(policy) or evicts(memory)

    def proof(self, wait: int) -> Command:
        """The command that follows the entries of a batch."""
        return self._waitaof(wait) if self._waits else POLICY

    def unproven(self, answer: Answer) -> str:
        """Why that command's answer does not prove that the entries are safe; empty if it does."""
        return not_waited(answer, self._replicas) if self._waits else not_always(answer)

    def _waitaof(self, wait: int) -> Command:
        return "WAITAOF", 1, self._replicas, wait
