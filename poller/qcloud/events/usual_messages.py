"""Reads the usual message of the queue by a template: quicker than `screenshot_event`, with the same result. Pure.

The usual message names its picture by the first grammar, in characters that neither JSON nor a URL writes in another
way, with or without the last member:

    {"stream_id":"S","pic_url":"S_PUSH_TASK_OFFSET_WIDTH_HEIGHT.jpg","create_time":EPOCH}

In the public form of its event, some parts come from the message, and the rest is the same for all such messages of an
account. The template is that rest. It is cut out of the public form that `screenshot_event` gives to a sample, and an
event is printed by joining the pieces with the parts of its own message.

Any other message is left to `screenshot_event`: escapes, other characters, other members, another order of members, a
member twice, a number that is a text or has leading zeros, a name of another grammar.

Nothing is remembered of a stream but the texts of the times at which its push and its task began. Of these, and of the
texts of sizes and of other times, at most as many are kept as the catalogue holds streams.
"""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from poller.core.catalogue import MOST
from poller.core.model import Event
from poller.qcloud.events.screenshots import KIND, screenshot_event
from poller.qcloud.wire.times import moment

Reader = Callable[[bytes | msgspec.Raw], Event | None]
"""Reads one message; None for a message that is not usual."""

# Each number has one spelling here, and lies within the limits of `parse_name`.
_EPOCH, _SIZE = "[1-3][0-9]{9}", "[1-9][0-9]{0,4}"
_STREAM = r'\{"stream_id":[ ]?"([\w.~-]+)",[ ]?"pic_url":[ ]?"'
_NAME = rf"([\w.~-]+_({_EPOCH}_(?:0|{_EPOCH}))_(0|[1-9][0-9]{{0,8}})_({_SIZE}_{_SIZE})\.jpg)"
_CREATED = rf'(?:,[ ]?"create_time":[ ]?({_EPOCH}))?'
_parts = re.compile(f'{_STREAM}{_NAME}"{_CREATED}\\}}'.encode()).fullmatch
"""Stream, name, epochs of push and task, offset, width and height, and `create_time` or None."""
_encode = msgspec.json.Encoder().encode


class _Sample(NamedTuple):
    """The parts of the sample message. No account's settings hold such a text."""

    stream: bytes = b"~stream~"
    push: int = 1_400_000_001
    task: int = 1_400_000_002
    offset: int = 333
    width: int = 4_444
    height: int = 5_555
    created: int = 1_400_000_006
    received: datetime = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)

    @property
    def name(self) -> bytes:
        numbers = self.push, self.task, self.offset, self.width, self.height
        return b"~name~_%d_%d_%d_%d_%d.jpg" % numbers

    @property
    def message(self) -> bytes:
        return b'{"stream_id":"%s","pic_url":"%s","create_time":%d}' % (self.stream, self.name, self.created)


class _Before(NamedTuple):
    """The pieces of the public form, each named by the part of the message that follows it, and the end."""

    id: bytes
    subject: bytes
    time: bytes
    stream: bytes
    url: bytes
    received: bytes
    name: bytes
    width: bytes
    height: bytes
    push: bytes
    task: bytes
    offset: bytes
    created: bytes
    message: bytes
    end: bytes


class UsualMessages:
    """Reads the usual messages of one account. `picture_base` is the beginning of its pictures' URLs."""

    def __init__(self, account: str, picture_base: str) -> None:
        self._account = account
        self._base = picture_base
        self._hash = hashlib.blake2b(f"{KIND}\0{account}\0".encode(), digest_size=16)
        self._before = self._cut(_Sample())
        remember = lru_cache(MOST)
        self._starts = remember(self._start)
        self._sizes = remember(self._size)
        self._moments = remember(_moment)

    def _cut(self, sample: _Sample) -> _Before:
        """The pieces of the sample's public form between the parts of the message."""
        event = screenshot_event(
            sample.message, account=self._account, picture_base=self._base, received_at=sample.received
        )
        push, task, created = (_encode(moment(at)) for at in (sample.push, sample.task, sample.created))
        width, height, offset = (b"%d" % number for number in (sample.width, sample.height, sample.offset))
        head = (event.id.encode(), sample.stream, created, sample.stream, sample.name)
        fields = (_encode(sample.received), sample.name, width, height, push, task, offset, created)
        rest, pieces = event.encoded, list[bytes]()
        for part in (*head, *fields, sample.message):
            piece, found, rest = rest.partition(part)
            assert found, "a part of the sample is missing in its public form"
            pieces.append(piece)
        return _Before._make([*pieces, rest])

    def _start(self, epochs: bytes) -> tuple[int, bytes]:
        """When a push began, and the text from that time to the piece before the offset."""
        push, task = map(int, epochs.split(b"_"))
        before = self._before
        return push, _encode(moment(push)) + before.task + _encode(moment(task)) + before.offset

    def _size(self, size: bytes) -> bytes:
        """The text from the piece before the width to the piece after the height."""
        width, height = size.split(b"_")
        before = self._before
        return before.width + width + before.height + height + before.push

    def reader(self, received_at: datetime) -> Reader:
        """A reader of the messages of one answer."""
        account, base, copy = self._account, self._base, self._hash.copy
        start_of, size_of, moment_of = self._starts, self._sizes, self._moments
        before = self._before
        before_id, before_subject, before_time, before_stream, before_url = before[:5]
        before_created, before_message, end = before.created, before.message, before.end
        received = before.received + _encode(received_at) + before.name

        def read(raw: bytes | msgspec.Raw) -> Event | None:
            if (found := _parts(raw)) is None:
                return None
            stream, name, epochs, offset, size, created = found.groups()
            push, start = start_of(epochs)
            if created is None:
                at, time = moment_of(push + int(offset))
                last = before_message
            else:
                at, time = moment_of(int(created))
                last = before_created + time + before_message
            digest = copy()
            digest.update(name)
            id = digest.hexdigest()
            # fmt: off
            texts = (
                before_id, id.encode(), before_subject, stream, before_time, time, before_stream, stream,
                before_url, name, received, name, size_of(size), start, offset, last, raw, end,
            )
            # fmt: on
            return Event(
                id=id,
                kind=KIND,
                account=account,
                stream_id=stream.decode(),
                occurred_at=at,
                received_at=received_at,
                url=base + name.decode(),
                encoded=b"".join(texts),
            )

        return read


def _moment(epoch: int) -> tuple[datetime, bytes]:
    """A time, and its text in the public form."""
    at = datetime.fromtimestamp(epoch, UTC)
    return at, _encode(at)
