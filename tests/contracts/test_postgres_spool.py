"""The PostgreSQL spool under the shipped contract, against a real server: each folder is a schema of its database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from poller.core.spool import SpoolAdmin
from poller.runtime.clock import Clock
from poller.spools.postgres import PostgresSpool, sessions
from poller.spools.postgres.links import connect
from poller.testing import DurableSpoolContract, SharedSpoolContract
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import Schemas, plain_dsn_of, settings_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL


@pytest.fixture(scope="module")
def schemas(started: Database) -> Schemas:
    return Schemas(started)


class OverPostgresql:
    """Spools in a database, with a lease of `lease` seconds."""

    lease = 5.0

    @pytest.fixture(autouse=True)
    def _server(self, database: Database, schemas: Schemas) -> Iterator[None]:
        self.server, self.schemas = database, schemas
        yield
        schemas.empty()

    def open(self, folder: Path, clock: Clock) -> SpoolAdmin:
        place = {"dsn": plain_dsn_of(self.server), "schema": self.schemas.of(folder)}
        settings = PostgresSpool.Settings.model_validate(
            settings_of(self.server, folder, lease=self.lease, **place)
        )
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
