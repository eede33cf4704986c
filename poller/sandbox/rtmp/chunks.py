"""Chunks, the layer below messages: bytes in, messages out, and back. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator

from poller.sandbox.rtmp.messages import ABORT, CHUNK_SIZE, Malformed, Message

FIRST_SIZE = 128
"""Bytes a chunk carries until its sender says otherwise."""
REPLY_SIZE = 60_000
"""Bytes our chunks carry. ffmpeg takes the server's size for its own too, and makes two system calls a chunk."""
MAX_STREAMS = 64
"""Chunk streams of a connection; real pushers use two to five."""

_EXTENDED = 0xFFFFFF
_MOMENTS = 1 << 32
_HEADER = (11, 7, 3, 0)
"""Bytes of the message header, by the chunk's form."""
_RUN = 4
"""From how many chunks on it pays to take them together."""


class _Stream:
    """One chunk stream: the values of its last header, and its unfinished message."""

    __slots__ = ("body", "delta", "extended", "kind", "left", "length", "message_stream", "timestamp")

    def __init__(self) -> None:
        self.timestamp = self.delta = self.length = self.kind = self.message_stream = 0
        self.extended = b""
        """The extended timestamp field, where the header had one."""
        self.left = 0
        """Bytes of the message that are still to come; 0 between messages."""
        self.body = bytearray()


class ChunkReader:
    """Gathers one peer's chunks into messages.

    A chunk is taken only when it is there as a whole. Chunk sizes and aborts are obeyed here and not passed on.
    Holds at most three times `limit` bytes, beside what is fed at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes a message may have, and half of what all unfinished ones may hold. May be changed at any time."""
        self._size = FIRST_SIZE
        self._streams: dict[int, _Stream] = {}
        self._buffer = bytearray()
        self._at = 0
        """The place in the buffer up to which all is taken."""
        self._needed = 1
        """Bytes the buffer must hold before the next chunk can be there; 1 where a repetition leaves it open."""
        self._unfinished = 0

    @property
    def held(self) -> int:
        """The number of bytes of unfinished messages."""
        return len(self._buffer) + self._unfinished

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that these bytes complete, in order. Exhaust the iterator before the next `feed`.

        Raises Malformed, after which nothing more may be fed. A message is yielded before the bytes behind it are
        looked at, so that `limit` may be changed in between.
        """
        self._buffer += data
        if len(self._buffer) < self._needed:
            return
        self._needed = 1
        while (stream := self._chunk()) is not None:
            if stream.left:
                continue
            message = self._whole(stream)
            if message.kind == CHUNK_SIZE:
                self._resize(message.body)
            elif message.kind == ABORT:
                self._abort(message.body)
            else:
                yield message
        del self._buffer[: self._at]
        self._at = 0

    def _chunk(self) -> _Stream | None:
        """Reads the next chunk, or several chunks of one message; None while a chunk is incomplete."""
        buffer, at = self._buffer, self._at
        if at >= len(buffer):
            return None
        first = buffer[at]
        number, place = first & 63, at + 1
        if number < 2:  # the number is in the next one or two bytes
            place += number + 1
            if place > len(buffer):
                return None
            number = 64 + int.from_bytes(buffer[at + 1 : place], "little")
        stream = self._streams.get(number) or self._open(number, first >> 6)
        if not stream.left:
            return self._begin_message(stream, first >> 6, place)
        if first < 0xC0:
            raise Malformed("a new header inside a message")
        if stream.extended:
            place = self._behind_repeated(stream.extended, place)
        elif stream.left >= _RUN * self._size and number == first & 63 and self._run(stream, first):
            return stream
        return self._take_payload(stream, place)

    def _open(self, number: int, form: int) -> _Stream:
        # librtmp opens chunk streams also with form 1, counting from timestamp 0.
        if form > 1:
            raise Malformed("a chunk stream without a first header")
        if len(self._streams) >= MAX_STREAMS:
            raise Malformed(f"more than {MAX_STREAMS} chunk streams")
        return self._streams.setdefault(number, _Stream())

    def _begin_message(self, stream: _Stream, form: int, place: int) -> _Stream | None:
        """Reads the first chunk of a message. The state changes only when the chunk is complete."""
        buffer = self._buffer
        header = buffer[place : place + _HEADER[form]]
        place += _HEADER[form]
        if len(header) < _HEADER[form]:
            return None
        delta, extended, place = self._moment(stream, form, header, place)
        length = int.from_bytes(header[3:6], "big") if form < 2 else stream.length
        if length > self.limit:
            raise Malformed(f"a message of {length} bytes")
        end = place + min(length, self._size)
        if end > len(buffer):
            self._needed = end - self._at if form < 3 else 1
            return None
        # A form 3 repeats the last delta, and form 0's timestamp counts as one (specification, 5.3.1.2.4).
        stream.timestamp = delta if form == 0 else (stream.timestamp + delta) % _MOMENTS
        stream.delta, stream.extended, stream.length, stream.left = delta, extended, length, length
        if form < 2:
            stream.kind = header[6]
        if form == 0:
            stream.message_stream = int.from_bytes(header[7:], "little")
        return self._take_payload(stream, place)

    def _moment(self, stream: _Stream, form: int, header: bytearray, place: int) -> tuple[int, bytes, int]:
        """The header's timestamp or delta, its extended field if it has one, and the place behind that."""
        if form == 3:
            again = stream.extended
            return stream.delta, again, self._behind_repeated(again, place) if again else place
        delta = int.from_bytes(header[:3], "big")
        if delta != _EXTENDED:
            return delta, b"", place
        extended = bytes(self._buffer[place : place + 4])
        return int.from_bytes(extended, "big"), extended, place + 4

    def _behind_repeated(self, extended: bytes, place: int) -> int:
        """The place behind an extended timestamp that a form 3 repeats, as ffmpeg does and older librtmp does not.

        Too few bytes to tell: a place behind them.
        """
        seen = self._buffer[place : place + 4]
        return place + 4 if extended.startswith(seen) else place

    def _take_payload(self, stream: _Stream, place: int) -> _Stream | None:
        """Reads the payload of a chunk, if it is complete."""
        count = min(stream.left, self._size)
        if place + count > len(self._buffer):
            self._needed = 1 if stream.extended else place + count - self._at
            return None
        stream.body += memoryview(self._buffer)[place : place + count]
        self._count(stream, count)
        self._at = place + count
        return stream

    def _run(self, stream: _Stream, first: int) -> bool:
        """Takes full chunks of one message that lie one behind the other; False if there are too few."""
        stride = self._size + 1
        count = min(stream.left // self._size, (len(self._buffer) - self._at) // stride)
        if count < _RUN:
            return False
        run = self._buffer[self._at : self._at + count * stride]
        heads = run[::stride]
        same = count - len(heads.lstrip(bytes([first])))
        if same < _RUN:
            return False
        del run[same * stride :]
        del run[::stride]
        stream.body += run
        self._count(stream, len(run))
        self._at += same * stride
        return True

    def _count(self, stream: _Stream, count: int) -> None:
        stream.left -= count
        self._unfinished += count
        if self._unfinished > 2 * self.limit:
            raise Malformed(f"unfinished messages of more than {2 * self.limit} bytes")

    def _whole(self, stream: _Stream) -> Message:
        body = bytes(stream.body)
        stream.body.clear()
        self._unfinished -= len(body)
        return Message(stream.kind, stream.timestamp, stream.message_stream, body)

    def _resize(self, body: bytes) -> None:
        size = int.from_bytes(body[:4], "big")
        if len(body) < 4 or not 0 < size < 1 << 31:
            raise Malformed("a chunk size out of range")
        self._size = min(size, 0xFFFFFF)

    def _abort(self, body: bytes) -> None:
        stream = self._streams.get(int.from_bytes(body[:4], "big"))
        if len(body) < 4:
            raise Malformed("an abort that names no chunk stream")
        if stream is not None:
            self._unfinished -= len(stream.body)
            stream.body.clear()
            stream.left = 0


def split_into_chunks(channel: int, kind: int, stream: int, body: bytes) -> bytes:
    """A message as chunks of REPLY_SIZE with a full header, on a chunk stream from 2 to 63, at timestamp 0."""
    length = len(body).to_bytes(3, "big")
    header = bytes([channel, 0, 0, 0]) + length + bytes([kind]) + stream.to_bytes(4, "little")
    parts = (body[at : at + REPLY_SIZE] for at in range(0, len(body), REPLY_SIZE))
    return header + bytes([0xC0 | channel]).join(parts)
