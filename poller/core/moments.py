"""Moments as people write them, in options and in settings."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

FORMS: Final = (
    "10:03, 10:03:20, 2026-11-22, 2026-11-22 10:03, 2026-11-22T10:03:00Z (RFC 3339), or an age such as 2h"
)
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|[smhd])")
_CLOCK: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_moment(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """The moment that a text means, in UTC. `now` is aware.

    The forms are those of `FORMS`. A time without a date is the latest such time that is not after `now`. A time
    without an offset is in `zone` (None: the local time of this machine). Raises `ValueError` for any other text.
    """
    try:
        return _moment(text.strip(), now, zone)
    except (ValueError, OverflowError):
        raise ValueError(f"not a time: write {FORMS}") from None


def parse_end(text: str, since: datetime | None, now: datetime, zone: tzinfo | None = None) -> datetime:
    """The moment that ends a span which begins at `since`, as `parse_moment` otherwise.

    A time without a date is that time of today, even if it is still ahead, where the latest one is before `since`.
    """
    found = parse_moment(text, now, zone)
    if since is None or found >= since or not _CLOCK.fullmatch(text.strip()):
        return found
    later = _aware(found.astimezone(zone).replace(tzinfo=None) + timedelta(days=1), zone)
    return later if later.astimezone(zone).date() == now.astimezone(zone).date() else found


def _moment(text: str, now: datetime, zone: tzinfo | None) -> datetime:
    if age := _AGE.fullmatch(text):
        return (now - timedelta(seconds=float(age[1]) * _UNITS[age[2]])).astimezone(UTC)
    if clock := _CLOCK.fullmatch(text):
        return _latest(int(clock[1]), int(clock[2]), int(clock[3] or 0), now, zone)
    if not _DATE.match(text):
        raise ValueError(text)
    return _aware(datetime.fromisoformat(text), zone)


def _latest(hour: int, minute: int, second: int, now: datetime, zone: tzinfo | None) -> datetime:
    """The latest moment with this time of day that is not after `now`."""
    today = now.astimezone(zone).replace(tzinfo=None)
    at = today.replace(hour=hour, minute=minute, second=second, microsecond=0)
    found = _aware(at, zone)
    return found if found <= now else _aware(at - timedelta(days=1), zone)


def _aware(moment: datetime, zone: tzinfo | None) -> datetime:
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    return (moment.astimezone() if zone is None else moment.replace(tzinfo=zone)).astimezone(UTC)
