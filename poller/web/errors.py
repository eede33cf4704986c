"""Errors of the pages: each becomes an answer in JSON with a fitting status."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from poller.core.errors import NotSent, PollerError, StorageError
from poller.core.replays import NoSuchReplay
from poller.operations.masking import mask
from poller.operations.requests import ControlError, CountChanged, NotKnown
from poller.runtime.library_log import place_of
from poller.web.backend import json_answer

log = structlog.get_logger("web")

INTERNAL: Final = "Something went wrong inside poller. Its log says where."
STATUSES: Final[tuple[tuple[type[PollerError], int], ...]] = (
    (CountChanged, 409),
    (NotKnown, 404),
    (ControlError, 400),
    (NoSuchReplay, 404),
    (StorageError, 503),
    (NotSent, 502),
)
"""The statuses of errors that are no `WebError`: the first kind that fits counts. Any other `PollerError` is a 500."""
TEXTS: Final = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    413: "The body of a request is at most 64 KiB.",
}


class WebError(PollerError):
    """The request is refused with this status. `more` joins the answer's JSON, and `headers` its headers."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})
        self.more = dict(more or {})


def status_of(error: PollerError) -> int:
    """The status of the answer to a request that ended with this error."""
    if isinstance(error, WebError):
        return error.status
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in JSON. An unexpected one is logged, and its text goes nowhere."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _from_library(error)
    except ConnectionError:  # the client is gone: nobody reads an answer
        raise
    except PollerError as error:
        return error_answer(error)
    except Exception as error:
        report(error, request.path)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer is on its way already") from None
        return json_answer({"error": INTERNAL}, 500)


def report(error: BaseException | None, path: str) -> None:
    """Log an unexpected error without its text, which may hold a secret."""
    log.error("web_failed", path=path[:200], error=type(error).__name__, at=place_of(error))


def _from_library(error: web.HTTPException) -> web.Response:
    text = TEXTS.get(error.status) or f"{HTTPStatus(error.status).phrase}."
    answer = json_answer({"error": text}, error.status)
    if allow := error.headers.get("Allow"):
        answer.headers["Allow"] = allow
    return answer


def error_answer(error: PollerError) -> web.Response:
    """The answer in JSON to a request that ended with this error. The text may repeat a signed URL of the request."""
    content: dict[str, object] = {"error": mask(str(error))}
    if isinstance(error, CountChanged):
        content["count"] = error.count
    if not isinstance(error, WebError):
        return json_answer(content, status_of(error))
    answer = json_answer({**content, **error.more}, error.status)
    answer.headers.update(error.headers)
    return answer
