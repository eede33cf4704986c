"""Events that are decoded when they are looked at: the same as those that were decoded before."""

import operator
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.core.event_lines import EventLines, chained, ids_of, lines_of
from poller.core.model import Event, new_event
from poller.testing import START, some_event

EVENTS = tuple(some_event(number) for number in range(1, 8))
GARBLED = b'{"specversion":"1.0","id":"0123456789abcdef0123456789abcdef","source":'
"""A line that cannot be decoded, so whoever decodes it shows that it does."""


def held(events: Sequence[Event]) -> EventLines:
    """The same events, as lines."""
    return EventLines([event.encoded for event in events])


def named(id: str) -> Event:
    """An event with this id."""
    return new_event(
        id=id,
        kind="other",
        account="main",
        stream_id="room",
        occurred_at=None,
        received_at=START,
        url=None,
        fields={},
        message=msgspec.Raw(b'{"id":"{\\"specversion\\":\\"1.0\\""}'),
    )


def test_they_are_the_events_of_their_lines() -> None:
    lines = held(EVENTS)
    assert lines == EVENTS
    assert operator.eq(EVENTS, lines), "a tuple is equal to them too"
    assert lines == held(EVENTS)
    assert lines != held(EVENTS[1:])
    assert hash(lines) == hash(EVENTS)
    assert (len(lines), lines[2], lines[-1], list(lines)) == (7, EVENTS[2], EVENTS[-1], list(EVENTS))
    with pytest.raises(IndexError):
        lines[7]


@pytest.mark.parametrize("looked_at", [False, True])
def test_a_part_has_the_events_of_the_part(looked_at: bool) -> None:
    for part in (slice(2, 5), slice(None, 3), slice(6, 20), slice(9, 20)):
        lines = held(EVENTS)
        if looked_at:
            assert lines[0] == EVENTS[0]
        assert lines[part] == EVENTS[part]
        assert ids_of(lines[part]) == [event.id for event in EVENTS[part]]


def test_ids_lines_parts_and_lengths_are_known_without_decoding() -> None:
    lines = EventLines([GARBLED] * 3)
    assert ids_of(lines) == ["0123456789abcdef0123456789abcdef"] * 3
    assert list(lines_of(chained([lines, lines[1:]]))) == [GARBLED] * 5
    assert len(chained([lines, lines])) == 6
    with pytest.raises(msgspec.DecodeError):
        list(lines)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=5))
def test_whatever_the_ids_are_they_are_those_of_the_events(ids: list[str]) -> None:
    for some in (ids, [*ids, EVENTS[0].id], [EVENTS[0].id, *ids], [(id + "0" * 32)[:32] for id in ids]):
        events = tuple(map(named, some))
        assert ids_of(held(events)) == ids_of(events) == some


@pytest.mark.parametrize("id", ['"' * 16, "a" * 31 + '"', "\\" * 16, "\n", "é\\"])
def test_an_id_with_escapes_is_decoded(id: str) -> None:
    assert ids_of(held((named(id), *EVENTS))) == [id, *ids_of(EVENTS)]


def test_lines_and_events_are_chained_to_events() -> None:
    assert chained([EVENTS[:2], held(EVENTS[2:4]), EVENTS[4:]]) == EVENTS
    assert chained([held(EVENTS[:3]), held(EVENTS[3:])]) == EVENTS
    assert chained([EVENTS]) is EVENTS
    assert list(lines_of(EVENTS)) == [event.encoded for event in EVENTS]
