"""The platform's clock, which may be set wrong on purpose."""

from __future__ import annotations

import time
from email.utils import formatdate


class Clock:
    """Tells the platform's time: ours plus an offset in seconds."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset
        self._second = -1
        self._date = ""

    def now(self) -> float:
        return time.time() + self.offset

    def date(self) -> str:
        """The value of a `Date` header; made once a second."""
        second = int(self.now())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True)
        return self._date
