"""The parts together, in one process with the sandbox."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from poller.core.model import Event, RawPage
from poller.daemon.daemon import Daemon
from poller.daemon.signals import Stop
from poller.daemon.wiring import event_filter
from poller.pipeline.journal import Journal
from poller.sandbox import Customer, Load, Options, Sandbox
from poller.settings import Only, load
from poller.testing import some_event
from poller.testing.history import newest_events
from tests.patience import patiently

ACCOUNTS = (
    Customer(app_id=1, key="a" * 32, bucket="one"),
    Customer(app_id=2, key="b" * 32, bucket="two"),
)


def configured(folder: Path, endpoint: str) -> Path:
    config = {
        "accounts": {
            name: {
                "endpoint": endpoint,
                "app_id": c.app_id,
                "key": c.key,
                "cos": {"bucket": c.bucket, "app_id": 7},
            }
            for name, c in zip(("first", "second"), ACCOUNTS, strict=True)
        },
        "sources": {
            "one": {"type": "screenshot_queue", "account": "first", "min_delay": "10ms", "max_delay": "10ms"},
            "two": {
                "type": "screenshot_queue",
                "account": "second",
                "min_delay": "10ms",
                "max_delay": "10ms",
            },
            "small": {"type": "screenshot_queue", "account": "second", "count": 7, "max_delay": "250ms"},
        },
        "spool": {"type": "memory"},
        "journal": {"path": "journal", "size": "64MiB"},
        "sinks": {"archive": {"type": "stdout"}},
    }
    path = folder / "poller.yaml"
    path.write_text(json.dumps(config))
    return path


async def drained(config: Path) -> tuple[bool, list[Event], int]:
    stop = Stop()
    stop.listen_in_loop()
    async with Daemon(load(config)) as daemon:
        done = await daemon.drain(stop, 30)
        return done, await newest_events(daemon.spool, 10_000), await daemon.spool.quarantine_size()


def test_several_accounts_and_sources_live_in_one_daemon(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Sandbox(Options(directory=tmp_path / "box", customers=ACCOUNTS)) as box:
            for customer, count in zip(ACCOUNTS, (230, 410), strict=True):
                box.enqueue(Load(count=count, customer=customer.app_id))
            api = box.endpoints["api"]
            assert api is not None
            done, events, _ = await drained(configured(tmp_path, api))
            assert done
            assert Counter(event.account for event in events) == {"first": 230, "second": 410}
            for event in events:
                bucket = "one" if event.account == "first" else "two"
                assert event.url is not None
                assert event.url.startswith(f"http://{bucket}-7.file.myqcloud.com/")

    asyncio.run(patiently(scenario()))


def test_a_page_of_a_source_that_left_the_configuration_goes_to_quarantine(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path / "journal", 64 * 2**20) as journal:
            await journal.room()
            at = datetime.now(UTC)
            await journal.keep(
                RawPage(source="gone", received_at=at, status=200, encoding="", whole=True, body=b"old")
            )
        async with Sandbox(Options(directory=tmp_path / "box", customers=ACCOUNTS)) as box:
            api = box.endpoints["api"]
            assert api is not None
            assert (await drained(configured(tmp_path, api)))[2] == 1
        async with Journal(tmp_path / "journal", 64 * 2**20) as journal:
            assert journal.take_leftovers() == []

    asyncio.run(patiently(scenario()))


def test_only_restricts_by_kind_and_by_stream() -> None:
    room, hall = some_event(1, stream="room-1"), some_event(1, stream="hall")
    assert event_filter(None)(room)
    assert event_filter(Only(kinds=("screenshot",)))(room)
    assert not event_filter(Only(kinds=("recording",)))(room)
    rooms = event_filter(Only(streams=("room-*", "x?")))
    assert (rooms(room), rooms(hall)) == (True, False)
    assert not event_filter(Only(kinds=("recording",), streams=("room-*",)))(room)
