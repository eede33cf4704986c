"""Names that are made of an event's fields."""

import re

import msgspec
import pytest

from poller.core.model import Event
from poller.sinks.brokers import fill_in
from poller.testing import some_event

BLANKS = re.compile(r"\s")
DOTS = re.compile(r"\.")


def event(account: str = "main", kind: str = "screenshot", stream: str = "room") -> Event:
    return msgspec.structs.replace(some_event(1), account=account, kind=kind, stream_id=stream)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("live", "live"),
        ("{{live}}", "{live}"),
        ("live.{kind}", "live.screenshot"),
        ("{account}/{kind}/{stream}", "main/screenshot/a_b.c"),
        ("{stream!s}", "a_b.c"),
    ],
)
def test_a_name_holds_the_fields_of_its_template(template: str, named: str) -> None:
    assert fill_in(template, event(stream="a b.c"), BLANKS) == named


def test_an_empty_field_is_an_underscore() -> None:
    assert fill_in("live.{stream}", event(stream=""), BLANKS) == "live._"


def test_events_that_differ_in_one_field_have_names_of_their_own() -> None:
    events = [
        event(account, kind, stream)
        for account in ("a", "b")
        for kind in ("screenshot", "channel")
        for stream in map(str, range(3000))
    ]
    for _ in range(2):  # more names than are kept
        assert len({fill_in("{account}.{kind}.{stream}", one, BLANKS) for one in events}) == len(events)
    assert len({fill_in("{account}.{kind}", one, BLANKS) for one in events}) == 4


def test_each_sink_replaces_its_own_signs() -> None:
    one = event(stream="a b.c")
    assert [fill_in("{stream}", one, signs) for signs in (BLANKS, DOTS)] == ["a_b.c", "a b_c"]
