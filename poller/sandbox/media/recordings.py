"""The recorded segments of all channels: which there are, where they lie, and under which URLs."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from poller.sandbox.database import Database
from poller.sandbox.options import Customer


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One segment. Times are epoch seconds, size is in bytes."""

    vid: str
    file_id: str
    app_id: int
    stream_id: str
    start_time: float
    end_time: float
    size: int

    @property
    def path_spec(self) -> str:
        """Its path in its customer's place, as the 2016 document has it."""
        return f"{self.vid}.f0.flv"

    @property
    def path_later(self) -> str:
        """Its path as later platforms were seen to write it."""
        folder = md5(str(self.app_id).encode(), usedforsecurity=False).hexdigest()[:8]
        return f"{folder}vodgzp{self.app_id}/{self.file_id}/f0.flv"


def spec_url(recording: Recording, customer: Customer) -> str:
    """Where the customer fetches it, as the 2016 document has it."""
    return f"http://{customer.biz_id}.vod.myqcloud.com/{recording.path_spec}"


def later_url(recording: Recording, customer: Customer) -> str:
    """The `record_file_url` of later platforms."""
    return f"http://{customer.app_id}.vod2.myqcloud.com/{recording.path_later}"


class Recordings:
    """The list of segments, durable; the files lie in one directory, `(vid).flv`, and `(vid).part` until closed."""

    def __init__(
        self,
        database: Database,
        directory: Path,
        ended: Callable[[Recording], None] = lambda recording: None,
    ) -> None:
        """`ended` is called for every segment when it is listed."""
        self._database = database
        self.directory = directory
        self._ended = ended

    def begin(self, customer: Customer, stream_id: str, start_time: float) -> str:
        """A segment begins; returns its vid. It is listed once it has ended.

        Raises OSError or sqlite3.OperationalError, as all that writes here.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        vid = f"{customer.biz_id}_{secrets.token_hex(16)}"
        file_id = str(10**18 + secrets.randbelow(9 * 10**18))
        self._database.execute(
            "INSERT INTO recording (vid, file_id, app_id, stream_id, start_time) VALUES (?, ?, ?, ?, ?)",
            (vid, file_id, customer.app_id, stream_id, start_time),
        )
        return vid

    def end(self, vid: str, end_time: float) -> None:
        """The segment is whole: its file is put in place, and it is listed from now on. May be tried again.

        Raises FileNotFoundError where its file is gone.
        """
        with contextlib.suppress(FileNotFoundError):  # a first try may have come to here
            self.part(vid).rename(self.file(vid))
        size = self.file(vid).stat().st_size
        self._database.execute(
            "UPDATE recording SET end_time = ?, size = ? WHERE vid = ?", (end_time, size, vid)
        )
        if listed := self.find(vid=vid):
            self._ended(listed)

    def drop(self, vid: str) -> None:
        """Forgets a segment and its file."""
        self.part(vid).unlink(missing_ok=True)
        self.file(vid).unlink(missing_ok=True)
        self._database.execute("DELETE FROM recording WHERE vid = ?", (vid,))

    def open_ones(self) -> list[tuple[str, float]]:
        """The vid and start of every segment that has begun and not ended."""
        return self._database.execute(
            "SELECT vid, start_time FROM recording WHERE end_time IS NULL"
        ).fetchall()

    def older_than(self, moment: float) -> list[str]:
        """The segments that ended before that moment."""
        rows = self._database.execute("SELECT vid FROM recording WHERE end_time < ?", (moment,))
        return [vid for (vid,) in rows]

    def page(
        self,
        app_id: int,
        stream_id: str,
        *,
        offset: int,
        limit: int,
        newest_first: bool = False,
        since: float = 0.0,
        until: float = 1e12,
    ) -> tuple[int, list[Recording]]:
        """How many segments of a channel start in that time, both ends included, and some of them in order."""
        where = "app_id = ? AND stream_id = ? AND end_time IS NOT NULL AND start_time BETWEEN ? AND ?"
        asked = (app_id, stream_id, since, until)
        (total,) = self._database.execute(f"SELECT count(*) FROM recording WHERE {where}", asked).fetchone()  # noqa: S608 - constant
        order = "DESC" if newest_first else "ASC"
        rows = self._database.execute(
            "SELECT vid, file_id, app_id, stream_id, start_time, end_time, size FROM recording"  # noqa: S608 - constants
            f" WHERE {where} ORDER BY start_time {order}, rowid {order} LIMIT ? OFFSET ?",
            (*asked, limit, offset),
        )
        return total, [_recording(row) for row in rows]

    def find(self, *, vid: str = "", file_id: str = "") -> Recording | None:
        """The finished segment of that vid or file id."""
        row = self._database.execute(
            "SELECT vid, file_id, app_id, stream_id, start_time, end_time, size FROM recording"
            " WHERE (vid = ? OR file_id = ?) AND end_time IS NOT NULL",
            (vid, file_id),
        ).fetchone()
        return None if row is None else _recording(row)

    def part(self, vid: str) -> Path:
        return self.directory / f"{vid}.part"

    def file(self, vid: str) -> Path:
        return self.directory / f"{vid}.flv"


def _recording(row: tuple[str, str, int, str, float, float, int]) -> Recording:
    vid, file_id, app_id, stream_id, start_time, end_time, size = row
    return Recording(
        vid=vid,
        file_id=file_id,
        app_id=app_id,
        stream_id=stream_id,
        start_time=start_time,
        end_time=end_time,
        size=size,
    )
