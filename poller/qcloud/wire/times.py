"""Times as the platform writes them: seconds since 1970, or UTC+8. Pure."""

from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

BEIJING = timezone(timedelta(hours=8))
LAST_EPOCH = 253_402_300_799


@lru_cache(maxsize=4096)
def moment(epoch: int) -> datetime | None:
    """Return the aware UTC time of an epoch; None for 0 and for what no calendar holds.

    Cached: the shots of all streams fall on the same seconds.
    """
    if not 0 < epoch <= LAST_EPOCH:
        return None
    return datetime.fromtimestamp(epoch, UTC)
