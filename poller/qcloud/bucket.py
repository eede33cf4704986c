"""Checks whether an account's pictures can be fetched, by a GET for a name that no picture has."""

import re
from enum import StrEnum
from secrets import token_hex
from typing import Final

import msgspec

from poller.core.errors import NotSent
from poller.qcloud.wire.client import Client, Deadlines
from poller.runtime.outbound import AddressGuard

DEADLINES: Final = Deadlines(connect=5.0, progress=10.0, whole=15.0)
_NO_BUCKET: Final = re.compile(rb"<Code>\s*NoSuchBucket\s*</Code>", re.IGNORECASE)


class Answered(StrEnum):
    """The result of a probe."""

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
    url = f"{base}poller-check-{token_hex(8)}.jpg"
    try:
        async with Client(url, guard=guard, deadlines=DEADLINES) as client:
            answer = await client.get({})
    except NotSent as error:
        return Probe(Answered.UNREACHABLE, str(error))
    if answer.status == 0:
        return Probe(Answered.UNREACHABLE, "no answer in time")
    return judge(answer.status, answer.body)


def judge(status: int, body: bytes) -> Probe:
    """What an answer says about the bucket."""
    if status == 404 and _NO_BUCKET.search(body):
        return Probe(Answered.NO_BUCKET)
    if status in {200, 404}:
        return Probe(Answered.THERE)
    if status == 403:
        return Probe(Answered.FORBIDDEN)
    return Probe(Answered.UNCLEAR, f"HTTP {status}")
