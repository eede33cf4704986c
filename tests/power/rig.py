"""Cut the power of a working poller again and again, and look what is left.

What is acknowledged: a page when `Journal.keep` returned, its events when `Spool.append` returned, a picture when
`Sink.deliver` returned. What the rig cannot see: a disk that says "flushed" and lies, or that reorders its writes;
all that reached the loop device is there afterwards.
"""

import asyncio
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from poller.clock import Clock
from poller.intake import Intake
from poller.journal import Journal
from poller.metrics import Metrics
from poller.model import Page
from poller.spools.sqlite import SqliteSpool
from tests.power import shots
from tests.power.image import Image
from tests.power.pictures import PictureServer, picture

REPOSITORY = Path(__file__).parents[2]
LONGEST_START = 60.0
LONGEST_LOOK = 120.0
PAGES_PER_LIFE = 100_000
CUTS_PER_IMAGE = 10
EVERYTHING = 10**9


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
    """What a run came to, added up over its cuts; acknowledged things are counted once, losses where found."""

    cuts: int = 0
    at_work: int = 0
    """Cuts before which the process had acknowledged something in the same life."""
    kept: int = 0
    appended: int = 0
    delivered: int = 0
    recovered: int = 0
    """Pages that only the journal had."""
    set_aside: int = 0
    """Files that the poller itself could not read any more."""
    pages_lost: int = 0
    """Pages kept, and after recovery not wholly in the spool."""
    events_lost: int = 0
    """Events appended, and not in the spool although the journal had not been read in yet."""
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

    @property
    def losses(self) -> int:
        """Everything that must not happen."""
        return (
            self.pages_lost
            + self.events_lost
            + self.pictures_lost
            + self.pictures_bad
            + self.forgotten
            + self.unknown_again
        )

    def __str__(self) -> str:
        return " ".join(f"{each.name}={getattr(self, each.name)}" for each in fields(self))


def run(
    folder: Path,
    *,
    cuts: int,
    spoil: str = "",
    seed: int = 0,
    until: Callable[[Found], bool] = lambda found: False,
    longest_life: float = 1.0,
) -> Found:
    """Cut `cuts` times, ten times per image, or until something was found."""
    rng, found = random.Random(seed), Found()
    with PictureServer() as server:
        while found.cuts < cuts and not until(found):
            with Image(folder / f"image-{found.cuts}") as image:
                rig = _Rig(image, server.url, folder / "copy", spoil, found)
                for life in range(min(CUTS_PER_IMAGE, cuts - found.cuts)):
                    rig.live_and_die(life, _moment(rng, life, longest_life), linger=rng.choice((0.0, 0.5)))
                    if until(found):
                        break
    print(f"\npower cuts, {spoil or 'as it is'}: {found}")
    return found


def _moment(rng: random.Random, life: int, longest: float) -> float:
    """Seconds from the opening of the files to the cut; now and then so few that they are still opening."""
    return rng.uniform(0.0, 0.15) if rng.random() < 0.2 else rng.uniform(0.15, longest)


class _Rig:
    """One image over its lives."""

    def __init__(self, image: Image, pictures: str, copy: Path, spoil: str, found: Found) -> None:
        self._image = image
        self._folder = image.root / "poller"
        self._pictures = pictures
        self._copy = copy
        self._spoil = spoil
        self._found = found
        self._said = Said()

    def live_and_die(self, life: int, moment: float, linger: float) -> None:
        """Work until the power is cut; mount again; look. What errors make of the process is its own affair."""
        with _Workload(self._order(life), self._image.root.parent / "stderr") as workload:
            workload.wait_for_opening()
            workload.work_for(moment)
            # Only what was said before counts: a sync in flight may come back as done although the ioctl undid it.
            began = time.monotonic()
            self._image.cut()
            assert self._image.is_dead(), "the power was not cut"
            workload.end(linger)
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

    def _order(self, life: int) -> str:
        first = life * PAGES_PER_LIFE
        order = {
            "folder": str(self._folder),
            "pictures": self._pictures,
            "first": first,
            "latency": 0.002,
            "spoil": self._spoil,
        }
        return json.dumps(order)

    # ------------------------------------------------------------ looking

    def _look(self) -> None:
        """Look at the files as they are, and at a copy of the journal and the spool, which stay untouched:

        reading the journal in is left to the next life, whose power is cut as well.
        """
        shutil.rmtree(self._copy, ignore_errors=True)
        self._copy.mkdir()
        for name in ("spool.db", "spool.db-wal", shots.journal_path(self._copy).name):
            if (self._folder / name).exists():
                shutil.copyfile(self._folder / name, self._copy / name)
        stored = self._look_at_pictures()
        asyncio.run(asyncio.wait_for(self._look_at_copy(stored), LONGEST_LOOK))
        aside = [*self._folder.glob("*.unreadable-*"), *self._copy.glob("*.unreadable-*")]
        self._found.set_aside += len(aside)
        for path in self._folder.glob("*.unreadable-*"):
            path.unlink()

    def _look_at_pictures(self) -> set[str]:
        """The pictures that are there and right."""
        stored = set()
        for path in shots.pictures_path(self._folder).glob("[!.]*/*/*"):
            content = path.read_bytes()
            if content == picture(path.name):
                stored.add(path.name)
            else:
                self._found.pictures_bad += 1
                self._found.pictures_empty += not content
                print(
                    "BAD",
                    len(content),
                    len(picture(path.name)),
                    content[:8],
                    content[-3:],
                    content.count(0),
                    content.find(bytes(500)),
                )
        self._found.pictures_lost += len(self._said.delivered - stored)
        return stored

    async def _look_at_copy(self, stored: set[str]) -> None:
        source = shots.DryQueue(
            shots.SOURCE, shots.queue_settings(), {shots.ACCOUNT: shots.account(self._pictures)}
        )
        async with (
            shots.spool_of(self._copy, _LateClock()) as spool,
            Journal(shots.journal_path(self._copy), shots.JOURNAL_SIZE) as journal,
        ):
            there = await _names(spool)
            self._found.events_lost += sum(len(missing(page, there)) for page in self._said.appended)
            await spool.attach(shots.SINK, shots.wants)
            await _recover(source, spool, journal)
            recovered = await _names(spool)
            self._found.recovered += len({shots.page_of(name) for name in recovered - there})
            acknowledged = self._said.kept | self._said.appended
            self._found.pages_lost += sum(1 for page in acknowledged if missing(page, recovered))
            self._found.forgotten += len(recovered - stored - await _owed(spool))
            known = [page for page in self._said.appended if not missing(page, there)]
            again = [source.read(shots.page(page), b"") for page in known]
            if again:
                self._found.unknown_again += await spool.append(shots.SOURCE, again)


def missing(page: int, there: set[str]) -> list[str]:
    """What of a page is not there."""
    return [name for name in shots.names(page) if name not in there]


async def _names(spool: SqliteSpool) -> set[str]:
    return {shots.name_of(event) for event in await spool.recent(EVERYTHING)}


async def _recover(source: shots.DryQueue, spool: SqliteSpool, journal: Journal) -> None:
    """As the daemon does it at its start."""
    intake = Intake(source, spool, journal, metrics=Metrics(), clock=Clock())
    running = asyncio.ensure_future(intake.run(journal.left_over()))
    emptied = asyncio.ensure_future(intake.emptied.wait())
    await asyncio.wait({running, emptied}, return_when=asyncio.FIRST_COMPLETED)
    emptied.cancel()
    intake.stop()
    await running


async def _owed(spool: SqliteSpool) -> set[str]:
    owed: set[str] = set()
    while len(owed) < (await spool.backlog(shots.SINK)).events:
        async with asyncio.timeout(10):
            batch = await spool.claim(shots.SINK, 10_000)
        owed.update(shots.name_of(event) for event in batch.events)
    return owed


class _LateClock(Clock):
    """An hour ahead, so that every retry is due."""

    def now(self) -> datetime:
        """An hour from now."""
        return super().now() + timedelta(hours=1)


class _Workload:
    """The process that works on the image, and what it says."""

    def __init__(self, order: str, errors: Path) -> None:
        self._order = order
        self._errors = errors
        self._opening = threading.Event()
        self._heard: list[tuple[float, str, list[Any]]] = []

    def __enter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.power.workload", self._order],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()

    def wait_for_opening(self) -> None:
        """Until it is about to open its files."""
        assert self._opening.wait(LONGEST_START), self._errors.read_text()

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
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    at, word, *said = json.loads(line)
                    self._heard.append((at, word, said))
                    if word == "opening":
                        self._opening.set()
