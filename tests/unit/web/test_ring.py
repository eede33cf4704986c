"""The ring of messages: who comes back in time misses nothing, and who does not is told."""

import pytest

from poller.web.ring import Place, Ring


def ring(**bounds: float) -> Ring:
    return Ring("e", seconds=bounds.get("seconds", 60.0), most_bytes=int(bounds.get("most_bytes", 1000)))


def test_a_message_has_its_place_as_id() -> None:
    kept = ring()
    kept.push("", b'{"a":1}', 0.0)
    kept.push("job", b"{}", 0.0)
    assert kept.next(Place("e", 0)) == b'id: e-1\ndata: {"a":1}\n\n'
    assert kept.next(Place("e", 1)) == b"id: e-2\nevent: job\ndata: {}\n\n"


def test_nothing_is_behind_the_newest_place() -> None:
    kept = ring()
    assert kept.next(Place("e", 0)) == b""
    kept.push("", b"{}", 0.0)
    assert kept.next(kept.place) == b""


@pytest.mark.parametrize("place", [Place("other", 1), Place("e", 2), Place("e", -1), Place("", 0)])
def test_a_place_that_was_never_given_is_unknown(place: Place) -> None:
    kept = ring()
    kept.push("", b"{}", 0.0)
    assert kept.next(place) is None


def test_messages_are_forgotten_after_a_minute() -> None:
    kept = ring()
    kept.push("", b"1", 0.0)
    kept.push("", b"2", 60.0)
    assert kept.next(Place("e", 0)) is not None
    kept.push("", b"3", 60.1)
    assert kept.next(Place("e", 0)) is None
    assert kept.next(Place("e", 1)) == b"id: e-2\ndata: 2\n\n"


def test_messages_are_forgotten_when_they_are_too_many() -> None:
    kept = ring(most_bytes=100)
    for _ in range(10):
        kept.push("", b"x" * 30, 0.0)
    assert kept.next(Place("e", 7)) is None
    assert kept.next(Place("e", 8)) is not None


def test_a_message_above_the_bound_is_not_kept() -> None:
    kept = ring(most_bytes=100)
    kept.push("", b"x" * 200, 0.0)
    assert kept.next(Place("e", 0)) is None
    assert kept.next(Place("e", 1)) == b""
    kept.push("", b"y", 0.0)
    assert kept.next(Place("e", 1)) == b"id: e-2\ndata: y\n\n"


def test_after_a_break_every_known_place_is_unknown() -> None:
    kept = ring()
    kept.push("", b"{}", 0.0)
    kept.break_off()
    assert kept.next(Place("e", 1)) is None
    assert kept.next(Place("e", 0)) is None
    assert kept.reset() == b"id: e-2\nevent: reset\ndata: {}\n\n"
    assert kept.next(Place("e", 2)) == b""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("e-5", Place("e", 5)),
        ("-5", Place("", 5)),
        ("e5", None),
        ("e-", None),
        ("e--5", None),
        ("e-٥", None),
        ("e-" + "9" * 5000, None),
        ("", None),
    ],
)
def test_a_place_is_read_from_the_id_of_a_message(text: str, place: Place | None) -> None:
    assert Place.read(text) == place
