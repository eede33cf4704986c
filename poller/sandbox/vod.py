"""The recordings' place: GET and HEAD of finished segments, with ranges, also for pages of other origins."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from email.utils import formatdate
from typing import Final
from urllib.parse import unquote, urlsplit

from aiohttp import web

from poller.sandbox import conditions, cors
from poller.sandbox.broken import Response, send
from poller.sandbox.clock import Clock
from poller.sandbox.conditions import NoSuchPart, Served
from poller.sandbox.media.recordings import Recording, Recordings
from poller.sandbox.options import Customer

NOT_FOUND = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body><h1>404 Not Found</h1></body>\r\n</html>\r\n"

PIECE: Final = 256 * 1024
"""Bytes that are read and sent at once."""

_HOST = re.compile(r"(\d+)\.((vod2?)\.)?", re.IGNORECASE)
_SPEC = re.compile(r"(?:(\d+)/)?(\d+_[0-9a-f]{32})\.f0\.flv")
_LATER = re.compile(r"[^/]*vodgzp(\d+)/(\d+)/f0\.flv")


class RecordingServer:
    """Serves recordings; a customer's place is named by the host's first label or the path's first folder."""

    def __init__(self, recordings: Recordings, clock: Clock, customers: Sequence[Customer]) -> None:
        self.requests = 0
        self._recordings = recordings
        self._clock = clock
        self._owners = {("vod", str(customer.biz_id)): customer.app_id for customer in customers}
        self._owners |= {("vod2", str(customer.app_id)): customer.app_id for customer in customers}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One HTTP request of any kind."""
        self.requests += 1
        headers = {"Date": self._clock.date(), **cors.SHARED}
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=headers | cors.options(request))
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers=headers | {"Allow": cors.READING})
        recording = self._found(*_place(request))
        try:
            file = os.open(self._recordings.file(recording.vid), os.O_RDONLY) if recording else None
        except FileNotFoundError:  # it went meanwhile; one that is being sent is open, and sent to its end
            file = None
        if file is None:
            return web.Response(status=404, text=NOT_FOUND, content_type="text/html", headers=headers)
        try:
            return await _send(request, file, headers)
        finally:
            os.close(file)

    def _found(self, host: str, path: str) -> Recording | None:
        """The recording at a path, if it belongs to every customer that host and path name."""
        named = self._customer_of_host(host)
        if match := _SPEC.fullmatch(path):
            named += [("vod", match[1])] if match[1] else []
            recording = self._recordings.find(vid=match[2])
        elif match := _LATER.fullmatch(path):
            named.append(("vod2", match[1]))
            recording = self._recordings.find(file_id=match[2])
        else:
            return None
        if recording is None or any(self._owners.get(name) != recording.app_id for name in named):
            return None
        return recording

    def _customer_of_host(self, host: str) -> list[tuple[str, str]]:
        """The customer whom the host names: as `200025724.vod.…` has to, as any other host may."""
        if label := _HOST.match(host):
            name = ((label[3] or "vod").lower(), label[1])
            if label[3] or name in self._owners:
                return [name]
        return []


def _place(request: web.BaseRequest) -> tuple[str, str]:
    """Host and decoded path; a proxy's client writes both into the request line."""
    target = request.raw_path
    if target.startswith("/"):
        return request.host, unquote(target[1:].partition("?")[0], errors="replace")
    parts = urlsplit(target)
    return parts.netloc, unquote(parts.path.removeprefix("/"), errors="replace")


async def _send(request: web.BaseRequest, file: int, headers: dict[str, str]) -> web.StreamResponse:
    """Sends the open file, or the part of it that the request asks for."""
    about = os.fstat(file)
    served = Served(
        etag=f'"{about.st_mtime_ns:x}-{about.st_size:x}"', modified=int(about.st_mtime), size=about.st_size
    )
    headers |= {
        "ETag": served.etag,
        "Last-Modified": formatdate(served.modified, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    if not conditions.holds(request.headers, served):
        return await send(request, Response(body=b"", headers=headers, status=412))
    if conditions.is_known(request.headers, served):
        return await send(request, Response(body=b"", headers=headers, status=304))
    try:
        part = conditions.part(request.headers, served) if request.method == "GET" else None
    except NoSuchPart:
        headers["Content-Range"] = f"bytes */{served.size}"
        return await send(request, Response(body=b"", headers=headers, status=416))
    headers["Content-Type"] = "video/x-flv"
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{served.size}"
    return await _stream(request, file, part, headers, size=served.size)


async def _stream(
    request: web.BaseRequest, file: int, part: range | None, headers: dict[str, str], *, size: int
) -> web.StreamResponse:
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    start, end = (0, size) if part is None else (part.start, part.stop)
    response.content_length = end - start
    if "Expect" in request.headers:  # see `listening`: it is too late for the header afterwards
        response.force_close()
    await response.prepare(request)
    while request.method == "GET" and start < end:
        piece = os.pread(file, min(PIECE, end - start), start)
        if not piece:  # somebody cut the file: the length that was announced cannot be kept
            response.force_close()
            break
        start += len(piece)
        await response.write(piece)
    return response
