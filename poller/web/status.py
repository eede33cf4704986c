"""`/api/status`: the row of `poller status --json`."""

from aiohttp import web

from poller.operations.requests import Request, Verb
from poller.web.backend import Backend, json_answer


def routes(backend: Backend) -> list[web.RouteDef]:
    """The paths of this module."""

    async def status(request: web.Request) -> web.Response:
        (row,) = await backend.rows(Request(verb=Verb.STATUS))
        return json_answer(row)

    return [web.get("/api/status", status)]
