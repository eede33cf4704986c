"""AMF0, the form of RTMP's commands (Adobe's AMF 0 specification, 2007)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TypeAlias

from poller.sandbox.rtmp.messages import Malformed

Value: TypeAlias = "bool | float | str | list[Value] | dict[str, Value] | None"

MAX_DEPTH = 8
MAX_VALUES = 1000


class _Type:
    """A value's first byte."""

    NUMBER, BOOLEAN, STRING, OBJECT, NULL, UNDEFINED, REFERENCE = 0, 1, 2, 3, 5, 6, 7
    ECMA_ARRAY, END, STRICT_ARRAY, DATE, LONG_STRING = 8, 9, 10, 11, 12
    UNSUPPORTED, XML, TYPED_OBJECT = 13, 15, 16


def decode(data: bytes) -> list[Value]:
    """Every value of a command.

    Undefined, unsupported and references become None, dates and XML their number and text, typed objects plain
    ones; text that is not UTF-8 keeps replacement characters. Raises Malformed: cut short, deeper than MAX_DEPTH,
    more than MAX_VALUES values, or a type that AMF0 does not have.
    """
    reading, values = _Reading(data), list[Value]()
    while reading.at < len(data):
        values.append(reading.value(0))
    return values


def encode(*values: object) -> bytes:
    """The values one after the other: None, bool, int and float, str, and mappings of these."""
    return b"".join(_encoded(value) for value in values)


def _encoded(value: object) -> bytes:
    match value:
        case None:
            return bytes([_Type.NULL])
        case bool():
            return bytes([_Type.BOOLEAN, value])
        case int() | float():
            return struct.pack(">Bd", _Type.NUMBER, value)
        case str():
            text = value.encode()
            return (
                struct.pack(">BI", _Type.LONG_STRING, len(text)) + text
                if len(text) > 0xFFFF
                else _text(text, _Type.STRING)
            )
        case Mapping():
            pairs = (_text(str(name).encode()) + _encoded(item) for name, item in value.items())
            return b"".join((bytes([_Type.OBJECT]), *pairs, _text(b""), bytes([_Type.END])))
    raise TypeError(f"{type(value).__name__} has no form in AMF0")


def _text(text: bytes, *marker: int) -> bytes:
    return bytes(marker) + struct.pack(">H", len(text)) + text


class _Reading:
    """A place in the bytes, and how many values may still come."""

    def __init__(self, data: bytes) -> None:
        self.at = 0
        self._data = data
        self._left = MAX_VALUES

    def value(self, depth: int) -> Value:
        self._left -= 1
        if self._left < 0:
            raise Malformed(f"AMF of more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise Malformed(f"AMF nested deeper than {MAX_DEPTH}")
        marker = self._number(1)
        if marker in (_Type.NULL, _Type.UNDEFINED, _Type.UNSUPPORTED):
            return None
        if marker in (_Type.OBJECT, _Type.ECMA_ARRAY, _Type.TYPED_OBJECT, _Type.STRICT_ARRAY):
            return self._collection(marker, depth + 1)
        return self._scalar(marker)

    def _scalar(self, marker: int) -> Value:
        match marker:
            case _Type.NUMBER:
                return self._double()
            case _Type.BOOLEAN:
                return self._number(1) != 0
            case _Type.STRING:
                return self._string(2)
            case _Type.REFERENCE:
                self._take(2)
                return None
            case _Type.DATE:
                moment = self._double()
                self._take(2)
                return moment
            case _Type.LONG_STRING | _Type.XML:
                return self._string(4)
        raise Malformed(f"AMF type {marker}")

    def _collection(self, marker: int, depth: int) -> Value:
        if marker == _Type.STRICT_ARRAY:
            return [self.value(depth) for _ in range(self._number(4))]
        if marker == _Type.ECMA_ARRAY:
            self._take(4)  # a count that writers get wrong; the end marker counts
        if marker == _Type.TYPED_OBJECT:
            self._string(2)
        found: dict[str, Value] = {}
        while True:
            name = self._string(2)
            if not name and self._data[self.at : self.at + 1] == bytes([_Type.END]):
                self.at += 1
                return found
            found[name] = self.value(depth)

    def _take(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self._data):
            raise Malformed("AMF cut short")
        return self._data[self.at - count : self.at]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _double(self) -> float:
        (value,) = struct.unpack(">d", self._take(8))
        return float(value)

    def _string(self, size: int) -> str:
        return self._take(self._number(size)).decode(errors="replace")
