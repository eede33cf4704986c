"""Events of the log that are decoded only when somebody looks at them.

Purpose
    A sink that sends the public form as it is needs no decoded event. Decoding an event costs more than reading it from
    the disk. So a spool hands out the lines that it has read, and such a sink takes them with `lines_of`.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import overload

from poller.core.model import Event, parse_event

_beginning = re.compile(rb'\{"specversion":"1\.0","id":"([^"\\]*)"').match
"""How the public form begins (`new_event`), with an id that needs no escapes in JSON."""


class EventLines(Sequence[Event]):
    """Events, held as lines of their public form. All of them are decoded when one of them is first looked at.

    The caller knows by a checksum that the lines are good: whoever looks at an event later expects no error. Equal to
    another sequence, and to a tuple, with the same events.
    """

    __slots__ = ("_events", "lines")

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines
        self._events: tuple[Event, ...] | None = None

    @property
    def events(self) -> tuple[Event, ...]:
        """The decoded events."""
        if self._events is None:
            self._events = tuple(map(parse_event, self.lines))
        return self._events

    @property
    def ids(self) -> list[str]:
        """The ids. They are read from the beginnings of the lines, without decoding, unless one has escapes."""
        if self._events is None:
            found = [beginning[1].decode() for line in self.lines if (beginning := _beginning(line))]
            if len(found) == len(self.lines):
                return found
        return [event.id for event in self.events]

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, place: int) -> Event: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Event]: ...

    def __getitem__(self, place: int | slice) -> Event | Sequence[Event]:
        if isinstance(place, slice) and self._events is None:
            return EventLines(self.lines[place])
        return self.events[place]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __eq__(self, other: object) -> bool:
        return self.events == (other.events if isinstance(other, EventLines) else other)

    def __hash__(self) -> int:
        return hash(self.events)

    def __repr__(self) -> str:
        return f"EventLines({self.events!r})"


def ids_of(events: Sequence[Event]) -> list[str]:
    """The ids of events."""
    return events.ids if isinstance(events, EventLines) else [event.id for event in events]


def lines_of(events: Sequence[Event]) -> Sequence[bytes]:
    """The public forms of events, as they are."""
    return events.lines if isinstance(events, EventLines) else [event.encoded for event in events]


def chained(parts: Sequence[Sequence[Event]]) -> Sequence[Event]:
    """All events of these parts, decoded if those of a part are."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, EventLines) for part in parts):
        return EventLines(tuple(chain.from_iterable(map(lines_of, parts))))
    return tuple(chain.from_iterable(parts))
