"""Migrates the file of an earlier schema: all steps in one transaction."""

import sqlite3
from collections.abc import Callable, Mapping

Step = Callable[[sqlite3.Connection], None]
"""Migrates from one schema to the next. Steps use `execute` only: `executescript` would commit half of the work."""


def migrate(connection: sqlite3.Connection, version: int, steps: Mapping[int, Step]) -> int:
    """Take every step from `version` on; returns the schema reached. After a failure the file is unchanged."""
    if version not in steps:
        return version
    connection.execute("BEGIN IMMEDIATE")
    try:
        while (step := steps.get(version)) is not None:
            step(connection)
            version += 1
        connection.execute(f"PRAGMA user_version={version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return version
