"""An ordered sink under random use, crashes and switches included, beside a model of what it may get next."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, precondition, rule

from poller.core.history import Replay, ReplayState
from poller.core.model import Batch, Dead, Done, Event, Outcome, ParsedPage, PollOutcome, Retry
from poller.core.replays import OPEN
from poller.core.selection import ALL_EVENTS
from poller.spools import ordered_sink_queue as ordered
from poller.spools import replays as desk
from poller.spools.places import is_replayed
from poller.spools.sink_queue import ticket_of
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, anything, some_event
from poller.testing.replays import counted
from tests.fakes import sqlite_spool
from tests.patience import patiently

KEPT_LINES = ordered.KEPT_LINES
PIECE, MOST = desk.PIECE, desk.MOST
STREAMS = ("room", "hall", "room", "")
STEPS_OF_A_LIFE = 6
RETRY = Retry(after=5.0, reason="no")
ASKED = Retry(after=2.0, reason="busy", counted=False)


def event_of(number: int) -> Event:
    return some_event(number, stream=STREAMS[number % len(STREAMS)])


def replayed(batch: Batch) -> bool:
    return is_replayed(ticket_of(batch).numbers[0])


class OrderedMachine(RuleBasedStateMachine):
    """A sink that is told of every batch. `ever` is what it took or was told dead, over all lives; `reached` is how
    far each stream got in this life; `revived` are dead letters that are owed again, before what waits of their stream,
    each with the retry that revived it and its number: those of one retry come in the order in which they died.
    `chosen` are the events of a replay by stream, `sent` those of them that were settled as replayed, over all lives,
    and `following` is the place of the next one of each stream in this life.
    """

    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        ordered.KEPT_LINES = 1  # so that lines are forgotten all the time
        desk.PIECE, desk.MOST = 2, 6
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = ManualClock()
        self.place: dict[str, int] = {}
        self.logs: dict[str, list[str]] = {stream: [] for stream in STREAMS}
        self.ever: set[str] = set()
        self.revived: dict[str, tuple[int, int]] = {}
        self.reached: dict[str, int] = {}
        self.chosen: dict[str, list[str]] = {}
        self.sent: set[str] = set()
        self.following: dict[str, int] = {}
        self.in_hand: list[
            Batch
        ] = []  # not by id: an event may be in two, as a letter and again after a crash
        self.lives = 0
        self.retries = 0
        self.ordered = True
        self.promised = True
        self.spool: SqliteSpool
        self._open()

    def teardown(self) -> None:
        ordered.KEPT_LINES = KEPT_LINES
        desk.PIECE, desk.MOST = PIECE, MOST
        self._drain()
        self._do(self.spool.__aexit__(None, None, None))
        self.loop.close()
        shutil.rmtree(self.folder)

    def _do(self, work: Any) -> Any:
        return self.loop.run_until_complete(patiently(work))

    def _open(self) -> None:
        async def enter() -> None:
            self.spool = sqlite_spool(self.folder, self.clock)
            await self.spool.__aenter__()
            await self.spool.attach("a", anything, ordered=self.ordered, replays=3)

        self.lives += 1
        self.steps = 0
        self.reached.clear()
        self.following.clear()
        self.in_hand.clear()
        self._do(enter())

    def _try_claim(self, limit: int) -> Batch | None:
        async def claim() -> Batch | None:
            waiting = asyncio.ensure_future(self.spool.claim("a", limit))
            for _ in range(4):
                await asyncio.sleep(0)
                await self.spool.quarantine_size()  # whatever the claim reads is read before
            if waiting.done():
                return waiting.result()
            waiting.cancel()
            return None

        self._do(self.spool.replays.fill("a"))
        batch: Batch | None = self._do(claim())
        if batch is not None:
            self._may_get_again(batch) if replayed(batch) else self._may_get(batch)
            self.in_hand.append(batch)
        return batch

    def _streams_of(self, batch: Batch) -> set[str]:
        streams = {event.stream_id for event in batch.events} - {""}
        for other in self.in_hand:
            assert not streams & {event.stream_id for event in other.events}, (
                "two batches of a stream in hand"
            )
        return streams

    def _may_get_again(self, batch: Batch) -> None:
        for event in batch.events:
            assert event.id in self.chosen.get(event.stream_id, ()), "it was not chosen"
        if not self.promised:
            return
        for stream in self._streams_of(batch):
            log = self.chosen[stream]
            events = [event.id for event in batch.events if event.stream_id == stream]
            first = log.index(events[0])
            assert log[first : first + len(events)] == events
            assert first == self.following.setdefault(stream, first)
            assert self.sent.issuperset(log[:first]), "an earlier replayed event is not settled"

    def _may_get(self, batch: Batch) -> None:
        if not self.promised:
            return
        for stream in self._streams_of(batch):
            events = [event.id for event in batch.events if event.stream_id == stream]
            once = list(dict.fromkeys(events))  # a letter may come a second time, from the log after a crash
            again = [id for id in once if id in self.revived]
            first = events[len(again) :]
            assert events[: len(again)] == again, "a letter that is retried comes before what waits"
            died = [self.revived[id] for id in again]
            places = [self.place[id] for id in first]
            assert [number for _, number in died] == sorted(number for _, number in died)
            assert places == sorted(places)
            log = self.logs[stream]
            for together, number in died[:1]:
                owed = [self.revived[id] for id in log if id in self.revived]
                assert (together, number) == min(one for one in owed if one[0] == together), (
                    "an older letter of the stream is still owed"
                )
            if first:
                place = self.place[first[0]]
                assert place > self.reached.get(stream, -1), "it comes again behind a later one"
                assert set(log[:place]) <= self.ever.union(again), "an earlier one was neither taken nor dead"

    def _settle(self, batch: Batch, outcomes: list[Outcome]) -> None:
        self._do(self.spool.settle(batch, outcomes))
        if batch in self.in_hand:
            self.in_hand.remove(batch)
        if replayed(batch):
            self._settled_again(batch, outcomes)
            return
        waits: set[str] = set()
        for event, outcome in zip(batch.events, outcomes, strict=True):
            stream = event.stream_id
            if isinstance(outcome, Retry) and stream and self.ordered:
                waits.add(stream)
            elif not isinstance(outcome, Retry) and stream not in waits:
                self.ever.add(event.id)
                if event.id in self.revived:
                    del self.revived[event.id]
                else:
                    self.reached[stream] = max(self.reached.get(stream, -1), self.place[event.id])

    def _settled_again(self, batch: Batch, outcomes: list[Outcome]) -> None:
        waits: set[str] = set()
        for event, outcome in zip(batch.events, outcomes, strict=True):
            stream = event.stream_id
            if isinstance(outcome, Retry) and stream and self.ordered:
                waits.add(stream)
            elif not isinstance(outcome, Retry) and stream not in waits:
                self.sent.add(event.id)
                if event.id in self.chosen.get(stream, ()):
                    self.following[stream] = self.chosen[stream].index(event.id) + 1

    def _replaying(self) -> list[Replay]:
        return [one for one in self.spool.replays.all() if one.state in OPEN]

    def _drain_replay(self) -> None:
        """A replay comes to its end, and everything chosen was sent."""
        while self._replaying():
            self._do(self.spool.replays.fill("a"))
            while (batch := self._try_claim(7)) is not None:
                self._settle(batch, [Done()] * len(batch.events))
            self.clock.pass_time(6)
        assert self.sent.issuperset(id for log in self.chosen.values() for id in log)
        for one in self.spool.replays.all():
            assert one.state is ReplayState.CANCELLED or one.queued == one.total

    def _drain(self) -> None:
        """Nothing is owed for ever, and what was neither taken nor dead comes out."""
        for held in list(self.in_hand):
            self._settle(held, [RETRY] * len(held.events))
        while self._do(self.spool.backlog("a")).events:
            batch = self._try_claim(7)
            if batch is None:
                self.clock.pass_time(6)
                batch = self._try_claim(7)
            assert batch is not None, "owed, and never given out"
            self._settle(batch, [Done()] * len(batch.events))
        assert self.ever == set(self.place)
        self._drain_replay()

    @rule(numbers=st.lists(st.integers(0, 200), min_size=8, max_size=20))
    def append(self, numbers: list[int]) -> None:
        self.steps += 1
        events = tuple(map(event_of, numbers))
        self._do(
            self.spool.append("source", [ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL)])
        )
        for event in events:
            if event.id not in self.place:
                self.place[event.id] = len(self.logs[event.stream_id])
                self.logs[event.stream_id].append(event.id)

    @rule(target=batches, limits=st.lists(st.integers(1, 4), min_size=2, max_size=5))
    def claim(self, limits: list[int]) -> Any:
        self.steps += 1
        return self._claimed(limits)

    @rule(taken=consumes(batches), choices=st.lists(st.sampled_from("drxp"), min_size=6, max_size=6))
    def settle(self, taken: tuple[int, Batch], choices: list[str]) -> None:
        self.steps += 1
        life, batch = taken
        if life == self.lives:
            words: dict[str, Outcome] = {"d": Done(), "r": RETRY, "p": ASKED, "x": Dead(reason="bad")}
            self._settle(batch, [words[choices[n % 6]] for n in range(len(batch.events))])

    @rule(taken=consumes(batches))
    def refuse(self, taken: tuple[int, Batch]) -> None:
        """As the courier does: both halves come again at once."""
        self.steps += 1
        life, batch = taken
        if life != self.lives:
            return
        if len(batch.events) < 2:
            self._settle(batch, [Dead(reason="bad")])
            return
        self.in_hand.remove(batch)
        for half in self._do(self.spool.split(batch)):
            self._settle(half, [Retry(after=0.0, reason="refused")] * len(half.events))

    @rule(target=batches, taken=consumes(batches))
    def split(self, taken: tuple[int, Batch]) -> Any:
        """The first half is done, the second stays in hand."""
        self.steps += 1
        life, batch = taken
        if life != self.lives or len(batch.events) < 2:
            return taken
        self.in_hand.remove(batch)
        first, second = self._do(self.spool.split(batch))
        self._settle(first, [Done()] * len(first.events))
        self.in_hand.append(second)
        return (life, second)

    @rule(taken=consumes(batches))
    def the_sink_takes_it_and_nobody_hears(self, taken: tuple[int, Batch]) -> None:
        """It stays in hand; the next crash or stop finds it so."""
        self.steps += 1
        life, batch = taken
        if life == self.lives and all(
            set(self.logs[e.stream_id][: self.place[e.id]]) <= self.ever for e in batch.events
        ):
            self.ever.update(event.id for event in batch.events[:1])

    @rule(some=st.sets(st.integers(0, 7), min_size=1))
    def retry_dead(self, some: set[int]) -> None:
        self.steps += 1
        letters = self._do(self.spool.dead(8))
        chosen = [letter for index, letter in enumerate(letters) if index in some]
        numbers = [letter.number for letter in chosen]
        assert self._do(self.spool.retry_dead("a", numbers, 3)) == len(chosen)
        self.retries += 1
        for letter in chosen:
            self.ever.discard(letter.event.id)
            self.revived[letter.event.id] = (self.retries, letter.number)

    @precondition(lambda self: not self._replaying() and len(self.place) > 8)
    @rule(target=batches, limits=st.lists(st.integers(1, 3), min_size=3, max_size=6))
    def replay(self, limits: list[int]) -> Any:
        """What the sink has settled comes again, one replay at a time."""

        async def ordered_replay() -> list[Event]:
            planned = await self.spool.replays.plan("a", ALL_EVENTS)
            found, left_out = await counted(self.spool, planned)
            await self.spool.replays.order(planned, len(found), left_out)
            return found

        if any(replayed(batch) for batch in self.in_hand):
            return multiple()
        while (batch := self._try_claim(3)) is not None:
            self._settle(batch, [Done()] * len(batch.events))
        self.chosen, self.sent = {}, set()
        self.following.clear()
        for event in self._do(ordered_replay()):
            self.chosen.setdefault(event.stream_id, []).append(event.id)
        return self._claimed(limits)

    def _claimed(self, limits: list[int]) -> Any:
        batches = [batch for limit in limits if (batch := self._try_claim(limit)) is not None]
        return multiple(*[(self.lives, batch) for batch in batches])

    @precondition(lambda self: self._replaying())
    @rule(surely=st.sampled_from([False, False, False, True]))
    def cancel(self, surely: bool) -> None:
        if surely:
            (one,) = self._replaying()
            self._do(self.spool.replays.change(one.number, ReplayState.CANCELLED))
            self.chosen = {}

    @rule()
    def time_passes(self) -> None:
        """And what is due is written."""
        self.clock.pass_time(6)
        self._do(self.spool.dead(1))

    @precondition(lambda self: self.steps >= STEPS_OF_A_LIFE)
    @rule(end=st.sampled_from(["stop", "crash", "stop", "crash", "switch"]))
    def end(self, end: str) -> None:
        """A switch to unordered or back: the order of what there is now is not promised any more."""
        if end == "crash":
            self._crash()
        self._do(self.spool.__aexit__(None, None, None))
        if end == "crash":
            shutil.rmtree(self.folder)
            self.folder = self.copy
        if end == "switch":
            self.ordered = not self.ordered
            self.promised = False
        self._open()

    def _crash(self) -> None:
        """Go on with the files as they are now, as after `kill -9`: no flush, no close."""
        self.copy = Path(tempfile.mkdtemp())
        for file in self.folder.iterdir():
            if file.suffix != ".lock":
                shutil.copy(file, self.copy / file.name)
        self.spool._writer.dirty.clear()


OrderedMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=50, suppress_health_check=list(HealthCheck)
)
TestOrderedMachine = OrderedMachine.TestCase
