"""The files of the pages, read once from the package."""

from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGES: Final = ("/", "/stream", "/pipeline", "/dead", "/quarantine", "/event/{id}", "/login")
"""The addresses of pages. All of them answer with the same document; its script opens the page."""
TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def routes() -> list[web.RouteDef]:
    """The pages, and the files that they load."""
    found = dict(_files(files("poller.web") / "static", ""))
    document = found.pop("/index.html")
    named = [web.get(page, _serve(document, ".html")) for page in PAGES]
    return named + [
        web.get(f"/static{path}", _serve(body, path[path.rindex(".") :])) for path, body in found.items()
    ]


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        if one.is_dir():
            yield from _files(one, f"{path}/{one.name}")
        elif one.name[one.name.rindex(".") :] in TYPES:
            yield f"{path}/{one.name}", one.read_bytes()


def _serve(body: bytes, suffix: str) -> Handler:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=TYPES[suffix], charset="utf-8")

    return serve
