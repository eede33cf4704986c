"""Parses the file name of a screenshot, from the right, by its two grammars. Pure; the hottest code of the project."""

import re
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from poller.qcloud.wire.times import BEIJING, LAST_EPOCH, moment

_LONGEST_TAIL = 56
_B = re.compile(r"-screenshot-([0-9]{2})-([0-9]{2})-([0-9]{2})-([0-9]{1,5})x([0-9]{1,5})\.(?:jpe?g|JPE?G)\Z")
_DAY = re.compile(r"(?:^|/)([0-9]{4})-([0-9]{2})-([0-9]{2})(?=/)")


class NamedShot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The contents of a screenshot's name; None for missing parts. Times are aware UTC, `offset` is in seconds.

    `fixed`: the name alone determines the moment of the shot.
    """

    stream: str | None = None
    push_started_at: datetime | None = None
    task_started_at: datetime | None = None
    offset: int | None = None
    width: int | None = None
    height: int | None = None
    taken_at: datetime | None = None
    fixed: bool = False


UNKNOWN = NamedShot()


def parse_name(name: str) -> NamedShot:
    """Read a file name (folders before it allowed); `UNKNOWN` when it follows neither grammar."""
    parts = name.rsplit("_", 5)
    if len(parts) == 6:
        shot = _grammar_a(name, parts)
        if shot is not None:
            return shot
    b = _B.search(name)
    if b is not None:
        return _grammar_b(name, b)
    return UNKNOWN


def _grammar_a(name: str, parts: list[str]) -> NamedShot | None:
    # {stream}_{push}_{task}_{offset}_{width}_{height}.jpg: the 2016 v1.1 document.
    stream, push, task, offset, width, height = parts
    if len(name) - len(stream) > _LONGEST_TAIL or not (offset.isdigit() and offset.isascii()):
        return None
    common = _common(push, task, width, height)
    if common is None:
        return None
    seconds = int(offset)
    if "/" in stream:
        stream = stream[stream.rfind("/") + 1 :]
    if not stream or len(offset) > 9 or common[0] + seconds > LAST_EPOCH:
        return None
    return NamedShot(
        stream=stream,
        push_started_at=common[1],
        task_started_at=common[2],
        offset=seconds,
        width=common[3],
        height=common[4],
        taken_at=moment(common[0] + seconds) if common[0] else None,
        fixed=True,
    )


@lru_cache(maxsize=4096)
def _common(
    push: str, task: str, width: str, last: str
) -> tuple[int, datetime | None, datetime | None, int, int] | None:
    """The parts that all shots of a stream share. Cached, and called with short texts only."""
    height, _, suffix = last.partition(".")
    numbers = (push, task, width, height)
    if suffix.lower() not in ("jpg", "jpeg") or not all(_is_number(number) for number in numbers):
        return None
    if len(width) > 5 or len(height) > 5 or not (_plausible(int(push)) and _plausible(int(task))):
        return None
    return int(push), moment(int(push)), moment(int(task)), int(width), int(height)


def _is_number(text: str) -> bool:
    return text.isdigit() and text.isascii()


def _plausible(epoch: int) -> bool:
    # The years 2001 to 2100, or the 0 the platform also writes: `cat_1_2_3_4_5.jpg` is no screenshot.
    return epoch == 0 or 1_000_000_000 <= epoch < 4_102_444_800


def _grammar_b(name: str, match: re.Match[str]) -> NamedShot:
    # /{YYYY}-{MM}-{DD}/{stream}-screenshot-{HH}-{MM}-{SS}-{width}x{height}.jpg: later documents; UTC+8.
    hour, minute, second, width, height = (int(text) for text in match.groups())
    end = match.start()
    stream = name[name.rfind("/", 0, end) + 1 : end]
    if not stream or hour > 23 or minute > 59 or second > 59:
        return UNKNOWN
    days = _DAY.findall(name, 0, end)
    taken_at = _beijing(days[-1], hour, minute, second) if days else None
    if days and taken_at is None:
        return UNKNOWN
    return NamedShot(stream=stream, width=width, height=height, taken_at=taken_at, fixed=taken_at is not None)


def day_before(name: str) -> tuple[str, int]:
    """By grammar B: the folders before the folder of the day, and where the rest of the name begins."""
    end = _B.search(name)
    found = [*_DAY.finditer(name, 0, end.start() if end else len(name))][-1]
    return name[: found.start(1)], found.end()


def _beijing(day: tuple[str, str, str], hour: int, minute: int, second: int) -> datetime | None:
    try:
        local = datetime(int(day[0]), int(day[1]), int(day[2]), hour, minute, second, tzinfo=BEIJING)
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
