"""The recordings' place: GET and HEAD of finished segments, with ranges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from aiohttp import web

from poller.sandbox.clock import Clock
from poller.sandbox.media.recordings import Recording, Recordings
from poller.sandbox.options import Customer

NOT_FOUND = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body><h1>404 Not Found</h1></body>\r\n</html>\r\n"

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
        date = {"Date": self._clock.date()}
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers=date | {"Allow": "GET, HEAD"})
        recording = self._found(*_place(request))
        if recording is None:
            return web.Response(status=404, text=NOT_FOUND, content_type="text/html", headers=date)
        # A file that goes meanwhile is a 404 there too; one that is being sent is open, and sent to its end.
        file = self._recordings.file(recording.vid)
        return web.FileResponse(file, headers=date | {"Content-Type": "video/x-flv"})

    def _found(self, host: str, path: str) -> Recording | None:
        """The recording of that place, if it belongs to every customer whom host and path name."""
        named = self._named(host)
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

    def _named(self, host: str) -> list[tuple[str, str]]:
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
