"""What a handler may raise, and the answer in JSON that becomes of it."""

from collections.abc import Awaitable, Callable
from functools import wraps

from aiohttp import web

from poller.core.errors import PollerError, StorageError
from poller.core.replays import NoSuchReplay
from poller.operations.requests import ControlError, CountChanged
from poller.web.backend import json_answer
from poller.web.jobs import Stopping, TooManyJobs

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOOK = "look"
OPERATE = "operate"


def refuse(error: PollerError) -> web.Response:
    """The answer for an error of a command."""
    content: dict[str, object] = {"error": str(error)}
    match error:
        case CountChanged():
            return json_answer({**content, "count": error.count}, 409)
        case NoSuchReplay():
            return json_answer(content, 404)
        case ControlError():
            return json_answer(content, 400)
        case TooManyJobs():
            return json_answer(content, 429)
        case StorageError() | Stopping():
            return json_answer(content, 503)
        case _:
            return json_answer(content, 500)


def explained(handler: Handler) -> Handler:
    """The handler; the errors of commands become answers that say what is wrong."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except PollerError as error:
            return refuse(error)

    return answer


def operate_only(handler: Handler) -> Handler:
    """The handler, for people who may operate."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        if role_of(request) != OPERATE:
            return json_answer({"error": "this needs the operator's token: log in with it"}, 403)
        return await handler(request)

    return explained(answer)


def role_of(request: web.Request) -> str:
    """What the sender of a request may do."""
    return str(request.get("role", LOOK))
