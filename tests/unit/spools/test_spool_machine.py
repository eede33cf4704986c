"""A spool under random use, crashes and reopenings included, beside a model of what is owed."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from poller.core.model import Batch, Dead, Done, Filter, Outcome, Retry
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, anything, some_event, some_reading
from tests.fakes import sqlite_spool
from tests.patience import patiently

SINKS = ("a", "b")
RETRY = Retry(after=5.0, reason="no")
ASKED = Retry(after=2.0, reason="busy", counted=False)


class SpoolMachine(RuleBasedStateMachine):
    """`settled` may lag behind after a crash: what was settled last may be owed again, never the reverse."""

    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = ManualClock()
        self.appended: dict[str, set[str]] = {sink: set() for sink in SINKS}
        self.done: dict[str, set[str]] = {sink: set() for sink in SINKS}
        self.dead: dict[str, set[str]] = {sink: set() for sink in SINKS}
        self.crashed = False
        self.in_hand: set[tuple[str, str]] = set()
        self.repeats = False
        self.lives = 0
        self.spool: SqliteSpool
        self._open()

    def _let_go(self) -> None:
        """What was settled while an earlier batch was in hand may be owed again (`Spool.settle`)."""
        self.repeats |= bool(self.in_hand)
        self.in_hand.clear()

    def teardown(self) -> None:
        self._let_go()
        for sink in SINKS:
            self._everything_is_accounted_for(sink)
        self._do(self.spool.__aexit__(None, None, None))
        self.loop.close()
        shutil.rmtree(self.folder)

    def _do(self, work: Any) -> Any:
        return self.loop.run_until_complete(patiently(work))

    def _open(self) -> None:
        async def enter() -> None:
            self.spool = sqlite_spool(self.folder, self.clock)
            await self.spool.__aenter__()
            for sink in SINKS:
                await self.spool.attach(sink, anything)

        self.lives += 1
        self._do(enter())

    def _everything_is_accounted_for(self, sink: str) -> None:
        """Drain the sink: what comes out, is done or dead is exactly what went in."""
        self._do(self.spool.attach(sink, anything))  # what was in hand is owed again
        self.clock.pass_time(10)
        seen: set[str] = set()
        while self._do(self.spool.backlog(sink)).events:
            batch = self._do(self.spool.claim(sink, 7))
            seen.update(event.id for event in batch.events)
            self._do(self.spool.settle(batch, [Done()] * len(batch.events)))
        dead = {letter.event.id for letter in self._do(self.spool.dead(10_000, Filter(of=sink)))}
        assert seen | self.done[sink] | dead == self.appended[sink]
        assert self.dead[sink] - dead <= (seen | self.done[sink] if self.crashed else set())
        if not self.crashed and not self.repeats:
            assert not seen & self.done[sink]

    @rule(numbers=st.lists(st.integers(0, 400), max_size=12))
    def append(self, numbers: list[int]) -> None:
        ids = {some_event(number).id for number in numbers}
        new = self._do(self.spool.append("source", [some_reading(*numbers)]))
        assert new.total() == len(ids - self.appended["a"])
        for sink in SINKS:
            self.appended[sink] |= ids

    @rule(target=batches, sink=st.sampled_from(SINKS), limit=st.integers(1, 5))
    def claim(self, sink: str, limit: int) -> Any:
        async def try_claim() -> Batch | None:
            waiting = asyncio.ensure_future(self.spool.claim(sink, limit))
            for _ in range(8):
                await asyncio.sleep(0)
                await self.spool.quarantine_size()  # whatever the claim reads is read before
            if waiting.done():
                return waiting.result()
            waiting.cancel()
            return None

        batch = self._do(try_claim())
        if batch is None:
            return multiple()
        assert not {event.id for event in batch.events} & self.dead[sink] or self.crashed
        self.in_hand.add((batch.sink, batch.id))
        return (self.lives, batch)

    def _settled(self, batch: Batch, outcomes: list[Outcome]) -> None:
        self._do(self.spool.settle(batch, outcomes))
        self.in_hand.discard((batch.sink, batch.id))
        for event, outcome in zip(batch.events, outcomes, strict=True):
            if isinstance(outcome, Done):
                self.done[batch.sink].add(event.id)
            elif isinstance(outcome, Dead):
                self.dead[batch.sink].add(event.id)

    @rule(taken=consumes(batches), choices=st.lists(st.sampled_from("drxp"), min_size=20, max_size=20))
    def settle(self, taken: tuple[int, Batch], choices: list[str]) -> None:
        life, batch = taken
        if life == self.lives:
            words: dict[str, Outcome] = {"d": Done(), "r": RETRY, "p": ASKED, "x": Dead(reason="bad")}
            self._settled(batch, [words[choices[n % 20]] for n in range(len(batch.events))])

    @rule(target=batches, taken=consumes(batches))
    def split(self, taken: tuple[int, Batch]) -> Any:
        """The first half is done, the second stays in hand."""
        life, batch = taken
        if life != self.lives or len(batch.events) < 2:
            return taken
        self.in_hand.discard((batch.sink, batch.id))
        first, second = self._do(self.spool.split(batch))
        self._settled(first, [Done()] * len(first.events))
        self.in_hand.add((second.sink, second.id))
        return (life, second)

    @rule(sink=st.sampled_from(SINKS), limit=st.integers(1, 4), together=st.integers(1, 3))
    def retry_dead(self, sink: str, limit: int, together: int) -> None:
        """The newest dead letters are owed again, whatever comes."""
        letters = self._do(self.spool.dead(limit, Filter(of=sink)))
        count = self._do(self.spool.retry_dead(sink, [letter.number for letter in letters], together))
        assert count == len(letters)
        self.dead[sink] -= {letter.event.id for letter in letters}

    @rule()
    def look(self) -> None:
        """Asking for dead letters writes what is due, as the next commit would."""
        self._do(self.spool.dead(1))

    @rule(seconds=st.sampled_from([1, 6, 86400 * 2]))
    def time_passes(self, seconds: int) -> None:
        self.clock.pass_time(seconds)

    @rule()
    def prune(self) -> None:
        while self._do(self.spool.prune()).more:
            pass

    @rule()
    def reopen(self) -> None:
        self._let_go()
        self._do(self.spool.__aexit__(None, None, None))
        self._open()

    @rule()
    def crash(self) -> None:
        """Go on with the files as they are now, as after `kill -9`: no flush, no close."""
        copy = Path(tempfile.mkdtemp())
        for file in self.folder.iterdir():
            if file.suffix != ".lock":
                shutil.copy(file, copy / file.name)
        self.spool._writer.dirty.clear()
        self._do(self.spool.__aexit__(None, None, None))
        shutil.rmtree(self.folder)
        self.folder = copy
        self.crashed = True
        self._open()

    @precondition(lambda self: not self.crashed and not self.repeats)
    @invariant()
    def the_backlog_is_what_was_not_settled(self) -> None:
        for sink in SINKS:
            owed = self.appended[sink] - self.done[sink] - self.dead[sink]
            assert self._do(self.spool.backlog(sink)).events == len(owed)


SpoolMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
TestSpoolMachine = SpoolMachine.TestCase
