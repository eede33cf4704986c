"""Where the names of a stream's pictures lie in a sorted list of names. Pure.

A bucket lists names in the order of their bytes. By grammar A a push has a prefix of its own, and within it the
offsets are in the order of their digits. By grammar B a day has a folder, and within it each stream is in the order
of time.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

from poller.qcloud.events.names import day_before, parse_name
from poller.qcloud.wire.times import BEIJING

BETWEEN: Final = "-screenshot-"
"""What stands between stream and time by grammar B."""
LONG: Final = timedelta(hours=2)
"""How long a push may have lasted before the time in question to be listed whole."""
_LAST: Final = "\U0010ffff"


class NameRange(msgspec.Struct, frozen=True, kw_only=True):
    """The names that begin with `prefix`, come behind `after` and are not behind `last`. Empty texts do not bound."""

    prefix: str
    after: str = ""
    last: str = ""


def ranges_beside(name: str, since: datetime, until: datetime) -> Iterator[NameRange]:
    """Where pictures lie that were taken in this time and belong to the same push, or the same stream, as a picture.

    Nothing for a name of neither grammar, and for a name that does not say when the picture was taken.
    """
    shot = parse_name(name)
    if not shot.fixed or shot.taken_at is None:
        return
    if shot.push_started_at is not None:
        yield from _ranges_of_push(name, shot.push_started_at, since, until)
        return
    root, end = day_before(name)
    stream = name[end : name.rindex(BETWEEN)]
    for day in days(since, until):
        yield range_of_day(f"{root}{day}{stream}{BETWEEN}", day, since, until)


def _ranges_of_push(name: str, push: datetime, since: datetime, until: datetime) -> Iterator[NameRange]:
    """A push that began not long before is listed whole; of a long one, the offsets of this task in question."""
    if until < push:
        return
    if since - push <= LONG:
        yield NameRange(prefix=name.rsplit("_", 4)[0] + "_")
        return
    prefix = name.rsplit("_", 3)[0] + "_"
    first, last = (int((moment - push).total_seconds()) for moment in (since, until))
    for digits in range(len(str(first)), len(str(last)) + 1):
        low, high = max(first, 10 ** (digits - 1)), min(last, 10**digits - 1)
        yield NameRange(prefix=prefix, after=f"{prefix}{low}", last=f"{prefix}{high}_{_LAST}")


def range_of_day(prefix: str, day: str, since: datetime, until: datetime) -> NameRange:
    """The part of a stream's day by grammar B that lies between two moments."""
    first, last = since.astimezone(BEIJING), until.astimezone(BEIJING)
    return NameRange(
        prefix=prefix,
        after=f"{prefix}{first:%H-%M-%S}" if f"{first:%Y-%m-%d}" == day else "",
        last=f"{prefix}{last:%H-%M-%S}{_LAST}" if f"{last:%Y-%m-%d}" == day else "",
    )


def days(since: datetime, until: datetime) -> list[str]:
    """The days in UTC+8 from one moment to another, as folders are named."""
    first, last = (moment.astimezone(BEIJING).date() for moment in (since, until))
    return [f"{first + timedelta(days=n):%Y-%m-%d}" for n in range((last - first).days + 1)]


def root_of(name: str) -> str | None:
    """The folders before the folder of the day, by grammar B; None for any other name."""
    shot = parse_name(name)
    known = shot.taken_at is not None and shot.push_started_at is None
    return day_before(name)[0] if known else None
