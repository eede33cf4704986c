"""The default spool, in one SQLite file.

Invariants
    The file is in WAL mode with `synchronous=FULL`. One connection writes and checkpoints, in its own thread;
    readers open the file with `mode=ro`; a lock file keeps other processes out. The reason for the single
    writer is a fault of SQLite before 3.51.3: two writers may reset the WAL wrongly (see its release notes).

Life cycle
    Opening takes the lock, moves a damaged file aside, migrates the file and reads its state. Settlements are
    written with the next commit, or shortly after. Closing writes the rest and empties the WAL.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field

from poller.core.catalogue import Stream
from poller.core.errors import StorageCorrupt, StorageError
from poller.core.history import Delivery, Gap, LatePicture, Origin, SinkProgress, Tally
from poller.core.model import (
    EVERYTHING,
    DeadLetter,
    Event,
    Filter,
    ParsedPage,
    Quarantined,
)
from poller.core.selection import Numbered, Scan, Selection
from poller.core.spool import (
    BeginsAnew,
    Damage,
    Examined,
    HasLimits,
    KeptInFile,
    NoticesLoss,
    Pruned,
    Salvaged,
)
from poller.runtime.clock import Clock
from poller.runtime.durable_files import make_folder, sync_folder
from poller.runtime.group_thread import GroupThread
from poller.settings import ResolvedPath, Size, SpoolSettings, size_between
from poller.spools.owned_spool import OwnedSpool
from poller.spools.replays import ReplayChange
from poller.spools.sqlite import books, delivered, progress, queries, replays
from poller.spools.sqlite import gaps as gap_rows
from poller.spools.sqlite.backup import back_up
from poller.spools.sqlite.clock_file import read_known, write_known
from poller.spools.sqlite.corrupt_file import files_aside, is_condemned, move_aside
from poller.spools.sqlite.examine import examine, export, known_sinks, known_streams
from poller.spools.sqlite.file_locks import FileLocks
from poller.spools.sqlite.moving import MovableFile
from poller.spools.sqlite.page_scan import scan
from poller.spools.sqlite.page_times import number_at
from poller.spools.sqlite.reader import Reader
from poller.spools.sqlite.salvage import salvage
from poller.spools.sqlite.watermarks import Marks
from poller.spools.sqlite.writer import Writer, flush
from poller.spools.tail import Chunk
from poller.spools.waiting import Waiting

CLOCK_EVERY = 60.0
"""Seconds between two writes of the clock file."""

Result = TypeVar("Result")


class SqliteSpool(OwnedSpool[Writer], MovableFile, BeginsAnew, NoticesLoss, HasLimits, KeptInFile):
    """The default spool."""

    class Settings(SpoolSettings):
        """Settings of the SQLite spool."""

        type: Literal["sqlite"]
        path: ResolvedPath = Field(description="The spool file. A missing folder is created.")
        max_bytes: Annotated[Size, size_between("64MiB", "16TiB")] = Field(
            default=10 * 2**30,
            description="Polling pauses when the file uses more than this, and resumes below nine tenths of it.",
        )
        min_free: Annotated[Size, size_between("0B", "16TiB")] = Field(
            default=256 * 2**20,
            description="Polling pauses when the disk has less free space, and resumes with a tenth more.",
        )

    def __init__(
        self, name: str, settings: Settings, accounts: Mapping[str, object], clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        """See `KeepsTime.clock`."""
        self._marks = Marks(settings.path, settings.max_bytes, settings.min_free)
        super().__init__(name, Writer(settings.path, self.clock, self._marks), self.clock)
        self._settings = settings
        self._save_clock_at = 0.0
        self._path = settings.path
        self._locks = FileLocks(self._path)
        self.damage: Damage | None = None
        """See `BeginsAnew.damage`."""
        self.lost: str | None = None
        """See `NoticesLoss.lost`."""
        self.commits_lost = 0
        """See `NoticesLoss.commits_lost`."""
        self.kept_as = 0
        """See `NoticesLoss.kept_as`."""
        self._writes: GroupThread[Callable[[Writer], object], object] = GroupThread(
            "spool-writer", self._writer.run
        )
        self._reader = Reader(self._path, self._clock)

    # ------------------------------------------------------------ opening and closing

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().run_in_executor(None, self._open)
        self._dispatcher.head = self._writer.next
        self._writes.start()
        self._reader.start()
        self._dead = dict(await self._reader.read(queries.count_dead))
        self._replays.load(await self._reader.read(replays.stored))
        return self

    def _open(self) -> None:
        try:
            make_folder(self._path.parent)
            self._locks.lock_name()
            if is_condemned(self._path):
                self.damage = move_aside(self._path, self._clock.now())
            try:
                self._open_file()
            except StorageCorrupt as error:
                self.damage = move_aside(self._path, self._clock.now(), str(error))
                self._writer.abandon()  # after the move: closing may write into the file, and delete a WAL
                self._locks.unlock_file()
                self._open_file()
            sync_folder(self._path.parent)
            self._begin_life()
        except OSError as error:
            self._locks.unlock_all()
            raise StorageError(f"spool {self._path}: {error.strerror}") from error
        except BaseException:
            self._locks.unlock_all()
            raise

    def _begin_life(self) -> None:
        self._clock.begin(read_known(self._path) or self._writer.newest)
        self._save_clock()
        self._describe_loss()

    def _save_clock(self, *, stopped: bool = False) -> None:
        write_known(self._path, self._clock.history(stopped=stopped))
        self._save_clock_at = self._clock.monotonic() + CLOCK_EVERY

    def _describe_loss(self) -> None:
        self.kept_as = self._writer.kept_as
        if (lost := self._writer.lost) is None:
            return
        self.commits_lost = max(1, lost.commits)
        copy = "" if lost.wal is None else f"; a copy of the WAL as it was lies at {lost.wal}"
        self.lost = (
            f"the file lacks its newest part, {lost.events} events in {self.commits_lost} commits may be gone: its WAL"
            f" or the file itself was damaged, put back or taken away{copy}"
        )

    def _open_file(self) -> None:
        self._locks.lock_file()
        self._writer.open()
        self._locks.note_files()

    # ------------------------------------------------------------ files that were moved or deleted

    def why_displaced(self) -> str | None:
        """See `Placed.why_displaced`."""
        return self._locks.why_displaced()

    def is_deleted(self) -> bool:
        """See `Placed.is_deleted`."""
        return self._locks.is_deleted()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._keep(*self._dispatcher.close())
        if self._flush is not None:
            self._flush.cancel()
        await self._reader.stop()  # before the writer: the last connection to close checkpoints
        await self._writes.stop()
        self._reader.close()
        await asyncio.get_running_loop().run_in_executor(None, self._close_files)
        self._locks.unlock_all()

    def _close_files(self) -> None:
        self._writer.close()
        self._save_clock(stopped=True)

    # ------------------------------------------------------------ in

    async def check_writable(self) -> None:
        """See `Spool.check_writable`."""
        await self._write(Writer.check_writable)

    async def _attach_rows(
        self, sink: str, start: datetime | None
    ) -> tuple[int, list[Waiting], list[int], bool]:
        return await self._write(partial(Writer.attach, sink=sink, start=start))

    async def _ordered_since(self, sink: str, ordered: bool, begin: int) -> int | None:
        return await self._write(partial(Writer.ordered_since, sink=sink, ordered=ordered, begin=begin))

    async def detach(self, sink: str) -> None:
        """See `Spool.detach`."""
        self._keep(*self._dispatcher.forget(sink))
        await self._write(partial(Writer.detach, sink=sink))

    async def memory(self, source: str) -> Mapping[str, bytes]:
        """See `Spool.memory`."""
        return await self._write(partial(Writer.memory, source=source))

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        """See `Spool.append`."""
        return await self._publish(
            await self._write(partial(Writer.append, source=source, readings=list(readings)))
        )

    async def read_again(self, source: str, readings: Mapping[int, ParsedPage]) -> Counter[str]:
        """See `Spool.read_again`."""
        return await self._publish(
            await self._write(partial(Writer.read_again, source=source, readings=dict(readings)))
        )

    async def _correct_rows(self, known: list[Numbered]) -> Mapping[str, list[Waiting]]:
        return await self._write(partial(Writer.correct, known=known))

    # ------------------------------------------------------------ out

    def _flushing(self) -> "asyncio.Future[object]":
        return self._writes.submit(flush)

    async def _requeue_rows(
        self, sink: str, numbers: list[int], together: int, room: int, rebuild: Callable[[Event], Event]
    ) -> list[Waiting]:
        terms: Any = {
            "sink": sink,
            "numbers": numbers,
            "together": together,
            "room": room,
            "rebuild": rebuild,
        }
        return await self._write(partial(Writer.retry_dead, **terms))

    async def _purge_dead_rows(self, numbers: list[int]) -> Counter[str]:
        return await self._write(partial(Writer.purge_dead, numbers=numbers))

    async def _load(self, start: int) -> list[Chunk]:
        return await self._reader.read(partial(queries.load_pages, start))

    async def _write_replay(self, change: ReplayChange) -> None:
        await self._write(partial(replays.write, change))

    async def _dead_ids(self, sink: str) -> frozenset[str]:
        await self._write(flush)  # the newest dead letters may not be in the file yet
        return await self._reader.read(partial(replays.dead_ids, sink))

    async def _count_replayed(self, sink: str) -> int:
        await self._write(flush)  # the newest settlements may not be in the file yet
        return await self._reader.read(partial(replays.count_waiting, sink))

    async def pause(self, sink: str, paused: bool) -> None:
        """See `Spool.pause`."""
        await self._write(partial(Writer.pause, sink=sink, paused=paused))

    async def paused(self) -> frozenset[str]:
        """See `Spool.paused`."""
        return await self._reader.read(queries.paused)

    # ------------------------------------------------------------ queries and pruning

    async def _received_at(self, number: int) -> datetime | None:
        return await self._reader.read(partial(queries.received_at, number))

    async def _scan_rows(self, chosen: Selection, start: int | None, limit: int, newest_first: bool) -> Scan:
        return await self._reader.read(partial(scan, chosen, start, limit, newest_first))

    async def _stored_progress(
        self, number: int, id: str, attached: Collection[str]
    ) -> dict[str, SinkProgress]:
        return await self._reader.read(partial(progress.stored, number, id, attached))

    async def origin(self, number: int) -> Origin | None:
        """See `SpoolHistory.origin`."""
        return await self._reader.read(partial(queries.origin, number))

    async def number_at(self, moment: datetime) -> int:
        """See `SpoolHistory.number_at`."""
        return await self._reader.read(partial(number_at, moment, self.head))

    async def deliveries(self, number: int, id: str) -> list[Delivery]:
        """See `SpoolHistory.deliveries`."""
        await self._write_pending()
        return await self._reader.read(partial(delivered.deliveries, number, id))

    async def remembers(self, id: str) -> bool:
        """See `SpoolHistory.remembers`."""
        return await self._write(partial(Writer.remembers, id=id))

    async def tallies(self) -> list[Tally]:
        """See `SpoolHistory.tallies`."""
        await self._write_pending()
        return await self._reader.read(books.tallies)

    async def gaps(self, chosen: Selection, limit: int) -> list[Gap]:
        """See `SpoolHistory.gaps`."""
        return await self._reader.read(partial(gap_rows.gaps, chosen, limit))

    async def note_gaps(
        self,
        source: str,
        readings: Sequence[ParsedPage],
        gaps: Sequence[Gap],
        late: Sequence[LatePicture] = (),
    ) -> Counter[str]:
        """See `SpoolHistory.note_gaps`."""
        note = partial(Writer.note_gaps, source=source, readings=list(readings), gaps=gaps, late=late)
        return await self._publish(await self._write(note))

    async def dead(self, limit: int, chosen: Filter = EVERYTHING) -> list[DeadLetter]:
        """See `Spool.dead`."""
        await self._write(flush)  # the newest dead letters may not be in the file yet
        return await self._reader.read(partial(queries.dead_letters, limit, chosen))

    async def quarantined(self, limit: int, chosen: Filter = EVERYTHING) -> list[Quarantined]:
        """See `Spool.quarantined`."""
        return await self._reader.read(partial(queries.quarantined, limit, chosen))

    async def purge_quarantine(self, numbers: Sequence[int]) -> int:
        """See `Spool.purge_quarantine`."""
        return await self._write(partial(Writer.purge_quarantine, numbers=list(numbers)))

    async def quarantine_size(self) -> int:
        """See `Spool.quarantine_size`."""
        return await self._reader.read(queries.quarantine_size)

    async def prune(self) -> Pruned:
        """See `Spool.prune`."""
        step = partial(
            Writer.prune,
            floor=min(self._dispatcher.floor(), self._replays.floor()),
            retain=self._settings.retain,
            dead=self._settings.retain_dead,
            quarantine=self._settings.retain_quarantine,
        )
        pruned = await self._write(step)
        if self._clock.monotonic() >= self._save_clock_at:
            await asyncio.get_running_loop().run_in_executor(None, self._save_clock)
        self._not_dead(pruned.dead)
        return pruned

    async def size(self) -> int:
        """See `Spool.size`."""
        return sum(queries.size(self._path.with_name(self._path.name + end)) for end in ("", "-wal"))

    @property
    def fullness(self) -> dict[str, float]:
        """See `HasLimits.fullness`."""
        return self._marks.fullness

    def files_aside(self) -> list[Path]:
        """See `BeginsAnew.files_aside`."""
        return files_aside(self._path)

    # ------------------------------------------------------------ the file, without opening the spool

    def examine(self) -> Examined:
        """See `KeptInFile.examine`."""
        return examine(self._path)

    def back_up(self, to: Path, progress: Callable[[int, int], None]) -> Examined:
        """See `KeptInFile.back_up`."""
        return back_up(self._path, to, progress)

    def export(self, kinds: frozenset[str], since: datetime | None) -> Iterator[bytes]:
        """See `KeptInFile.export`."""
        return export(self._path, kinds, since)

    def sinks(self) -> frozenset[str]:
        """See `KeptInFile.sinks`."""
        return known_sinks(self._path)

    def known_streams(self) -> list[Stream]:
        """See `KeptInFile.known_streams`."""
        return known_streams(self._path)

    def salvage(self, file: Path, sinks: Sequence[str]) -> Iterator[Salvaged]:
        """See `KeptInFile.salvage`."""
        return salvage(file, sinks)

    async def restore(self, salvaged: Sequence[Salvaged]) -> int:
        """See `KeptInFile.restore`."""
        chunks = await self._write(partial(Writer.restore, salvaged=salvaged))
        for chunk in chunks:
            self._dispatcher.publish(chunk)
        return sum(len(chunk.events) for chunk in chunks)

    # ------------------------------------------------------------ threads

    async def _write(self, job: Callable[[Writer], Result]) -> Result:
        result: Result = await self._writes.submit(job)  # type: ignore[assignment]
        return result
