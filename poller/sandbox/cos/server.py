"""The picture server: GET and HEAD, by host name or by path, as an object store answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from hashlib import md5
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from aiohttp import web
from fastcrc import crc64

from poller.sandbox.broken import Answer, send, send_broken
from poller.sandbox.clock import Clock
from poller.sandbox.cos.store import Pictures
from poller.sandbox.faults import Fault, Faults
from poller.sandbox.options import Customer

NO_SUCH_KEY = """<?xml version='1.0' encoding='utf-8' ?>
<Error>
\t<Code>NoSuchKey</Code>
\t<Message>The specified key does not exist.</Message>
\t<Resource>/{path}</Resource>
</Error>
"""
CHECKSUM = "x-cos-hash-crc64ecma"


class PictureServer:
    """Serves pictures; a bucket is named by the host's first label or the path's first folder."""

    def __init__(
        self,
        pictures: Pictures,
        faults: Faults,
        clock: Clock,
        customers: Sequence[Customer],
        rng: random.Random,
    ) -> None:
        self.requests = 0
        self._pictures = pictures
        self._faults = faults
        self._clock = clock
        self._buckets = [customer.host_label for customer in customers]
        self._rng = rng

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One HTTP request of any kind."""
        self.requests += 1
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        fault = self._faults.draw()
        if fault is not None and fault.name == "latency":
            await asyncio.sleep(fault.seconds)
        answer = self._found(request)
        if fault is None:
            return await send(request, answer)
        return await send_broken(request, _altered(answer, fault), fault, self._rng)

    def _found(self, request: web.BaseRequest) -> Answer:
        host, path = _place(request)
        for bucket, key in self._candidates(host, path):
            content = self._pictures.content(bucket, key)
            if content is not None:
                return self._picture(content)
        body = NO_SUCH_KEY.format(path=escape(path)).encode("utf-8", "replace")
        return Answer(body=body, headers=self._headers("application/xml"), status=404)

    def _candidates(self, host: str, path: str) -> list[tuple[str, str]]:
        """Where the picture may be: a bucket that is named rules out the others."""
        label = host.partition(".")[0]
        if label in self._buckets:
            return [(label, path)]
        first, _, rest = path.partition("/")
        if first in self._buckets:
            return [(first, rest)]
        return [(bucket, path) for bucket in self._buckets]

    def _picture(self, content: bytes) -> Answer:
        headers = self._headers("image/jpeg") | {
            "ETag": f'"{md5(content, usedforsecurity=False).hexdigest()}"',
            CHECKSUM: str(crc64.xz(content)),
        }
        return Answer(body=content, headers=headers)

    def _headers(self, content_type: str) -> dict[str, str]:
        return {"Date": self._clock.date(), "Content-Type": content_type, "Server": "tencent-cos"}


def _altered(answer: Answer, fault: Fault) -> Answer:
    """The picture as the fault leaves it."""
    if answer.status != 200:
        return answer
    if fault.name == "wrong_checksum":
        return replace(answer, headers={**answer.headers, CHECKSUM: "1"})
    if fault.name == "truncated":
        # Length and checksum agree with the half picture: only its own end marker gives it away.
        half = answer.body[: len(answer.body) // 2]
        return replace(answer, body=half, headers={**answer.headers, CHECKSUM: str(crc64.xz(half))})
    return answer


def _place(request: web.BaseRequest) -> tuple[str, str]:
    """Host and decoded path; a proxy's client writes both into the request line."""
    target = request.raw_path
    if target.startswith("/"):
        return request.host, unquote(target[1:].partition("?")[0], errors="replace")
    parts = urlsplit(target)
    return parts.netloc, unquote(parts.path.removeprefix("/"), errors="replace")
