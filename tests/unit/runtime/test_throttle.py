"""A limit that several daemons share."""

import asyncio
import time

import pytest

from poller.runtime.throttle import Throttle, divide
from tests.patience import patiently


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("sharers", [1, 2, 3, 10])
def test_all_parts_together_are_no_more_than_the_limit_and_none_is_nothing(limit: int, sharers: int) -> None:
    part, period = divide(limit, 2.0, sharers)
    assert part >= 1
    assert sharers * part / period <= limit / 2.0 + 1e-9
    assert sharers * part / period > limit / 2.0 / 2


def test_a_limit_that_is_shared_lets_fewer_through_and_more_again_when_others_leave() -> None:
    async def scenario() -> list[float]:
        sharers = 3
        throttle = Throttle(3, 1.0, lambda: sharers)
        begun, found = time.monotonic(), []
        for n in range(6):
            sharers = 3 if n < 3 else 1
            await throttle.acquire()
            found.append(time.monotonic() - begun)
        return found

    first, second, third, *rest = asyncio.run(patiently(scenario()))
    assert first < 0.9
    assert second - first >= 0.99
    assert third - second >= 0.99
    assert rest[1] - third < 1.9, "alone, it has the whole limit"


def test_an_attempt_that_waits_for_a_long_part_goes_on_when_the_others_leave() -> None:
    async def scenario() -> float:
        sharers = [1000]
        throttle = Throttle(1, 0.2, lambda: sharers[0])
        await throttle.acquire()
        asyncio.get_running_loop().call_later(0.1, lambda: sharers.__setitem__(0, 1))
        begun = time.monotonic()
        await throttle.acquire()
        return time.monotonic() - begun

    assert 0.15 < asyncio.run(patiently(scenario())) < 30
