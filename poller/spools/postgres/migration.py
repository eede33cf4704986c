"""Makes the tables of a spool, and brings those of an earlier version to the version of this program.

Invariants
    Programs of different versions never write the same tables. A migration ends all sessions in its own transaction, so
    a daemon of the version before writes nothing more, whatever it was doing. A session begins only for a program of
    the tables' version (`schema.check_version`).
    Only a daemon migrates. A command refuses tables of an earlier version, because it would end all daemons.
"""

from collections.abc import Mapping
from typing import Final

from poller.spools.postgres import sessions
from poller.spools.postgres.links import Address, Link
from poller.spools.postgres.schema import SCHEMA, VERSION, check_version, put_version, read_version

STEPS: Final[Mapping[int, str]] = {}
"""The statements that migrate to the next version, by the version that they start from. Each released version but the
last has an entry."""

_HAS_LZ4: Final = "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
"""PostgreSQL compresses large values. With lz4 an append costs the server a third less than with its own method."""


async def prepare(link: Link, address: Address, lease: float, *, migrates: bool) -> None:
    """Create the schema and its tables if they are missing, and migrate them if `migrates`.

    Raises `StorageError` if the tables do not have the version of this program afterwards.
    """
    async with link.transaction():
        await link.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"poller {address.schema}")
        if await link.fetchval("SELECT to_regclass($1)", f"{address.schema}.meta") is None:
            await _create(link, address.schema)
        elif migrates:
            await migrate(link, address.name, lease, STEPS)
        await check_version(link)


async def _create(link: Link, schema: str) -> None:
    if await link.fetchval("SELECT to_regnamespace($1)", f'"{schema}"') is None:
        await link.execute(f'CREATE SCHEMA "{schema}"')  # an administrator may have made it for us
    await link.execute(SCHEMA)
    if await link.fetchval(_HAS_LZ4):
        await link.execute("ALTER TABLE page ALTER events SET COMPRESSION lz4")
    await put_version(link, VERSION)


async def migrate(link: Link, name: str, lease: float, steps: Mapping[int, str]) -> None:
    """Take every step from the tables' version on, in the caller's transaction. All sessions end with its commit.

    Raises `StorageAway` if a lock is not free within a quarter of a lease, as while a dump reads a table, so that no
    lease ends in vain; and `StorageLocked` while the spool is moved.
    """
    version = await read_version(link)
    if version not in steps:
        return
    await link.execute("SELECT set_config('lock_timeout', $1, true)", str(int(lease / 4 * 1000)))
    await sessions.end_all(link, name, lease)
    while (step := steps.get(version)) is not None:
        await link.execute(step)
        version += 1
    await put_version(link, version)
