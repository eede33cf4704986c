"""Forms of HTTP answers that a platform, or something before it, may send: each holds the same JSON."""

import gzip
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple


class Form(NamedTuple):
    """How a JSON body is answered, and whether the answer is known to be whole.

    `ends` says whether the server closes the connection afterwards.
    """

    answer: Callable[[bytes], bytes]
    whole: bool = True
    ends: bool = True
    odd: str = ""


def headed(
    *lines: str | bytes, status: bytes = b"HTTP/1.1 200 OK", end: bytes = b"\r\n"
) -> Callable[[bytes], bytes]:
    """A head of these lines, with the right length, and the body."""

    def answer(body: bytes) -> bytes:
        own = [line if isinstance(line, bytes) else line.encode() for line in lines]
        return end.join([status, *own, b"Content-Length: %d" % len(body), b"", b""]) + body

    return answer


def framed(*lines: str, after: bytes = b"", size: Callable[[int], object] = int) -> Callable[[bytes], bytes]:
    """A head of these lines alone, in which {} is the length, and the body."""

    def answer(body: bytes) -> bytes:
        head = ["HTTP/1.1 200 OK", *lines, "", ""]
        return "\r\n".join(head).replace("{}", str(size(len(body)))).encode() + body + after

    return answer


def chunks(
    *lines: str,
    size: str = "{:x}\r\n",
    last: bytes = b"0\r\n\r\n",
    end: bytes = b"\r\n",
    step: int = 700,
    coding: str = "Transfer-Encoding: chunked",
) -> Callable[[bytes], bytes]:
    """A chunked body."""

    def answer(body: bytes) -> bytes:
        head = "\r\n".join(["HTTP/1.1 200 OK", coding, *lines, "", ""]).encode()
        pieces = [body[at : at + step] for at in range(0, len(body), step)]
        return head + b"".join(size.format(len(piece)).encode() + piece + end for piece in pieces) + last

    return answer


def raw(before: bytes = b"", after: bytes = b"") -> Callable[[bytes], bytes]:
    """Bytes around the body, and nothing else."""
    return lambda body: before + body + after


def packed(answer: Callable[[bytes], bytes], *by: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """The same with a compressed body; `by` are the compressors in their order, gzip once unless others are named."""

    def answered(body: bytes) -> bytes:
        for compress in by or (gzip.compress,):
            body = compress(body)
        return answer(body)

    return answered


def deflated(body: bytes) -> bytes:
    """Deflate as some servers send it: without zlib's head and sum."""
    return zlib.compress(body, wbits=-zlib.MAX_WBITS)


def in_members(body: bytes) -> bytes:
    """Several gzip files in a row, as boxes that pack block by block send them."""
    return b"".join(gzip.compress(body[at : at + 2_000]) for at in range(0, len(body), 2_000))


def with_a_wrong_sum(body: bytes) -> bytes:
    """Gzip whose last eight bytes, its sum and its size, are others."""
    return gzip.compress(body)[:-8] + b"\0" * 8


_LONG: Final = "X-Node: " + "x" * 9_000
FORMS: Final[dict[str, Form]] = {
    # ---- ordinary
    "as it should be": Form(headed()),
    "kept alive": Form(headed("Connection: keep-alive"), ends=False),
    "HTTP/1.0 until the close": Form(raw(b"HTTP/1.0 200 OK\r\n\r\n")),
    "chunked": Form(chunks(), ends=False),
    "gzip": Form(packed(headed("Content-Encoding: gzip"))),
    # ---- status lines
    "no reason phrase": Form(headed(status=b"HTTP/1.1 200")),
    "no reason phrase, but its space": Form(headed(status=b"HTTP/1.1 200 ")),
    "a reason in Chinese": Form(headed(status="HTTP/1.1 200 好".encode())),
    "a reason with a control character": Form(
        headed(status=b"HTTP/1.1 200 O\x01K"), odd="a control character"
    ),
    "HTTP/1.0": Form(headed(status=b"HTTP/1.0 200 OK")),
    "HTTP/1.9": Form(headed(status=b"HTTP/1.9 200 OK")),
    "HTTP/2": Form(headed(status=b"HTTP/2 200"), odd="a garbled status line"),
    "no version": Form(headed(status=b"HTTP 200 OK"), odd="a garbled status line"),
    "small letters": Form(headed(status=b"http/1.1 200 ok"), odd="a garbled status line"),
    "ICY": Form(headed(status=b"ICY 200 OK"), odd="a garbled status line"),
    "a status of four digits": Form(headed(status=b"HTTP/1.1 2000 OK"), odd="a garbled status line"),
    "a status without digits": Form(headed(status=b"HTTP/1.1 OK"), odd="a garbled status line"),
    "noise for a status line": Form(headed(status=b"\x01\x02\x03"), odd="a garbled status line"),
    "no status line": Form(
        lambda body: b"Content-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        odd="no status line",
    ),
    "blank lines before the head": Form(
        headed(status=b"\r\n\r\nHTTP/1.1 200 OK"), odd="a blank line before the head"
    ),
    "two spaces": Form(headed(status=b"HTTP/1.1  200  OK")),
    "no head at all": Form(raw(), odd="no head"),
    "noise and then the body": Form(raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), whole=False, odd="no head"),
    "a head without its end": Form(
        raw(b"HTTP/1.1 200 OK\r\nX-Node: 1\r\n"), whole=False, odd="a head without end"
    ),
    # ---- headers
    "a header of 9,000 bytes": Form(headed(_LONG), odd="a header of 9008 bytes"),
    "a header of 100,000 bytes": Form(headed("X-Node: " + "x" * 100_000), odd="a header of 100008 bytes"),
    "5,000 headers": Form(headed(*[f"X-{n}: {n}" for n in range(5_000)]), odd="5001 headers"),
    "a space before the colon": Form(headed("X-Node : 1"), odd="a space before a header's colon"),
    "a space before the length's colon": Form(
        framed("Content-Length : {}"), odd="a space before a header's colon", ends=False
    ),
    "a header without a colon": Form(headed("X-Node"), odd="a header without a colon"),
    "a folded header": Form(headed("X-Node: a\r\n b\r\n\tc"), odd="a folded header"),
    "a folded length": Form(framed("Content-Length:\r\n {}"), odd="a folded header", ends=False),
    "a space before the first header": Form(headed(" X-Node: 1"), odd="a folded header"),
    "NUL in a header": Form(headed("X-Node: a\0b"), odd="a control character"),
    "a bare CR in a header": Form(headed("X-Node: a\rb"), odd="a control character"),
    "an escape in a header": Form(headed("X-Node: \x1b[31m"), odd="a control character"),
    "latin-1 in a header": Form(headed(b"X-Node: caf\xe9")),
    "UTF-8 in a header": Form(headed("X-Node: 节点")),
    "UTF-8 in a header's name": Form(headed("节点: 1"), odd="a header's name that is none"),
    "a header without a name": Form(headed(": 1"), odd="a header's name that is none"),
    "a header's name with a bracket": Form(headed("X(Node): 1"), odd="a header's name that is none"),
    "bare LF": Form(headed("X-Node: 1", end=b"\n"), odd="a line end without CR"),
    "bare LF in one line": Form(headed("X-Node: 1\nX-Rack: 2"), odd="a line end without CR"),
    # ---- lengths
    "the length twice": Form(
        framed("Content-Length: {}", "Content-Length: {}"), odd="Content-Length twice", ends=False
    ),
    "the length twice in one header": Form(
        framed("Content-Length: {}, {}"), odd="Content-Length twice", ends=False
    ),
    "lengths that conflict": Form(
        framed("Content-Length: 5", "Content-Length: {}"), whole=False, odd="lengths that conflict"
    ),
    "lengths that conflict in one header": Form(
        framed("Content-Length: {}, 7"), whole=False, odd="lengths that conflict"
    ),
    "a length beside one that is none": Form(
        framed("Content-Length: {}", "Content-Length: many"), whole=False, odd="lengths that conflict"
    ),
    "a length with a sign": Form(framed("Content-Length: +{}"), odd="a Content-Length that is none"),
    "a length between spaces": Form(framed("Content-Length:   {}   "), ends=False),
    "a length with zeros before it": Form(framed("Content-Length: 000{}"), ends=False),
    "a negative length": Form(framed("Content-Length: -{}"), odd="a Content-Length that is none"),
    "a length in words": Form(framed("Content-Length: many"), odd="a Content-Length that is none"),
    "no length in its header": Form(framed("Content-Length:"), odd="a Content-Length that is none"),
    "a length in hexadecimal": Form(
        framed("Content-Length: {}", size=hex), odd="a Content-Length that is none"
    ),
    "a length of 30 digits": Form(framed("Content-Length: " + "9" * 30), odd="a Content-Length that is none"),
    "a length that is too large": Form(framed("Content-Length: 99999999"), whole=False),
    "a length that is too small": Form(framed("Content-Length: 1000"), odd="bytes after the end", ends=False),
    "the length nought": Form(framed("Content-Length: 0"), odd="bytes after the end", ends=False),
    "until the close": Form(framed()),
    "until a close that never comes": Form(framed(), ends=False),
    "a line end after the body": Form(framed("Content-Length: {}", after=b"\r\n"), ends=False),
    "another answer behind": Form(
        framed("Content-Length: {}", after=b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        whole=False,
        odd="bytes after the end",
    ),
    # ---- transfer codings
    "chunked beside a length": Form(
        chunks("Content-Length: 5"), odd="Content-Length beside Transfer-Encoding"
    ),
    "Chunked": Form(chunks(coding="Transfer-Encoding: Chunked"), ends=False),
    "chunked twice": Form(chunks(coding="Transfer-Encoding: chunked, chunked"), odd="chunked twice"),
    "identity": Form(headed("Transfer-Encoding: identity"), odd="Transfer-Encoding: identity", ends=False),
    "gzip beneath chunked": Form(
        packed(chunks(coding="Transfer-Encoding: gzip, chunked")), odd="a transfer coding beneath chunked"
    ),
    "an unknown coding": Form(framed("Transfer-Encoding: brick"), odd="an unknown Transfer-Encoding"),
    "chunks that are none": Form(
        framed("Transfer-Encoding: chunked"), odd="a chunk size that is none", ends=False
    ),
    "chunks that no header announced": Form(
        chunks(coding="Transfer Encoding: chunked"), odd="chunks that no header announced"
    ),
    "chunks after an unknown coding": Form(
        chunks(coding="Transfer-Encoding: chunked, brick"), odd="an unknown Transfer-Encoding"
    ),
    # ---- chunks
    "chunks with extensions": Form(chunks(size='{:x};name="value"\r\n'), ends=False),
    "chunk sizes in capitals": Form(chunks(size="{:X}\r\n"), ends=False),
    "chunk sizes with zeros before them": Form(chunks(size="000{:x}\r\n"), ends=False),
    "chunk sizes with spaces": Form(chunks(size=" {:x}  \r\n"), ends=False),
    "chunks with bare LF": Form(
        chunks(size="{:x}\n", end=b"\n", last=b"0\n\n"), odd="a line end without CR", ends=False
    ),
    "chunks of one byte": Form(chunks(step=1), ends=False),
    "no last chunk": Form(chunks(last=b""), whole=False),
    "a last chunk without its blank line": Form(chunks(last=b"0\r\n"), whole=False),
    "trailers": Form(chunks(last=b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"), ends=False),
    "chunk sizes that are too small": Form(
        chunks(size="5\r\n", step=10**6), whole=False, odd="a chunk that is longer than its size"
    ),
    "chunk sizes that are too large": Form(chunks(size="ffffff\r\n", step=10**6), whole=False),
    "chunk sizes in words": Form(
        chunks(size="many\r\n", step=10**6), whole=False, odd="a chunk size that is none"
    ),
    "chunk sizes with 0x": Form(chunks(size="0x{:x}\r\n"), odd="a chunk size in other form"),
    "chunk sizes with twenty zeros": Form(chunks(size="0" * 20 + "{:x}\r\n"), ends=False),
    "chunk sizes with CR CR LF": Form(chunks(size="{:x}\r\r\n"), odd="a chunk size in other form"),
    # ---- compressed, with a head that is right or wrong about it
    "deflate": Form(packed(headed("Content-Encoding: deflate"), zlib.compress)),
    "deflate without zlib's head": Form(packed(headed("Content-Encoding: deflate"), deflated)),
    "deflate that is said to be gzip": Form(packed(headed("Content-Encoding: gzip"), zlib.compress)),
    "bare deflate that is said to be gzip": Form(packed(headed("Content-Encoding: gzip"), deflated)),
    "identity, deflate": Form(packed(headed("Content-Encoding: identity, deflate"), deflated)),
    "gzip in several members": Form(packed(headed("Content-Encoding: gzip"), in_members)),
    "gzip twice": Form(packed(headed("Content-Encoding: gzip, gzip"), gzip.compress, gzip.compress)),
    "gzip twice, in two headers": Form(
        packed(headed("Content-Encoding: gzip", "Content-Encoding: gzip"), gzip.compress, gzip.compress)
    ),
    "gzip once that is said to be twice": Form(packed(headed("Content-Encoding: gzip, gzip"))),
    "gzip that nobody said": Form(packed(headed())),
    "an unknown coding, and plain": Form(headed("Content-Encoding: brick")),
    "NUL before the head": Form(headed(status=b"\0HTTP/1.1 200 OK"), whole=False, odd="no head"),
    # ---- bodies where none belong
    "204 with a body": Form(headed(status=b"HTTP/1.1 204 No Content"), odd="a length where no body is"),
    "304 with a body": Form(headed(status=b"HTTP/1.1 304 Not Modified"), odd="bytes after the end"),
    # ---- informational answers
    "100 and 103 before the answer": Form(
        headed(
            status=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK"
        )
    ),
    "100 and then the body": Form(raw(b"HTTP/1.1 100 Continue\r\n\r\n"), odd="no head"),
    # ---- other statuses
    "403": Form(headed(status=b"HTTP/1.1 403 Forbidden")),
    "502": Form(headed(status=b"HTTP/1.1 502 Bad Gateway")),
    "a redirect": Form(headed("Location: /elsewhere", status=b"HTTP/1.1 302 Found")),
}
