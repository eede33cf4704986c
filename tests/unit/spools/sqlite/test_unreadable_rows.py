"""Stored bytes that were changed: the file is moved aside once, whatever decoding raises, and the rest comes back."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from poller.core.errors import StorageCorrupt
from poller.core.model import Dead, ParsedPage, PollOutcome, Reject, Retry
from poller.spools.sqlite import SqliteSpool
from poller.testing import START, anything, some_event, some_reading
from tests.fakes import sqlite_spool
from tests.patience import patiently

DEEP: Final = b"[" * 200_000
Scenario = Callable[[SqliteSpool], Awaitable[None]]

CHANGES: Final[dict[str, Callable[[bytes], object]]] = {
    "bytes that are no UTF-8": lambda blob: blob.replace(b'"id":"', b'"id":"\xff'),
    "one byte that is no UTF-8": lambda blob: blob.replace(b"2026-", b"2026\xff"),
    "a nesting without end": lambda blob: b'{"id":' + DEEP,
    "a nesting without end inside of an event": lambda blob: blob.replace(
        b'"data":{', b'"data":{"deep":' + DEEP + b","
    ),
    "a cut blob": lambda blob: blob[: len(blob) // 2],
    "an empty blob": lambda blob: b"",
    "nothing": lambda blob: 0,
    "a number": lambda blob: 99999999999,
    "a text": lambda blob: blob.decode(),
    "zeros": lambda blob: bytes(len(blob)),
    "a time without a zone": lambda blob: blob.replace(b'Z"', b'"'),
    "a year without end": lambda blob: blob.replace(b'"2026-', b'"99999-'),
    "a huge number": lambda blob: blob.replace(b'"id":"', b'"id":' + b"9" * 400 + b',"x":"'),
    "another type": lambda blob: blob.replace(b'"id":"', b'"id":[""],"x":"'),
}
WAITING: Final = {
    "numbers": ("'[1'", "x'ff'", "x'5b393939393939393939393939393939393939393939395d'", "x''", "17"),
    "history": ("x'ff'", f"x'{DEEP.hex()}'", "x'5b5b312c325d5d'", "'text'"),
    "due": ("9e999", "'soon'", "1e300", "x'00'"),
    "first_attempt_at": ("-1e17", "'text'"),
    "failed": ("'many'", "x'ff'", "0.5"),
    "id": ("CAST(x'ff' AS TEXT)",),
}
META: Final = (
    "UPDATE meta SET value = 'x' WHERE name = 'factor'",
    "UPDATE meta SET value = 7 WHERE name = 'factor'",
    "DELETE FROM meta WHERE name = 'factor'",
    "UPDATE meta SET value = x'ff' WHERE name = 'catalogue'",
    "UPDATE meta SET value = 'many' WHERE name = 'catalogue'",
    "UPDATE stream SET known = x'ff'",
    "UPDATE stream SET known = x'00'",
    "UPDATE stream SET known = 'text'",
    f"UPDATE stream SET known = x'{(bytes([0x91]) * 100_000).hex()}'",
    "UPDATE sink SET position = 'far'",
    "UPDATE sink SET position = x'ff'",
    "UPDATE page SET last = 'last'",
    "UPDATE seen_page SET keys = 'text'",
    "UPDATE source SET memory = 5",
    "UPDATE source SET about = CAST(x'ff' AS TEXT)",
    "UPDATE page SET received_at = 9e999",
    "UPDATE page SET received_at = 'then'",
)


def run_scenario(folder: Path, scenario: Scenario) -> SqliteSpool:
    async def run() -> SqliteSpool:
        async with sqlite_spool(folder) as spool:
            await scenario(spool)
            return spool

    return asyncio.run(patiently(run()))


async def filled(spool: SqliteSpool) -> None:
    """Fifty pages: a dead letter, a waiting batch, a reject, and the rest pending."""
    await spool.attach("a", anything)
    for n in range(50):
        await spool.append("shots", [some_reading(n, memory=b"kept")])
    reject = Reject(received_at=START, reason="bad", encoding="", body=b"what it was")
    await spool.append(
        "shots", [ParsedPage(events=(), rejects=(reject,), outcome=PollOutcome.PARTIAL, memory=b"kept")]
    )
    await spool.settle(await spool.claim("a", 2), [Dead(reason="no")] * 2)
    await spool.settle(await spool.claim("a", 1), [Retry(after=0.0, reason="again")])


async def everything(spool: SqliteSpool) -> None:
    """All that a daemon reads of a file sooner or later."""
    await spool.attach("a", anything)
    if spool.damage is not None:
        return
    await spool.backlog("a")
    await spool.memory("shots")
    await spool.append("shots", [some_reading(1000)])
    got = 0
    while got < 49:
        batch = await patiently(spool.claim("a", 100))
        got += len(batch.events)


@contextmanager
def changing(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "spool.db")) as db, db:
        yield db


def aside(folder: Path) -> list[Path]:
    return [path for path in folder.glob("spool.db.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]


def met_and_moved(folder: Path) -> Path:
    """Whoever meets the damage gets `StorageCorrupt` at most once; the file is moved, and the next start is good."""
    try:
        run_scenario(folder, everything)
    except StorageCorrupt:
        assert aside(folder) == []

        async def begins(spool: SqliteSpool) -> None:
            await spool.attach("a", anything)
            await spool.append("shots", [some_reading(1)])

        run_scenario(folder, begins)
    (moved,) = aside(folder)
    run_scenario(folder, lambda spool: asyncio.sleep(0))
    assert aside(folder) == [moved], "once"
    return moved


def salvaged(folder: Path, file: Path) -> tuple[set[str], int, int]:
    """The events, dead letters and rejects that come back."""
    parts = list(run_scenario(folder, lambda spool: asyncio.sleep(0)).salvage(file, []))
    return (
        {event.id for part in parts for event in part.events},
        sum(len(part.dead) for part in parts),
        sum(len(part.rejects) for part in parts),
    )


@pytest.mark.parametrize("change", CHANGES)
def test_an_event_that_cannot_be_read_is_no_crash_loop_and_costs_only_itself(
    tmp_path: Path, change: str
) -> None:
    run_scenario(tmp_path, filled)
    with changing(tmp_path) as db:
        (stored,) = db.execute("SELECT events FROM page WHERE first = 20").fetchone()
        db.execute("UPDATE page SET events = ? WHERE first = 20", (CHANGES[change](stored),))
    events, dead, rejects = salvaged(tmp_path, met_and_moved(tmp_path))
    assert {some_event(n).id for n in range(50) if n != 19} <= events
    assert (dead, rejects) == (2, 1)


@pytest.mark.parametrize("change", CHANGES)
def test_a_waiting_batch_whose_event_cannot_be_read_is_no_crash_loop(tmp_path: Path, change: str) -> None:
    run_scenario(tmp_path, filled)
    with changing(tmp_path) as db:
        (stored,) = db.execute("SELECT events FROM waiting").fetchone()
        db.execute("UPDATE waiting SET events = ?", (CHANGES[change](stored),))
    met_and_moved(tmp_path)


@pytest.mark.parametrize(("column", "value"), [(name, value) for name in WAITING for value in WAITING[name]])
def test_a_waiting_batch_that_cannot_be_read_is_no_crash_loop(
    tmp_path: Path, column: str, value: str
) -> None:
    run_scenario(tmp_path, filled)
    with changing(tmp_path) as db:
        db.execute(f"UPDATE waiting SET {column} = {value}")
    events, *_ = salvaged(tmp_path, met_and_moved(tmp_path))
    assert {some_event(n).id for n in range(50)} <= events


@pytest.mark.parametrize("change", META)
def test_books_that_cannot_be_read_are_no_crash_loop(tmp_path: Path, change: str) -> None:
    run_scenario(tmp_path, filled)
    with changing(tmp_path) as db:
        assert db.execute(change).rowcount > 0
    events, dead, rejects = salvaged(tmp_path, met_and_moved(tmp_path))
    assert {some_event(n).id for n in range(50)} <= events
    assert (dead, rejects) == (2, 1)


def test_a_time_that_does_not_read_back_is_met_too_where_no_record_of_the_clock_is_left(
    tmp_path: Path,
) -> None:
    run_scenario(tmp_path, filled)
    (tmp_path / "spool.db.clock").unlink()
    with changing(tmp_path) as db:
        db.execute("UPDATE page SET received_at = 'then'")
    assert run_scenario(tmp_path, everything).damage is not None


async def one_letter_left(spool: SqliteSpool) -> None:
    await spool.attach("a", anything)
    (letter,) = await spool.dead(10)
    assert letter.number == 2
    assert await spool.retry_dead("a", [1, 2], 10) == 1
    await spool.append("shots", [some_reading(1000)])
    assert await spool.purge_dead([1]) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_dead_letter_whose_event_cannot_be_read_hides_no_other(tmp_path: Path, change: str) -> None:
    run_scenario(tmp_path, filled)
    with changing(tmp_path) as db:
        (stored,) = db.execute("SELECT event FROM dead WHERE n = 1").fetchone()
        db.execute("UPDATE dead SET event = ? WHERE n = 1", (CHANGES[change](stored),))
    run_scenario(tmp_path, one_letter_left)
    assert aside(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    ["reason = x'ff'", "history = x'ff'", "died_at = 'then'", "died_at = 9e999", "attempts = 'many'"],
)
def test_a_dead_letter_that_cannot_be_read_hides_no_other(tmp_path: Path, change: str) -> None:
    run_scenario(tmp_path, filled)
    with changing(tmp_path) as db:
        db.execute(f"UPDATE dead SET {change} WHERE n = 1")
    run_scenario(tmp_path, one_letter_left)
    assert aside(tmp_path) == []


@pytest.mark.parametrize(
    "change", ["body = 7", "received_at = 'then'", "received_at = -1e300", "encoding = x'ff'"]
)
def test_a_reject_that_cannot_be_read_hides_no_other_and_the_spool_goes_on(
    tmp_path: Path, change: str
) -> None:
    async def two(spool: SqliteSpool) -> None:
        await filled(spool)
        reject = Reject(received_at=START, reason="worse", encoding="", body=b"another")
        await spool.append("shots", [ParsedPage(events=(), rejects=(reject,), outcome=PollOutcome.PARTIAL)])

    run_scenario(tmp_path, two)
    with changing(tmp_path) as db:
        db.execute(f"UPDATE quarantine SET {change} WHERE n = 1")

    async def scenario(spool: SqliteSpool) -> None:
        (kept,) = await spool.quarantined(10)
        assert kept.number == 2

    run_scenario(tmp_path, scenario)
    assert aside(tmp_path) == []


@pytest.mark.parametrize(
    ("table", "column"), [("dead", "reason"), ("quarantine", "reason"), ("quarantine", "source")]
)
def test_a_text_that_is_no_utf_8_is_shown_as_far_as_it_is_one(
    tmp_path: Path, table: str, column: str
) -> None:
    run_scenario(tmp_path, filled)
    with changing(tmp_path) as db:
        db.execute(f"UPDATE {table} SET {column} = CAST(x'626164ff' AS TEXT) WHERE n = 1")

    async def scenario(spool: SqliteSpool) -> None:
        assert len(await spool.dead(10)) == 2
        assert len(await spool.quarantined(10)) == 1

    run_scenario(tmp_path, scenario)
    assert aside(tmp_path) == []
