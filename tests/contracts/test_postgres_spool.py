"""The PostgreSQL spool under the shipped contract, against a real server: each folder is a schema of its database."""

from pathlib import Path

import pytest

from poller.core.spool import SpoolAdmin
from poller.runtime.clock import Clock
from poller.spools.postgres import PostgresSpool
from poller.testing import DurableSpoolContract
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import settings_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL


class TestPostgresSpool(DurableSpoolContract):
    @pytest.fixture(autouse=True)
    def _server(self, database: Database) -> None:
        self.server = database

    def open(self, folder: Path, clock: Clock) -> SpoolAdmin:
        settings = PostgresSpool.Settings.model_validate(settings_of(self.server, folder, lease=5))
        return PostgresSpool("spool", settings, {}, clock)
