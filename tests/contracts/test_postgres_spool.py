"""The PostgreSQL spool under the shipped contract, against a real server: each folder is a schema of its database."""

from pathlib import Path

import pytest

from poller.core.spool import SpoolAdmin
from poller.runtime.clock import Clock
from poller.spools.postgres import PostgresSpool, sessions
from poller.spools.postgres.links import connect
from poller.testing import DurableSpoolContract, SharedSpoolContract
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import settings_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL


class OverPostgresql:
    """Spools in a database, with a lease of `lease` seconds."""

    lease = 5.0

    @pytest.fixture(autouse=True)
    def _server(self, database: Database) -> None:
        self.server = database

    def open(self, folder: Path, clock: Clock) -> SpoolAdmin:
        settings = PostgresSpool.Settings.model_validate(settings_of(self.server, folder, lease=self.lease))
        return PostgresSpool("spool", settings, {}, clock)


class TestPostgresSpool(OverPostgresql, DurableSpoolContract):
    pass


class TestSharedPostgresSpool(OverPostgresql, SharedSpoolContract):
    lease = 10.0

    async def end_session(self, spool: SpoolAdmin) -> None:
        assert isinstance(spool, PostgresSpool)
        link = await connect(spool._address)
        await sessions.end(link, spool.member)
        await link.close()
