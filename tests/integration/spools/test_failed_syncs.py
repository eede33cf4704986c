"""A sync that failed is not tried again and believed: nothing is acknowledged after it, nothing before it is lost."""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from poller.pipeline.journal import Journal
from poller.runtime.clock import Clock
from poller.testing import anything
from poller.testing.history import newest_events
from tests.fakes import sqlite_spool

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

SPOOL = """
import asyncio, sys
from pathlib import Path
from poller.core.errors import StorageError
from poller.testing import anything, some_reading
from tests.fakes import sqlite_spool

async def main():
    async with sqlite_spool(Path(sys.argv[1])) as spool:
        await spool.attach("a", anything)
        for number in range(20):
            try:
                await spool.append("source", [some_reading(number)])
                print("ACK", number, flush=True)
            except StorageError as error:
                print("FAILED", number, type(error).__name__, flush=True)
asyncio.run(main())
"""

JOURNAL = """
import asyncio, sys
from pathlib import Path
from poller.core.errors import StorageError
from poller.pipeline.journal import Journal
from tests.integration.pipeline.test_journal import page

async def keep(journal, n):
    await asyncio.sleep(0.05 * (n % 2))
    return await journal.keep(page(b"%d." % n * 3000))

async def main():
    async with Journal(Path(sys.argv[1]) / "journal", 16 << 20) as journal:
        for number in range(0, 20, 2):  # two at once: the second waits in the thread's queue while the first fails
            try:
                await journal.room()
                await journal.room()
            except StorageError as error:
                print("FAILED", number, type(error).__name__, flush=True)
                continue
            pages = [keep(journal, n) for n in (number, number + 1)]
            for n, kept in enumerate(await asyncio.gather(*pages, return_exceptions=True), number):
                print("FAILED" if isinstance(kept, Exception) else "ACK", n, flush=True)
asyncio.run(main())
"""


def run(program: str, folder: Path, file: Path, when: str, error: str) -> tuple[list[int], list[int], str]:
    """Acknowledged and refused numbers, when some syncs of a file fail (others work)."""
    trace = folder / "trace"
    calls = "fsync,fdatasync"
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:delay_enter=200000:when={when}"]
    command = ["strace", "-f", "-o", str(trace), "-P", str(file), *inject]
    done = subprocess.run(
        [*command, sys.executable, "-c", program, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "INJECTED" in trace.read_text(), done.stderr
    found = re.findall(r"^(ACK|FAILED) (\d+)", done.stdout, re.MULTILINE)
    return (
        [int(n) for word, n in found if word == "ACK"],
        [int(n) for word, n in found if word == "FAILED"],
        (done.stdout + done.stderr),
    )


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_after_a_failed_sync_the_spool_acknowledges_nothing_and_has_what_it_did(
    tmp_path: Path, error: str
) -> None:
    acknowledged, refused, found = run(SPOOL, tmp_path, tmp_path / "spool.db-wal", "7", error)
    assert 2 <= len(acknowledged) < 10, found
    assert acknowledged + refused == list(range(20)), "nothing is acknowledged after the failure"

    async with sqlite_spool(tmp_path, Clock()) as spool:
        await spool.attach("a", anything)
        there = {
            int(str(event.fields["file_name"]).split("_")[3]) // 10
            for event in await newest_events(spool, 99)
        }
        assert set(acknowledged) <= there


def test_after_a_failed_sync_the_journal_acknowledges_nothing_and_has_what_it_did(tmp_path: Path) -> None:
    acknowledged, refused, found = run(JOURNAL, tmp_path, tmp_path / "journal", "7", "EIO")
    assert 2 <= len(acknowledged) < 14, found
    assert acknowledged + refused == [*range(len(acknowledged)), *refused]
    assert min(refused) > max(acknowledged)
    assert min(refused) % 2 == 0, "the first of two failed, so that the second was in the queue"

    async def reopened() -> list[int]:
        async with Journal(tmp_path / "journal", 16 << 20) as journal:
            return [int(found.body.split(b".")[0]) for _, found in journal.take_leftovers()]

    assert set(acknowledged) <= set(asyncio.run(reopened()))
