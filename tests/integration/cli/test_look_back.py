"""The commands that look back, on the file of a stopped daemon: what they refuse, and how they print times."""

import asyncio
import json
import re
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec import Raw
from msgspec.structs import replace

from poller.core.model import KINDS, Dead, Done, Event, Retry, new_event
from poller.core.selection import Selection
from poller.pipeline.gaps import GAP
from poller.qcloud.events import notifications
from poller.testing import anything, some_event, some_reading
from poller.testing.factories import START, some_change, some_reject
from tests.commands import Ended, poller
from tests.fakes import sqlite_spool

CONFIG = """
accounts: {main: {app_id: 1, key_file: not-there, cos: {bucket: shots, app_id: 1250000000}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
sinks:
  hook: {type: webhook, url: "https://example.com/", secret_file: not-there}
"""


def ask(folder: Path, *words: str, **environ: str) -> Ended:
    (folder / "poller.yaml").write_text(CONFIG)
    return poller(*words, "-c", "poller.yaml", folder=folder, **environ)


# ---------------------------------------------------------------- words that nothing has


@pytest.mark.parametrize(
    "words",
    [
        ("events",),
        ("tap",),
        ("replay", "hook", "--yes"),
        ("spool", "export"),
    ],
)
def test_a_kind_that_no_event_has_is_wrong_usage_and_not_an_empty_answer(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    asyncio.run(fill(tmp_path))
    said = ask(tmp_path, *words, "--kind", "screenshot", "--kind", "nope")
    assert (said.returncode, said.stdout) == (2, "")
    assert "--kind" in said.stderr
    assert "'nope'" in said.stderr
    for kind in sorted(KINDS):
        assert kind in said.stderr


def test_a_state_that_no_stream_has_is_wrong_usage_and_not_an_empty_answer(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    said = ask(tmp_path, "streams", "--state", "nope")
    assert (said.returncode, said.stdout) == (2, "")
    for word in ("--state", "'nope'", "live", "interrupted", "disabled", "late", "no pictures"):
        assert word in said.stderr


def test_streams_are_chosen_by_the_word_that_their_table_shows(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    (row,) = map(json.loads, ask(tmp_path, "streams", "--json").stdout.splitlines())
    assert (row["state"], row["attention"]) == ("live", "no pictures")
    for word in ("live", "late", "no pictures"):
        found = ask(tmp_path, "streams", "--json", "--state", word)
        assert (found.returncode, len(found.stdout.splitlines())) == (0, word != "late")


def test_the_known_kinds_are_those_that_the_sources_and_the_audit_give() -> None:
    assert notifications.KINDS | {GAP} == KINDS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("foo", "1"), "write pause N, resume N or cancel N, not 'foo'"),
        (("1",), "write pause N, resume N or cancel N, not '1'"),
        (("pause",), "say which replay to pause: `poller replays` lists them"),
        (("pause", "x"), "'x' is not the number of a replay: `poller replays` lists them"),
        (("pause", "0"), "'0' is not the number of a replay"),
        (("pause", "9" * 30), "is not the number of a replay"),
    ],
)
def test_a_wrong_word_to_replays_is_answered_with_what_to_write(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    asyncio.run(fill(tmp_path))
    done = ask(tmp_path, "replays", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Value error" not in done.stderr


def test_top_without_a_terminal_fails_like_every_other_command(tmp_path: Path) -> None:
    done = ask(tmp_path, "top")
    assert (done.returncode, done.stderr[:28]) == (2, "poller: top needs a terminal")


# ---------------------------------------------------------------- what a trace calls things


def test_a_gap_was_not_taken_but_began(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    missing = new_event(
        id="a" * 32,
        kind=GAP,
        account="main",
        stream_id="room",
        occurred_at=START,
        received_at=START,
        url=None,
        fields={"missing": 3},
        message=Raw(b"{}"),
    )
    asyncio.run(append(tmp_path, missing, some_change(9, "interrupted")))
    said = ask(tmp_path, "trace", missing.id, "--utc").stdout
    assert ("\n  began      2026-01-02T03:04:05Z\n" in said, "taken" in said) == (True, False)
    said = ask(tmp_path, "trace", some_change(9, "interrupted").id, "--utc").stdout
    assert ("\n  happened   2026-01-02T03:05:35Z\n" in said, "taken" in said) == (True, False)
    assert "\n  taken      " in ask(tmp_path, "trace", some_event(1).id).stdout


def test_a_wait_for_a_picture_that_is_not_there_yet_is_not_called_failed(tmp_path: Path) -> None:
    async def wait_then_deliver() -> None:
        async with sqlite_spool(tmp_path) as spool:
            await spool.attach("hook", anything)
            await spool.append("shots", [some_reading(1)])
            batch = await spool.claim("hook", 1)
            await spool.settle(batch, [Retry(after=0, reason="HTTP 404: not there yet", counted=False)])
            await spool.settle(await spool.claim("hook", 1), [Done()])

    asyncio.run(wait_then_deliver())
    said = ask(tmp_path, "trace", some_event(1).id).stdout
    assert "delivered" in said
    assert "attempt 1" in said
    assert re.search(r"\n +tried \S+ \S+: HTTP 404: not there yet\n", said)
    assert "failed" not in said


# ---------------------------------------------------------------- times


def in_shanghai(folder: Path, *words: str) -> str:
    """The output of a command where it is eight hours later than UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        done = ask(folder, *words)
    time.tzset()
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("dead", "list"), "died_at"),
        (("dead", "show", some_event(1).id), "died_at"),
        (("dead", "show", some_event(1).id), "first_attempt_at"),
        (("quarantine", "list"), "received_at"),
        (("quarantine", "show", "1"), "received_at"),
        (("replays", "pause", "1"), "ordered_at"),
    ],
)
def test_tables_print_the_local_time_and_their_json_prints_utc(
    tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    asyncio.run(fill(tmp_path))
    (row,) = map(json.loads, in_shanghai(tmp_path, *words, "--json").splitlines())
    at = datetime.fromisoformat(row[name])
    assert row[name].endswith("Z")
    assert f"{at + timedelta(hours=8):%Y-%m-%d %H:%M:%S}" in in_shanghai(tmp_path, *words)
    assert f"{at:%Y-%m-%dT%H:%M:%SZ}" in in_shanghai(tmp_path, *words, "--utc")


def test_replays_and_the_status_print_the_span_of_a_replay_in_local_time(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    for words in (("replays",), ("status",)):
        assert "since 2026-01-02 11:04:05 " in in_shanghai(tmp_path, *words)
        assert "since 2026-01-02T03:04:05Z " in in_shanghai(tmp_path, *words, "--utc")
        assert "since 2026-01-02T03:04:05Z" in in_shanghai(tmp_path, *words, "--json")


def test_the_status_prints_the_last_possible_loss_in_local_time(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    (row,) = map(json.loads, in_shanghai(tmp_path, "status", "--json").splitlines())
    (lost,) = [book for book in row["books"] if book["book"] == "possibly_lost"]
    at = datetime.fromisoformat(lost["at"])
    assert f"last at {at + timedelta(hours=8):%Y-%m-%d %H:%M:%S}\n" in in_shanghai(tmp_path, "status")


def test_the_event_of_a_dead_letter_is_printed_as_its_sink_gets_it(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    assert '"received_at":"2026-01-02T03:04:16Z"' in in_shanghai(tmp_path, "dead", "show", some_event(1).id)


async def fill(folder: Path) -> None:
    """Three pictures of a live stream: dead, delivered and pending at `hook`."""
    async with sqlite_spool(folder) as spool:
        await spool.attach("hook", anything)
        live = replace(some_reading(), events=(some_change(0, "live"),))
        await spool.append("shots", [live, some_reading(1, 2, 3, rejects=[some_reject(0)])])
        await spool.settle(await spool.claim("hook", 2), [Done(), Dead(reason="HTTP 422")])
        await spool.settle(await spool.claim("hook", 1), [Done()])
        spool.count_loss("source shots", 100)
        planned = await spool.replays.plan("hook", Selection(since=START))
        await spool.replays.order(planned, 1, frozenset())


async def append(folder: Path, *events: Event) -> None:
    async with sqlite_spool(folder) as spool:
        await spool.append("shots", [replace(some_reading(), events=events)])
