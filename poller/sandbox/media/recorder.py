"""Records a push into FLV segments, none over the limit, no frame lost or doubled between two.

Where a segment is cut: at a keyframe if the next may come too late or the clock has jumped, and at the limit before any
frame. So it begins with a keyframe, unless the limit leaves no other way or the push itself begins without one.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable

from poller.sandbox.media.flv import MAX_METADATA, FlvWriter, FrameDurations, is_metadata, repair
from poller.sandbox.media.recordings import Recordings
from poller.sandbox.media.tags import AUDIO, SCRIPT, VIDEO, Packet, Payload, further_header, look
from poller.sandbox.media.timeline import Gops, Timeline
from poller.sandbox.options import Customer

logger = logging.getLogger("poller.sandbox")

WALL_SLACK = 1.0
"""Seconds by which a segment may outlast the limit by the wall clock, because arrival is never quite even."""
RETRY = 10.0
"""Seconds after a failed write until the next try."""
COMMON = ("h264", "hevc", "aac", "mp3")
MAX_FURTHER = 64
"""Headers of further tracks that are kept of a push, each as large as metadata may be."""

_FAILURES = (OSError, sqlite3.OperationalError)


class _Segment:
    """One segment being written. Positions are the push's media time, `began` and `last` epoch seconds."""

    def __init__(self, vid: str, writer: FlvWriter, *, start: int, began: float) -> None:
        self.vid = vid
        self.writer = writer
        self.start = start
        self.began = began
        self.last = began
        self.shows = False
        """Whether it holds a frame of video."""
        self._headers: dict[int, bytes] = {}
        self._newest = {AUDIO: 0, VIDEO: 0}

    def frame(self, kind: int, body: bytes, *, position: int, end: int, header: bytes | None) -> None:
        """A frame, with its decoder's header before it unless the segment has that already."""
        self.shows |= kind == VIDEO
        at = self._newest[kind] = max(self._newest[kind], position - self.start)
        if header is not None:
            self.header(kind, header, at)
        self.writer.write(kind, at, body, end=end - self.start)

    def header(self, kind: int, body: bytes, at: int = 0) -> None:
        if self._headers.get(kind) != body:
            self._headers[kind] = body
            self.writer.write(kind, at, body)

    def aside(self, kind: int, body: bytes) -> None:
        """Writes script data at the current end of the segment."""
        self.writer.write(kind, max(self._newest.values()), body)


class Recorder:
    """The recording of one push, used by the event loop's thread. Nothing here raises for a disk that fails."""

    def __init__(
        self,
        recordings: Recordings,
        customer: Customer,
        stream_id: str,
        *,
        limit: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`limit` in seconds is what no segment exceeds; `clock` tells epoch seconds."""
        self._recordings = recordings
        self._customer = customer
        self._stream_id = stream_id
        self._limit = limit
        self._clock = clock
        self._timeline = Timeline(round(limit * 1000))
        self._gops = Gops(round(limit * 1000))
        self._pace = FrameDurations()
        self._segment: _Segment | None = None
        self._metadata = b""
        self._headers: dict[int, tuple[str, bytes]] = {}
        self._further: dict[tuple[int, bytes], bytes] = {}
        self._jumped = False
        """Whether the clock has jumped since the segment began."""
        self._owed: list[tuple[str, float]] = []  # sealed, but the list could not be written
        self._retry_at: float | None = None
        self._has_video = False
        self._said: set[str] = set()

    def tag(self, kind: int, timestamp: int, body: bytes) -> None:
        """One message of the push, as it came; anything but audio, video and script data is left out."""
        try:
            if kind == SCRIPT:
                self._script(body)
            elif kind in (AUDIO, VIDEO):
                self._media(kind, timestamp, body)
        except _FAILURES as error:
            self._pause(error)

    def end(self) -> None:
        """The push is over, and with it the segment."""
        try:
            self._finish()
            self._list_owed()
        except _FAILURES as error:
            self._pause(error)

    def _script(self, body: bytes) -> None:
        if is_metadata(body):
            self._metadata = body[:MAX_METADATA]  # heads the next segments
        elif self._segment is not None:
            self._segment.aside(SCRIPT, body)

    def _media(self, kind: int, timestamp: int, body: bytes) -> None:
        payload = look(kind, body)
        if payload.packet is Packet.HEADER:
            self._headers[kind] = (payload.codec, body)
        elif payload.packet is not Packet.OTHER:
            self._frame(kind, timestamp, body, payload)
        else:
            self._other(kind, body)

    def _other(self, kind: int, body: bytes) -> None:
        track = further_header(kind, body)
        if track is not None and len(body) <= MAX_METADATA:
            self._further[kind, track] = body  # heads the next segments
            if len(self._further) > MAX_FURTHER:
                self._further.pop(next(iter(self._further)))
        if self._segment is not None:
            self._segment.aside(kind, body)

    def _frame(self, kind: int, timestamp: int, body: bytes, payload: Payload) -> None:
        now = self._clock()
        keyframe = payload.packet is Packet.KEYFRAME
        self._has_video |= kind == VIDEO
        if self._retry_at is not None and (now < self._retry_at or self._has_video != keyframe):
            return
        self._note(payload.codec)
        position, jumped = self._timeline.place(kind, timestamp)
        if jumped:
            self._jumped = True
            self._pace.forget()
            self._gops.forget()
        end = self._pace.end(kind, position)
        if keyframe:
            self._gops.begin(position)
        if self._segment is not None and self._is_due(self._segment, position, end, now, keyframe):
            self._finish()
        segment = self._segment or self._begin(position, now)
        self._gops.reach(end)
        segment.last = now
        segment.frame(kind, body, position=position, end=end, header=self._header(kind, payload.codec))

    def _is_due(self, segment: _Segment, position: int, end: int, now: float, keyframe: bool) -> bool:
        """Whether the segment must end before this frame."""
        passed, aged, most = position - segment.start, now - segment.began, self._limit + WALL_SLACK
        if end - segment.start > self._limit * 1000 or aged >= most:
            return True
        if self._jumped and (keyframe or not segment.shows):
            return True
        expected = self._gops.expected
        return keyframe and (passed + expected > self._limit * 1000 or aged + expected / 1000 > most)

    def _begin(self, position: int, now: float) -> _Segment:
        self._list_owed()
        vid = self._recordings.begin(self._customer, self._stream_id, now)
        try:
            writer = FlvWriter.create(self._recordings.part(vid), self._metadata)
        except OSError:
            self._recordings.drop(vid)
            raise
        self._retry_at = None
        self._jumped = False
        segment = self._segment = _Segment(vid, writer, start=position, began=now)
        for kind, (_, header) in sorted(self._headers.items(), reverse=True):
            segment.header(kind, header)
        for (kind, _), body in self._further.items():
            segment.aside(kind, body)
        return segment

    def _finish(self) -> None:
        """Ends the segment, if there is one."""
        if self._segment is not None:
            self._segment.writer.flush()
            segment, self._segment = self._segment, None
            self._seal(segment)

    def _seal(self, segment: _Segment) -> None:
        if segment.writer.seal():
            self._owed.append((segment.vid, max(segment.began, segment.last)))
            self._list_owed()
        else:
            self._recordings.drop(segment.vid)

    def _list_owed(self) -> None:
        while self._owed:
            vid, end_time = self._owed[0]
            _list(self._recordings, vid, end_time)
            self._owed.pop(0)

    def _pause(self, error: Exception) -> None:
        """Saves what is on the disk already; the next try is at a keyframe some time later."""
        if "failure" not in self._said:
            self._said.add("failure")
            logger.error("recording of %s paused: %s", self._stream_id, error)
        self._retry_at = self._clock() + RETRY
        self._gops.forget()
        segment, self._segment = self._segment, None
        if segment is not None:
            with contextlib.suppress(*_FAILURES):  # said already; `resume` repairs the rest
                self._seal(segment)

    def _header(self, kind: int, codec: str) -> bytes | None:
        """The newest header of that kind, if it is this codec's."""
        known, header = self._headers.get(kind, ("", b""))
        return header if known == codec else None

    def _note(self, codec: str) -> None:
        if codec not in COMMON and codec not in self._said:
            self._said.add(codec)
            logger.warning("recording of %s holds %s, which is stored as it comes", self._stream_id, codec)


def resume(recordings: Recordings) -> None:
    """After the death of a sandbox: lists what can be saved of the segments then open, and drops the rest."""
    for vid, start_time in recordings.open_ones():
        seconds = _seconds_saved(recordings, vid)
        if seconds is None:
            recordings.drop(vid)
        else:
            recordings.end(vid, start_time + seconds)
    for stray in recordings.directory.glob("*.part"):
        stray.unlink()


def forget(recordings: Recordings, before: float) -> None:
    """Deletes the segments that ended before that moment (epoch)."""
    for vid in recordings.older_than(before):
        recordings.drop(vid)


def _seconds_saved(recordings: Recordings, vid: str) -> float | None:
    """The seconds of media in an open segment's file, which may be in its last place already; None: nothing."""
    for file in (recordings.part(vid), recordings.file(vid)):
        with contextlib.suppress(FileNotFoundError):
            return repair(file)
    return None


def _list(recordings: Recordings, vid: str, end_time: float) -> None:
    try:
        recordings.end(vid, end_time)
    except FileNotFoundError:
        recordings.drop(vid)  # somebody took the file away
