"""Looking after a spool file: is it whole, what is in it, and what can be read of a damaged one."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from poller.spools.sqlite.examine import examine, export
from poller.spools.sqlite.salvage import PAGES, readable, salvage
from poller.spools.sqlite.schema import VERSION
from poller.testing import some_event
from tests import commands
from tests.commands import Ended
from tests.integration.spools.test_migrations import FIXTURES, laid

PAGE = 8192
CONFIG = """
accounts:
  main: {endpoint: "http://127.0.0.1:9/common_access", app_id: 1234, key: abc, cos: {bucket: shots, app_id: 1}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db, min_free: 0}
journal: {size: 16MiB}
sinks:
  archive: {type: stdout}
  hook: {type: webhook, url: "http://127.0.0.1:9/", allow_cidr: [127.0.0.0/8]}
"""
LAST = FIXTURES[-1]


def poller(folder: Path, *words: str) -> Ended:
    """A `poller spool` command with a configuration in the folder."""
    (folder / "poller.yaml").write_text(CONFIG)
    return commands.poller("spool", *words, "-c", str(folder / "poller.yaml"))


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def overwrite(file: Path, page: int) -> None:
    with file.open("r+b") as stream:
        stream.seek((page - 1) * PAGE)
        stream.write(b"\xa5" * PAGE)


def leaves(file: Path, table: str) -> list[int]:
    """The pages that hold a table's rows, in order."""
    with closing(sqlite3.connect(file)) as db:
        found = db.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path", (table,)
        )
        return [page for (page,) in found]


def event_number(encoded: str) -> int:
    return int(json.loads(encoded)["data"]["file_name"].split("_")[3]) // 10


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file whose log has 3,000 rows of one event on many pages of the b-tree."""
    file = tmp_path / "old.db"
    file.write_bytes(laid(tmp_path, LAST).read_bytes())
    (tmp_path / "spool.db").unlink()
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("BEGIN")
        for n in range(301, 3301):
            db.execute("INSERT INTO page VALUES (?, ?, 1.0, ?)", (n, n, some_event(n - 1).encoded))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


# ---------------------------------------------------------------- reading around damage


def salvaged(file: Path, *sinks: str) -> tuple[Counter[str], list[str]]:
    """How often each event comes out, and what is reported of damage."""
    parts = list(salvage(file, sinks))
    events = Counter(event.id for part in parts for event in part.events)
    return events, [line for part in parts for line in part.damage]


def test_a_bad_page_costs_only_what_is_on_it(large: Path) -> None:
    pages = leaves(large, "page")
    assert len(pages) > 100
    bad = [pages[20], pages[21], pages[60], pages[-1]]
    for page in bad:
        overwrite(large, page)
    events, damage = salvaged(large)
    assert 3300 - 25 * len(bad) <= len(events) < 3300, "some 20 rows lie on a page"
    assert len(damage) == 3, damage
    assert all(line.startswith("table page: first ") for line in damage)


def test_rows_around_damage_come_once(large: Path) -> None:
    for page in leaves(large, "page")[10:100:7]:
        overwrite(large, page)
    with closing(sqlite3.connect(large)) as db:
        keys = [row[0] for row in readable(db, PAGES, [])]
    assert len(keys) == len(set(keys)) > 2500


def test_without_its_first_page_the_tables_are_found_all_the_same(large: Path) -> None:
    overwrite(large, 1)
    before = large.read_bytes()
    events, damage = salvaged(large, "archive", "hook")
    assert len(events) == 3300
    assert len(damage) == 1
    assert "the first page" in damage[0]
    assert large.read_bytes() == before
    assert [path.name for path in large.parent.iterdir()] == ["old.db"]


def test_only_what_one_of_the_sinks_had_not_settled_comes_out(large: Path) -> None:
    """`archive` had settled 40, 10 more wait for their retry, and 5 are dead; `hook` had settled none."""
    pending = {some_event(n).id for n in (*range(40, 50), *range(55, 3300))}
    assert set(salvaged(large, "archive")[0]) == pending
    assert len(salvaged(large, "archive", "hook")[0]) == 3300
    assert set(salvaged(large, "archive", "new")[0]) == pending


def test_where_positions_cannot_be_read_every_event_counts_as_pending(large: Path) -> None:
    overwrite(large, 5)  # the table `sink`
    events, damage = salvaged(large, "archive")
    assert len(events) == 3300
    assert any("every event counts as pending" in line for line in damage)


def test_an_event_that_does_not_read_back_costs_no_neighbour(large: Path) -> None:
    change(
        large,
        "UPDATE page SET events = replace(CAST(events AS TEXT), '\"time\":\"', '\"time:') WHERE first = 51",
    )
    change(large, "UPDATE page SET events = CAST(events AS BLOB) WHERE first = 51")
    events, damage = salvaged(large)
    assert len(events) == 3250
    assert damage == ["page 51: its checksum is wrong: its events are left out"]
    change(large, "DELETE FROM page_index WHERE first = 51")
    assert salvaged(large) == (events, ["page 51: 50 events do not read back"])


# ---------------------------------------------------------------- the commands


def test_a_damaged_file_is_salvaged_into_the_spool_and_only_once(tmp_path: Path, large: Path) -> None:
    overwrite(large, leaves(large, "page")[30])
    shown = poller(tmp_path, "salvage", str(large))
    assert shown.returncode == 0, shown.stderr
    assert "not readable: table page: first" in shown.stderr
    assert "5 dead letters, 1 in quarantine; 1 not readable" in shown.stdout
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        events = db.execute("SELECT sum(last - first + 1) FROM page").fetchone()[0]
        assert events > 3250
        assert dict(db.execute("SELECT name, position FROM sink")) == {"archive": 1, "hook": 1}, (
            "all is pending for both"
        )
        assert db.execute("SELECT count(*) FROM dead").fetchone() == (5,)
        assert db.execute("SELECT source, body FROM quarantine").fetchall() == [("shots", b"\xff{")]
    again = poller(tmp_path, "salvage", str(large))
    assert "; 0 of the events are new" in again.stdout
    assert "good: " in poller(tmp_path, "check").stdout


def test_salvage_to_a_file_writes_everything_as_json_lines(tmp_path: Path, large: Path) -> None:
    overwrite(large, 1)
    shown = poller(tmp_path, "salvage", str(large), "--to", str(tmp_path / "out.jsonl"))
    assert shown.returncode == 0, shown.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in lines if "specversion" in line}) == 3300
    letters = [line["dead_letter"] for line in lines if "dead_letter" in line]
    assert [letter["reason"] for letter in letters] == ["413"] * 5
    assert {letter["event"]["specversion"] for letter in letters} == {"1.0"}
    assert [line["quarantine"]["body"] for line in lines if "quarantine" in line] == ["/3s="]
    assert not (tmp_path / "spool.db").exists()
    assert poller(tmp_path, "salvage", str(large), "--to", str(tmp_path / "out.jsonl")).returncode == 1


def test_salvage_says_what_it_cannot_do(tmp_path: Path) -> None:
    assert "no such file" in poller(tmp_path, "salvage", str(tmp_path / "missing")).stderr
    (tmp_path / "noise").write_bytes(b"noise" * 10_000)
    shown = poller(tmp_path, "salvage", str(tmp_path / "noise"))
    assert (shown.returncode, "Traceback" in shown.stderr) == (1, False)
    assert f"schema {VERSION}" in shown.stderr
    assert "the configured spool itself" in poller(tmp_path, "salvage", str(tmp_path / "spool.db")).stderr


def test_check_finds_a_whole_file_good_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    file = laid(tmp_path, LAST)
    before = file.read_bytes()
    shown = poller(tmp_path, "check")
    assert shown.returncode == 0, shown.stdout
    assert f"{file}: good: 300 events in 6 pages, 5 dead letters, 1 in quarantine, 300 ids" in shown.stdout
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE page SET events = x'7b7d' WHERE first = 51", "page 51: its checksum is wrong"),
        ("UPDATE page_index SET crc = 1 WHERE first = 51", "page 51: its checksum is wrong"),
        (
            "UPDATE page_index SET ids = x'00' WHERE first = 51",
            "page 51: its index row does not fit its events",
        ),
        (
            "UPDATE page_index SET oldest = 1 WHERE first = 51",
            "page 51: its index row does not fit its events",
        ),
        ("DELETE FROM page_index WHERE first = 51", "page 51: it has no index row"),
        ("UPDATE page SET last = 99 WHERE first = 51", "page 51: 50 events under the numbers 51 to 99"),
        ("DELETE FROM page WHERE first = 101", "page 151: numbers 101 to 150, which a sink has yet to get"),
        ("UPDATE page SET last = 120 WHERE first = 51", "page 101: its numbers overlap"),
        ("UPDATE sink SET position = 400 WHERE name = 'hook'", "sink hook: its position 400 is outside"),
        ("UPDATE waiting SET numbers = '[1]'", "sink archive: the waiting batch"),
        ("UPDATE dead SET event = x'00' WHERE n = 2", "dead letter 2: does not read back"),
        ("UPDATE delivered SET holes = x'00'", "delivery 1: its holes do not fit the numbers 1 to 40"),
        ("UPDATE delivered SET history = x'7b'", "delivery 1: does not read back"),
    ],
)
def test_check_finds_what_breaks_our_own_rules(tmp_path: Path, statement: str, finding: str) -> None:
    file = laid(tmp_path, LAST)
    assert examine(file).findings == ()
    change(file, statement)
    assert any(line.startswith(finding) for line in examine(file).findings), examine(file)


def test_check_reads_events_without_a_checksum_too(tmp_path: Path) -> None:
    file = laid(tmp_path, FIXTURES[0])
    assert examine(file).findings == ()
    change(file, "UPDATE page SET events = x'7b7d' WHERE first = 51")
    (finding,) = examine(file).findings
    assert finding.startswith("page 51: an event does not read back")


def test_check_finds_a_damaged_page(tmp_path: Path) -> None:
    overwrite(laid(tmp_path, LAST), 3)
    shown = poller(tmp_path, "check")
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert ": damaged: " in shown.stdout


def test_export_prints_the_events_as_they_are(tmp_path: Path) -> None:
    file, everything = laid(tmp_path, LAST), [some_event(n).encoded for n in range(300)]
    assert list(export(file, frozenset(), None)) == everything
    assert list(export(file, frozenset({"channel"}), None)) == []
    assert list(export(file, frozenset({"channel", "screenshot"}), None)) == everything
    words = ("--kind", "screenshot", "--since", "2026-01-02T03:15:00Z")
    since = poller(tmp_path, "export", *words).stdout.splitlines()
    assert [event_number(line) for line in since] == list(range(100, 300)), "a page counts by its first event"
    assert poller(tmp_path, "export", "--since", "soon").returncode == 2


def test_export_and_check_say_that_there_is_no_file(tmp_path: Path) -> None:
    for command in ("export", "check"):
        shown = poller(tmp_path, command)
        assert (shown.returncode, "no such file" in shown.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["poller.yaml"]


def test_whoever_reads_an_export_may_stop(tmp_path: Path) -> None:
    laid(tmp_path, LAST)
    (tmp_path / "poller.yaml").write_text(CONFIG)
    command = f"{sys.executable} -m poller spool export -c {tmp_path / 'poller.yaml'} | head -n 1"
    shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert shown.stdout == some_event(0).encoded.decode() + "\n"
    assert shown.stderr == ""
