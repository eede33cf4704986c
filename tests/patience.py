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


def in_best_turn(measure: Callable[[], float], most: float, *, good: int = 1) -> float:
    """The least that is measured in `TURNS` turns, or the second least of them, as `good` says.

    Once `good` turns were below `most`, no other one begins.
    """
    measured: list[float] = []
    while sum(one < most for one in measured) < good and len(measured) < TURNS:
        measured.append(measure())
    return sorted(measured)[good - 1]
