"""The catalogue of streams: what an event teaches, and what is no news."""

import shutil
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from poller.core.catalogue import Catalogue, Stream, is_news, with_event
from poller.core.model import Event
from poller.spools.sqlite import SqliteSpool
from poller.testing import START, some_change, some_event, some_reading

CALLBACKS = "callbacks"


def after(*events: Event) -> Stream:
    """What is known after these events."""
    stream = None
    for number, event in enumerate(events, 1):
        stream = with_event(stream, event, number)
    assert stream is not None
    return stream


def test_a_missing_picture_hardly_moves_the_cadence_and_a_new_one_is_learned() -> None:
    steady = after(*(some_event(number) for number in range(10)))
    assert steady.cadence == 10.0
    gap = with_event(steady, some_event(11), 11)
    assert gap.cadence is not None
    assert 10 < gap.cadence < 12
    slower = steady
    for number in range(10, 100, 3):
        slower = with_event(slower, some_event(number), number)
    assert slower.cadence == pytest.approx(30, abs=0.5)


def test_a_picture_that_comes_late_changes_nothing_but_that_it_was_seen() -> None:
    known = after(some_event(1), some_event(2), some_event(9))
    late = with_event(known, some_event(5), 4)
    assert (late.last_screenshot, late.cadence) == (known.last_screenshot, known.cadence)
    assert late.last_number == known.last_number == 3
    assert late.last_seen == known.last_seen


def test_an_older_change_of_state_does_not_overrule_a_newer_one() -> None:
    known = after(some_change(5, "interrupted", seen_by=CALLBACKS), some_change(4, "live", seen_by=CALLBACKS))
    assert (known.state, known.state_since) == ("interrupted", START + timedelta(seconds=50))


@pytest.mark.parametrize(
    ("known", "event", "news"),
    [
        (None, some_change(1, "live"), True),
        (some_event(1), some_change(2, "live"), True),
        (some_change(1, "live"), some_change(2, "live"), False),
        (some_change(1, "live"), some_change(2, "interrupted"), True),
        # The platform pushed it first: the poll that sees it later tells nothing.
        (some_change(1, "live", seen_by=CALLBACKS), some_change(2, "live"), False),
        # The poll saw it first, and the notification of that very change comes late.
        (some_change(3, "live"), some_change(2, "live", seen_by=CALLBACKS), False),
        # Another push, of which no poll saw the end of the one before.
        (some_change(3, "live"), some_change(4, "live", seen_by=CALLBACKS), True),
        (some_change(3, "live", seen_by=CALLBACKS), some_change(4, "live", seen_by=CALLBACKS), True),
        (some_change(3, "live"), some_event(4), True),
    ],
)
def test_a_change_is_reported_once_whichever_source_saw_it_first(
    known: Event | None, event: Event, news: bool
) -> None:
    assert is_news(None if known is None else after(known), event) is news


def test_a_poll_and_a_notification_of_the_same_second_do_not_hide_the_end() -> None:
    """The platform reports whole seconds: an end reported for :50 may be at :50.9, after a poll at :50.2."""
    seen = some_change(5, "live", delay=0.2)
    notified = some_change(5, "interrupted", seen_by=CALLBACKS)
    assert not is_news(after(seen, notified), some_change(5, "interrupted", delay=1.1))
    long_ago = some_change(4, "interrupted", seen_by=CALLBACKS)
    assert after(seen, long_ago).state == "live"


def test_what_was_not_committed_is_forgotten() -> None:
    catalogue = Catalogue()
    catalogue.note(some_change(1, "live"), 1)
    catalogue.discard()
    assert catalogue.streams() == []
    assert catalogue.note(some_change(2, "live"), 1)
    catalogue.keep()
    assert not catalogue.note(some_change(3, "live"), 2)


def test_streams_that_were_not_seen_for_long_are_forgotten() -> None:
    catalogue = Catalogue()
    catalogue.note(some_event(1, stream="old"), 1)
    catalogue.note(some_event(100, stream="new"), 2)
    catalogue.keep()
    assert catalogue.forget(lambda one: one.last_seen < START + timedelta(seconds=500)) == [("main", "old")]
    assert [stream.stream_id for stream in catalogue.streams()] == ["new"]


async def test_a_spool_that_was_killed_knows_its_streams_from_the_log(tmp_path: Path) -> None:
    """What is copied from under a running spool is what a kill leaves."""
    first, second = tmp_path / "first", tmp_path / "second"
    settings = [SqliteSpool.Settings(type="sqlite", path=folder / "spool.db") for folder in (first, second)]

    async with SqliteSpool("spool", settings[0], {}) as spool:
        for number in range(50):
            await spool.append("source", [some_reading(number, number + 100, stream=f"room{number % 7}")])
        shutil.copytree(first, second)
        known = spool.streams()
    async with SqliteSpool("spool", settings[1], {}) as copy:
        assert sorted(copy.streams(), key=str) == sorted(known, key=str)
        assert len(known) == 7


def changed(state: str, *, received: float, ahead: float = 0.0, seen_by: str = CALLBACKS) -> Event:
    """A change that was received so many seconds after the start, and dated so many seconds ahead of that."""
    at = START + timedelta(seconds=received)
    return msgspec.structs.replace(
        some_change(int(received), state, seen_by=seen_by),
        id=f"{received} {ahead} {state}",
        received_at=at,
        occurred_at=at + timedelta(seconds=ahead),
    )


@pytest.mark.parametrize("ahead", [73 * 365 * 86400.0, 86400.0, 301.0, -30 * 365 * 86400.0, -90000.0])
@pytest.mark.parametrize("first", [CALLBACKS, "channel_status"])
@pytest.mark.parametrize("second", [CALLBACKS, "channel_status"])
def test_a_change_that_is_dated_far_off_silences_no_later_one(ahead: float, first: str, second: str) -> None:
    known = after(
        changed("live", received=10, seen_by=first),
        changed("interrupted", received=1000, ahead=ahead, seen_by=first),
    )
    assert known.state == "interrupted"
    back = changed("live", received=2000, seen_by=second)
    assert is_news(known, back)
    known = with_event(known, back, 3)
    assert (known.state, known.state_since) == ("live", back.received_at)


@pytest.mark.parametrize("seen_by", [CALLBACKS, "channel_status"])
@pytest.mark.parametrize("state", ["live", "interrupted"])
def test_a_state_that_was_stored_for_2099_heals_with_the_next_change(seen_by: str, state: str) -> None:
    """Also one that was polled while this machine's own clock was ahead."""
    far = START + timedelta(days=73 * 365)
    stored = msgspec.structs.replace(
        after(changed(state, received=10, seen_by=seen_by)),
        state_since=far,
        last_screenshot=far,
        last_seen=far,
    )
    for number, now in enumerate(("live", "interrupted", "live"), 2):
        event = changed(now, received=1000.0 * number)
        assert is_news(stored, event)
        stored = with_event(stored, event, number)
        assert (stored.state, stored.state_since) == (now, event.occurred_at)
    assert with_event(stored, some_event(900), 5).last_screenshot == some_event(900).occurred_at
