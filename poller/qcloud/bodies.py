"""From an answer's bytes to UTF-8 bytes: decompression within bounds, byte order marks, UTF-16. Pure."""

import zlib

import msgspec

LARGEST = 8 * 1024 * 1024
"""Bytes that a compressed body may become; a page of 100 messages has some 20 kB."""
_SLICE = 64


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A body as UTF-8 bytes (not necessarily valid); `whole` is false when decompression stopped early.

    `opened` is false when the encoding is unknown to us and the bytes are still as they came.
    """

    text: bytes
    whole: bool = True
    opened: bool = True


def open_body(body: bytes, encoding: str) -> Opened:
    """Undo Content-Encoding (or a gzip nobody declared) and UTF-16; salvage what a cut stream gives."""
    if body[:2] == b"\x1f\x8b":
        return _inflated(body, zlib.MAX_WBITS | 16)
    if encoding == "deflate" and body[:1] not in (b"{", b"[", b"<"):
        zlib_header = len(body) >= 2 and int.from_bytes(body[:2], "big") % 31 == 0 and body[0] & 15 == 8
        return _inflated(body, zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
    text = as_utf8(body)
    strange = encoding not in ("", "identity", "gzip", "x-gzip", "deflate")
    return Opened(text=text, opened=not (strange and b"{" not in text))


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
    if text[1:2] == b"\0" and text[:1] != b"\0":
        return _from_utf16(text, "utf-16-le")
    if text[:1] == b"\0" and text[1:2] not in (b"\0", b""):
        return _from_utf16(text, "utf-16-be")
    return text


def _from_utf16(text: bytes, codec: str) -> bytes:
    text = text[: len(text) & ~1]
    try:
        return text.decode(codec, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return text.decode(codec, "replace").encode()


def _inflated(body: bytes, window: int) -> Opened:
    # Small slices: an error loses only the slice in which it is found.
    engine = zlib.decompressobj(window)
    text = bytearray()
    for start in range(0, len(body), _SLICE):
        room = LARGEST - len(text)
        if engine.eof or room <= 0:
            break
        try:
            text += engine.decompress(body[start : start + _SLICE], room)
        except zlib.error:
            break
    if not text and not engine.eof:
        return Opened(text=body, whole=False, opened=False)
    return Opened(text=as_utf8(bytes(text)), whole=engine.eof)
