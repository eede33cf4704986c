"""Brings the file of an earlier schema up to date: all steps in one transaction, or none."""

import sqlite3
from collections.abc import Callable, Mapping

Step = Callable[[sqlite3.Connection], None]
"""Leads from one schema to the next, by `execute` alone (`executescript` would commit half of it)."""

STEPS: Mapping[int, Step] = {}
"""From which schema each step leads. Every released schema has one; its spool file is kept among the tests."""


def migrate(connection: sqlite3.Connection, version: int, steps: Mapping[int, Step]) -> int:
    """Take every step from `version` on; returns the schema then. What fails, or is killed, leaves the old file."""
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
