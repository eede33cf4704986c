"""Sinks of type `sql` for tests: their settings, and the table that they write to."""

from ipaddress import ip_network
from typing import Any

import pytest

from poller.sinks.sql import Sql
from poller.sinks.sql.table import creation
from tests.servers.databases import PASSWORD, Database

LOOPBACK = ip_network("127.0.0.0/8")
TABLE = "live_events"
POSTGRESQL = pytest.mark.parametrize("started", ["postgresql"], indirect=True)
MARIADB = pytest.mark.parametrize("started", ["mariadb"], indirect=True)
MISSING = "the table is missing: poller check --connect prints the statement that makes it"


def sink_to(server: Database, **more: Any) -> Sql:
    settings = {
        "type": "sql",
        "url": server.url,
        "user": "poller",
        "password": PASSWORD,
        "allow_cidr": [LOOPBACK],
        "concurrency": 2,
    }
    return Sql("db", Sql.Settings.model_validate({**settings, **more}), {})


async def make_table(server: Database) -> None:
    await drop_table(server)
    await server.ask(creation(server.scheme, TABLE))
    if server.engine == "postgresql":
        await server.ask(f"ALTER TABLE {TABLE} OWNER TO poller")


async def drop_table(server: Database) -> None:
    await server.ask(f"DROP TABLE IF EXISTS {TABLE}")


@pytest.fixture
async def server(database: Database) -> Database:
    """A server that has the table, which is empty."""
    await make_table(database)
    return database


async def stored_ids(server: Database) -> set[str]:
    return {id for (id,) in await server.ask(f"SELECT id FROM {TABLE}")}
