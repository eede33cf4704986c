"""Spools that are moved in tests: what fills one with all that there is, and what everybody can see of it."""

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from poller.core.model import (
    Backlog,
    Batch,
    Dead,
    Done,
    Event,
    Outcome,
    ParsedPage,
    PollOutcome,
    Retry,
    in_order,
)
from poller.core.replays import OPEN
from poller.core.selection import ALL_EVENTS
from poller.core.spool import SpoolAdmin, anything
from poller.runtime.clock import Clock
from poller.spools.postgres import PostgresSpool, duties
from poller.spools.sqlite import SqliteSpool
from poller.testing.corrections import announced
from poller.testing.factories import (
    START,
    ManualClock,
    all_owed,
    claim_now,
    done,
    some_change,
    some_event,
    some_reading,
    some_recording,
    some_reject,
)
from poller.testing.gaps import late_picture, some_gap
from poller.testing.history import scan_all
from poller.testing.replays import order
from tests.patience import PATIENCE
from tests.servers.databases import Database
from tests.servers.postgres_spools import plain_dsn_of, schema_of, settings_of

MOVE: Final = ("move.begun", "move.written", "move.complete", "move.given_up", "move.ended")
"""The fail points of a move, in their order."""
SINKS: Final = ("a", "b", "c")
"""`b` is ordered, `c` wants no event of the hall."""
SOURCES: Final = ("shots", "pushed", "records", "states", "(audit)")
STREAM: Final = "s\u00fcd \u623f\u95f4 \U0001f3ac"
"""Not all text is ASCII."""

ANSWERS_WITHIN: Final = 1.0
"""Seconds that a claim gets on a crowded machine, where the spool would not be filled as another one is."""
LEASE: Final = 8.0
"""A process that stands still for half of it within a transaction loses its connection."""
_PASS_LEASES: Final = """
DO $$ BEGIN
    IF to_regclass('{schema}.session') IS NOT NULL THEN
        UPDATE {schema}.session SET due = clock_timestamp() - interval '1 hour';
    END IF;
END $$
"""
Spool = SqliteSpool | PostgresSpool


class Kind:
    """An engine: the settings of the spool of a folder, and the spool."""

    def __init__(self, server: Database | None = None) -> None:
        self._server = server

    def settings(self, folder: Path) -> dict[str, Any]:
        if self._server is None:
            return {"type": "sqlite", "path": str(folder / "spool.db")}
        return settings_of(self._server, folder, lease=f"{LEASE:g}s", dsn=plain_dsn_of(self._server))

    def spool(self, folder: Path, clock: Clock) -> Spool:
        return _spool(self.settings(folder), clock)

    def fill(self, folder: Path, which: int = 0) -> ManualClock:
        """Fill the spool in a process of its own, which is killed then. Returns a clock that goes on where it was.

        What such a process leaves of a file is made once, and copied. `which` tells spools apart that are not the same.
        No lease of it is in the way.
        """
        clock = ManualClock()
        if self._server is None:
            passed, files = _filled_file(which)
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)
        else:
            passed = until_killed(fill_and_die, self.settings(folder))
            self.pass_leases(folder)
        clock.pass_time(passed)
        return clock

    def pass_leases(self, folder: Path) -> None:
        """Let all leases be over, as they are some time after their processes were killed."""
        if self._server is not None:
            self._server.ask_now(_PASS_LEASES.format(schema=schema_of(folder)))


@cache
def _filled_file(which: int) -> tuple[float, dict[str, bytes]]:
    """The files of one of the spools whose process was killed, and the time on its clock."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        passed = until_killed(fill_and_die, Kind().settings(folder))
        return passed, {file.name: file.read_bytes() for file in folder.iterdir()}


def until_killed(work: Callable[..., None], *given: object) -> Any:
    """What the work tells before it kills its own process, which is forked from one that has imported all of this.

    The work gets the pipe for it, and what is given.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(theirs, *given))
    process.start()
    theirs.close()
    try:
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL, process.exitcode
        return ours.recv()
    finally:
        process.kill()
        ours.close()


def _spool(settings: dict[str, Any], clock: Clock) -> Spool:
    if settings["type"] == "sqlite":
        return SqliteSpool("spool", SqliteSpool.Settings.model_validate(settings), {}, clock)
    return PostgresSpool("spool", PostgresSpool.Settings.model_validate(settings), {}, clock)


def fill_and_die(told: Connection, settings: dict[str, Any]) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with _spool(settings, clock) as spool:
            await fill(spool, clock)
            await spool.dead(1)  # all settlements are written
            told.send(clock.monotonic())
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(scenario())


# ---------------------------------------------------------------- a sink that several serve

SHARED_EVENTS: Final = 180
STREAMS: Final = 12


async def attach_shared(spool: Spool, lanes: int) -> None:
    """Attach the sink `x`: in lanes, or by shares if `lanes` is 0. A spool in a file serves it in order, or not."""
    if isinstance(spool, PostgresSpool):
        spool.divide("x", max(1, lanes))
    await spool.attach("x", anything, ordered=lanes > 0)


async def carry(
    spool: Spool,
    lanes: int,
    got: list[str],
    *,
    turns: int = 99,
    again: float = 0.2,
    until_idle: bool = True,
    upto: int = sys.maxsize,
) -> None:
    """Claim and settle up to `turns` batches of `x`. One event in five fails once, and comes `again` seconds later.

    `got` gets the ids of those that arrive. It ends when there are `upto`, and by default when nothing has come for a
    while.
    """
    idle = 0
    for _ in range(turns):
        if len(got) >= upto:
            return
        try:
            async with asyncio.timeout(0.5):
                batch = await spool.claim("x", 7)
        except TimeoutError:
            idle += 1
            if until_idle and idle == 3:
                return
            continue
        idle = 0
        outcomes: Sequence[Outcome] = [
            Retry(after=again, reason="busy") if batch.attempt == 1 and place % 5 == 4 else Done()
            for place in range(len(batch.events))
        ]
        outcomes = in_order(batch.events, outcomes) if lanes else outcomes
        pairs = zip(batch.events, outcomes, strict=True)
        got += [event.id for event, outcome in pairs if isinstance(outcome, Done)]
        await spool.settle(batch, outcomes)


def serve_together_and_die(told: Connection, settings: dict[str, Any], lanes: int) -> None:
    """Two members serve `x`. They are killed while one has a batch in hand, and what arrived is told.

    The other one has served later events. Some of these wait for a retry.
    """

    async def scenario() -> None:
        clock, early, late = Clock(), list[str](), list[str]()
        async with (
            _spool(settings, clock) as first,
            _spool(settings, clock) as second,
        ):
            for spool in (first, second):
                await attach_shared(spool, lanes)
            await _append(first, range(100))
            await asyncio.gather(
                *[carry(spool, lanes, early, until_idle=False, upto=100) for spool in (first, second)]
            )
            await _until_both_serve(first, second)
            await _append(first, range(100, 140))
            await first.claim("x", 7)
            await _append(first, range(140, 180))
            await carry(second, lanes, late, again=8)
            for spool in (first, second):
                await spool.dead(1)  # all settlements are written
            told.send((early, late))
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(scenario())


async def _until_both_serve(*members: Spool) -> None:
    """Wait until each member has lanes, if there are lanes: the one that came first had all of them."""
    for member in members:
        assert isinstance(member, PostgresSpool)
        served = member._sinks._served["x"]
        while served.mode.lanes > 1 and not served.lanes.lanes:
            await asyncio.sleep(0.02)


async def _append(spool: Spool, numbers: range) -> None:
    for number in numbers:
        await spool.append("shots", [some_reading(number, stream=f"room{number % STREAMS}")])


def shared_until_killed(settings: dict[str, Any], lanes: int) -> list[str]:
    """What arrived at `x` before all members were killed."""
    early, late = until_killed(serve_together_and_die, settings, lanes)
    assert len(early) == 100
    assert late, "nothing was served behind the batch in hand"
    return [*early, *late]


# ---------------------------------------------------------------- a spool with everything


async def attach(spool: SpoolAdmin) -> None:
    await spool.attach("a", anything)
    await spool.attach("b", anything, ordered=True)
    await spool.attach("c", lambda event: event.stream_id != "hall")
    if isinstance(spool, PostgresSpool):
        for sink in SINKS:
            await _serve(spool, sink)


async def _serve(spool: PostgresSpool, sink: str) -> None:
    """Serve a sink as from the first claim on, and take nothing."""
    spool._sinks._served[sink].asked = True
    spool._membership.want(duties.of_replays(sink))
    await spool._sinks.enter(sink)


def _reading(*events: Event) -> ParsedPage:
    return ParsedPage(events=events, rejects=(), outcome=PollOutcome.EMPTY, asked_at=START)


async def fill(spool: SpoolAdmin, clock: ManualClock) -> None:
    """Everything that a spool can hold."""
    await attach(spool)
    await spool.attach("gone", anything)
    await spool.pause("gone", True)
    await spool.pause("b", True)
    await _take_in(spool, clock)
    await _deliver(spool, clock)
    await _dead(spool, clock)
    await _replay(spool)
    await _left_in_hand(spool)
    spool.count_loss("spool", 3)


async def _take_in(spool: SpoolAdmin, clock: ManualClock) -> None:
    rejects = [some_reject(n) for n in range(4)]
    await spool.append("shots", [some_reading(*range(60), rejects=rejects, memory=b"\0m", about=STREAM)])
    await spool.purge_quarantine([(await spool.quarantined(1))[0].number])
    clock.pass_time(60)
    await spool.append("shots", [some_reading(n, stream="hall") for n in range(30)])
    await spool.append("shots", [some_reading(*range(4), stream=STREAM, memory=b"x")])
    await spool.append("pushed", [announced(91, 92, 93), announced(94)])
    await spool.append("shots", [some_reading(94)])  # confirmed, and behind events that came later
    await spool.append("shots", [some_reading(70), some_reading(65)])
    await spool.append("records", [_reading(some_recording("f1", "v1"), some_recording("f2", None))])
    await spool.append("states", [_reading(some_change(1, "live")), _reading(some_change(9, "ended"))])
    gaps = [some_gap(1), some_gap(20, stream=STREAM)]
    await spool.note_gaps("(audit)", [some_reading(memory=b"at")], gaps, [late_picture(2)])


async def _deliver(spool: SpoolAdmin, clock: ManualClock) -> None:
    """Deliver to `c` all, to `a` and `b` a part."""
    await all_owed(spool, "c", 40)
    for sink in ("a", "b"):
        first = await spool.claim(sink, 12)
        await spool.settle(first, [Done() if n % 3 else Retry(after=5, reason="busy") for n in range(12)])
        clock.pass_time(10)
        again = await spool.claim(sink, 12)
        await spool.settle(again, done(again))


async def _dead(spool: SpoolAdmin, clock: ManualClock) -> None:
    """Dead letters: old ones, one that waits for its retry, and one that was retried and delivered."""
    for sink in ("a", "b"):
        batch = await spool.claim(sink, 8)
        await spool.settle(batch, [Dead(reason="HTTP 422 \u2717")] * len(batch.events))
        clock.pass_time(1)
    numbers = sorted(letter.number for letter in await spool.dead(99) if letter.sink == "a")
    assert await spool.retry_dead("a", numbers[:1], 1) == 1
    revived = await spool.claim("a", 1)
    await spool.settle(revived, done(revived))
    assert await spool.retry_dead("a", numbers[1:2], 1) == 1


async def _replay(spool: SpoolAdmin) -> None:
    await order(spool, "c")
    await spool.replays.fill("c")
    batch = await spool.claim("c", 10)
    await spool.settle(batch, done(batch))
    await order(spool, "c")


async def _left_in_hand(spool: SpoolAdmin) -> None:
    """Batches that nobody settles, with dead letters and waiting events behind them. The last letter is deleted."""
    for sink in ("a", "b"):
        in_hand = [await claim_now(spool, sink, 5, ANSWERS_WITHIN) for _ in range(3)]
        if in_hand[-1] is not None:
            later = await spool.claim(sink, 6)
            outcomes = [Dead(reason="bad") if n % 2 else Retry(after=500, reason="later") for n in range(6)]
            await spool.settle(later, outcomes[: len(later.events)])
    last = max(letter.number for letter in await spool.dead(99))
    assert await spool.purge_dead([last]) == 1


async def look(spool: SpoolAdmin) -> dict[str, Any]:
    """Everything that can be seen of a spool whose sinks are attached."""
    events = await scan_all(spool)
    found: dict[str, Any] = {
        "head": spool.head,
        "events": events,
        "streams": spool.streams(),
        "dead": await spool.dead(999),
        "quarantined": await spool.quarantined(999),
        "paused": sorted(await spool.paused()),
        "tallies": await spool.tallies(),
        "gaps": list(await spool.gaps(ALL_EVENTS, 99)),
        "replays": list(spool.replays.all()),
        "backlog": {sink: await _backlog(spool, sink) for sink in SINKS},
        "memory": {source: await spool.memory(source) for source in SOURCES},
    }
    for letter in found["dead"]:
        at = await spool.progress(0, letter.event.id, letter.event)
        found[f"{letter.number} dead"] = [one for one in at if one.sink == letter.sink]
    for number, event in events:
        found[f"{number} {event.id} {event.stream_id}"] = (
            await spool.origin(number),
            await spool.progress(number, event.id, event),
            await spool.deliveries(number, event.id),
            [await spool.remembers(id) for id in event.ids],
        )
    moments = [START + timedelta(seconds=n) for n in range(0, 1000, 7)]
    found["number_at"] = [await spool.number_at(moment) for moment in moments]
    return found


async def _backlog(spool: SpoolAdmin, sink: str) -> Backlog:
    """The backlog. The engines look for the oldest event of an ordered sink in different places."""
    backlog = await spool.backlog(sink)
    return msgspec.structs.replace(backlog, oldest=None) if sink == "b" else backlog


def _shown(batch: Batch) -> tuple[object, ...]:
    return batch.sink, batch.id, tuple(batch.events), batch.attempt, batch.first_attempt_at


async def owed(spool: SpoolAdmin, clock: ManualClock) -> list[tuple[object, ...]]:
    """All batches that the sinks get from now on, replays too. Everything is delivered."""
    found = []
    clock.pass_time(1000)
    for sink in SINKS:
        while await _is_owed(spool, sink):
            batch = await spool.claim(sink, 7)
            found.append(_shown(batch))
            await spool.settle(batch, done(batch))
    return found


async def _is_owed(spool: SpoolAdmin, sink: str) -> bool:
    """Whether the sink gets anything. Replays are gone on with."""
    while True:
        backlog = await spool.backlog(sink)
        if backlog.events or backlog.replaying:
            return True
        if not any(one.sink == sink and one.state in OPEN for one in spool.replays.all()):
            return False
        await spool.replays.fill(sink)


async def knows_all_and_counts_on(spool: SpoolAdmin) -> None:
    """No event is new that was taken in before, a provisional one is corrected, and no number comes again."""
    known = [some_reading(*range(60)), some_reading(70, 65, 94), some_reading(*range(30), stream="hall")]
    records = [_reading(some_recording("f1", None), some_recording(None, "v1"), some_recording("f2", None))]
    assert (await spool.append("shots", known)).total() == 0
    assert (await spool.append("records", records)).total() == 0
    await spool.append("shots", [some_reading(91, 92, 93)])
    urls = {event.id: event.url for _, event in await scan_all(spool)}
    assert [urls[some_event(n).id] for n in (91, 92, 93)] == [some_event(n).url for n in (91, 92, 93)]
    head, used = spool.head, {letter.number for letter in await spool.dead(999)}
    highest = max(used)
    await spool.append("shots", [some_reading(900, 901, rejects=[some_reject(77)])])
    assert spool.head == head + 2
    batch = await spool.claim("a", 2)
    await spool.settle(batch, [Dead(reason="new")] * len(batch.events))
    new = {letter.number for letter in await spool.dead(999)} - used
    assert min(new) > highest + 1, "the number of a dead letter that was deleted came again"
    assert (await spool.quarantined(1))[0].number == 5, "the fourth reject was deleted"


def told(found: dict[str, Any]) -> dict[str, str]:
    """What was found as text, for a difference that can be read."""
    return {name: msgspec.json.encode(_plain(value)).decode() for name, value in found.items()}


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=repr, str_keys=True)
