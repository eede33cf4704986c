"""The daemon as the handlers of the pages see it, and answers in JSON."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from aiohttp import web

from poller.operations.operator_context import OperatorContext
from poller.operations.requests import Request, Row
from poller.operations.verbs import answer


@dataclass(frozen=True, kw_only=True)
class Backend:
    """`context` returns the parts of the daemon at this moment: a reload changes them."""

    context: Callable[[], OperatorContext]

    async def rows(self, request: Request) -> list[Row]:
        """The rows of an operator's command. Raises `PollerError`."""
        return [row async for row in answer(self.context(), request) if row is not None]


def json_answer(content: object, status: int = 200) -> web.Response:
    """An answer in JSON."""
    return web.Response(
        body=msgspec.json.encode(content),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
