"""How many bytes of events the log holds, without reading all of it at each look.

Invariants
    The log is divided into stretches of `STRETCH` numbers. Pages are added at its end and deleted at its beginning. So
    only the first two stretches, and those from the last known one on, are read again. A correction within a page
    between them is not seen: it changes a URL.
"""

from typing import Final

import asyncpg

STRETCH: Final = 100_000
_SUM = """
SELECT first / $1, sum(octet_length(events))::bigint FROM page WHERE first >= $2 AND first < $3 GROUP BY 1
"""


class PageSizes:
    """The bytes of each stretch, as of the last look."""

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}

    async def total(self, reader: asyncpg.Connection) -> int:
        """The bytes of all events in the log. The first look reads all of it."""
        lowest, head = await reader.fetchrow("SELECT (SELECT min(first) FROM page), (SELECT head FROM log)")
        begin = (head if lowest is None else lowest) // STRETCH
        last = max(self._bytes, default=begin)
        self._bytes = {stretch: size for stretch, size in self._bytes.items() if begin + 2 <= stretch < last}
        end = head // STRETCH + 1
        for first, upto in ((begin, min(begin + 2, end)), (max(begin + 2, last), end)):
            rows = await reader.fetch(_SUM, STRETCH, first * STRETCH, upto * STRETCH)
            self._bytes.update(map(tuple, rows))
        return sum(self._bytes.values())
