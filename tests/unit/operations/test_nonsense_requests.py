"""A request that is nonsense is refused by itself: its numbers are bounded, and nobody else's work fails with it."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Final

import pytest

from poller.core.errors import StorageError
from poller.core.model import Filter, ParsedPage
from poller.operations.requests import NOT_A_REQUEST, read_request
from poller.spools.sqlite import SqliteSpool
from poller.spools.sqlite.writer import Writer
from poller.testing import anything, some_reading
from poller.testing.history import newest_events
from tests.fakes import sqlite_spool
from tests.patience import patiently

HUGE: Final = "99999999999999999999"
NUMBERS: Final = (
    HUGE,
    f"-{HUGE}",
    "-1",
    "9223372036854775808",
    "1.5",
    "1e3",
    "1e400",
    "NaN",
    "Infinity",
    "true",
    '"7"',
)
TIMES: Final = ('"2026-01-01T00:00:00"', "1e300", HUGE, '"0000-01-01T00:00:00Z"', '"yesterday"', "[]")
NONSENSE: Final = (
    *(f'"chosen": {{"below": {number}}}' for number in (*NUMBERS, "[1]", '{"below": 1}')),
    *(f'"limit": {number}' for number in (*NUMBERS, "null", "[1]", "10001")),
    *(f'"chosen": {{"before": {time}}}' for time in TIMES),
    *(f'"chosen": {{"since": {time}}}' for time in TIMES),
    *(f'"start": {number}' for number in NUMBERS),
    *(f'"at": {time}' for time in TIMES),
    '"sinks": [1]',
    '"streams": "room"',
    '"state": 1',
    '"onwards": 1',
    '"chosen": {"ids": [1]}',
    '"chosen": ' + "[" * 100_000,
    '"chosen": {"ids": ' + "[" * 100_000,
    '"sink": 1',
    '"dry": 1',
)


@pytest.mark.parametrize("verb", ["dead list", "dead retry", "quarantine purge", "pause", "status", "reload"])
@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda nonsense: nonsense[:50])
def test_a_request_with_a_senseless_number_is_refused_whatever_the_verb(verb: str, nonsense: str) -> None:
    with pytest.raises(NOT_A_REQUEST):
        read_request(f'{{"verb": "{verb}", {nonsense}}}'.encode())


def test_sensible_numbers_are_taken() -> None:
    line = b'{"verb": "dead list", "limit": 10000, "chosen": {"below": 9223372036854775807}}'
    assert read_request(line).chosen == Filter(below=2**63 - 1)


def test_who_reads_beside_a_read_that_fails_gets_what_it_asked_for(tmp_path: Path) -> None:
    """They run in one group."""

    async def scenario(spool: SqliteSpool) -> None:
        def bug(reader: sqlite3.Connection) -> None:
            raise KeyError("a bug")

        reads = [
            newest_events(spool, 10),
            spool.dead(10),
            spool._reader.read(bug),
            spool.dead(1, Filter(below=2**64)),
            newest_events(spool, 5),
        ]
        first, second, failed, huge, last = await asyncio.gather(*reads, return_exceptions=True)
        assert isinstance(first, list)
        assert isinstance(last, list)
        assert (len(first), second, len(last)) == (3, [], 3)
        assert isinstance(failed, StorageError)
        assert isinstance(huge, StorageError)

    run_scenario(tmp_path, scenario)


def test_who_writes_beside_a_write_that_fails_is_committed(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool) -> None:
        def bug(writer: Writer) -> None:
            writer.connection.execute("DELETE FROM page")
            raise KeyError("a bug")

        def written(*numbers: int) -> ParsedPage:
            return some_reading(*numbers)

        writes = [spool.append("a", [written(7)]), spool._write(bug), spool.append("a", [written(8)])]
        first, failed, last = await asyncio.gather(*writes, return_exceptions=True)
        assert not isinstance(first, BaseException)
        assert not isinstance(last, BaseException)
        assert isinstance(failed, StorageError)
        assert len(await newest_events(spool, 10)) == 5
        await spool.check_writable()

    run_scenario(tmp_path, scenario)


def run_scenario(folder: Path, scenario: "object") -> None:
    async def run() -> None:
        async with sqlite_spool(folder) as spool:
            await spool.attach("a", anything)
            await spool.append("a", [some_reading(1, 2, 3)])
            await scenario(spool)  # type: ignore[operator]

    asyncio.run(patiently(run()))
