"""Recorded segments: each finished one once, asked for above all when a channel has just ended."""

import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from poller.core.catalogue import Stream
from poller.core.model import ParsedPage, PollOutcome, RawPage, identity
from poller.qcloud.events.files import FileList, Segment
from poller.qcloud.wire.account import Account
from poller.sandbox import Answers, Customer, Sandbox
from poller.settings import AccountSettings
from poller.sources.recording_schedule import PAGE_SIZE, Call, RecordingSchedule, Times
from poller.sources.recordings import REMEMBERED, Recordings, RecordingsSettings, SegmentCursor, remember
from tests.sandbox.api_client import record

from .platform import configured, events_of, play, running, until, until_events

MINE = Customer()
NOW = datetime(2016, 8, 25, 12, 0, tzinfo=UTC)
BASE = "http://200025724.vod.myqcloud.com/"


def source(**settings: Any) -> Recordings:
    account = Account(
        "main",
        AccountSettings(app_id=1, key="k" * 32, vod={"biz_id": 200025724}),
    )
    built = RecordingsSettings(type="recordings", account="main", **({"follow": "seen"} | settings))
    return Recordings("tapes", built, {"main": account})


def row(vid: str = "v1", end: str = "2016-08-22 12:30:00", **more: object) -> dict[str, object]:
    return {"vid": vid, "start_time": "2016-08-22 12:00:00", "end_time": end, **more}


def read(*rows: object, memory: bytes = b"", at: datetime = NOW) -> ParsedPage:
    body = json.dumps({"ret": 0, "output": {"all_count": len(rows), "file_list": rows}}).encode()
    page = RawPage(
        source="tapes", received_at=at, status=200, encoding="", whole=True, body=body, about="room"
    )
    return source().read(page, memory)


# ---------------------------------------------------------------- reading a page


def test_a_segment_of_2016_has_its_url_from_its_vid() -> None:
    reading = read(row("200_a"))
    (event,) = reading.events
    assert (event.kind, event.stream_id, event.url) == ("recording", "room", BASE + "200_a.f0.flv")
    assert event.id == identity("recording", "main", "200_a")
    assert event.occurred_at == datetime(2016, 8, 22, 4, 30, tzinfo=UTC)
    assert event.fields == {
        "vid": "200_a",
        "file_id": None,
        "start_time": "2016-08-22T04:00:00Z",
        "end_time": "2016-08-22T04:30:00Z",
        "duration": 1800.0,
        "file_format": None,
        "file_size": None,
    }
    assert (reading.outcome, reading.about) == (PollOutcome.FULL, "room")


def test_a_segment_goes_by_its_file_id_and_by_the_url_it_names() -> None:
    url = "http://1.vod2.myqcloud.com/x/f0.mp4"
    (event,) = read(row("", file_id="77", record_file_url=url, file_size="12", stream_id="hall")).events
    assert (event.id, event.url, event.stream_id) == (identity("recording", "main", "77"), url, "hall")
    assert (event.fields["file_size"], event.fields["file_format"]) == (12, "mp4")


def test_a_segment_that_was_seen_is_not_reported_again() -> None:
    first = read(row("a"), row("b"))
    again = read(row("a"), row("b"), row("c"), memory=first.memory)
    assert [event.fields["vid"] for event in again.events] == ["c"]
    assert read(row("a"), row("b"), row("c"), memory=again.memory).memory == again.memory


def test_what_the_spool_may_have_forgotten_is_not_reported() -> None:
    assert read(row(), at=NOW + timedelta(days=25)).events
    assert not read(row(), at=NOW + timedelta(days=27)).events


def test_a_segment_that_goes_on_waits_for_its_end() -> None:
    reading = read(row(end=""))
    assert (reading.events, reading.rejects, reading.memory) == ((), (), b"")


def test_a_bad_row_is_a_reject_once_and_hurts_no_neighbour() -> None:
    first = read(row("a"), row("bad", end="tomorrow"), 7, row("c"))
    assert [event.fields["vid"] for event in first.events] == ["a", "c"]
    assert [reject.reason for reject in first.rejects] == [
        "recording: its end is no date",
        "recording: not an object",
    ]
    assert not read(row("bad", end="tomorrow"), 7, memory=first.memory).rejects


def test_the_memory_stays_small() -> None:
    seen = SegmentCursor()
    for start in range(0, 5000, 50):
        seen = remember(seen, {n: 1000.0 * n for n in range(start, start + 50)})
    assert len(seen.ends) <= 90
    assert len(remember(SegmentCursor(), dict.fromkeys(range(5000), 5.0)).ends) == REMEMBERED


# ---------------------------------------------------------------- whose turn it is, without a clock

TIMES = Times(after_end=(15.0, 30.0, 60.0, 120.0, 300.0, 600.0), while_live=3600.0, otherwise=86_400.0)
EPOCH = NOW.timestamp()


def stream(state: str | None = None, since: float = 0.0) -> Stream:
    moment = datetime.fromtimestamp(EPOCH + since, UTC) if state else None
    return Stream(
        account="main", stream_id="room", first_seen=NOW, last_seen=NOW, state=state, state_since=moment
    )


def segment(end: float) -> Segment:
    moment = datetime.fromtimestamp(EPOCH + end, UTC)
    return Segment(
        vid=str(end), file_id="", url="", stream_id="", start=None, end=moment, duration=None, file_format="",
        file_size=None, message=b"{}",
    )  # fmt: skip


def calls(visits: RecordingSchedule, listed: FileList | None, begin: float, end: float) -> list[float]:
    """When calls are made up to a moment, each answered at once."""
    found, now = [], begin
    while (wait := visits.wait(now)) is not None and now + wait <= end:
        now += wait
        call = visits.take(now)
        assert call is not None
        visits.note_result(call, listed, now)
        found.append(now)
    return found


def test_a_channel_that_ended_is_asked_with_growing_pauses_until_its_last_segment_is_there() -> None:
    visits = RecordingSchedule(TIMES)
    visits.follow({"room": stream("live")}, 0.0, EPOCH)
    assert calls(visits, FileList(), 0.0, 5000.0) == [0.0, 3600.0]
    visits.follow({"room": stream("interrupted", 4990.0)}, 5000.0, EPOCH + 5000.0)
    early = FileList(segments=(segment(1800.0),))
    assert calls(visits, early, 5000.0, 5100.0) == [5005.0, 5035.0, 5095.0]
    whole = FileList(segments=(segment(1800.0), segment(4985.0)))
    assert calls(visits, whole, 5100.0, 10_000.0) == [5215.0, 5815.0], (
        "once more, for one that comes still later"
    )
    assert calls(visits, whole, 10_000.0, 200_000.0) == [5815.0 + 86_400.0, 5815.0 + 2 * 86_400.0]


def test_a_channel_whose_segment_never_comes_is_given_up_after_the_last_pause() -> None:
    visits = RecordingSchedule(TIMES)
    visits.follow({"room": stream("interrupted", 0.0)}, 0.0, EPOCH)
    found = calls(visits, FileList(), 0.0, 50_000.0)
    assert found == [15.0, 45.0, 105.0, 225.0, 525.0, 1125.0]
    visits.follow({"room": stream("interrupted", 0.0)}, 50_000.0, EPOCH + 50_000.0)
    assert calls(visits, FileList(), 50_000.0, 80_000.0) == [], "the same end is not news"


def test_an_end_of_long_ago_is_only_looked_at_once() -> None:
    visits = RecordingSchedule(TIMES)
    visits.follow({"room": stream("interrupted", -10_000.0)}, 0.0, EPOCH)
    assert calls(visits, FileList(), 0.0, 80_000.0) == [0.0]


def test_a_call_that_fails_is_made_again_less_and_less_often() -> None:
    visits = RecordingSchedule(TIMES)
    visits.follow({"room": None}, 0.0, EPOCH)
    assert calls(visits, None, 0.0, 1000.0) == [0.0, 60.0, 180.0, 420.0, 900.0]


def taken(visits: RecordingSchedule, now: float = 0.0) -> Call:
    call = visits.take(now)
    assert call is not None
    return call


def newest_first(count: int, *, page: int = 1, newest: float = 100_000.0) -> FileList:
    """A page of a list of half hours."""
    numbers = range((page - 1) * PAGE_SIZE, min(count, page * PAGE_SIZE))
    return FileList(segments=tuple(segment(newest - 1800.0 * n) for n in numbers), total=count)


def test_all_pages_are_asked_for_and_of_a_long_list_then_only_what_is_new() -> None:
    visits = RecordingSchedule(TIMES)
    visits.follow({"room": None}, 0.0, EPOCH)
    for page in (1, 2, 3):
        call = taken(visits)
        assert call == Call(channel="room", page=page), "the order is the platform's own"
        visits.note_result(call, newest_first(250, page=page), 0.0)
    assert visits.take(0.0) is None
    call = taken(visits, 90_000.0)
    assert call == Call(channel="room", page=1, newest_first=True)
    visits.note_result(call, newest_first(251, newest=101_800.0), 90_000.0)
    assert visits.take(90_000.0) is None, "one page was enough"
    visits.note_result(taken(visits, 180_000.0), newest_first(60), 180_000.0)
    assert not taken(visits, 270_000.0).newest_first, "the list is short now"


def test_a_platform_that_refuses_to_sort_is_asked_without_and_an_outage_is_not_taken_for_that() -> None:
    visits = RecordingSchedule(TIMES)
    visits.follow({"room": None}, 0.0, EPOCH)
    for page in (1, 2):
        visits.note_result(taken(visits), newest_first(150, page=page), 0.0)
    asked = []
    for n, good in enumerate((False, False, False, True, True, True), start=1):
        call = taken(visits, 100_000.0 * n)
        asked.append(call.newest_first)
        visits.note_result(call, newest_first(150, page=call.page) if good else None, 100_000.0 * n)
    assert asked == [True, False, True, False, False, False]


def test_a_channel_that_has_ended_goes_before_thousands_that_are_asked_at_the_start() -> None:
    visits = RecordingSchedule(TIMES)
    crowd = {f"quiet-{n}": None for n in range(5000)}
    visits.follow({**crowd, **{f"ended-{n}": stream("interrupted", 0.0) for n in range(8)}}, 0.0, EPOCH)
    asked = [taken(visits, 15.0 + n / 2).channel.partition("-")[0] for n in range(12)]
    assert asked == [*["ended"] * 4, "quiet", *["ended"] * 4, *["quiet"] * 3], (
        "and the others are not forgotten"
    )


# ---------------------------------------------------------------- beside the sandbox

QUICK = {"type": "recordings", "after_end": ["50ms", "100ms", "200ms", "400ms", "1s"], "rate": "1000/s"}
STATES = {"type": "channel_status", "interval": "100ms"}


@pytest.mark.parametrize(
    ("form", "more"),
    [
        ({}, {}),
        ({"rows": "later"}, {}),
        ({"rows": "later", "place": "url", "file_list": "array", "ret": "string"}, {}),
        ({"rows": "later", "place": "vid", "count": "string", "extra": True}, {}),
    ],
    ids=str,
)
def test_hundreds_of_segments_are_reported_once_each(
    tmp_path: Path, form: dict[str, Any], more: dict[str, Any], soak: bool
) -> None:
    many, pages = (437, 5) if soak else (137, 2)

    async def scene(box: Sandbox) -> None:
        start = time.time() - 20 * 86_400
        vids = record(box, MINE, many, start=start, step=1800.0)
        record(box, Customer(app_id=77), 3, start=start)
        config = configured(
            tmp_path, box, {"tapes": {**QUICK, **more, "channels": ["show", "other"]}}, vod={"base_url": BASE}
        )
        async with running(config) as daemon:
            events = await until_events(daemon, "recording", many)
            found = [box.recordings.find(vid=vid) for vid in vids]
            assert Counter(event.url for event in events) == Counter(
                BASE + one.path_spec if form.get("place") == "vid" or "rows" not in form else
                f"http://{MINE.app_id}.vod2.myqcloud.com/{one.path_later}"
                for one in found if one is not None
            )  # fmt: skip
            ends = sorted(int(one.end_time) for one in found if one is not None)
            assert sorted(int(event.occurred_at.timestamp()) for event in events) == ends
            assert box.platform.queue().counts.lists == pages + 1
        lists = box.platform.queue().counts.lists
        async with running(config) as daemon:
            await until(lambda: box.platform.queue().counts.lists >= lists + pages + 1)
            assert len(await events_of(daemon, "recording")) == many, "a restart repeats none"

    play(tmp_path, scene, answers=Answers(**form))


def test_segments_that_come_late_are_reported_when_the_channel_has_ended(tmp_path: Path) -> None:
    async def scene(box: Sandbox) -> None:
        sources = {"states": {**STATES, "channels": ["show"]}, "tapes": {**QUICK, "channels": ["show"]}}
        config = configured(tmp_path, box, sources, vod={"biz_id": MINE.biz_id})
        counts = box.platform.queue().counts
        box.channels.begin(MINE.app_id, "show")
        async with running(config) as daemon:
            await until_events(daemon, "channel", 1)
            await until(lambda: counts.lists == 1)
            box.channels.end(MINE.app_id, "show")
            await until(lambda: counts.lists >= 3)
            (vid,) = record(box, MINE, 1, start=time.time() - 30)
            (event,) = await until_events(daemon, "recording", 1)
            assert event.url == f"http://{MINE.biz_id}.vod.myqcloud.com/{vid}.f0.flv"
            (known,) = daemon.spool.streams()
            assert known.last_segment == event.occurred_at
            assert [e.fields["state"] for e in await events_of(daemon, "channel")] == ["live", "interrupted"]

    play(tmp_path, scene)


def test_a_channel_that_has_nothing_is_no_failure(tmp_path: Path) -> None:
    async def scene(box: Sandbox) -> None:
        config = configured(tmp_path, box, {"tapes": {**QUICK, "channels": ["a", "b", "c"]}})
        async with running(config) as daemon:
            await until(lambda: box.platform.queue().counts.lists == 3)
            assert not daemon.components.intakes[0].failing

    play(tmp_path, scene, answers=Answers(empty="10003"))
