"""How an answer reaches the client, whole or broken: the bytes, the cut, the reset."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from poller.sandbox.faults import Fault

HTML = b"<html>\r\n<head><title>%s</title></head>\r\n<body><center><h1>%s</h1></center></body>\r\n</html>\r\n"
TEXT = b"request failed.no returnData"
CHUNK = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Response:
    """The answer as it is meant, before any fault. `framing` is how the end of the body is marked."""

    body: bytes
    headers: Mapping[str, str]
    status: int = 200
    framing: str = "length"


class AlreadySent(web.StreamResponse):
    """Tells aiohttp that the bytes went out by hand."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def send(request: web.BaseRequest, answer: Response) -> web.StreamResponse:
    """Sends the answer whole."""
    if request.method == "HEAD" and answer.status not in (204, 304):
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}  # aiohttp leaves out a 0
        return web.Response(body=answer.body, status=answer.status, headers=headers)
    if answer.framing == "length" or request.method == "HEAD":
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)
    if answer.framing == "chunked":
        return await _by_hand(request, _head(answer), _as_chunks(answer.body) + b"0\r\n\r\n")
    return await _by_hand(request, _head(answer), answer.body)


async def send_broken(
    request: web.BaseRequest, answer: Response, fault: Fault, rng: random.Random
) -> web.StreamResponse:
    """Sends the answer as the fault has it; a fault unknown here leaves it whole."""
    match fault.name:
        case "cut" | "cut_chunked" | "cut_close":
            return await _cut(request, answer, fault, rng)
        case "reset_before" | "reset_after" | "reset_headers" | "close" | "hang":
            return await _give_up(request, answer, fault)
        case "drip":
            return await _drip(request, answer, fault.seconds)
        case "endless":
            return await _endless(request, answer, fault.size)
    if fault.name == "bomb":
        answer = await asyncio.to_thread(_bomb, answer, fault.size)
    return await send(request, _instead(answer, fault, location=request.path_qs))


def _instead(answer: Response, fault: Fault, location: str) -> Response:
    """The answer to send: the meant one, or the one with which the fault replaces it."""
    date = {name: value for name, value in answer.headers.items() if name == "Date"}
    html = {**date, "Content-Type": "text/html"}
    match fault.name:
        case "status" if fault.takes:
            answer = replace(answer, status=fault.status)
        case "status" | "not_found":
            title = b"%d" % fault.status
            answer = Response(body=HTML % (title, title), headers=html, status=fault.status)
        case "redirect":
            # To itself: a client that follows it asks, and takes, a second time.
            answer = Response(body=b"", headers={**html, "Location": location}, status=fault.status)
        case "html":
            answer = Response(body=HTML % (b"Welcome", b"Welcome"), headers=html)
        case "text":
            answer = Response(body=TEXT, headers=html)
        case "wrong_type":
            answer = replace(answer, headers={**answer.headers, "Content-Type": "text/html"})
    return answer


async def _cut(
    request: web.BaseRequest, answer: Response, fault: Fault, rng: random.Random
) -> web.StreamResponse:
    """Sends the head and a part of the body, then closes the connection in good order."""
    length = len(answer.body)
    offset = fault.offset if fault.offset is not None else rng.randrange(length) if length else 0
    part = answer.body[:offset]
    if fault.name == "cut_chunked":
        return await _by_hand(request, _head(replace(answer, framing="chunked")), _as_chunks(part))
    framing = "close" if fault.name == "cut_close" else "length"
    return await _by_hand(request, _head(replace(answer, framing=framing)), part)


async def _give_up(request: web.BaseRequest, answer: Response, fault: Fault) -> web.StreamResponse:
    """Ends the connection without a body, and for some faults without a head."""
    if fault.name == "hang":
        await asyncio.Event().wait()  # ends when the client goes or the sandbox closes
    if fault.name == "close":
        return await _by_hand(request, b"", b"")
    if fault.name == "reset_headers" and request.transport is not None:
        request.transport.write(_head(replace(answer, framing="length")))
        await asyncio.sleep(0.02)  # a reset overtakes what still waits to be sent
    reset(request)
    return AlreadySent()


async def _drip(request: web.BaseRequest, answer: Response, seconds: float) -> web.StreamResponse:
    """Sends the whole answer byte by byte, with pauses."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    for at in range(len(answer.body)):
        await response.write(answer.body[at : at + 1])
        await asyncio.sleep(seconds)
    return response


async def _endless(request: web.BaseRequest, answer: Response, size: int) -> web.StreamResponse:
    """Sends the beginning of the answer, then blanks as fast as the client reads."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    await response.prepare(request)
    await response.write(answer.body[:1])
    for _ in range(0, size, CHUNK):
        await response.write(b" " * CHUNK)
    return response


async def _by_hand(request: web.BaseRequest, head: bytes, body: bytes) -> web.StreamResponse:
    """Writes these bytes and closes the connection in good order."""
    if request.transport is not None:
        request.transport.write(head + body)
        request.transport.close()
    return AlreadySent()


def reset(request: web.BaseRequest) -> None:
    """Ends the connection by RST. Bytes that are not sent yet are lost."""
    if request.transport is None or request.transport.is_closing():
        return
    sock = request.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def _head(answer: Response) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} OK", *(f"{name}: {value}" for name, value in answer.headers.items())]
    if answer.framing == "length":
        lines.append(f"Content-Length: {len(answer.body)}")
    elif answer.framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def _as_chunks(body: bytes, size: int = 1000) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def _bomb(answer: Response, size: int) -> Response:
    return Response(body=bomb(size), headers={**answer.headers, "Content-Encoding": "gzip"})


@lru_cache(maxsize=2)
def bomb(size: int) -> bytes:
    """A small gzip stream that decompresses to a very large body."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = b" " * (1 << 20)
    packed = [packer.compress(block[: min(len(block), size - at)]) for at in range(0, size, len(block))]
    return b"".join([*packed, packer.flush()])
