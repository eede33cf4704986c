"""Converts the bytes of an answer to UTF-8: bounded decompression, byte order marks, UTF-16. Pure."""

import zlib

import msgspec

LARGEST = 8 * 1024 * 1024
"""The largest decompressed body, in bytes. A page of 100 messages has some 20 kB."""
_SLICE = 64
_MORE_LAYERS = 2
"""The number of nested compressions that are undone: each proxy on the way may compress a compressed body again."""
_GZIP = b"\x1f\x8b"
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A body as UTF-8 bytes (not necessarily valid); `whole` is false when decompression stopped early.

    `opened` is false when the encoding is unknown to us and the bytes are still as they came.
    """

    text: bytes
    whole: bool = True
    opened: bool = True


def open_body(body: bytes, encoding: str) -> Opened:
    """Undo Content-Encoding (or a gzip nobody declared) and UTF-16; salvage what a cut stream gives.

    The bytes say how they are packed, and how often: a header that names another coding is not believed.
    """
    opened = _unpack(body, encoding)
    for _ in range(_MORE_LAYERS):
        if not opened.opened or opened.text[:2] != _GZIP:
            break
        outer, opened = opened, _unpack(opened.text, encoding)
        opened = msgspec.structs.replace(opened, whole=opened.whole and outer.whole)
    return msgspec.structs.replace(opened, text=as_utf8(opened.text)) if opened.opened else opened


def _unpack(body: bytes, encoding: str) -> Opened:
    """Undo one layer of compression. The text is not UTF-8 yet."""
    if body[:2] == _GZIP:
        return _inflate(body, zlib.MAX_WBITS | 16)
    codings = {coding.strip() for coding in encoding.split(",")} - {"", "identity"}
    if not codings.isdisjoint(_PACKED) and body[:1] not in (b"{", b"[", b"<"):
        zlib_header = len(body) >= 2 and int.from_bytes(body[:2], "big") % 31 == 0 and body[0] & 15 == 8
        inflated = _inflate(body, zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
        if inflated.whole or "deflate" in codings:
            return inflated
    return Opened(text=body, opened=codings <= _PACKED or b"{" in as_utf8(body))


def as_utf8(text: bytes) -> bytes:
    """Drop a byte order mark; turn UTF-16, marked or recognised by its zero bytes, into UTF-8.

    A lone surrogate becomes invalid UTF-8, so that only the message that holds it suffers.
    """
    if text[:3] == b"\xef\xbb\xbf":
        return text[3:]
    if text[:2] == b"\xff\xfe":
        return _from_utf16(text[2:], "utf-16-le")
    if text[:2] == b"\xfe\xff":
        return _from_utf16(text[2:], "utf-16-be")
    if text[1:2] == text[3:4] == b"\0" and text[:1] != b"\0":
        return _from_utf16(text, "utf-16-le")
    if text[:1] == text[2:3] == b"\0" and text[1:2] not in (b"\0", b""):
        return _from_utf16(text, "utf-16-be")
    return text


def _from_utf16(text: bytes, codec: str) -> bytes:
    text = text[: len(text) & ~1]
    try:
        return text.decode(codec, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return text.decode(codec, "replace").encode()


def _inflate(body: bytes, window: int) -> Opened:
    """Decompress all members of a stream: gzip allows several in a row (RFC 1952, 2.2)."""
    text = bytearray()
    rest, used = body, _member(body, window, text)
    while used and rest[used : used + 2] == _GZIP:
        rest = rest[used:]
        used = _member(rest, window, text)
    if not text and not used:
        return Opened(text=body, whole=False, opened=False)
    return Opened(text=bytes(text), whole=bool(used))


def _member(body: bytes, window: int, text: bytearray) -> int:
    """Append the contents of one member to the text. Returns the member's size, or 0 if its end was not reached."""
    engine = zlib.decompressobj(window)
    for start in range(0, len(body), _SLICE):
        piece, room = body[start : start + _SLICE], LARGEST - len(text)
        if room <= 0:
            return 0
        try:
            text += engine.decompress(piece, room)
        except zlib.error:
            text += _before_the_error(body[:start], piece, window)[:room]
            return 0
        if engine.eof:
            return start + len(piece) - len(engine.unused_data)
    return 0


def _before_the_error(before: bytes, piece: bytes, window: int) -> bytes:
    """Decompress a piece byte by byte up to an error. In one call, zlib would return nothing before the error."""
    engine, text = zlib.decompressobj(window), bytearray()
    engine.decompress(before)
    for at in range(len(piece)):
        try:
            text += engine.decompress(piece[at : at + 1])
        except zlib.error:
            break
    return bytes(text)
