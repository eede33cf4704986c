"""The table `meta`: single facts about the spool, by name. And the number of the next event, in the table `log`."""

import asyncpg

from poller.spools.rows import reads_back

CATALOGUE = "catalogue"
"""The first event number that the written catalogue lacks."""
_FACTOR = "factor"


async def put_factor(connection: asyncpg.Connection, secret: bytes) -> bytes:
    """Store the random bytes of a new spool, unless it has some by now; returns those that it has."""
    factor: bytes = await connection.fetchval(
        "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = meta.value"
        " RETURNING value",
        _FACTOR,
        secret,
    )
    return factor


async def read_factor(connection: asyncpg.Connection) -> bytes | None:
    """The random bytes that the spool was created with; None if they are gone."""
    factor: bytes | None = await connection.fetchval("SELECT value FROM meta WHERE name = $1", _FACTOR)
    return factor


async def read_number(connection: asyncpg.Connection, name: str) -> int:
    """The number of this name; 0 if there is none. Raises `Unreadable`."""
    return _number(await connection.fetchval("SELECT value FROM meta WHERE name = $1", name))


async def put_number(connection: asyncpg.Connection, name: str, number: int) -> None:
    """Write a number."""
    await connection.execute(
        "INSERT INTO meta (name, value) VALUES ($1, $2)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        _stored(number),
    )


async def read_head(connection: asyncpg.Connection) -> int:
    """The number of the next event."""
    return int(await connection.fetchval("SELECT head FROM log"))


async def lock_head(connection: asyncpg.Connection) -> int:
    """The same; no other transaction takes numbers before the end of this one."""
    return int(await connection.fetchval("SELECT head FROM log FOR UPDATE"))


async def put_head(connection: asyncpg.Connection, number: int) -> None:
    """Write the number of the next event."""
    await connection.execute("UPDATE log SET head = $1", number)


def _stored(number: int) -> bytes:
    return str(number).encode()


@reads_back
def _number(value: bytes | None) -> int:
    return 0 if value is None else int(value)
