"""The one connection that writes.

Invariants
    All code here runs in the writing thread. The jobs of a group share one transaction. The state in memory
    (the next number, the catalogue, the seen ids) changes with a commit, and goes back with a rollback.

Failures
    After a failure that leaves the disk in an unknown state, nothing is written any more (`broken`): the
    spool must be opened again.
"""

import os
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import msgspec

from poller.core.catalogue import Catalogue
from poller.core.errors import StorageCorrupt, StorageError, StorageFull, Unreadable
from poller.core.history import RESTORED, Book, Gap, LatePicture
from poller.core.model import Event, ParsedPage, Reject, corrected
from poller.core.selection import Numbered
from poller.core.spool import Pruned, Salvaged
from poller.runtime.ages import ClockHistory, Setting
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.books import PossibleLoss
from poller.spools.moving import refuse
from poller.spools.pages import UNKNOWN, Came, Written, came, page_events
from poller.spools.retention import IDS_REMEMBERED, PRUNE_STEP, Stretches
from poller.spools.rows import (
    blob_of,
    dead_row,
    epoch,
    lines,
    number_of,
    reads_back,
    reject_row,
    waiting_of,
    waiting_row,
)
from poller.spools.sink_queue import Changes
from poller.spools.sqlite import meta
from poller.spools.sqlite.backup import keep_before_migration
from poller.spools.sqlite.books import count, count_losses, count_settled
from poller.spools.sqlite.catalogue_rows import CatalogueRows, read_rows
from poller.spools.sqlite.corrections import correct_page, correct_waiting
from poller.spools.sqlite.dead_letters import dead_letters, purge_dead, requeue_dead
from poller.spools.sqlite.delivered import prune_delivered, record
from poller.spools.sqlite.failures import storage_error
from poller.spools.sqlite.gaps import prune_gaps, put_gaps
from poller.spools.sqlite.head import HeadFile, Mark, copied_wal, identity
from poller.spools.sqlite.page_index import CRC, fill, put_index
from poller.spools.sqlite.page_times import PageTimes, number_at
from poller.spools.sqlite.pruning import older, prune_pages, prune_streams
from poller.spools.sqlite.schema import PUT_WAITING, VERSION, ahead, json_list, prepare, recognised
from poller.spools.sqlite.seen import DedupIndex
from poller.spools.sqlite.watermarks import Marks
from poller.spools.tail import Chunk
from poller.spools.waiting import Corrections, Waiting

EARLY_STEP = 4
EARLY_STEPS = 64
"""The most steps of early pruning before a transaction, so that no job waits for long. The steps are small, so that
no more is deleted than necessary."""
CHECKPOINT_AFTER = 25.0
"""Seconds after a write until a transaction empties the WAL. There are at least two transactions a minute."""
CHECKPOINT_AGAIN = 1.0
SYNCHRONOUS = "FULL"

_PUT_MEMORY = (
    "INSERT INTO source VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
    " SET memory = excluded.memory, changed_at = excluded.changed_at WHERE memory IS NOT excluded.memory"
)
_PUT_DEAD = (
    "INSERT OR REPLACE INTO dead (sink, event_id, attempts, first_attempt_at, died_at, reason, history, event,"
    " stream_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_KEEP_DEAD = _PUT_DEAD.replace("REPLACE", "IGNORE")

Result = TypeVar("Result")
Job = Callable[["Writer"], Result]


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a file that was committed once and is gone."""

    commits: int
    events: int
    wal: Path | None
    """A copy of the WAL as it was found."""


class Writer:
    """Owns the connection and the log's next number."""

    def __init__(self, path: Path, clock: Clock, marks: Marks) -> None:
        self._path = path
        self._clock = clock
        self._marks = marks
        self._attached: set[str] = set()
        self._dead_ahead: set[str] = set()
        """The sinks for which `meta` may have numbers of dead letters (`Changes.dead_ahead`)."""
        self.broken: StorageError | None = None
        """The reason why nothing is written any more, until the file is opened again; None while all is well."""
        self.dirty: deque[Changes] = deque()
        self.losses: deque[PossibleLoss] = deque()
        """The possible losses that are not yet counted in the file."""
        self._whole_catalogue = False
        """Whether the next transaction writes all of the catalogue."""
        self._head_file = HeadFile(path.with_name(path.name + ".head"))
        self._id = ""
        self._commits = 0
        """The number of transactions that took in pages. `meta` and the head file have the same number."""
        self._took_in = False
        self._written_since: float | None = None
        self.lost: Lost | None = None
        """The part of the file that is gone; None for a file that lost nothing."""
        self.kept_as = 0
        """The highest journal number among the pages that were committed before this start."""
        self.newest: ClockHistory | None = None
        """The newest moment in the log, for a spool without a clock file; None for an empty log."""
        self.next: int
        self.catalogue: Catalogue
        self.catalogue_rows: CatalogueRows
        self.connection: sqlite3.Connection
        self.seen: DedupIndex
        self._times: PageTimes

    def open(self) -> None:
        """Open or create the file; raises `StorageError`."""
        try:
            self.connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            version = recognised(self.connection)
            if version:
                refuse(f"spool {self._path}", meta.read_records(self.connection))
            self.lost = self._missed(version)
            set_up(self.connection, self._path, version)
            self._read_state()
            self.newest = self._newest()
        except (sqlite3.Error, Unreadable) as error:
            raise storage_error(self._path, error, self._clock.now()) from error

    @reads_back
    def _newest(self) -> ClockHistory | None:
        row = self.connection.execute("SELECT received_at FROM page ORDER BY first DESC LIMIT 1").fetchone()
        if row is None:
            return None
        return ClockHistory(
            settings=(Setting(0.0, min(row[0], epoch(self._clock.now())), 0.0),), stopped=False
        )

    def _missed(self, version: int) -> Lost | None:
        """Compare the file with its head file, before anything is written to the file or its WAL."""
        said = self._head_file.read()
        if said is None:
            return None
        if version and identity(self._factor()) != said.id:
            return None
        commits, following = meta.extent(self.connection) if version else (0, 1)
        if commits >= said.commits and following >= said.next:
            return None
        aside = copied_wal(self._path, f"{self._clock.now():%Y%m%dT%H%M%SZ}")
        if self.connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise Unreadable("the end of its WAL is gone, and what is left does not fit together")
        return Lost(commits=said.commits - commits, events=max(0, said.next - following), wal=aside)

    def abandon(self) -> None:
        """Close a file that could not be opened. `open` may be called again."""
        self.lost = None
        with suppress(sqlite3.Error):
            self.connection.close()

    @reads_back
    def _read_state(self) -> None:
        factor = self._factor()
        self._id = identity(factor)
        self.seen = DedupIndex(self.connection, int.from_bytes(factor, "big") | 1)
        self._times = PageTimes(self.connection)
        self.next = meta.next_number(self.connection)
        self._commits = meta.read_number(self.connection, meta.COMMITS)
        self.kept_as = meta.highest_kept_as(self.connection)
        self._read_catalogue()

    def _factor(self) -> bytes:
        factor = meta.read_factor(self.connection)
        if factor is None:
            raise StorageCorrupt(f"spool {self._path}: its table meta lacks a row")
        return factor

    def _read_catalogue(self) -> None:
        self.catalogue = read_rows(self.connection)
        self.catalogue_rows = CatalogueRows(self.connection, self.catalogue, self._clock)
        saved = self._catalogue_saved()
        pages = self.connection.execute(
            f"SELECT first, events, {CRC} FROM page WHERE last >= ? AND first >= coalesce("  # noqa: S608 - our own words
            "(SELECT max(first) FROM page WHERE first <= ?), 0) ORDER BY first",  # `last` has no index
            (saved, saved),
        )
        for row in pages:
            for number, event in enumerate(page_events(*row), row[0]):
                if number >= saved:
                    self.catalogue.note(event, number)
        self.catalogue.keep()

    def _catalogue_saved(self) -> int:
        """The first event number that the written catalogue lacks."""
        return meta.read_number(self.connection, meta.CATALOGUE)

    def close(self) -> None:
        """Write the pending changes, and close the file."""
        reached("spool.closing")
        if self.broken is None:
            self._whole_catalogue = True
            self.run([flush])
        self.connection.close()
        self._head_file.close()

    def run(self, jobs: list[Job[object]]) -> list[object | Exception]:
        """Run jobs in one transaction, or each in a transaction of its own if one fails. Returns results or errors."""
        if self.broken is None and self._marks.due(self._clock.monotonic()):
            self._look()
        results = self._run(jobs)
        self._checkpoint_now_and_then()
        return results

    def _checkpoint_now_and_then(self) -> None:
        """Empty the WAL before it is a minute old, so that damage to the WAL costs no more than a minute."""
        since, now = self._written_since, self._clock.monotonic()
        if self.broken is not None or since is None or now - since < CHECKPOINT_AFTER:
            return
        try:
            self._written_since = None if self._empty_wal() else now - CHECKPOINT_AFTER + CHECKPOINT_AGAIN
        except sqlite3.Error as error:
            self._failure(error)

    def _run(self, jobs: list[Job[object]]) -> list[object | Exception]:
        if self.broken is not None:
            return [self.broken for _ in jobs]
        try:
            return self._together(jobs)
        except Exception as error:  # rolled back: the other jobs are tried without the one that failed
            if len(jobs) > 1 and not isinstance(error, sqlite3.OperationalError):
                return [result for job in jobs for result in self._run([job])]
            return [self._failure(error) for _ in jobs]

    def _look(self) -> None:
        """Measure. Above a high mark, empty the WAL and then prune settled events, until below the low mark."""
        marks, now, before = self._marks, self._clock.monotonic(), self._marks.full
        try:
            marks.look(self.connection, now)
            if marks.full is not None:
                self._empty_wal()
                marks.full = before
                marks.look(self.connection, now)
            for _ in range(EARLY_STEPS):
                if marks.full is None:
                    return
                self._whole_catalogue = True  # only events that the written catalogue covers can be pruned
                (more,) = self._together([Writer.prune_early])
                marks.look(self.connection, now)
                if not more:
                    return
        except (sqlite3.Error, OSError) as error:
            self._failure(error)

    def _empty_wal(self) -> bool:
        """Checkpoint and empty the WAL; false when a reader prevented it."""
        self.connection.execute("PRAGMA busy_timeout=0")  # do not wait for a reader
        busy, *_ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        reached("wal.emptied")
        self.connection.execute("PRAGMA busy_timeout=5000")
        return not busy

    def _admit(self) -> None:
        if self._marks.full is not None:
            raise StorageFull(f"spool {self._path}: {self._marks.full}")

    def _together(self, jobs: list[Job[object]]) -> list[object | Exception]:
        start, flushed, losses = self.next, list(self.dirty), list(self.losses)
        self._took_in, before = False, self.connection.total_changes
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self._apply(flushed)
            count_losses(self.connection, losses)
            self.catalogue_rows.write(start, whole=self._whole_catalogue)
            results: list[object | Exception] = [job(self) for job in jobs]
            if self._marks.full is None:
                self.seen.merge()
            if self._took_in:
                meta.put_number(self.connection, meta.COMMITS, self._commits + 1)
            reached("transaction.written")
            self.connection.execute("COMMIT")
            reached("transaction.committed")
        except BaseException:
            self.next = start
            self.catalogue.discard()
            self.catalogue_rows.discard()
            self.seen.discard()
            self._times.discard()
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self._note_commit(self.connection.total_changes != before)
        self._whole_catalogue = False
        self.catalogue_rows.keep(self.next - start)
        self.catalogue.keep()
        self.seen.keep()
        self._times.keep()
        for _ in flushed:
            self.dirty.popleft()
        for _ in losses:
            self.losses.popleft()
        return results

    def _note_commit(self, changed: bool) -> None:
        """Count a commit that is durable now, and write it to the head file."""
        if changed and self._written_since is None:
            self._written_since = self._clock.monotonic()
        if self._took_in:
            self._commits += 1
            self._head_file.write(Mark(id=self._id, commits=self._commits, next=self.next))

    def _failure(self, error: Exception) -> StorageError:
        if isinstance(error, StorageError) and not isinstance(error, Unreadable):
            return error
        failure = storage_error(self._path, error, self._clock.now())
        if isinstance(failure, StorageFull):
            with suppress(sqlite3.OperationalError):
                self._empty_wal()  # the WAL may fill the disk
        unknown = isinstance(error, sqlite3.OperationalError) and not isinstance(failure, StorageFull)
        if unknown or isinstance(failure, StorageCorrupt):
            self.broken = failure  # the state of the disk after a failed fsync is unknown: reopen, replay
        return failure

    # ------------------------------------------------------------ jobs

    def append(self, source: str, readings: list[ParsedPage]) -> Written:
        """Write the new events, the rejects and the memories of pages; raises `StorageFull`."""
        self._admit()
        written = self._write_readings(source, readings)
        self._write_memories(source, {reading.about: reading.memory for reading in readings})
        if kept_as := max((reading.kept_as for reading in readings), default=0):
            meta.raise_number(self.connection, meta.KEPT_AS + source, kept_as)
        reached("append.written")
        return written

    def _write_readings(self, source: str, readings: Sequence[ParsedPage]) -> Written:
        self._took_in = True
        written = Written()
        for reading in readings:
            if reading.events:
                self._write_events(source, reading, written)
            for reject in reading.rejects:
                self._write_reject(source, reject)
        taken = sum(len(chunk.events) for chunk in written.chunks)
        count(self.connection, source, Book.TAKEN, taken, self._clock.now())
        return written

    def _write_events(self, source: str, reading: ParsedPage, written: Written) -> None:
        fresh = self._fresh(reading.events)
        if not reading.provisional and len(fresh) < len(reading.events):
            unseen = {event.id for event in fresh}
            known = [event for event in reading.events if event.id not in unseen]
            written.confirmed += self.seen.provisional(known)
        if news := self._news(fresh):
            chunk = self._write_page(news, came(source, reading))
            written.chunks.append(chunk)
            if reading.provisional:
                self.seen.note_provisional(chunk.first, news)

    def correct(self, known: Sequence[Numbered]) -> dict[str, list[Waiting]]:
        """Correct provisional events in the log and in waiting batches. They are not provisional any more.

        Their dead letters of attached sinks become waiting batches, which are returned. Their retry is due
        now.
        """
        by = {event.id: event for _, event in known}
        differing = {
            event.id: event for number, event in known if correct_page(self.connection, number, event)
        }
        if differing:
            correct_waiting(self.connection, differing)
        found = {sink: self._revive(sink, by) for sink in self._attached}
        self.seen.confirm(by.values())
        reached("correction.written")
        return found

    def _revive(self, sink: str, by: Corrections) -> list[Waiting]:
        letters = [
            msgspec.structs.replace(letter, event=corrected(letter.event, by[letter.event.id]))
            for letter in dead_letters(self.connection, sink, "event_id", by)
        ]
        return requeue_dead(self.connection, sink, letters, self._clock.now())

    def restore(self, salvaged: Sequence[Salvaged]) -> list[Chunk]:
        """Write the contents of another file. Unlike `append`, it keeps events that change no stream's state.

        Events that were received at the same time become one page.
        """
        self._admit()
        self._took_in = True
        for part in salvaged:
            for letter in part.dead:
                self.connection.execute(_KEEP_DEAD, dead_row(letter))
            for source, reject in part.rejects:
                self._write_reject(source, reject)
        fresh = self._fresh(tuple(event for part in salvaged for event in part.events))
        for number, event in enumerate(fresh, self.next):
            self.catalogue.note(event, number)
        count(self.connection, RESTORED, Book.TAKEN, len(fresh), self._clock.now())
        pages = [tuple(page) for _, page in groupby(fresh, attrgetter("received_at"))]
        return [self._write_page(page, UNKNOWN) for page in pages]

    def _write_memories(self, source: str, memories: dict[str, bytes]) -> None:
        at = epoch(self._clock.now())
        for about, memory in memories.items():
            if memory:
                self.connection.execute(_PUT_MEMORY, (source, about, memory, at))
            else:
                self.connection.execute("DELETE FROM source WHERE name = ? AND about = ?", (source, about))

    def _fresh(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """The events whose ids were not seen."""
        return self.seen.fresh(events, self._clock.now())

    def _news(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """The events that are news for the catalogue. The catalogue has noted them."""
        note, number, news = self.catalogue.note, self.next, list[Event]()
        for event in events:
            if note(event, number):
                news.append(event)
                number += 1
        return tuple(news)

    def _write_page(self, events: tuple[Event, ...], origin: Came) -> Chunk:
        chunk = Chunk(self.next, events)
        received_at, blob = epoch(events[0].received_at), lines(events)
        self._times.note(chunk.first, received_at)
        put_index(self.connection, chunk.first, events, blob, origin)
        self.connection.execute(
            "INSERT INTO page VALUES (?, ?, ?, ?)", (chunk.first, chunk.end - 1, received_at, blob)
        )
        self._marks.written += len(blob)
        self.next = chunk.end
        return chunk

    def _write_reject(self, source: str, reject: Reject) -> None:
        self.connection.execute(
            "INSERT OR IGNORE INTO quarantine (id, source, received_at, reason, encoding, body)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            reject_row(source, reject),
        )

    def _apply(self, due: list[Changes]) -> None:
        execute = self.connection.execute
        for changes in due:
            for id in changes.dropped:
                execute("DELETE FROM waiting WHERE sink = ? AND id = ?", (changes.sink, id))
            for waiting in changes.put:
                execute(PUT_WAITING, waiting_row(changes.sink, waiting))
            for letter in changes.dead:
                execute(_PUT_DEAD, dead_row(letter))
            for number in changes.dead_ahead:
                execute("INSERT OR REPLACE INTO meta VALUES (?, '')", (ahead(changes.sink, number),))
                self._dead_ahead.add(changes.sink)
            reached("settlements.written")
        record(self.connection, due)
        count_settled(self.connection, due)
        for sink, position in {changes.sink: changes.position for changes in due}.items():
            execute("UPDATE sink SET position = ? WHERE name = ?", (position, sink))
            if sink in self._dead_ahead:
                ends = (ahead(sink, 0), ahead(sink, position))
                execute("DELETE FROM meta WHERE name >= ? AND name < ?", ends)

    def attach(self, sink: str, start: datetime | None) -> tuple[int, list[Waiting], list[int], bool]:
        """A sink's position, its waiting batches, the numbers of its dead letters from the position on, and whether it
        is new.

        The position of a new sink is that of the first event received at `start` or later; by default the end of the
        log.
        """
        self._attached.add(sink)
        known = self.connection.execute("SELECT 1 FROM sink WHERE name = ?", (sink,)).fetchone()
        if known is None:
            begin = self.next if start is None else number_at(start, self.next, self.connection)
            self.connection.execute("INSERT INTO sink (name, position) VALUES (?, ?)", (sink, begin))
        position = self.connection.execute("SELECT position FROM sink WHERE name = ?", (sink,)).fetchone()[0]
        rows = self.connection.execute(
            "SELECT id, failed, first_attempt_at, due, history, numbers, events FROM waiting WHERE sink = ?",
            (sink,),
        )
        waiting = [waiting_of(row) for row in rows]
        numbers = meta.numbers_ahead(self.connection, sink)
        if numbers:
            self._dead_ahead.add(sink)
        return number_of(position), waiting, numbers, known is None

    def ordered_since(self, sink: str, ordered: bool, begin: int) -> int | None:
        """See `meta.ordered_since`."""
        return meta.ordered_since(self.connection, sink, ordered, begin)

    def detach(self, sink: str) -> None:
        """Detach a sink: events are no longer retained for it."""
        self._attached.discard(sink)

    def note_gaps(
        self, source: str, readings: list[ParsedPage], gaps: Sequence[Gap], late: Sequence[LatePicture]
    ) -> Written:
        """Append readings, add gaps and fill gaps."""
        written = self.append(source, readings)
        put_gaps(self.connection, gaps, late)
        return written

    def check_writable(self) -> None:
        """Write a new value, to prove that the file can be written; raises `StorageFull`."""
        self._admit()
        now = str(epoch(self._clock.now()))
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES ('proved', ?)", (now,))

    def memory(self, source: str) -> dict[str, bytes]:
        """The memories of a source, by subject."""
        rows = self.connection.execute("SELECT about, memory FROM source WHERE name = ?", (source,))
        return {about: blob_of(memory) for about, memory in rows}

    def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, room: int, rebuild: Callable[[Event], Event]
    ) -> list[Waiting]:
        """Turn dead letters into batches that wait for their retry: at most `room` letters, oldest first."""
        letters = dead_letters(self.connection, sink, "n", numbers, room)
        now = self._clock.now()
        return requeue_dead(self.connection, sink, letters, now, together=together, rebuild=rebuild)

    def purge_dead(self, numbers: Sequence[int]) -> Counter[str]:
        """Delete dead letters; returns how many of each sink there were."""
        return purge_dead(self.connection, numbers)

    def read_again(self, source: str, readings: Mapping[int, ParsedPage]) -> Written:
        """Replace rejects by the pages that were parsed from them. A reject that is gone is skipped."""
        rows = self.connection.execute(
            "DELETE FROM quarantine WHERE source = ? AND n IN (SELECT value FROM json_each(?)) RETURNING n",
            (source, json_list(list(readings))),
        )
        numbers = [n for (n,) in rows.fetchall()]
        reached("quarantine.taken")
        return self._write_readings(source, [readings[n] for n in numbers])

    def purge_quarantine(self, numbers: Sequence[int]) -> int:
        """Delete rejects; returns how many there were."""
        return self.connection.execute(
            "DELETE FROM quarantine WHERE n IN (SELECT value FROM json_each(?))", (json_list(numbers),)
        ).rowcount

    def pause(self, sink: str, paused: bool) -> None:
        """Record whether the operator paused a sink."""
        self.connection.execute("UPDATE sink SET paused = ? WHERE name = ?", (paused, sink))

    def prune(self, floor: int, retain: float, dead: float, quarantine: float) -> Pruned:
        """Prune one bounded step. `more` is true when the step was full, so that there may be more.

        Only events below the number `floor` are pruned. The other arguments are ages in seconds.
        """
        connection, young = self.connection, self._clock.young
        full = self._prune_pages(floor, young(retain), PRUNE_STEP)
        full |= self.seen.prune(young(IDS_REMEMBERED), PRUNE_STEP)
        full |= self._marks.full is None and fill(connection)
        letters = self.purge_dead(older(connection, "dead", "died_at", young(dead)))
        rejects = self.purge_quarantine(older(connection, "quarantine", "received_at", young(quarantine)))
        prune_streams(connection, self.catalogue, self._clock)
        full |= prune_gaps(connection, self._clock, retain)
        full |= PRUNE_STEP in (letters.total(), rejects)
        return Pruned(dead=letters, rejects=rejects, more=full)

    def prune_early(self) -> bool:
        """Prune one step of events that all attached sinks have settled, of any age; true if there may be more."""
        positions = dict(self.connection.execute("SELECT name, position FROM sink"))
        floor = min((positions[sink] for sink in self._attached), default=0)
        return self._prune_pages(floor, [], EARLY_STEP)

    def _prune_pages(self, floor: int, young: Stretches, step: int) -> bool:
        # the written catalogue lacks the newest events: the next start reads them from the log
        full = prune_pages(self.connection, min(floor, self._catalogue_saved()), young, step)
        return prune_delivered(self.connection, self.next, young) or full

    def remembers(self, id: str) -> bool:
        """Whether an event with this id was seen in the last 30 days."""
        return self.seen.knows(id)


def set_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Set up the connection that writes, and create the tables or migrate those of an earlier schema."""
    if 0 < version < VERSION:
        keep_before_migration(connection, path, version)
    connection.execute("PRAGMA page_size=8192")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
    connection.execute("PRAGMA journal_size_limit=67108864")
    # ids are spread at random: at a million of them, this size costs a third less CPU per event
    connection.execute("PRAGMA cache_size=-16384")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    # Debian's SQLite overwrites deleted rows by default
    connection.execute("PRAGMA secure_delete=OFF")
    prepare(connection, version, os.urandom(16))


def flush(writer: Writer) -> None:
    """An empty job. The pending changes are written with it, as with every job."""
