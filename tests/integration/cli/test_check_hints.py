"""`poller check` beside a spool that has seen streams: whether the settings can carry them."""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from poller.core.model import Event, ParsedPage, PollOutcome
from poller.spools.sqlite import SqliteSpool
from poller.testing.factories import some_event
from tests.commands import Ended, poller

EACH = 100
SETTINGS = """
accounts:
  main: {{endpoint: "http://127.0.0.1:9/", app_id: 1234, key: abc{rate}, cos: {{bucket: shots, app_id: 1}}}}
sources: {{shots: {{type: screenshot_queue, account: main{source}}}}}
spool: {{type: sqlite, path: {spool}}}
journal: {{size: 16MiB}}
sinks:
  console: {{type: stdout{sink}}}
"""


def spool(file: Path) -> SqliteSpool:
    return SqliteSpool("spool", SqliteSpool.Settings(type="sqlite", path=file, min_free=0), {})


def ticks(streams: int, numbers: range, first: int = 0) -> Iterator[Event]:
    """A picture of each stream at each of these moments, which are ten seconds apart."""
    for number in numbers:
        for stream in range(first, first + streams):
            yield some_event(number, stream=f"room-{stream}")


async def put(log: SqliteSpool, events: Iterator[Event]) -> None:
    """Append pages, sixteen a commit."""
    held = list(events)
    for start in range(0, len(held), 16 * EACH):
        some = held[start : start + 16 * EACH]
        pages = [some[first : first + EACH] for first in range(0, len(some), EACH)]
        await log.append(
            "shots", [ParsedPage(events=tuple(page), rejects=(), outcome=PollOutcome.FULL) for page in pages]
        )


def seen(file: Path, *some: Iterator[Event]) -> Path:
    """A spool file that has seen these events."""

    async def fill() -> None:
        async with spool(file) as log:
            for events in some:
                await put(log, events)

    asyncio.run(fill())
    return file


def check(folder: Path, file: Path, *, rate: str = "", source: str = "", sink: str = "") -> list[str]:
    """The hints of a check, which is good whatever they say."""
    shown = checked(folder, file, rate=rate, source=source, sink=sink)
    assert shown.returncode == 0
    assert shown.stdout.endswith(": good\n")
    return shown.stderr.splitlines()


def checked(folder: Path, file: Path, *, rate: str = "", source: str = "", sink: str = "") -> Ended:
    config = folder / "poller.yaml"
    rate = f", rate: {rate}" if rate else ""
    source, sink = (f", {settings}" if settings else "" for settings in (source, sink))
    config.write_text(SETTINGS.format(rate=rate, source=source, sink=sink, spool=file))
    return poller("check", "-c", str(config))


@pytest.fixture(scope="module")
def hundred_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seen(tmp_path_factory.mktemp("spool") / "spool.db", ticks(100_000, range(1)))


@pytest.fixture(scope="module")
def twenty_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seen(tmp_path_factory.mktemp("spool") / "spool.db", ticks(20_000, range(2)))


def test_the_defaults_do_not_carry_a_hundred_thousand_streams(tmp_path: Path, hundred_thousand: Path) -> None:
    beside = sorted(hundred_thousand.parent.iterdir())
    rate, lanes = check(tmp_path, hundred_thousand)
    assert rate == (
        "hint: accounts.main.rate is 20/s, and takes at most 2,000 messages a second out of the queue: "
        "100,000 streams give 10,000. Set 400/s"
    )
    assert lanes == (
        "hint: sources.shots.max_in_flight is 4, and takes at most 8,000 messages a second out of the queue "
        "if an answer takes 50 ms, which is assumed: 100,000 streams give 10,000. Set 16. "
        "A crash can then cost 1,600 messages instead of 400"
    )
    assert sorted(hundred_thousand.parent.iterdir()) == beside, "a check leaves no files beside the spool"


def test_what_the_hints_say_is_enough(tmp_path: Path, hundred_thousand: Path) -> None:
    assert check(tmp_path, hundred_thousand, rate="400/s", source="max_in_flight: 16") == []


def test_a_hint_names_only_the_setting_that_is_too_low(tmp_path: Path, hundred_thousand: Path) -> None:
    (lanes,) = check(tmp_path, hundred_thousand, rate="400/s")
    assert "max_in_flight" in lanes
    (rate,) = check(tmp_path, hundred_thousand, source="max_in_flight: 16")
    assert "accounts.main.rate" in rate


def test_small_answers_are_a_reason_too(tmp_path: Path, hundred_thousand: Path) -> None:
    assert check(tmp_path, hundred_thousand, rate="400/s", source="max_in_flight: 16, count: 10") == [
        "hint: sources.shots.count is 10, and takes at most 3,200 messages a second out of the queue: "
        "100,000 streams give 10,000. Set 100"
    ]


def test_a_tick_that_takes_its_whole_beat_is_too_slow(tmp_path: Path, twenty_thousand: Path) -> None:
    (rate,) = check(tmp_path, twenty_thousand)
    assert "20,000 streams give 2,000. Set 80/s" in rate
    assert check(tmp_path, twenty_thousand, rate="80/s") == []
    assert check(tmp_path, twenty_thousand, rate="4800/m") == []


def test_the_defaults_carry_five_hundred_streams(tmp_path: Path) -> None:
    assert check(tmp_path, seen(tmp_path / "spool.db", ticks(500, range(3)))) == []


def test_a_learned_interval_counts_and_else_the_beat(tmp_path: Path) -> None:
    """A minute between two pictures asks for a sixth. Who has one picture is taken to have one each beat."""
    file = seen(tmp_path / "learned.db", ticks(21_000, range(0, 12, 6)))
    assert check(tmp_path, file) == []
    file = seen(tmp_path / "unknown.db", ticks(5_000, range(1)))
    assert check(tmp_path, file) == []
    (rate,) = check(tmp_path, file, source="beat: 2s")
    assert "5,000 streams give 2,500" in rate
    assert check(tmp_path, file, source='beat: "off"') == []


def test_streams_that_ended_do_not_count(tmp_path: Path) -> None:
    ended = ticks(20_000, range(2))
    file = seen(tmp_path / "spool.db", ended, ticks(500, range(360, 362), first=20_000))
    assert check(tmp_path, file) == []


def test_another_accounts_streams_do_not_count(tmp_path: Path) -> None:
    others = (some_event(1, stream=f"room-{stream}", account="other") for stream in range(21_000))
    assert check(tmp_path, seen(tmp_path / "spool.db", others, ticks(500, range(1)))) == []


def test_a_spool_in_use_is_read_all_the_same(tmp_path: Path, twenty_thousand: Path) -> None:
    file = tmp_path / "spool.db"
    shutil.copyfile(twenty_thousand, file)

    async def beside() -> list[str]:
        async with spool(file):
            return check(tmp_path, file)

    assert len(asyncio.run(beside())) == 1


@pytest.mark.parametrize("state", [b"\0", b"\x81\xa2\xff\xfe\0", b"\xdd" + b"\xff" * 4, 7, 0.5, "text"])
def test_a_state_that_cannot_be_read_is_left_to_the_start(
    tmp_path: Path, twenty_thousand: Path, state: object
) -> None:
    file = tmp_path / "spool.db"
    shutil.copyfile(twenty_thousand, file)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE stream SET known = ? WHERE stream_id = 'room-7'", (state,))
        db.execute("INSERT INTO sink (name, position) VALUES ('console', 1)")
    assert check(tmp_path, file) == []
    (hint,) = check(tmp_path, file, sink="start: earliest")
    assert hint.startswith("hint: sinks.console.start has no effect"), "what can be read is read"


@pytest.mark.parametrize("interval", [-1e300, 0.0, 5e-324, 1e15, 1e300, float("inf"), float("nan")])
def test_no_interval_ends_a_check(tmp_path: Path, interval: float) -> None:
    file = seen(tmp_path / "spool.db", ticks(2, range(2)))
    with closing(sqlite3.connect(file)) as db, db:
        (known,) = db.execute("SELECT known FROM stream WHERE stream_id = 'room-1'").fetchone()
        changed = msgspec.msgpack.encode({**msgspec.msgpack.decode(known), "cadence": interval})
        db.execute("UPDATE stream SET known = ? WHERE stream_id = 'room-1'", (changed,))
    assert check(tmp_path, file) == []


def test_two_sources_of_one_queue_share_its_messages(tmp_path: Path, hundred_thousand: Path) -> None:
    second = "max_in_flight: 6}, more: {type: screenshot_queue, account: main, max_in_flight: 2"
    (lanes,) = check(tmp_path, hundred_thousand, rate="400/s", source=second)
    assert lanes.startswith("hint: sources.more.max_in_flight is 2, and takes at most 4,000 messages")
    assert "Set 8. A crash can then cost 800 messages instead of 200" in lanes


@pytest.mark.parametrize("content", [None, b"", b"no database at all"])
def test_without_a_spool_there_is_no_hint(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "spool.db"
    if content is not None:
        file.write_bytes(content)
    assert check(tmp_path, file) == []
    assert file.exists() == (content is not None), "a check makes no spool"
