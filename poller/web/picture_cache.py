"""Remembers pictures within a bound of bytes, the least recently used go first, and refusals for a while. Pure."""

from collections import OrderedDict
from typing import Final

import msgspec

SIZE: Final = 32 * 2**20
LARGEST: Final = 4 * 2**20
"""Bytes. A larger picture would push out too many others, and is not kept."""
MOST_REFUSALS: Final = 4096


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A whole JPEG, and the tag by which a browser recognises it."""

    content: bytes
    tag: str


class NoPicture(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no picture: an HTTP status, and a sentence that holds no URL.

    A browser may ask again after `retry_after` seconds, None if that is of no use. The refusal is remembered for
    `lasts` seconds.
    """

    status: int
    text: str
    retry_after: int | None = None
    lasts: float = 0.0


class PictureCache:
    """Pictures by number, the least recently used go first; and refusals, until they end. Times are monotonic."""

    def __init__(self, size: int = SIZE, *, largest: int = LARGEST) -> None:
        self.bytes = 0
        self._size = size
        self._largest = largest
        self._pictures: OrderedDict[int, Picture] = OrderedDict()
        self._refusals: OrderedDict[int, tuple[float, NoPicture]] = OrderedDict()

    def get(self, number: int, now: float) -> Picture | NoPicture | None:
        """What is known about a number; None if nothing is."""
        picture = self._pictures.get(number)
        if picture is not None:
            self._pictures.move_to_end(number)
            return picture
        until, refusal = self._refusals.get(number, (now, None))
        return refusal if now < until else None

    def add(self, number: int, found: Picture | NoPicture, now: float) -> None:
        """Remember what was found for a number that was not known."""
        if isinstance(found, NoPicture):
            self._refusals[number] = (now + found.lasts, found)
            self._refusals.move_to_end(number)
            if len(self._refusals) > MOST_REFUSALS:
                self._refusals.popitem(last=False)
            return
        self._refusals.pop(number, None)
        if len(found.content) > self._largest:
            return
        self._pictures[number] = found
        self.bytes += len(found.content)
        while self.bytes > self._size:
            _, oldest = self._pictures.popitem(last=False)
            self.bytes -= len(oldest.content)
