"""Every spool of ours under the shipped contract."""

from pathlib import Path

from poller.core.spool import SpoolAdmin
from poller.runtime.clock import Clock
from poller.spools.memory import MemorySpool
from poller.spools.sqlite import SqliteSpool
from poller.testing import DurableSpoolContract, SpoolContract


class TestMemorySpool(SpoolContract):
    def open(self, folder: Path, clock: Clock) -> SpoolAdmin:
        return MemorySpool("spool", MemorySpool.Settings(type="memory"), {}, clock)


class TestSqliteSpool(DurableSpoolContract):
    def open(self, folder: Path, clock: Clock) -> SpoolAdmin:
        settings = SqliteSpool.Settings(type="sqlite", path=folder / "spool.db")
        return SqliteSpool("spool", settings, {}, clock)
