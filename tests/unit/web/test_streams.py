"""Which streams changed: a comparison of references, which must find exactly what a comparison of everything finds."""

import time
from datetime import timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from poller.core.catalogue import Catalogue, Stream
from poller.testing import START, some_event
from poller.web.streams import Roster, change_row, full_row, key_of, named

NAMES = tuple("abcdefgh")


def catalogue(count: int) -> Catalogue:
    return Catalogue(
        Stream(account="main", stream_id=f"room{number}", first_seen=START, last_seen=START)
        for number in range(count)
    )


def note(known: Catalogue, number: int, stream: str) -> None:
    known.note(some_event(number, stream=stream), number)
    known.keep()


def test_all_streams_are_new_at_the_first_look() -> None:
    changes = Roster().compare(catalogue(3).streams())
    assert [(ordinal, stream.stream_id) for ordinal, stream in changes.new] == [
        (0, "room0"),
        (1, "room1"),
        (2, "room2"),
    ]
    assert not changes.changed
    assert not changes.gone


def test_nothing_changed_is_no_change() -> None:
    known, roster = catalogue(3), Roster()
    roster.compare(known.streams())
    assert not roster.compare(known.streams())


def test_a_replaced_record_is_found_under_its_ordinal() -> None:
    known, roster = catalogue(3), Roster()
    roster.compare(known.streams())
    note(known, 7, "room1")
    changes = roster.compare(known.streams())
    assert [(ordinal, stream.last_number) for ordinal, stream in changes.changed] == [(1, 7)]
    assert not changes.new
    assert not changes.gone


def test_a_forgotten_stream_is_gone_and_comes_back_under_a_new_ordinal() -> None:
    known, roster = catalogue(3), Roster()
    roster.compare(known.streams())
    known.forget(lambda stream: stream.stream_id == "room1")
    note(known, 1, "room2")
    changes = roster.compare(known.streams())
    assert changes.gone == [1]
    assert [ordinal for ordinal, _ in changes.changed] == [2]
    note(known, 2, "room1")
    assert [(ordinal, one.stream_id) for ordinal, one in roster.compare(known.streams()).new] == [
        (3, "room1")
    ]


def test_the_last_stream_is_gone_although_another_takes_its_place() -> None:
    known, roster = catalogue(3), Roster()
    roster.compare(known.streams())
    known.forget(lambda stream: stream.stream_id == "room2")
    note(known, 1, "hall")
    changes = roster.compare(known.streams())
    assert changes.gone == [2]
    assert [(ordinal, one.stream_id) for ordinal, one in changes.new] == [(3, "hall")]


LOOK = "look"


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("note"), st.sampled_from(NAMES)),
            st.tuples(st.just("forget"), st.sampled_from(NAMES)),
            st.tuples(st.just(LOOK), st.just("")),
        ),
        max_size=60,
    )
)
def test_whoever_applies_all_changes_has_the_catalogue(steps: list[tuple[str, str]]) -> None:
    known, roster, seen, given_out = catalogue(0), Roster(), dict[int, Stream](), set[int]()
    for number, (what, name) in enumerate([*steps, (LOOK, "")]):
        if what == "note":
            note(known, number, name)
        elif what == "forget":
            known.forget(lambda stream, name=name: stream.stream_id == name)  # type: ignore[misc]
        else:
            changes = roster.compare(known.streams())
            for ordinal in changes.gone:
                del seen[ordinal]
            for ordinal, stream in changes.changed:
                assert key_of(seen[ordinal]) == key_of(stream)
                seen[ordinal] = stream
            assert given_out.isdisjoint(ordinal for ordinal, _ in changes.new)
            given_out.update(ordinal for ordinal, _ in changes.new)
            seen.update(changes.new)
            assert list(seen.items()) == roster.streams() or dict(roster.streams()) == seen
    assert sorted(seen.values(), key=key_of) == sorted(known.streams(), key=key_of)


def test_rows_hold_unix_seconds_to_the_millisecond() -> None:
    at = START + timedelta(microseconds=123_456)
    stream = Stream(
        account="main",
        stream_id="room",
        first_seen=START,
        last_seen=at,
        last_screenshot=START,
        last_number=9,
        cadence=10.0,
        state="live",
    )
    taken, arrived = START.timestamp(), round(START.timestamp() + 0.123, 3)
    assert change_row(4, stream) == (4, 9, taken, arrived, "live", 10.0)
    assert full_row(4, stream) == (4, "main", "room", 9, taken, arrived, "live", 10.0)
    empty = Stream(account="main", stream_id="room", first_seen=START, last_seen=START)
    assert msgspec.json.encode(change_row(0, empty)) == b"[0,null,null,%.1f,null,null]" % taken


def test_events_without_a_stream_are_no_stream() -> None:
    nameless = Stream(account="main", stream_id="", first_seen=START, last_seen=START)
    assert named([(0, nameless)]) == []


def test_a_look_at_a_hundred_thousand_streams_takes_milliseconds() -> None:
    """The bound is wide, for a busy machine; `tests.bench.web` has the figure."""
    known, roster = catalogue(100_000), Roster()
    roster.compare(known.streams())
    for number in range(500):
        note(known, number, f"room{number * 200}")
    spent = time.thread_time()
    changes = roster.compare(known.streams())
    spent = time.thread_time() - spent
    assert len(changes.changed) == 500
    assert spent < 0.1
