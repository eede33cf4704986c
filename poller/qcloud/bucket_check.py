"""Checks whether an account's pictures can be fetched, by a GET for a name that no picture has."""

import re
from enum import StrEnum
from secrets import token_hex
from typing import Final

from poller.core.errors import NotSent
from poller.qcloud.check_result import CheckResult
from poller.qcloud.wire.client import Client, Deadlines
from poller.runtime.outbound import AddressGuard

DEADLINES: Final = Deadlines(connect=5.0, progress=10.0, whole=15.0)
_NO_BUCKET: Final = re.compile(rb"<Code>\s*NoSuchBucket\s*</Code>", re.IGNORECASE)


class BucketState(StrEnum):
    """The result of checking a bucket."""

    THERE = "the bucket is there"
    NO_BUCKET = "there is no such bucket"
    FORBIDDEN = "refuses to say (HTTP 403): it must allow everybody to read its pictures"
    UNREACHABLE = "not reachable"
    UNCLEAR = "no clear answer"


async def check_bucket(base: str, guard: AddressGuard) -> CheckResult[BucketState]:
    """Ask for a picture that nobody has below `base`."""
    url = f"{base}poller-check-{token_hex(8)}.jpg"
    try:
        async with Client(url, guard=guard, deadlines=DEADLINES) as client:
            answer = await client.get({})
    except NotSent as error:
        return CheckResult(BucketState.UNREACHABLE, str(error))
    if answer.status == 0:
        return CheckResult(BucketState.UNREACHABLE, "no answer in time")
    return judge(answer.status, answer.body)


def judge(status: int, body: bytes) -> CheckResult[BucketState]:
    """What an answer says about the bucket."""
    if status == 404 and _NO_BUCKET.search(body):
        return CheckResult(BucketState.NO_BUCKET)
    if status in {200, 404}:
        return CheckResult(BucketState.THERE)
    if status == 403:
        return CheckResult(BucketState.FORBIDDEN)
    return CheckResult(BucketState.UNCLEAR, f"HTTP {status}")
