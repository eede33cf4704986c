"""Checks that bytes are one whole JPEG picture of an allowed size. Pure; nothing is decoded.

The check walks the structure from start to end (ITU-T T.81, annex B), so that it finds a cut at any byte. The
last two bytes alone do not suffice: a picture that was cut inside a thumbnail or a table may end with the
right ones.
"""

import re
from typing import Final

from fastcrc import crc64

from poller.core.errors import Rejected, TryLater

LONGEST_SIDE: Final = 16384
MOST_SEGMENTS: Final = 2000
"""The most headers, scans and fill bytes together. A real picture has 10 to 100."""

_SOI: Final = b"\xff\xd8\xff"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_EOI: Final = 0xD9
_SOS: Final = 0xDA
_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def check_picture(body: bytes, *, max_pixels: int) -> tuple[int, int]:
    """The width and height of a whole JPEG.

    Raises `TryLater` if the bytes are not a whole JPEG (another answer may be), and `Rejected` if it is too
    large.
    """
    if not body.startswith(_SOI):
        raise TryLater(f"not a JPEG picture: {_looks_like(body)}")
    width, height = _walk(body)
    if max(width, height) > LONGEST_SIDE or width * height > max_pixels:
        raise Rejected(f"a picture of {width}x{height} is larger than allowed")
    return width, height


def check_checksum(body: bytes, checksum: str | None) -> None:
    """Compare with COS's `x-cos-hash-crc64ecma` (CRC-64/XZ in decimal); raises `TryLater`. None passes."""
    if checksum is not None and str(crc64.xz(body)) != checksum.strip():
        raise TryLater("the checksum does not fit the bytes")


def _walk(body: bytes) -> tuple[int, int]:
    frame: tuple[int, int] | None = None
    scanned = False
    at = 2
    for _ in range(MOST_SEGMENTS):
        marker, begin = body[at + 1 : at + 2], at + 2
        if body[at : at + 1] != b"\xff" or not marker:
            break
        kind = marker[0]
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if kind == _EOI:
            return _check_end(body, begin, frame if scanned else None)
        end = begin if kind in _BARE else begin + _length(body, begin)
        if kind in _FRAMES:
            frame = _frame(body, begin, end, frame)
        if kind == _SOS:
            scanned, end = True, _scan_end(body, end)
        at = end
    raise TryLater("a cut or broken JPEG picture")


def _length(body: bytes, at: int) -> int:
    length = int.from_bytes(body[at : at + 2], "big")
    if length < 2 or at + length > len(body):
        raise TryLater("a cut or broken JPEG picture: a segment is longer than the rest")
    return length


def _frame(body: bytes, begin: int, end: int, before: tuple[int, int] | None) -> tuple[int, int]:
    if before is not None or end - begin < 8:
        raise TryLater("a broken JPEG picture: its frame header is short or not the only one")
    height = int.from_bytes(body[begin + 3 : begin + 5], "big")
    width = int.from_bytes(body[begin + 5 : begin + 7], "big")
    if not width or not height:
        raise TryLater("a JPEG picture without width or height")
    return width, height


def _scan_end(body: bytes, begin: int) -> int:
    found = _NEXT_MARKER.search(body, begin)
    if found is None:
        raise TryLater("a cut JPEG picture: its end is missing")
    return found.start()


def _check_end(body: bytes, at: int, frame: tuple[int, int] | None) -> tuple[int, int]:
    if frame is None:
        raise TryLater("a broken JPEG picture: it ends before its first scan")
    # cameras and some stores pad with zeros; any other byte after the end is an error
    if body.count(0, at) != len(body) - at:
        raise TryLater("something else follows the end of the JPEG picture")
    return frame


def _looks_like(body: bytes) -> str:
    if not body:
        return "nothing came"
    if body.lstrip()[:1] == b"<":
        return "HTML or XML came"
    return "something else came"
