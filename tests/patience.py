"""How long a test waits for what takes a moment on a machine that has nothing else to do: a guard against hanging only.

A crowded machine takes seconds for milliseconds. Where a time is itself what is tested, it stands in that test.
It is less than the minute that a test has which must see a deliberate bug (tests/mutation).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

PATIENCE: Final = 45.0
TURNS: Final = 3
"""The machine may hold up what is measured in one turn, or in two. What is slow by its own fault is slow in each."""
Result = TypeVar("Result")


async def patiently(work: Awaitable[Result]) -> Result:
    """What comes of it; an error where it hangs."""
    return await asyncio.wait_for(work, PATIENCE)


def in_best_turn(measure: Callable[[], float], most: float) -> float:
    """The least that is measured in `TURNS` turns. A turn that stays below `most` is the last one."""
    best = measure()
    for _ in range(TURNS - 1):
        if best < most:
            break
        best = min(best, measure())
    return best
