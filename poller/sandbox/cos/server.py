"""The picture server: reads, lists and takes objects as Tencent's object store does, and breaks on demand."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from email.utils import formatdate
from functools import lru_cache
from hashlib import md5
from urllib.parse import parse_qsl

from aiohttp import web
from fastcrc import crc64

from poller.sandbox import conditions, cors
from poller.sandbox.broken import Response, send, send_broken
from poller.sandbox.clock import Clock
from poller.sandbox.conditions import NoSuchPart, Served
from poller.sandbox.cos import listing, metadata, signature, signature_v4
from poller.sandbox.cos.errors import CosRefused
from poller.sandbox.cos.place import RequestTarget, request_target
from poller.sandbox.cos.store import Pictures, StoredObject
from poller.sandbox.faults import Fault, Faults
from poller.sandbox.options import Customer

CHECKSUM = "x-cos-hash-crc64ecma"
LARGEST = 64 * 1024 * 1024
LONGEST_KEY = 850  # bytes; https://www.tencentcloud.com/document/product/436/13324
VERBS = ("GET", "HEAD", "PUT", "DELETE")
ALLOWED = ", ".join((*VERBS, "OPTIONS"))

# With these the store never did what it was asked to.
UNDONE = frozenset({"not_found", "status", "redirect", "reset_before", "close", "hang", "html"})
# They ask for something else than the object, or for another way of storing it. None of it is there.
NO_QUERIES = frozenset(
    """
    accelerate acl append cors delete domain encryption inventory lifecycle location logging object-lock
    origin partNumber policy referer replication restore select symlink tagging torrent uploadId uploads
    versionId versioning versions website
    """.split()  # noqa: SIM905 - as a list it would fill a page
)

Query = list[tuple[str, str]]
Signed = signature.Signature | signature_v4.SignatureV4


class PictureServer:
    """Serves a store. Everyone may read; a signature that is there must be right, and writing needs one."""

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
        self._customers = customers
        self._buckets = {customer.host_label: customer for customer in customers}
        self._rng = rng
        self._number = itertools.count(1)
        self._run = f"{int(time.time()):x}"

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One HTTP request of any kind."""
        self.requests += 1
        fault = self._faults.draw() if request.method in VERBS else None
        if fault is not None and fault.name == "latency":
            await asyncio.sleep(fault.seconds)
        if fault is not None and fault.name in UNDONE and request.method in ("PUT", "DELETE"):
            answer = Response(body=b"", headers=self._headers())
        else:
            answer = await self._answer_or_refusal(request)
        if fault is None:
            return await send(request, answer)
        return await send_broken(request, _apply_fault(answer, fault), fault, self._rng)

    async def _answer_or_refusal(self, request: web.BaseRequest) -> Response:
        """The answer to a request, which may be a refusal."""
        headers = self._headers()
        try:
            place = request_target(request.raw_path, request.host, self._buckets)
            answer = await self._carry_out(request, place)
        except CosRefused as refused:
            resource = request.raw_path.partition("?")[0]
            body = refused.xml(resource, headers["x-cos-request-id"])
            headers |= {"Content-Type": "application/xml", **refused.headers}
            return Response(body=body, headers=headers, status=refused.status)
        return Response(body=answer.body, headers={**headers, **answer.headers}, status=answer.status)

    async def _carry_out(self, request: web.BaseRequest, place: RequestTarget) -> Response:
        if cors.is_preflight(request):
            return Response(body=b"", headers=cors.options(request, ALLOWED))
        if request.method in ("POST", "OPTIONS"):
            raise CosRefused("NotImplemented")
        if request.method not in VERBS:
            raise CosRefused("MethodNotAllowed", headers={"Allow": ALLOWED})
        query = parse_qsl(place.query, keep_blank_values=True)
        writing = request.method in ("PUT", "DELETE")
        signed = self._check(request, place, query, needed=writing)
        if any(name in NO_QUERIES or name.startswith("response-") for name, _ in query):
            raise CosRefused("NotImplemented")
        if not writing:
            return self._read(request, place) if place.key else self._list(place, query)
        bucket = _writable(place)
        if request.method == "PUT":
            return await self._put(request, bucket, place.key, signed)
        self._meet(request, bucket, place.key)
        self._pictures.delete(bucket, place.key)
        return Response(body=b"", headers={}, status=204)

    def _check(
        self, request: web.BaseRequest, place: RequestTarget, query: Query, *, needed: bool
    ) -> Signed | None:
        """Raises CosRefused unless the signer may do this. `needed`: a request without a signature is refused too."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        amazons = signature_v4.read(headers, query)
        signed = amazons or signature.read(headers.get("authorization", ""), query)
        if signed is None:
            if needed:
                raise CosRefused("AccessDenied", "Writing needs a signature.")
            return None
        owners = [one for one in self._customers if one.secret_id == signed.secret_id]
        if not owners:
            raise CosRefused("InvalidAccessKeyId")
        owner = next((one for one in owners if one.host_label == place.bucket), owners[0])
        readings, now = _readings(request, place, query), self._clock.now()
        if isinstance(signed, signature.Signature):
            signature.check(signed, owner.secret_key, readings, now)
        else:
            signature_v4.check(signed, owner.secret_key, readings, now)
        if place.bucket not in (None, owner.host_label):
            raise CosRefused("AccessDenied")
        return signed

    # ---------------------------------------------------------------- reading

    def _read(self, request: web.BaseRequest, place: RequestTarget) -> Response:
        """Answers a GET or HEAD. If the request names a bucket, no other bucket is searched."""
        buckets = self._buckets if place.bucket is None else (place.bucket,)
        for bucket in buckets:
            stored = self._pictures.find(bucket, place.key)
            if stored is not None and (answer := self._object(request, stored)) is not None:
                return answer
        raise CosRefused("NoSuchKey")

    def _object(self, request: web.BaseRequest, stored: StoredObject) -> Response | None:
        """An object, or the requested part of it; None if its file is gone."""
        headers, served = _object_headers(stored), _served(stored)
        if not conditions.holds(request.headers, served):
            raise CosRefused("PreconditionFailed")
        if conditions.is_known(request.headers, served):
            return Response(body=b"", headers=headers, status=304)
        try:
            part = conditions.part(request.headers, served) if request.method == "GET" else None
        except NoSuchPart:
            raise CosRefused("InvalidRange", headers={"Content-Range": f"bytes */{stored.size}"}) from None
        content = self._pictures.bytes_of(stored, part)
        if content is None:
            return None
        if part is None:
            return Response(body=content, headers=headers)
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{stored.size}"
        return Response(body=content, headers=headers, status=206)

    def _list(self, place: RequestTarget, query: Query) -> Response:
        """A bucket's contents."""
        bucket = place.bucket
        if bucket is None:
            raise CosRefused("NoSuchBucket")
        wish = listing.parse_list_request(dict(query))
        found = listing.page(wish, lambda key: self._pictures.since(bucket, key))
        return Response(body=listing.xml(bucket, wish, found), headers={"Content-Type": "application/xml"})

    # ---------------------------------------------------------------- writing

    def _meet(self, request: web.BaseRequest, bucket: str, key: str) -> None:
        """Raises CosRefused unless what is there now meets the request's conditions."""
        stored = self._pictures.find(bucket, key)
        if not conditions.may_write(request.headers, _served(stored) if stored else None):
            raise CosRefused("PreconditionFailed")

    async def _put(self, request: web.BaseRequest, bucket: str, key: str, signed: Signed | None) -> Response:
        """Stores the body of a request, its type and its metadata."""
        kept = metadata.kept_headers(request.headers)
        self._meet(request, bucket, key)
        content = await _body(request)
        if isinstance(signed, signature_v4.SignatureV4):
            signature_v4.check_payload(signed, content)
        asked = request.headers.get("Content-MD5")
        if asked is not None and _digest(asked) != md5(content, usedforsecurity=False).digest():
            raise CosRefused("BadDigest")
        self._meet(request, bucket, key)  # it may have changed while the body came
        type = request.headers.get("Content-Type", "application/octet-stream")
        stored = self._pictures.put(bucket, key, content, type, kept)
        return Response(body=b"", headers={"ETag": f'"{stored.etag}"', CHECKSUM: stored.crc64})

    def _headers(self) -> dict[str, str]:
        return {
            "Date": self._clock.date(),
            "Server": "tencent-cos",
            "x-cos-request-id": f"{self._run}_{next(self._number):x}",
            **cors.SHARED,
        }


def _writable(place: RequestTarget) -> str:
    """The bucket in which the object named can be written. Buckets themselves are as the options have them."""
    if place.bucket is None:
        raise CosRefused("NoSuchBucket")
    if not place.key:
        raise CosRefused("NotImplemented")
    if len(place.key.encode()) > LONGEST_KEY:
        raise CosRefused("KeyTooLong")
    return place.bucket


def _readings(request: web.BaseRequest, place: RequestTarget, query: Query) -> list[signature.Asked]:
    """The forms in which a client may have signed: with or without the bucket in the path, and the port in the host."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    hosts = dict.fromkeys((headers.get("host", ""), headers.get("host", "").partition(":")[0]))
    paths = dict.fromkeys((f"/{place.key}", f"/{place.path}"))
    return [
        signature.Asked(method=request.method, path=path, params=query, headers={**headers, "host": host})
        for path in paths
        for host in hosts
    ]


async def _body(request: web.BaseRequest) -> bytes:
    if request.content_length is None and "Transfer-Encoding" not in request.headers:
        raise CosRefused("MissingContentLength")
    if (request.content_length or 0) > LARGEST:
        raise CosRefused("EntityTooLarge")
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    content = bytearray()
    async for piece in request.content.iter_any():
        content += piece
        if len(content) > LARGEST:
            raise CosRefused("EntityTooLarge")
    return bytes(content)


def _digest(text: str) -> bytes:
    """A Content-MD5."""
    try:
        digest = b64decode(text, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != 16:
        raise CosRefused("InvalidDigest")
    return digest


def _served(stored: StoredObject) -> Served:
    return Served(etag=f'"{stored.etag}"', modified=int(stored.ready_at), size=stored.size)


def _object_headers(stored: StoredObject) -> dict[str, str]:
    return {
        **stored.metadata,
        "Content-Type": stored.type,
        "ETag": f'"{stored.etag}"',
        CHECKSUM: stored.crc64,
        "Last-Modified": _http_date(int(stored.ready_at)),
        "Accept-Ranges": "bytes",
    }


@lru_cache(maxsize=1024)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _apply_fault(answer: Response, fault: Fault) -> Response:
    """The answer after the fault has altered its picture."""
    if answer.status != 200 or CHECKSUM not in answer.headers:
        return answer
    if fault.name == "wrong_checksum":
        return replace(answer, headers={**answer.headers, CHECKSUM: "1"})
    if fault.name == "truncated":
        # Length and checksum agree with the half picture: only its own end marker gives it away.
        half = answer.body[: len(answer.body) // 2]
        return replace(answer, body=half, headers={**answer.headers, CHECKSUM: str(crc64.xz(half))})
    return answer
