"""The index of seen ids: those of the last 30 days, as 64-bit hashes (keys).

Layout
    `seen` has the keys, each with the token of the transaction that brought it. `seen_at` says when that was. A
    transaction that brings no key has no row there. Tokens grow, and are never used again. No key is kept in memory.

Provisional events
    `provisional` has the number of each event that only provisional pages contained. The row is deleted when another
    page confirms the event, or when its id is forgotten.
"""

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Self

import asyncpg

from poller.core.errors import StorageCorrupt
from poller.core.model import Event
from poller.spools.moving import identity
from poller.spools.postgres import meta
from poller.spools.postgres.conditions import is_old
from poller.spools.retention import Stretches
from poller.spools.rows import epoch

FACTOR_SIZE = 16
MOST_FORGOTTEN = 20_000
"""The most keys that are forgotten in one step."""
_MASK = (1 << 64) - 1
_SIGN = 1 << 63

# in the order of the keys: neighbours lie on the same pages of the index. The setting ends with the transaction.
_REMEMBER = """
WITH append AS MATERIALIZED (
    SELECT set_config('poller.append', coalesce(
        nullif(current_setting('poller.append', true), ''),
        nextval(pg_get_serial_sequence('seen_at', 'token'))::text
    ), true)::bigint AS token
), fresh AS (
    INSERT INTO seen (key, token)
    SELECT key, token FROM unnest($1::bigint[]) AS asked(key) CROSS JOIN append ORDER BY key
    ON CONFLICT DO NOTHING RETURNING key, token
), noted AS (
    INSERT INTO seen_at (token, at) OVERRIDING SYSTEM VALUE
    SELECT token, $2::float8 FROM fresh LIMIT 1
    ON CONFLICT DO NOTHING
)
SELECT key FROM fresh
"""
_NOTE_PROVISIONAL = """
INSERT INTO provisional (key, number) SELECT * FROM unnest($1::bigint[], $2::bigint[])
ON CONFLICT (key) DO UPDATE SET number = excluded.number
"""
_FORGET = """
WITH gone AS (
    DELETE FROM seen WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM seen WHERE token BETWEEN $2 AND $3 AND token = ANY($1::bigint[]) LIMIT $4
    )) RETURNING key
), unnamed AS (
    DELETE FROM provisional USING gone WHERE provisional.key = gone.key
)
SELECT count(*) FROM gone
"""


class DedupIndex:
    """Works inside the writer's transactions: each method is called in one."""

    def __init__(self, factor: bytes) -> None:
        self._factor = int.from_bytes(factor, "big") | 1
        self.identity = identity(factor)
        """What tells the spool from others."""

    @classmethod
    async def load(cls, connection: asyncpg.Connection) -> Self:
        """The index of a spool. A new spool gets its secret factor. Raises `StorageCorrupt` if it is gone."""
        factor = await meta.read_factor(connection)
        if factor is None:
            if await connection.fetchval("SELECT EXISTS (SELECT FROM seen)"):
                raise StorageCorrupt("spool: its table meta lacks a row")
            factor = await meta.put_factor(connection, os.urandom(FACTOR_SIZE))
        return cls(factor)

    async def fresh(
        self, connection: asyncpg.Connection, readings: Sequence[tuple[Event, ...]], now: datetime
    ) -> list[tuple[Event, ...]]:
        """The events of each reading whose ids were not seen before, not even in an earlier reading.

        The ids are remembered; of equal events the first is returned. An event with several ids is fresh if none of
        them was seen before.
        """
        keys = [[self._keys(event) for event in events] for events in readings]
        asked = {key for some in keys for of_event in some for key in of_event}
        new = await _remember(connection, asked, now) if asked else set()
        return [_first(events, some, new) for events, some in zip(readings, keys, strict=True)]

    async def knows(self, connection: asyncpg.Connection, id: str) -> bool:
        """Whether this id is remembered."""
        query = "SELECT EXISTS (SELECT FROM seen WHERE key = $1)"
        return bool(await connection.fetchval(query, self._key(id)))

    # ------------------------------------------------------------ provisional events

    async def note_provisional(
        self, connection: asyncpg.Connection, first: int, events: Sequence[Event]
    ) -> None:
        """Remember fresh events as provisional. Their numbers are `first` and the following."""
        numbers = {self._key(event.id): number for number, event in enumerate(events, first)}
        await connection.execute(_NOTE_PROVISIONAL, list(numbers), list(numbers.values()))

    async def provisional(
        self, connection: asyncpg.Connection, events: Iterable[Event]
    ) -> list[tuple[int, Event]]:
        """The events among these that are provisional, each with its number."""
        keyed = [(self._key(event.id), event) for event in events]
        if not keyed:
            return []
        rows = await connection.fetch(
            "SELECT key, number FROM provisional WHERE key = ANY($1::bigint[])", [key for key, _ in keyed]
        )
        numbers: dict[int, int] = dict(map(tuple, rows))
        return [(numbers[key], event) for key, event in keyed if key in numbers]

    async def confirm(self, connection: asyncpg.Connection, events: Iterable[Event]) -> None:
        """Forget that the events were provisional."""
        keys = [self._key(event.id) for event in events]
        await connection.execute("DELETE FROM provisional WHERE key = ANY($1::bigint[])", keys)

    @staticmethod
    async def prune(connection: asyncpg.Connection, young: Stretches, step: int) -> bool:
        """Forget old keys, those of up to `step` transactions; true when there may be more."""
        condition, ends = is_old("at", young)
        rows = await connection.fetch(
            f"SELECT token FROM seen_at WHERE {condition} ORDER BY at LIMIT {step}",  # noqa: S608 - our own words
            *ends,
        )
        tokens = sorted(token for (token,) in rows)
        if not tokens:
            return False
        gone = await connection.fetchval(_FORGET, tokens, tokens[0], tokens[-1], MOST_FORGOTTEN)
        if gone == MOST_FORGOTTEN:
            return True  # the rows of the tokens stay until all of their keys are gone
        await connection.execute("DELETE FROM seen_at WHERE token = ANY($1::bigint[])", tokens)
        return len(tokens) == step

    def _keys(self, event: Event) -> tuple[int, ...]:
        if event.kind == "recording":
            return tuple(map(self._key, event.ids))
        return (self._key(event.id),)

    def _key(self, id: str) -> int:
        # multiply-shift hashing (Dietzfelbinger et al., 1997): two ids collide with odds of 2**-63
        return (int(id, 16) * self._factor >> 64 & _MASK) - _SIGN


async def _remember(connection: asyncpg.Connection, keys: Iterable[int], now: datetime) -> set[int]:
    """Remember keys; returns those that were not seen before."""
    return {key for (key,) in await connection.fetch(_REMEMBER, list(keys), epoch(now))}


def _first(events: tuple[Event, ...], keys: Sequence[tuple[int, ...]], new: set[int]) -> tuple[Event, ...]:
    """The events all of whose keys are new, the first of each key. Their keys are not new any more."""
    fresh = []
    for event, of_event in zip(events, keys, strict=True):
        if new.issuperset(of_event):
            fresh.append(event)
        new.difference_update(of_event)
    return events if len(fresh) == len(events) else tuple(fresh)
