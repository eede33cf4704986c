"""The files of the pages, read and compressed once."""

import gzip
import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from poller.web.headers import accepts_gzip

PAGES: Final = ("/", "/stream", "/pipeline", "/dead", "/quarantine", "/event/{id}", "/login")
"""The addresses of pages. All of them answer with the same document; its script opens the page."""
TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file, and the same compressed. `tag` changes with its content."""

    body: bytes
    zipped: bytes
    type: str
    tag: str


def routes() -> list[web.RouteDef]:
    """The pages, and the files that they load."""
    found = dict(_files(files("poller.web") / "static", ""))
    document = _serve(found.pop("/index.html"))
    named = [web.get(page, document) for page in PAGES]
    return named + [web.get(f"/static{path}", _serve(file)) for path, file in found.items()]


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, File]]:
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        if one.is_dir():
            yield from _files(one, f"{path}/{one.name}")
        elif (suffix := one.name[one.name.rindex(".") :]) in TYPES:
            yield f"{path}/{one.name}", _read(one.read_bytes(), TYPES[suffix])


def _read(body: bytes, type: str) -> File:
    tag = hashlib.sha256(body).hexdigest()[:16]
    return File(body=body, zipped=gzip.compress(body, mtime=0), type=type, tag=tag)


def _serve(file: File) -> Handler:
    """Serve a file. A browser asks each time whether it has changed, so that an upgrade shows at once."""

    async def serve(request: web.Request) -> web.Response:
        zipped = accepts_gzip(request) and len(file.zipped) < len(file.body)
        tag = file.tag + "-gzip" * zipped
        answer = web.Response(headers={"Cache-Control": "no-cache", "Vary": "Accept-Encoding"})
        answer.etag = tag
        if any(one.value in (tag, "*") for one in request.if_none_match or ()):
            answer.set_status(304)
            return answer
        answer.body = file.zipped if zipped else file.body
        answer.content_type, answer.charset = file.type, "utf-8"
        if zipped:
            answer.headers["Content-Encoding"] = "gzip"
        return answer

    return serve
