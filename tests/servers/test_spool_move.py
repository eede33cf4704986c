"""`poller spool move`: the whole content of a spool, from a file into a real PostgreSQL, back, and between equals."""

import asyncio
import gzip
import itertools
import json
import random
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from poller.core.errors import Fenced, StorageLocked
from poller.core.model import RawPage, Retry
from poller.core.moving import SpoolMoved, Standing, Table
from poller.operations.moving import move_spool
from poller.pipeline.journal import Journal
from poller.runtime.clock import Clock
from poller.spools import moving
from poller.spools.postgres import moving as postgres_moving
from poller.spools.postgres.links import StorageAway
from poller.testing.factories import START, ManualClock, claim_now, done, some_event, some_reading
from poller.testing.history import scan_all
from tests import lives
from tests.commands import Ended, poller
from tests.patience import PATIENCE
from tests.scenario.environment import Environment, environment, until
from tests.scenario.rig import Scenario, scenario, webhook
from tests.servers.databases import PASSWORD, Database, database, started
from tests.servers.moved_spools import (
    MOVE,
    SHARED_EVENTS,
    STREAMS,
    Kind,
    Spool,
    attach,
    attach_shared,
    carry,
    knows_all_and_counts_on,
    look,
    owed,
    shared_until_killed,
    told,
)
from tests.servers.postgres_spools import schema_of, settings_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

Result = TypeVar("Result")
SCHEMA_1: Final = Path(__file__).parents[1] / "integration/spools/fixtures/schema-1-large.db.gz"
WAYS: Final = ("sqlite postgres", "postgres sqlite", "sqlite sqlite", "postgres postgres")
BEFORE: Final = ("move.begun", "move.written", "move.complete")
"""Fail points at which the old spool is in force, and whole."""


def kinds(server: Database, way: str) -> list[Kind]:
    return [Kind(server if word == "postgres" else None) for word in way.split()]


def held_for(error: str) -> float | None:
    """For how many seconds the leases go on that are in the way, rounded up; None if none is."""
    found = re.findall(r"holds it, for (\d+) s at most", error)
    return max(map(float, found), default=None)


async def entered(spool: Spool) -> None:
    """Enter a spool, also one whose lease goes on for a while."""
    await once_free(spool.__aenter__)


async def once_free(ask: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Ask until no lease is in the way."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await ask()
            except StorageLocked as error:
                if (seconds := held_for(str(error))) is None:
                    raise
            await asyncio.sleep(max(0.2, seconds - 0.5))


async def inside(spool: Spool, job: Callable[[Spool], Coroutine[Any, Any, Result]]) -> Result:
    """Do something with a spool as a daemon would, with all sinks attached."""
    await entered(spool)
    try:
        await attach(spool)
        return await job(spool)
    finally:
        await spool.__aexit__(None, None, None)


async def seen_in(spool: Spool) -> dict[str, str]:
    return told(await inside(spool, look))


async def standing_of(spool: Spool) -> Standing:
    async def ask() -> Standing:
        async with spool.hold(create=False) as held:
            return await held.standing()

    return await once_free(ask)


class Machine:
    """A folder with the configuration of one spool."""

    def __init__(self, kind: Kind, folder: Path, **spool: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.kind = kind
        self.folder = folder
        self.config = folder / "poller.yaml"
        self.write(spool={**kind.settings(folder), **spool}, journal={"path": str(folder / "journal")})

    def write(self, **sections: Any) -> None:
        settings = {
            "accounts": {"main": {"endpoint": "http://127.0.0.1:9/", "app_id": 1, "key": "k"}},
            "sources": {"shots": {"type": "screenshot_queue", "account": "main"}},
            "sinks": {name: {"type": "stdout"} for name in ("a", "b", "c")},
            "log": {"format": "json"},
        }
        self.config.write_text(json.dumps({**settings, **sections}))

    def spool(self, clock: ManualClock) -> Spool:
        return self.kind.spool(self.folder, clock)

    def pass_leases(self) -> None:
        self.kind.pass_leases(self.folder)

    def words_to(self, other: "Machine") -> list[str]:
        return ["spool", "move", "-c", str(self.config), "--to", str(other.config)]

    def move_to(self, other: "Machine", **environ: str) -> Ended:
        """The command, in a process of its own, again and again until no lease is in the way."""
        began = time.monotonic()
        while True:
            done = lives.run(*self.words_to(other), folder=self.folder, forked=True, **environ)
            if (seconds := held_for(done.stderr)) is None or time.monotonic() - began > PATIENCE:
                return done
            time.sleep(max(0.2, seconds - 0.5))

    def cut_to(self, other: "Machine", point: str) -> None:
        """The command, killed at a fail point. No lease of it is in the way."""
        cut = self.move_to(other, POLLER_FAILPOINT=point)
        assert cut.returncode == -9, cut.stderr
        for one in (self, other):
            one.pass_leases()


def machines(server: Database, way: str, folder: Path) -> tuple[Machine, Machine]:
    first, second = kinds(server, way)
    return Machine(first, folder / "here"), Machine(second, folder / "there")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What can be seen of a spool that was filled and never moved."""
    folder = tmp_path_factory.mktemp("untouched")
    return asyncio.run(seen_in(Kind().spool(folder, Kind().fill(folder))))


# ---------------------------------------------------------------- what comes along


@pytest.fixture(params=["in one portion", "row by row"])
def portions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "row by row":
        for module in (moving, postgres_moving):
            monkeypatch.setattr(module, "MOST_ROWS", 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("portions")
def test_a_moved_spool_has_all_that_the_old_one_had(tmp_path: Path, database: Database, way: str) -> None:
    first, second = kinds(database, way)
    here, there, untouched = (tmp_path / name for name in ("here", "there", "untouched"))
    clock = first.fill(here)

    async def scenario() -> None:
        old, new = first.spool(here, clock), second.spool(there, clock)
        result = await once_free(partial(move_spool, old, new, 0, lambda rows: None))
        assert set(result.rows) == set(Table), "a table was empty, so nothing was shown of it"
        Kind().fill(untouched)
        assert await seen_in(second.spool(there, clock)) == await seen_in(Kind().spool(untouched, clock))
        todo = [
            await inside(spool, partial(owed, clock=clock))
            for spool in (second.spool(there, clock), Kind().spool(untouched, clock))
        ]
        assert todo[0] == todo[1]
        assert len(todo[0]) > 20

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["sqlite postgres", "postgres sqlite"])
def test_there_and_back_again_nothing_is_missing_and_all_counts_go_on(
    tmp_path: Path, database: Database, expected: dict[str, str], way: str, soak: bool
) -> None:
    here, there = machines(database, way, tmp_path)
    clock = here.kind.fill(here.folder)
    for _ in range(2 if soak or way == "sqlite postgres" else 1):
        assert here.move_to(there).returncode == 0
        assert there.move_to(here).returncode == 0
    assert asyncio.run(seen_in(here.spool(clock))) == expected
    asyncio.run(inside(here.spool(clock), knows_all_and_counts_on))


def test_a_file_that_came_back_is_whole_and_misses_no_commits(tmp_path: Path, database: Database) -> None:
    """`spool.db.head` knew of later commits than the file that came back has."""
    here, there = machines(database, "sqlite postgres", tmp_path)
    clock = here.kind.fill(here.folder)
    assert (here.folder / "spool.db.head").exists()
    assert here.move_to(there).returncode == 0
    assert there.move_to(here).returncode == 0
    checked = poller("spool", "check", "-c", str(here.config))
    assert (checked.returncode, checked.stdout.split(": ")[1]) == (0, "good"), checked.stdout

    async def lost(spool: Any) -> str | None:
        found: str | None = spool.lost
        return found

    assert asyncio.run(inside(here.spool(clock), lost)) is None


def test_a_large_file_of_schema_1_comes_along(tmp_path: Path, database: Database) -> None:
    old, new = machines(database, "sqlite postgres", tmp_path)
    for folder in (old.folder, tmp_path):
        (folder / "spool.db").write_bytes(gzip.decompress(SCHEMA_1.read_bytes()))
    clock = ManualClock()
    done = old.move_to(new)
    assert done.returncode == 0, done.stderr
    there = asyncio.run(inside(new.spool(clock), scan_all))
    assert len(there) == 10_002
    assert there == asyncio.run(inside(Kind().spool(tmp_path, clock), scan_all))


# ---------------------------------------------------------------- a sink that several serve


@pytest.mark.parametrize("lanes", [0, 4], ids=["shares", "lanes"])
def test_a_sink_that_several_served_goes_on_in_a_file_and_back_again(
    tmp_path: Path, database: Database, lanes: int
) -> None:
    """All members were killed, one with a batch in hand. Nothing is lost or repeated, and streams stay in order."""
    old, new = machines(database, "postgres sqlite", tmp_path)
    got = shared_until_killed(old.kind.settings(old.folder), lanes)
    old.pass_leases()
    before = len(got)

    async def go_on(one: Machine, **terms: Any) -> None:
        async with one.kind.spool(one.folder, Clock()) as spool:
            await attach_shared(spool, lanes)
            await carry(spool, lanes, got, **terms)

    assert old.move_to(new).returncode == 0
    asyncio.run(go_on(new, turns=3))
    assert before < len(got) < SHARED_EVENTS
    assert new.move_to(old).returncode == 0
    asyncio.run(go_on(old, until_idle=False, upto=SHARED_EVENTS))
    asyncio.run(go_on(old))  # what comes again
    numbers = {some_event(n, stream=f"room{n % STREAMS}").id: n for n in range(SHARED_EVENTS)}
    arrived = [numbers[id] for id in got]
    assert sorted(arrived) == list(range(SHARED_EVENTS))
    if lanes:
        for stream in range(STREAMS):
            mine = [number for number in arrived if number % STREAMS == stream]
            assert mine == sorted(mine)


@pytest.mark.parametrize("way", ["sqlite postgres", "postgres postgres"])
def test_what_waits_for_a_retry_behind_a_batch_in_hand_comes_once_after_a_move(
    tmp_path: Path, database: Database, way: str
) -> None:
    old, new = machines(database, way, tmp_path)
    clock = ManualClock()

    async def leave_behind(spool: Spool) -> None:
        await spool.append("shots", [some_reading(*range(20))])
        await spool.claim("a", 5)
        later = await spool.claim("a", 5)
        await spool.settle(later, [Retry(after=600, reason="busy")] * 5)

    async def everything(spool: Spool) -> list[str]:
        found = list[str]()
        while (batch := await claim_now(spool, "a", 50)) is not None:
            found += [event.id for event in batch.events]
            await spool.settle(batch, done(batch))
        return found

    async def twice(spool: Spool) -> list[list[str]]:
        now = await everything(spool)
        clock.pass_time(1000)
        return [now, await everything(spool)]

    asyncio.run(inside(old.spool(clock), leave_behind))
    assert old.move_to(new).returncode == 0
    ids = [some_event(n).id for n in range(20)]
    assert asyncio.run(inside(new.spool(clock), twice)) == [[*ids[:5], *ids[10:]], ids[5:10]]


# ---------------------------------------------------------------- cut off


@pytest.mark.parametrize(
    "point", [*MOVE, "move.written:9", pytest.param("move.written:16", marks=pytest.mark.soak)]
)
def test_killed_at_any_point_one_spool_is_in_force_and_the_same_command_goes_on(
    tmp_path: Path, database: Database, expected: dict[str, str], point: str
) -> None:
    here, there = machines(database, "sqlite postgres", tmp_path)
    clock = here.kind.fill(here.folder)
    for old, new in ((here, there), (there, here)):
        old.cut_to(new, point)
        standings = [asyncio.run(standing_of(one.spool(clock))) for one in (old, new)]
        in_force, before = [one.refusal is None for one in standings], point.partition(":")[0] in BEFORE
        assert in_force == [before, point == "move.ended"]
        if point == "move.written:9":
            assert asyncio.run(seen_in(old.spool(clock))) == expected
        again = old.move_to(new)
        assert again.returncode == 0, again.stderr
        assert ("copied before" in again.stdout) == (not before)
    assert asyncio.run(seen_in(here.spool(clock))) == expected


def test_what_a_killed_move_held_is_free_once_its_lease_has_ended(tmp_path: Path, database: Database) -> None:
    old, new = machines(database, "sqlite postgres", tmp_path)
    old.kind.fill(old.folder)
    assert old.move_to(new, POLLER_FAILPOINT="move.written").returncode == -9
    ((due,),) = database.ask_now(f"SELECT due FROM {schema_of(new.folder)}.session")
    done = old.move_to(new)
    assert done.returncode == 0, done.stderr
    ((now,),) = database.ask_now("SELECT clock_timestamp()")
    assert now >= due, "the move went on while the lease did"


def test_killed_at_random_moments_it_ends_with_one_whole_spool(
    tmp_path: Path, database: Database, expected: dict[str, str], soak: bool
) -> None:
    rng, kills, ends, whole = random.Random("move"), 0, 0, 60.0
    old, new = machines(database, "sqlite postgres", tmp_path)
    clock = old.kind.fill(old.folder)
    while kills < (200 if soak else 5):
        seconds, is_cut = _cut_off(old, new, whole if ends < 2 else rng.uniform(whole / 3, whole))
        if is_cut:
            kills += 1
            for one in (old, new):
                one.pass_leases()
            _one_at_most_is_in_force(old, new)
        else:
            old, new, ends, whole = new, old, ends + 1, min(whole, seconds)
    print(f"\nmoves that were cut off: {kills}, and that ended before: {ends}, in {whole:.2f} s")
    done = old.move_to(new)
    assert done.returncode == 0, done.stderr
    assert asyncio.run(seen_in(new.spool(clock))) == expected


def _cut_off(old: Machine, new: Machine, most: float) -> tuple[float, bool]:
    """Kill the command after some time; how long it took, and whether it was killed before its end."""
    while True:
        with (old.folder / "out").open("wb") as out:
            began, child = (
                time.monotonic(),
                lives.start(old.words_to(new), cwd=old.folder, stdout=out, stderr=out),
            )
        with suppress(subprocess.TimeoutExpired):
            child.wait(most)
        seconds = time.monotonic() - began
        child.kill()
        code, said = child.wait(PATIENCE), (old.folder / "out").read_text()
        if code != 1 or (held := held_for(said)) is None:  # the lease of the one before may not have ended
            assert code in (0, -9), said
            return seconds, code == -9
        time.sleep(max(0.2, held - 0.5))


def _one_at_most_is_in_force(old: Machine, new: Machine) -> None:
    found = [asyncio.run(standing_of(one.spool(ManualClock()))) for one in (old, new)]
    in_force = [one.refusal is None for one in found]
    if in_force == [False, False]:
        assert found[0].moved is not None
        assert found[0].moved == found[1].moving
    else:
        assert sorted(in_force) == [False, True]


def nth(number: int, act: Callable[[], object]) -> Callable[[int], None]:
    """Report progress to this: at the call of this number it acts."""
    calls = itertools.count(1)

    def progress(rows: int) -> None:
        if next(calls) == number:
            act()

    return progress


@pytest.mark.parametrize("way", ["sqlite postgres", "postgres sqlite"])
def test_the_database_goes_away_meanwhile_and_the_move_begins_again(
    tmp_path: Path, database: Database, expected: dict[str, str], way: str
) -> None:
    old, new = machines(database, way, tmp_path)
    clock = old.kind.fill(old.folder)
    asyncio.run(standing_of(old.spool(clock)))
    with pytest.raises(StorageAway):
        asyncio.run(move_spool(old.spool(clock), new.spool(clock), 0, nth(3, database.kill)))
    database.start()
    for one in (old, new):
        one.pass_leases()
    found = asyncio.run(standing_of(new.spool(clock)))
    assert found.moving is not None
    assert asyncio.run(standing_of(old.spool(clock))).refusal is None
    done = old.move_to(new)
    assert done.returncode == 0, done.stderr
    assert asyncio.run(seen_in(new.spool(clock))) == expected


@pytest.mark.parametrize("which", ["old", "new"])
def test_a_spool_that_another_daemon_has_taken_over_meanwhile_stays_with_that_one(
    tmp_path: Path, database: Database, which: str
) -> None:
    """The command was frozen for longer than its lease."""
    old, new = machines(database, "postgres postgres", tmp_path)
    clock = old.kind.fill(old.folder)
    asyncio.run(standing_of(old.spool(clock)))
    taken = schema_of((old if which == "old" else new).folder)

    def take_over() -> None:
        database.ask_now(f"DELETE FROM {taken}.session RETURNING 1")

    with pytest.raises(Fenced):
        asyncio.run(move_spool(old.spool(clock), new.spool(clock), 0, nth(3, take_over)))
    assert asyncio.run(standing_of(old.spool(clock))).refusal is None
    assert asyncio.run(standing_of(new.spool(clock))).moving is not None
    assert old.move_to(new).returncode == 0


# ---------------------------------------------------------------- refused


def refused(done: Ended, *words: str) -> None:
    """One line says why."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("poller: ")]
    assert len(lines) == 1, done.stderr
    assert [word for word in words if word not in lines[0]] == [], lines[0]
    assert PASSWORD not in done.stderr + done.stdout


@pytest.mark.parametrize("way", ["sqlite postgres", "postgres sqlite"])
def test_a_moved_spool_is_refused_by_daemons_and_commands_and_by_another_move(
    tmp_path: Path, database: Database, way: str
) -> None:
    old, new = machines(database, way, tmp_path)
    third = Machine(Kind(), tmp_path / "third")
    clock = old.kind.fill(old.folder)
    assert old.move_to(new).returncode == 0
    place, day = new.spool(clock).place, f"{datetime.now(UTC):%Y-%m-%d}"
    with pytest.raises(SpoolMoved, match=re.escape(f"this spool was moved to {place} on {day} at ")):
        asyncio.run(entered(old.spool(clock)))
    refused(old.move_to(third), "the old spool is elsewhere", f"it was moved to {place}")
    again = old.move_to(new)
    assert (again.returncode, again.stdout.splitlines()[0]) == (
        0,
        f"{place}: it has everything, which was copied before",
    )


def test_check_says_that_a_spool_was_moved(tmp_path: Path, database: Database) -> None:
    old, new = machines(database, "sqlite postgres", tmp_path)
    old.kind.fill(old.folder)
    assert poller("check", "-c", str(old.config)).returncode == 0
    moved = old.move_to(new)
    assert (moved.returncode, moved.stdout.splitlines()[-1]) == (
        0,
        f"{old.folder / 'spool.db'}: it is retired: no daemon starts with it again",
    )
    checked = poller("check", "-c", str(old.config))
    assert (checked.returncode, checked.stdout) == (1, "")
    assert f"poller: spool {old.folder / 'spool.db'}: this spool was moved to PostgreSQL" in checked.stderr
    assert PASSWORD not in checked.stderr
    connected = lives.run("check", "--connect", "-c", str(old.config), folder=old.folder)
    assert connected.returncode == 1
    assert "this spool was moved to PostgreSQL" in connected.stderr


@pytest.mark.parametrize("way", ["sqlite postgres", "postgres sqlite"])
@pytest.mark.parametrize("which", ["old", "new"])
def test_a_spool_that_a_daemon_has_is_not_moved_and_nothing_is_moved_there(
    tmp_path: Path, database: Database, way: str, which: str
) -> None:
    old, new = machines(database, way, tmp_path)
    clock = old.kind.fill(old.folder)
    in_use = old if which == "old" else new
    asyncio.run(standing_of(old.spool(clock)))  # its daemon was killed, and its session ends first
    words = (
        "another poller owns it" if in_use.kind.settings(tmp_path)["type"] == "sqlite" else "holds it, for"
    )

    async def move(spool: Spool) -> Ended:
        return await asyncio.to_thread(lives.run, *old.words_to(new), folder=old.folder)

    refused(asyncio.run(inside(in_use.spool(clock), move)), words)
    assert asyncio.run(standing_of(old.spool(clock))).refusal is None


def test_no_daemon_enters_a_spool_that_is_moved_and_a_move_that_froze_is_in_nobodys_way(
    tmp_path: Path, database: Database
) -> None:
    spool = Kind(database).spool(tmp_path, Clock())
    schema = schema_of(tmp_path)

    async def scenario() -> None:
        async with spool.hold(create=True):
            with pytest.raises(
                StorageLocked, match=r"poller spool move on .*, process \d+ holds it, for \d s at"
            ):
                await Kind(database).spool(tmp_path, Clock()).__aenter__()
            database.ask_now(f"UPDATE {schema}.session SET due = '-infinity' RETURNING 1")
            async with Kind(database).spool(tmp_path, Clock()):
                assert len(database.ask_now(f"SELECT 1 FROM {schema}.session")) == 1

    asyncio.run(scenario())


def test_a_move_that_froze_within_a_statement_is_in_nobodys_way_for_long(
    tmp_path: Path, database: Database
) -> None:
    """The server takes the statement for one at work, and keeps the row of the session locked."""
    spool, daemon = (Kind(database).spool(tmp_path, Clock()) for _ in range(2))

    async def stand_still(held: postgres_moving.HeldSchema) -> None:
        async with held._transaction() as link:
            await link.prepare("SELECT 1")  # the message that runs it does not follow
            database.ask_now(f"UPDATE {schema_of(tmp_path)}.session SET due = '-infinity' RETURNING 1")
            await entered(daemon)
            await daemon.__aexit__(None, None, None)
            await link.execute("SELECT 1")

    async def scenario() -> None:
        async with spool.hold(create=True) as held:
            assert isinstance(held, postgres_moving.HeldSchema)
            assert held._beating is not None
            held._beating.cancel()
            with pytest.raises(StorageAway):
                await stand_still(held)

    asyncio.run(scenario())


@pytest.mark.parametrize("way", [*WAYS[:2], *(pytest.param(way, marks=pytest.mark.soak) for way in WAYS[2:])])
def test_nothing_is_moved_into_a_spool_that_has_something(
    tmp_path: Path, database: Database, way: str
) -> None:
    old, new = machines(database, way, tmp_path)
    clock = old.kind.fill(old.folder)

    async def take_in(spool: Spool) -> None:
        await spool.append("shots", [some_reading(1)])

    asyncio.run(inside(new.spool(clock), take_in))
    before = asyncio.run(seen_in(new.spool(clock)))
    refused(old.move_to(new), "the new spool is not empty")
    assert asyncio.run(seen_in(new.spool(clock))) == before
    assert asyncio.run(standing_of(old.spool(clock))).refusal is None


@pytest.mark.parametrize("way", ["sqlite postgres", "postgres sqlite"])
def test_a_spool_whose_daemon_has_only_started_is_empty(tmp_path: Path, database: Database, way: str) -> None:
    old, new = machines(database, way, tmp_path)
    clock = old.kind.fill(old.folder)

    async def nothing(spool: Spool) -> None:
        await spool.check_writable()

    asyncio.run(inside(new.spool(clock), nothing))
    done = old.move_to(new)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_spool_is_not_moved_onto_itself(tmp_path: Path, database: Database, kind: str) -> None:
    (one,) = kinds(database, kind)
    clock = one.fill(tmp_path)
    old = Machine(one, tmp_path)
    new = Machine(one, tmp_path / "other", **one.settings(tmp_path))
    refused(old.move_to(new), "both configurations name the same spool")
    if kind == "sqlite":
        (tmp_path / "link.db").symlink_to(tmp_path / "spool.db")
        other = Machine(one, tmp_path / "third", path=str(tmp_path / "link.db"))
    else:
        dsn = one.settings(tmp_path)["dsn"].replace("127.0.0.1", "localhost")
        other = Machine(one, tmp_path / "third", **{**one.settings(tmp_path), "dsn": dsn})
    assert lives.run(*old.words_to(other), folder=tmp_path).returncode == 1
    assert asyncio.run(standing_of(one.spool(tmp_path, clock))).refusal is None


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_spool_that_is_not_there_is_not_made(tmp_path: Path, database: Database, kind: str) -> None:
    (one,) = kinds(database, kind)
    old, new = Machine(one, tmp_path / "here"), Machine(Kind(), tmp_path / "there")
    refused(old.move_to(new), "no such file" if kind == "sqlite" else "has no spool")
    assert not (old.folder / "spool.db").exists()
    assert not (new.folder / "spool.db").exists()
    assert database.ask_now(f"SELECT to_regnamespace('{schema_of(old.folder)}')")[0][0] is None


def test_a_spool_in_memory_is_not_moved(tmp_path: Path, database: Database) -> None:
    old, new = machines(database, "sqlite postgres", tmp_path)
    old.write(spool={"type": "memory"}, journal={"path": str(tmp_path / "journal")})
    refused(old.move_to(new), "a spool of type memory cannot be moved")
    refused(new.move_to(old), "a spool of type memory cannot be moved")


def test_a_damaged_page_ends_the_move_and_the_old_spool_stays_in_force(
    tmp_path: Path, database: Database
) -> None:
    old, new = machines(database, "sqlite postgres", tmp_path)
    clock = old.kind.fill(old.folder)
    with sqlite3.connect(old.folder / "spool.db") as db:
        db.execute(
            "UPDATE page SET events = CAST(replace(CAST(events AS TEXT), 'room', 'moor') AS BLOB) WHERE first = 1"
        )
    refused(old.move_to(new), "the old spool is damaged: page 1: its checksum is wrong")
    assert asyncio.run(standing_of(old.spool(clock))).refusal is None
    assert not list(old.folder.glob("spool.db.damaged"))


def test_a_file_that_lacks_its_newest_part_is_not_moved(tmp_path: Path, database: Database) -> None:
    old, new = machines(database, "sqlite postgres", tmp_path)
    old.kind.fill(old.folder)
    (old.folder / "spool.db-wal").write_bytes(b"")
    refused(old.move_to(new), "lacks its newest part")


def test_answers_in_the_old_journal_are_not_left_behind(tmp_path: Path, database: Database) -> None:
    old, new = machines(database, "sqlite postgres", tmp_path)
    old.kind.fill(old.folder)

    async def keep() -> None:
        async with Journal(old.folder / "journal", 16 << 20) as journal:
            await journal.room()
            await journal.keep(
                RawPage(source="shots", received_at=START, status=200, encoding="", whole=True, body=b"{}")
            )

    asyncio.run(keep())
    refused(old.move_to(new), f"journal {old.folder / 'journal'}: 1 answers in it are not in the spool yet")
    new.write(spool=new.kind.settings(new.folder), journal={"path": str(old.folder / "journal")})
    assert old.move_to(new).returncode == 0


def test_an_unfinished_move_of_another_spool_is_left_alone(tmp_path: Path, database: Database) -> None:
    old, new = machines(database, "sqlite postgres", tmp_path)
    other = Machine(Kind(), tmp_path / "other")
    for which, one in enumerate((old, other)):
        one.kind.fill(one.folder, which)
    old.cut_to(new, "move.given_up")
    refused(other.move_to(new), "the new spool holds a part of another spool")
    refused(new.move_to(other), "the old spool holds only a part")
    assert old.move_to(new).returncode == 0


# ---------------------------------------------------------------- a daemon


def test_a_daemon_goes_on_with_the_moved_spool_and_delivers_everything_once(
    tmp_path: Path, database: Database
) -> None:
    with environment(tmp_path) as place:
        sinks = {"hook": webhook(place, batch={"max_events": 20})}
        with (
            scenario(place, tmp_path / "old", sinks=sinks) as old,
            scenario(place, tmp_path / "new", sinks=sinks, spool=settings_of(database, tmp_path)) as new,
        ):
            arrived: set[str] = set()
            for turn, (here, there) in enumerate(((old, new), (new, old), (old, new))):
                place.turn(200)
                process = here.run()
                place.enqueue(100)
                _arrived(place, 200 * turn + 100)
                place.turn(503)
                place.enqueue(100)
                until(lambda: place.depth == 0)
                assert process.stop() == 0
                arrived = set(place.hook.files)
                done = _move(here, there)
                assert done.returncode == 0, done.stderr
                refused = here.start()
                assert refused.wait() == 1
                assert "was moved to" in refused.stderr
                assert PASSWORD not in refused.stderr
                place.turn(200)
                process = there.run()
                _arrived(place, 200 * turn + 200)
                assert not process.said("journal_damaged"), process.stderr
                assert process.stop() == 0
            removed = {one.path for one in place.oracle.removed()}
            assert set(place.hook.files) == removed
            assert arrived < removed
            assert set(place.hook.files.values()) == {1}, "a picture came twice"


def _arrived(place: Environment, count: int) -> None:
    until(lambda: len(place.hook.files) == count, what=f"for {count} pictures")


def _move(old: Scenario, new: Scenario) -> Ended:
    return lives.run("spool", "move", "-c", str(old.config), "--to", str(new.config), folder=old.folder)
