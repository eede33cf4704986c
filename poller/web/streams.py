"""Finds the streams that changed since the last look, and makes their rows. Pure.

The catalogue replaces the record of a stream at each change and never alters one. So a comparison of references finds
every change: 100,000 streams take a few milliseconds.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import compress, count
from operator import is_not

import msgspec

from poller.core.catalogue import Key, Stream

Numbered = tuple[int, Stream]
"""A stream with its ordinal."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """The streams with a new record, the streams that are new, and the ordinals of those that are forgotten."""

    changed: Sequence[Numbered] = ()
    new: Sequence[Numbered] = ()
    gone: Sequence[int] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.new or self.gone)


class Roster:
    """The streams of the last look, with their ordinals. No ordinal is given twice."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []
        self._ordinals: list[int] = []
        self._next = 0

    def compare(self, current: list[Stream]) -> Changes:
        """What differs from the last look. `current` is kept, and must not be altered afterwards."""
        places = self._replaced(current)
        if places is None:
            changes = self._match(current)
        else:
            changed = [(self._ordinals[place], current[place]) for place in places]
            changes = Changes(changed=changed, new=self._numbered(current[len(self._streams) :]))
        self._streams = current
        self._ordinals += [ordinal for ordinal, _ in changes.new]
        return changes

    def streams(self) -> list[Numbered]:
        """All of them, as of the last look."""
        return list(zip(self._ordinals, self._streams, strict=True))

    def _replaced(self, current: list[Stream]) -> list[int] | None:
        """The places of new records; None if the streams do not stand in the same places as before."""
        if len(current) < len(self._streams):
            return None
        places = list(compress(count(), map(is_not, current, self._streams)))
        same = all(key_of(current[place]) == key_of(self._streams[place]) for place in places)
        return places if same else None

    def _match(self, current: list[Stream]) -> Changes:
        """The same where some are forgotten. The others keep their order, and new streams stand at the end.

        Whatever the order, the result is right: at worst a stream is gone and comes back under a new ordinal.
        """
        changed, gone, kept, at = list[Numbered](), list[int](), list[int](), 0
        for known, ordinal in zip(self._streams, self._ordinals, strict=True):
            found = current[at] if at < len(current) else None
            if found is None or (found is not known and key_of(found) != key_of(known)):
                gone.append(ordinal)
                continue
            if found is not known:
                changed.append((ordinal, found))
            kept.append(ordinal)
            at += 1
        self._ordinals = kept
        return Changes(changed=changed, new=self._numbered(current[at:]), gone=gone)

    def _numbered(self, streams: Sequence[Stream]) -> list[Numbered]:
        first, self._next = self._next, self._next + len(streams)
        return list(enumerate(streams, first))


def key_of(stream: Stream) -> Key:
    """The account and the stream id."""
    return stream.account, stream.stream_id


# ---------------------------------------------------------------- rows


def change_row(ordinal: int, stream: Stream) -> tuple[object, ...]:
    """The row of a stream that changed."""
    return (
        ordinal,
        stream.last_number,
        seconds(stream.last_screenshot),
        seconds(stream.last_seen),
        stream.state,
        stream.cadence,
    )


def full_row(ordinal: int, stream: Stream, arrived: float | None = None) -> tuple[object, ...]:
    """The row of a stream that a page does not know yet. `arrived` replaces the stamp of the last event."""
    return (
        ordinal,
        stream.account,
        stream.stream_id,
        stream.last_number,
        seconds(stream.last_screenshot),
        seconds(stream.last_seen) if arrived is None else arrived,
        stream.state,
        stream.cadence,
    )


def named(streams: Iterable[Numbered]) -> list[Numbered]:
    """Those with a stream id. Events without one share a record of the catalogue, which is no stream."""
    return [one for one in streams if one[1].stream_id]


def seconds(at: datetime | None) -> float | None:
    """Unix seconds, to the millisecond."""
    return None if at is None else int(at.timestamp() * 1000 + 0.5) / 1000  # a third of the time of `round`
