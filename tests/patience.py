"""How long a test waits for what takes a moment on a machine that has nothing else to do: a guard against hanging only.

A crowded machine takes seconds for milliseconds. Where a time is itself what is tested, it stands in that test.
It is less than the minute that a test has which must see a deliberate bug (tests/mutation).
"""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

PATIENCE: Final = 45.0
Result = TypeVar("Result")


async def patiently(work: Awaitable[Result]) -> Result:
    """What comes of it; an error where it hangs."""
    return await asyncio.wait_for(work, PATIENCE)
