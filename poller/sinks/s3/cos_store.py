"""A bucket of COS, with COS's own signature and headers (`x-cos-meta-…`), over the project's HTTP client.

https://www.tencentcloud.com/document/product/436/7749
"""

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from fastcrc import crc64
from yarl import URL

from poller.core.errors import SinkError
from poller.qcloud.cos.listing import error_code
from poller.qcloud.cos.signer import Signer
from poller.runtime.http_client import HttpRequest, Route, Unreachable, client_context
from poller.runtime.http_poster import Answered, ConnectionLost, Sender
from poller.runtime.outbound import USER_AGENT, AddressGuard, wait_seconds
from poller.runtime.resolver import Resolver
from poller.sinks.pictures import PlaceTrouble
from poller.sinks.s3.settings import S3Settings
from poller.sinks.s3.store import NewObject, ObjectStore, failure

METADATA: Final = "x-cos-meta-"
CHECKSUM: Final = "x-cos-hash-crc64ecma"


class CosBucket(ObjectStore):
    """One bucket. All headers that say what an object is are signed."""

    def __init__(
        self, settings: S3Settings, guard: AddressGuard, resolver: Resolver, threads: Executor
    ) -> None:
        self._place = settings.place()
        self._timeout = settings.timeout
        self._threads = threads
        self._signer = Signer(*settings.key())
        tls = client_context(None, URL(self._place.url))
        self._sender = Sender(Route(resolver=resolver, tls=tls, guard=guard), limit=settings.uploads)

    async def put(self, new: NewObject) -> None:
        """See `ObjectStore.put`. The store compares the MD5 before it stores, and its answer is compared too."""
        headers = {"Content-MD5": b64encode(new.md5).decode(), "Content-Type": new.type}
        headers |= {METADATA + name: value for name, value in new.metadata.items()}
        answer = await self._ask("PUT", new.key, headers, new.content)
        if answer.status != 200 or answer.early:
            raise _refused(answer)
        if (answer.head.get("etag") or "").strip('"') != new.md5.hex():
            await self._compare_checksum(new, answer)

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        answer = await self._ask("DELETE", key, {}, None)
        if answer.status != 204:
            raise _refused(answer)

    def close(self) -> None:
        """See `ObjectStore.close`."""
        self._sender.close()

    async def _compare_checksum(self, new: NewObject, answer: Answered) -> None:
        """A bucket that encrypts gives ETags that are no MD5, and still the CRC-64 of what was sent."""
        ours = await asyncio.get_running_loop().run_in_executor(self._threads, crc64.xz, new.content)
        if answer.head.get(CHECKSUM) != str(ours):
            raise PlaceTrouble("the store does not confirm the object's MD5 or CRC-64")

    async def _ask(self, method: str, key: str, headers: Mapping[str, str], body: bytes | None) -> Answered:
        """Send a request, and once more if the store's clock shows that ours is wrong."""
        ahead = self._signer.ahead
        answer = await self._send(method, key, headers, body)
        if answer.status == 403 and self._signer.corrects_clock(answer.head.get("date"), signed=ahead):
            answer = await self._send(method, key, headers, body)
        return answer

    async def _send(self, method: str, key: str, headers: Mapping[str, str], body: bytes | None) -> Answered:
        request = self._request(method, key, headers, body)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._sender.send(request)
        except TimeoutError:
            why = "no answer in time"
        except (Unreachable, ConnectionLost) as error:
            why = str(error)
        raise PlaceTrouble(f"{self._place.host}: {why}")

    def _request(self, method: str, key: str, headers: Mapping[str, str], body: bytes | None) -> HttpRequest:
        path = f"{self._place.path}/{key}"
        parts = URL(self._place.url)
        url = URL(f"{parts.origin()}{quote(path, safe='/-_.~')}", encoded=True)
        signed = self._signer.sign(
            method, path, headers={"Host": url.host_port_subcomponent or "", **headers}
        )
        sent = {"Authorization": signed, "User-Agent": USER_AGENT, **headers}
        return HttpRequest(method=method, url=url, headers=tuple(sent.items()), body=body)


def _refused(answer: Answered) -> SinkError:
    code = error_code(answer.body)
    after = None if answer.retry_after is None else wait_seconds(answer.retry_after, datetime.now(UTC))
    return failure(code, f"HTTP {answer.status} {code}".rstrip(), answer.body, after=after)
