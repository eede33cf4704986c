"""The gauge `poller_streams`: each stream counts once, in one of a few states."""

import asyncio
from datetime import datetime, timedelta

import pytest

from poller.core.catalogue import Stream
from poller.operations.stream_states import ENDED_AFTER, STATES, STREAMS_STEP, count_streams, state_of
from poller.testing import START


def stream(
    state: str | None,
    *,
    silent: float = 0.0,
    cadence: float | None = 10.0,
    account: str = "main",
    id: str = "room",
) -> Stream:
    return Stream(
        account=account,
        stream_id=id,
        first_seen=START,
        last_seen=START - timedelta(seconds=silent),
        state=state,
        last_screenshot=START,
        cadence=cadence,
    )


def age(at: datetime) -> float:
    return (START - at).total_seconds()


@pytest.mark.parametrize(
    ("state", "silent", "expected"),
    [
        ("live", 10.0, "live"),
        ("live", 30.0, "late"),
        ("live", 41.0, "no pictures"),
        ("live", 2 * ENDED_AFTER, "no pictures"),
        ("interrupted", 10.0, "interrupted"),
        ("disabled", 10.0, "disabled"),
        ("disabled", ENDED_AFTER + 1, "ended"),
        (None, 10.0, "unknown"),
        (None, 30.0, "late"),
        (None, 41.0, "silent"),
        (None, ENDED_AFTER + 1, "ended"),
        ("a state of another plug-in", 10.0, "unknown"),
    ],
)
def test_a_stream_states_in_one_state(state: str | None, silent: float, expected: str) -> None:
    assert state_of(stream(state), silent) == expected
    assert expected in STATES


def test_a_live_stream_without_a_cadence_yet_is_live() -> None:
    assert state_of(stream("live", cadence=None), 1_000.0) == "live"


def test_every_state_of_every_account_has_a_number_and_nothing_else_has() -> None:
    streams = [
        *(stream("live", id=f"room-{number}") for number in range(STREAMS_STEP + 7)),
        stream(None, silent=50.0, id="hall"),
        stream("live", account="removed"),
        stream("live", id=""),
    ]
    counts = asyncio.run(count_streams(streams, ["main", "second"], age))
    assert set(counts) == {(account, state) for account in ("main", "second") for state in STATES}
    assert {key: count for key, count in counts.items() if count} == {
        ("main", "live"): STREAMS_STEP + 7,
        ("main", "silent"): 1,
    }


def test_others_have_their_turn_while_many_streams_are_counted() -> None:
    async def scenario() -> int:
        counting = asyncio.ensure_future(count_streams([stream("live")] * 10 * STREAMS_STEP, ["main"], age))
        turns = 0
        while not counting.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(scenario()) >= 10
