"""Recorded segments: `Live_Tape_GetFilelist` for each channel, above all when it has just ended.

The platform asks not to be called hard here, and a segment may be listed minutes after its end
(docs/wire.md, section 5).
"""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, ClassVar

import msgspec
from pydantic import Field

from poller.core.catalogue import Stream
from poller.core.model import Event, ParsedPage, RawPage, Reject, identity, new_event
from poller.core.ports import Follows, Source
from poller.qcloud.events.files import INTERFACE, FileList, Segment, duration_of, read_files, recording_key
from poller.qcloud.wire.account import Account
from poller.qcloud.wire.redaction import redact
from poller.qcloud.wire.replies import Verdict
from poller.qcloud.wire.urls import locate
from poller.settings import Duration, Rate, duration_between
from poller.sources.channel_selection import ANSWERS_KEPT, ChannelSelection, FollowingSettings
from poller.sources.recording_schedule import PAGE_SIZE, Call, RecordingSchedule, Times

KIND = "recording"
LOOK = 2.0
"""Seconds between two looks at the catalogue for channels that have ended."""
REPORTED_FOR = 29 * 86_400.0
"""A segment that ended longer ago is no event any more. The spool remembers ids for 30 days only, so that an older
segment could become an event twice."""
REMEMBERED = 200
"""The most segments that are remembered for a channel. Beyond them, the spool recognises events by their ids."""
NEAR = 86_400.0
"""Seconds before the newest end within which segments are remembered."""
_LARGEST_REJECT = 64 * 1024


class RecordingsSettings(FollowingSettings):
    """The recorded segments of the account's channels."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"recording"})
    needs: ClassVar[tuple[str, ...]] = ("vod",)

    after_end: Annotated[
        tuple[Annotated[Duration, duration_between("10ms", "1d")], ...],
        Field(
            min_length=1,
            description="Pauses before the calls after a channel's end, until its last segment is listed.",
        ),
    ] = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
    while_live: Annotated[Duration, duration_between("1s", "30d")] = Field(
        default=3600.0, description="The time between two calls for a live channel, for its new segments."
    )
    otherwise: Annotated[Duration, duration_between("1s", "30d")] = Field(
        default=86_400.0, description="The time between two calls for any other channel."
    )
    rate: Rate = Field(
        default=Rate(limit=2, period=1.0),
        description="The most calls of this source, in addition to the account's rate.",
    )


class SegmentCursor(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The memory of a channel: the newest end of a segment (epoch), and the segments that ended near it.

    `ends` has their ends, by a 64-bit hash of their keys.
    """

    newest: float = 0.0
    ends: dict[int, float] = {}


_packed = msgspec.msgpack.Encoder().encode
_unpacked = msgspec.msgpack.Decoder(SegmentCursor).decode


def remember(seen: SegmentCursor, ends: Mapping[int, float]) -> SegmentCursor:
    """The memory with more segments, reduced to the newest: at most `REMEMBERED`, within `NEAR` seconds."""
    newest = max([seen.newest, *ends.values()])
    near = {key: end for key, end in {**seen.ends, **ends}.items() if end > newest - NEAR}
    kept = sorted(near.items(), key=lambda item: (-item[1], item[0]))[:REMEMBERED]
    return SegmentCursor(newest=newest, ends=dict(sorted(kept)))


class Recordings(Source, Follows):
    """Lists the finished segments of each channel. The account must be entered before it, and left after it."""

    Settings = RecordingsSettings
    destructive = False
    min_delay = 0.0
    max_delay = 1.0

    def __init__(self, name: str, settings: RecordingsSettings, accounts: Mapping[str, Account]) -> None:
        self.name = name
        self.account = settings.account
        self.max_in_flight = settings.max_in_flight
        self._account = accounts[settings.account]
        self._following = ChannelSelection(settings)
        times = Times(
            after_end=settings.after_end, while_live=settings.while_live, otherwise=settings.otherwise
        )
        self._visits = RecordingSchedule(times)
        self._gap = settings.rate.period / settings.rate.limit
        self._not_before = 0.0
        self._looked = float("-inf")
        self._turnstile = asyncio.Lock()
        self._taken: deque[Call] = deque()

    def follow(self, streams: Callable[[], Sequence[Stream]]) -> None:
        """See `Follows.follow`."""
        self._following.follow(streams)

    async def ready(self) -> None:
        """Wait until a channel is due, and this source's rate and the account's throttle allow the call."""
        async with self._turnstile:
            while True:
                await self._until_due()
                await self._account.ready()
                # nothing is awaited from here on, so that a channel that is taken is polled
                now = time.monotonic()
                if (taken := self._visits.take(now)) is not None:
                    self._not_before = now + self._gap
                    self._taken.append(taken)
                    return

    async def _until_due(self) -> None:
        while True:
            now = time.monotonic()
            if now - self._looked >= LOOK:
                self._looked = now
                wall = datetime.now(UTC)
                self._visits.follow(self._following.known(wall), now, wall.timestamp())
            wait = self._visits.wait(now)
            if wait is not None:
                wait = max(wait, self._not_before - now)
                if wait <= 0.0:
                    return
            await asyncio.sleep(LOOK if wait is None else min(wait, LOOK))

    async def fetch(self) -> RawPage:
        """Get a page of a channel's list: the call that `ready` returned for longest ago."""
        call = self._taken.popleft()
        inputs = {
            "Param.s.channel_id": call.channel,
            "Param.n.page_no": str(call.page),
            "Param.n.page_size": str(PAGE_SIZE),
        }
        if call.newest_first:
            inputs["Param.s.sort_type"] = "desc"
        listed: FileList | None = None
        try:
            answer = await self._account.call(INTERFACE, inputs)
            page = answer.page(self.name, call.channel)
            listed, _ = _read(page)
        finally:
            self._visits.note_result(call, listed, time.monotonic())
        return page

    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """Parse a page of a list: new finished segments are events. A new row that is not a segment is a reject."""
        listed, verdict = _read(page)
        seen = _unpacked(memory) if memory else SegmentCursor()
        at = page.received_at.timestamp()
        events: list[Event] = []
        rejects: list[Reject] = []
        ends: dict[int, float] = {}
        for segment in listed.segments if listed else ():
            key, end = _hash(_key(segment)), 0.0 if segment.end is None else segment.end.timestamp()
            if end > at - REPORTED_FOR and key not in seen.ends:
                ends[key] = end
                events.append(self._event(segment, page))
        for reason, row in listed.rejects if listed else ():
            if (key := _hash(row.hex())) not in seen.ends:
                ends[key] = max(seen.newest, *ends.values(), 1.0)
                rejects.append(self._reject(reason, row, page))
        return ParsedPage(
            events=tuple(events),
            rejects=tuple(rejects),
            outcome=verdict.outcome,
            detail=verdict.detail,
            expired=verdict.expired,
            memory=_packed(remember(seen, ends)) if ends else memory,
            about=page.about,
        )

    def _event(self, segment: Segment, page: RawPage) -> Event:
        url = locate(segment.url, None).url if segment.url else None
        if url is None and segment.vid:
            url = self._account.recording_url(segment.vid)
        return new_event(
            id=identity(KIND, self.account, _key(segment)),
            kind=KIND,
            account=self.account,
            stream_id=segment.stream_id or page.about,
            occurred_at=segment.end,
            received_at=page.received_at,
            url=url,
            fields={
                "vid": segment.vid or None,
                "file_id": segment.file_id or None,
                "start_time": segment.start,
                "end_time": segment.end,
                "duration": duration_of(segment.duration, segment.start, segment.end),
                "file_format": segment.file_format or None,
                "file_size": segment.file_size,
            },
            message=msgspec.Raw(segment.message),
        )

    def _reject(self, reason: str, row: bytes, page: RawPage) -> Reject:
        body = redact(row[:_LARGEST_REJECT], self._account.key)
        return Reject(received_at=page.received_at, reason=reason, encoding="", body=body)


@lru_cache(maxsize=ANSWERS_KEPT)
def _read(page: RawPage) -> tuple[FileList | None, Verdict]:
    return read_files(page.body, page.encoding, status=page.status, whole=page.whole)


def _key(segment: Segment) -> str:
    return recording_key(segment.file_id, segment.vid, segment.url)


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
