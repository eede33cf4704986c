"""Whether an account's pictures can be fetched, asked by a name that no picture has: nothing is left behind."""

import asyncio
import re
from enum import StrEnum
from secrets import token_hex
from typing import Final

import aiohttp
import msgspec

from poller.outbound import AddressGuard, reason, session

WITHIN: Final = 15.0
LONGEST: Final = 64 * 2**10
_NO_BUCKET: Final = re.compile(rb"<Code>\s*NoSuchBucket\s*</Code>", re.IGNORECASE)


class Answered(StrEnum):
    """What came of asking."""

    THERE = "the bucket is there"
    NO_BUCKET = "there is no such bucket"
    FORBIDDEN = "refuses to say (HTTP 403): it must allow everybody to read its pictures"
    UNREACHABLE = "not reachable"
    UNCLEAR = "no clear answer"


class Probe(msgspec.Struct, frozen=True):
    """An answer, and the network's word for it."""

    answered: Answered
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.answered}: {self.detail}" if self.detail else str(self.answered)


async def probe(base: str, guard: AddressGuard) -> Probe:
    """Ask for a picture that nobody has below `base`."""
    try:
        async with asyncio.timeout(WITHIN), session(guard) as client:
            url = f"{base}poller-check-{token_hex(8)}.jpg"
            async with client.get(url, allow_redirects=False) as answer:
                return judge(answer.status, await answer.content.read(LONGEST))
    except TimeoutError:
        return Probe(Answered.UNREACHABLE, "no answer in time")
    except (aiohttp.ClientError, OSError) as error:
        return Probe(Answered.UNREACHABLE, reason(error))


def judge(status: int, body: bytes) -> Probe:
    """What an answer says about the bucket."""
    if status == 404 and _NO_BUCKET.search(body):
        return Probe(Answered.NO_BUCKET)
    if status in {200, 404}:
        return Probe(Answered.THERE)
    if status == 403:
        return Probe(Answered.FORBIDDEN)
    return Probe(Answered.UNCLEAR, f"HTTP {status}")
