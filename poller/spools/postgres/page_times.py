"""The number of the first event received since a moment.

The server looks at the pages from the newest one on, without their events, until one was received earlier. So the
answer is right however the clock was set, and a moment that lies far back costs a look at all later pages.
"""

from datetime import datetime

import asyncpg

from poller.spools.rows import epoch

_NUMBER = """
SELECT coalesce(
    (SELECT last + 1 FROM page WHERE received_at < $1 ORDER BY first DESC LIMIT 1),
    (SELECT min(first) FROM page),
    $2
)
"""


async def number_at(at: datetime, head: int, connection: asyncpg.Connection) -> int:
    """The number behind the last page that was received before a moment, or the first number."""
    return int(await connection.fetchval(_NUMBER, epoch(at), head))
