"""`poller trace` on the file of a stopped daemon, as people and programs call it."""

import asyncio
import json
from pathlib import Path

from poller.core.model import Done, Retry
from poller.testing import anything, some_event, some_reading
from tests.commands import Ended, poller
from tests.fakes import sqlite_spool

CONFIG = """
accounts: {main: {app_id: 1, key_file: not-there, cos: {bucket: shots, app_id: 1250000000}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
sinks:
  archive: {type: download, directory: pictures, template: "{stream}/{name}"}
  hook: {type: webhook, url: "https://example.com/", secret_file: not-there}
"""


def spool_of(folder: Path) -> None:
    """Three events: delivered to `archive`, and the first waits for a retry at `hook`."""

    async def fill() -> None:
        async with sqlite_spool(folder) as spool:
            await spool.attach("archive", anything)
            await spool.attach("hook", anything)
            await spool.append("shots", [some_reading(1, 2, 3)])
            await spool.settle(await spool.claim("archive", 3), [Done()] * 3)
            await spool.settle(await spool.claim("hook", 1), [Retry(after=600, reason="HTTP 503")])

    (folder / "poller.yaml").write_text(CONFIG)
    asyncio.run(fill())


def trace(folder: Path, *words: str) -> Ended:
    return poller("trace", *words, "-c", "poller.yaml", folder=folder)


def test_a_trace_is_read_from_the_file_without_a_daemon_or_any_secret(tmp_path: Path) -> None:
    spool_of(tmp_path)
    event = some_event(1)
    name = str(event.fields["file_name"])
    said = trace(tmp_path, name, "--utc")
    assert said.returncode == 0, said.stderr
    text = said.stdout
    assert text.startswith(f"screenshot {event.id}\n")
    assert "  taken      2026-01-02T03:04:15Z\n" in text
    assert "  archive    delivered " in text
    assert f"file {tmp_path}/pictures/room/{name} (not there)" in text
    assert "  hook       waiting, next attempt " in text
    assert ": HTTP 503\n" in text


def test_a_program_gets_one_object(tmp_path: Path) -> None:
    spool_of(tmp_path)
    said = trace(tmp_path, "room", "--at", "2026-01-02T03:04:30Z", "--json")
    row = json.loads(said.stdout)
    assert (row["id"], row["number"], row["state"]) == (some_event(2).id, 2, "stored")
    assert {sink["sink"]: sink["state"] for sink in row["sinks"]} == {
        "archive": "delivered",
        "hook": "waiting",
    }


def test_an_event_that_is_not_there_is_exit_code_1(tmp_path: Path) -> None:
    spool_of(tmp_path)
    said = trace(tmp_path, "0" * 32)
    assert (said.returncode, said.stdout.splitlines()[0][:41]) == (1, f"{'0' * 32}: unknown")
    said = trace(tmp_path, "room", "--at", "2025-01-01")
    assert (said.returncode, said.stdout.splitlines()[0][:13]) == (1, "room: unknown")


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    spool_of(tmp_path)
    said = trace(tmp_path, "room")
    assert (said.returncode, "give the id of the event, or a stream" in said.stderr) == (1, True)
    said = trace(tmp_path, "room", "--at", "soon")
    assert (said.returncode, "--at" in said.stderr) == (2, True)
    said = trace(tmp_path, str(some_event(1).fields["file_name"]), "--account", "other")
    assert (said.returncode, "no account other is configured" in said.stderr) == (1, True)
