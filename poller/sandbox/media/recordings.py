"""The recorded segments of all channels: which there are, and where they lie."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
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


class Recordings:
    """The list of segments, durable; the files lie in one directory, `(vid).flv`, and `(vid).part` until closed."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self.directory = directory

    def begin(self, customer: Customer, stream_id: str, start_time: float) -> str:
        """A segment begins; returns its vid. It is listed once it has ended."""
        vid = f"{customer.biz_id}_{secrets.token_hex(16)}"
        file_id = str(10**18 + secrets.randbelow(9 * 10**18))
        self._database.execute(
            "INSERT INTO recording (vid, file_id, app_id, stream_id, start_time) VALUES (?, ?, ?, ?, ?)",
            (vid, file_id, customer.app_id, stream_id, start_time),
        )
        return vid

    def end(self, vid: str, end_time: float) -> None:
        """The segment is whole: its file is put in place, and it is listed from now on."""
        part = self.part(vid)
        size = part.stat().st_size
        part.rename(self.file(vid))
        self._database.execute(
            "UPDATE recording SET end_time = ?, size = ? WHERE vid = ?", (end_time, size, vid)
        )

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
