"""Cut the power of a working poller again and again, and look what is left.

What is acknowledged: a page when `Journal.keep` returned, its events when `Spool.append` returned, a picture when
`Sink.deliver` returned. What the rig cannot see: a disk that says "flushed" and lies, or that reorders its writes;
all that reached the loop device is there afterwards.
"""

import asyncio
import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Self

from poller.pipeline.intake import Intake
from poller.pipeline.journal import Journal
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.spools.sqlite import SqliteSpool
from poller.testing.history import newest_events
from tests import lives
from tests.patience import PATIENCE
from tests.power import shots
from tests.power.image import Image, unseen
from tests.power.pictures import PictureServer, picture

WORKLOAD = "tests.power.workload"
MOUNTS = "/proc/thread-self/ns/mnt"
REPOSITORY = Path(__file__).parents[2]
LONGEST_WAIT = 60.0
LONGEST_LOOK = 120.0
PAGES_PER_LIFE = 100_000
CUTS_PER_IMAGE = 10
LINGERS = (0.0, 0.3)
"""Seconds that the process is left to find out: what it does then must do no harm either."""
EVERYTHING = 10**9


@dataclass(frozen=True, kw_only=True)
class Mood:
    """How a life goes: after so many pages kept and batches delivered the power has up to `longest` seconds left."""

    pages: int
    batches: int
    longest: float
    latency: float = 0.002
    """Seconds that the platform takes to answer."""


OPENING = Mood(pages=0, batches=0, longest=0.25)
"""Cut while the files are made or opened, or while the journal of the life before is read in."""
FULL_SPEED = Mood(pages=40, batches=8, longest=0.6)
LULL = Mood(pages=1, batches=1, longest=0.6, latency=0.25)
"""Cut while little happens, so that nobody else's sync covers up for a missing one."""
ALL_MOODS = (OPENING, FULL_SPEED, OPENING, FULL_SPEED, LULL)


@dataclass
class Said:
    """All that was acknowledged on one image, over all its lives."""

    kept: set[int] = field(default_factory=set)
    appended: set[int] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)

    def hear(self, word: str, what: Any = None) -> None:
        """One word of the workload."""
        match word:
            case "kept":
                self.kept.add(what)
            case "appended":
                self.appended.update(what)
            case "delivered":
                self.delivered.update(what)

    def add(self, other: Self) -> None:
        """All that another life said."""
        self.kept |= other.kept
        self.appended |= other.appended
        self.delivered |= other.delivered


@dataclass
class Found:
    """What a run came to, added up over its cuts. Acknowledged things are counted once, losses at every look."""

    seed: int
    cuts: int = 0
    at_work: int = 0
    """Cuts before which the process had kept something in the same life."""
    kept: int = 0
    appended: int = 0
    delivered: int = 0
    recovered: int = 0
    """Pages that only the journal had, read in from there."""
    set_aside: int = 0
    """Files that the poller itself could not read any more."""
    pages_lost: int = 0
    """Pages kept or appended, and not in the spool although the journal was read in."""
    events_lost: int = 0
    """Events appended, and not in the spool before the journal was read in."""
    pictures_lost: int = 0
    """Pictures delivered, and not there."""
    pictures_bad: int = 0
    """Files under their final names that are not what the server sent."""
    pictures_empty: int = 0
    """Those among them that are empty."""
    forgotten: int = 0
    """Events in the spool that are neither owed nor stored."""
    unknown_again: int = 0
    """Events appended, and taken for new when they came again."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first of each kind of loss."""

    def lose(self, kind: str, lost: Collection[object]) -> None:
        """Count losses of one kind."""
        setattr(self, kind, getattr(self, kind) + len(lost))
        for first in list(lost)[:1]:
            self.examples.setdefault(kind, f"cut {self.cuts}: {first}")

    def __str__(self) -> str:
        return " ".join(f"{each.name}={getattr(self, each.name)}" for each in fields(self))


def run(
    folder: Path,
    *,
    cuts: int,
    moods: Sequence[Mood] = ALL_MOODS,
    sync: str = "file",
    disk: str = "ext4",
    spoil: str = "",
    until: Callable[[Found], bool] = lambda found: False,
) -> Found:
    """Cut the power `cuts` times, ten times per image, or until something was found; the moods take turns.

    `sync` is the setting of the sink `download`, and `disk` the kind of file system.
    """
    found = Found(seed=time.time_ns())
    rng = random.Random(found.seed)
    started = time.monotonic()

    def cut() -> None:
        with PictureServer() as server:
            while found.cuts < cuts and not until(found):
                with Image(folder / f"image-{found.cuts}", disk) as image:
                    rig = _Rig(image, server.url, folder / "copy", {"sync": sync, "spoil": spoil}, found)
                    for life in range(min(CUTS_PER_IMAGE, cuts - found.cuts)):
                        rig.live_and_die(life, moods[found.cuts % len(moods)], rng)
                        if until(found):
                            break

    lives.warm(WORKLOAD)  # among the mounts of all
    unseen(cut)
    way = f"{disk}, sync: {sync}, {spoil or 'nothing spoiled'}"
    print(f"\npower cuts on {way}, {time.monotonic() - started:.0f} s: {found}")
    return found


class _Rig:
    """One image over its lives."""

    def __init__(
        self, image: Image, pictures: str, copy: Path, more: Mapping[str, str], found: Found
    ) -> None:
        self._image = image
        self._folder = image.root / "poller"
        self._pictures = pictures
        self._copy = copy
        self._more = more
        self._found = found
        self._said = Said()

    def live_and_die(self, life: int, mood: Mood, rng: random.Random) -> None:
        """Work until the power is cut; mount again; look."""
        with _Workload(self._order(life, mood.latency), self._image.root.parent / "stderr") as workload:
            workload.wait_for("opening")
            workload.wait_for("kept", mood.pages)
            workload.wait_for("delivered", mood.batches)
            workload.work_for(rng.uniform(0.0, mood.longest))
            # Only what was said before counts: seen in a bare loop too, a sync in flight at the cut may return 0
            # after it, with nothing on the disk. After a real cut nobody is there to be told.
            began = time.monotonic()
            self._image.cut()
            assert self._image.is_dead(), "the power was not cut"
            workload.end(rng.choice(LINGERS))
        self._image.unmount()
        self._image.mount()
        self._count(workload.said(before=began))
        self._look()

    def _count(self, said: Said) -> None:
        self._found.cuts += 1
        self._found.at_work += bool(said.kept)
        self._found.kept += len(said.kept) * shots.PER_PAGE
        self._found.appended += len(said.appended - self._said.appended) * shots.PER_PAGE
        self._found.delivered += len(said.delivered - self._said.delivered)
        self._said.add(said)

    def _order(self, life: int, latency: float) -> str:
        return json.dumps(
            {
                "folder": str(self._folder),
                "pictures": self._pictures,
                "first": life * PAGES_PER_LIFE,
                "latency": latency,
                **self._more,
            }
        )

    # ------------------------------------------------------------ looking

    def _look(self) -> None:
        """Look at the pictures where they are, and at the rest in a copy.

        So the originals stay as the cut left them, and it is the next life that reads the journal in, under
        the threat of a cut.
        """
        shutil.rmtree(self._copy, ignore_errors=True)
        self._copy.mkdir()
        journal = shots.journal_path(self._folder).name
        for name in ("spool.db", "spool.db-wal", "spool.db-journal", journal):
            if (self._folder / name).exists():
                shutil.copyfile(self._folder / name, self._copy / name)
        stored = self._look_at_pictures()
        asyncio.run(asyncio.wait_for(self._look_at_copy(stored), LONGEST_LOOK))
        self._found.lose("set_aside", [path.name for path in self._copy.glob("*.unreadable-*")])

    def _look_at_pictures(self) -> set[str]:
        """The pictures that are there and right."""
        stored, bad, empty = set(), [], []
        for path in shots.pictures_path(self._folder).glob("[!.]*/*/*"):
            content = path.read_bytes()
            if content == picture(path.name):
                stored.add(path.name)
            else:
                bad.append(path)
                empty += [path] if not content else []
        self._found.lose("pictures_bad", bad)
        self._found.lose("pictures_empty", empty)
        self._found.lose("pictures_lost", self._said.delivered - stored)
        return stored

    async def _look_at_copy(self, stored: set[str]) -> None:
        accounts = {shots.ACCOUNT: shots.account(self._pictures)}
        source = shots.DryQueue(shots.SOURCE, shots.queue_settings(), accounts)
        async with (
            shots.spool_of(self._copy, _LateClock()) as spool,
            Journal(shots.journal_path(self._copy), shots.JOURNAL_SIZE) as journal,
        ):
            there = await _names(spool)
            await spool.attach(shots.SINK, shots.wants)
            await _recover(source, spool, journal)
            recovered = await _names(spool)
            owed = await _owed(spool)
            self._look_at_names(there, recovered)
            self._found.lose("forgotten", recovered - stored - owed)
            known = [page for page in self._said.appended if shots.names(page)[0] in there]
            again = [source.read(shots.page_again(page), b"") for page in known]
            self._found.unknown_again += (await spool.append(shots.SOURCE, again)).total()

    def _look_at_names(self, there: set[str], recovered: set[str]) -> None:
        said, found = self._said, self._found
        found.recovered += len({shots.page_of(name) for name in recovered - there})
        found.lose("events_lost", [name for page in said.appended for name in _missing(page, there)])
        found.lose("pages_lost", [page for page in said.kept | said.appended if _missing(page, recovered)])


def _missing(page: int, there: set[str]) -> list[str]:
    return [name for name in shots.names(page) if name not in there]


async def _names(spool: SqliteSpool) -> set[str]:
    return {shots.name_of(event) for event in await newest_events(spool, EVERYTHING)}


async def _recover(source: shots.DryQueue, spool: SqliteSpool, journal: Journal) -> None:
    """As the daemon does it at its start."""
    intake = Intake(source, spool, journal, metrics=Metrics(), clock=Clock())
    running = asyncio.ensure_future(intake.run(journal.take_leftovers()))
    emptied = asyncio.ensure_future(intake.emptied.wait())
    await asyncio.wait({running, emptied}, return_when=asyncio.FIRST_COMPLETED)
    emptied.cancel()
    intake.stop()
    await running


async def _owed(spool: SqliteSpool) -> set[str]:
    owed: set[str] = set()
    while len(owed) < (await spool.backlog(shots.SINK)).events:
        async with asyncio.timeout(PATIENCE):
            batch = await spool.claim(shots.SINK, 10_000)
        owed.update(shots.name_of(event) for event in batch.events)
    return owed


class _LateClock(Clock):
    """An hour ahead, so that every retry is due."""

    def now(self) -> datetime:
        """An hour from now."""
        return super().now() + timedelta(hours=1)


def _begin(order: str, errors: IO[bytes]) -> tuple[lives.Life, IO[bytes]]:
    """A process that works, among the mounts of this thread, and what it says."""
    with ExitStack() as stack:
        reading, writing = os.pipe()
        lines = os.fdopen(reading, "rb")
        stack.enter_context(os.fdopen(writing, "wb"))
        nothing = stack.enter_context(open(os.devnull, "rb"))
        mounts = stack.enter_context(open(MOUNTS, "rb"))
        files = [nothing.fileno(), writing, errors.fileno(), mounts.fileno()]
        warm = lives.warm(WORKLOAD)
        return warm.start([order], cwd=REPOSITORY, environ=os.environ, files=files), lines


class _Workload:
    """The process that works on the image, and what it says."""

    def __init__(self, order: str, errors: Path) -> None:
        self._order = order
        self._errors = errors
        self._news = threading.Condition()
        self._ended = False
        self._heard: list[tuple[float, str, list[Any]]] = []

    def __enter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._process, self._lines = _begin(self._order, errors)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()

    def wait_for(self, word: str, times: int = 1) -> None:
        """Until it has said this so many times."""

        def said() -> bool:
            return self._ended or sum(1 for _, each, _ in self._heard if each == word) >= times

        with self._news:
            assert self._news.wait_for(said, LONGEST_WAIT), f"the workload never came to {word}"
        assert not self._ended, f"the workload ended by itself: {self._errors.read_text()}"

    def work_for(self, seconds: float) -> None:
        """Let it work; it must not end by itself."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"the workload ended by itself: {self._errors.read_text()}")

    def end(self, linger: float) -> None:
        """Kill it, after some seconds in which it may see that the disk is gone."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(linger)
        self._process.kill()
        self._process.wait()
        self._listener.join()

    def said(self, before: float) -> Said:
        """What it acknowledged before a moment on the monotonic clock."""
        said = Said()
        for at, word, what in self._heard:
            if at < before:
                said.hear(word, *what)
        return said

    def _listen(self) -> None:
        with self._lines as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    at, word, *said = json.loads(line)
                    with self._news:
                        self._heard.append((at, word, said))
                        self._news.notify()
        with self._news:
            self._ended = True
            self._news.notify()
