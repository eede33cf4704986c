"""What a screenshot event says, and what a poll came to."""

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from pydantic import ValidationError

from poller.core.model import ParsedPage, PollOutcome, RawPage
from poller.pipeline.ingest import Ingest
from poller.runtime.metrics import Metrics
from poller.sources.screenshot_queue import ScreenshotQueue
from poller.spools.memory import MemorySpool
from tests.fakes import ScriptedSource
from tests.integration.sources.pages import KEY, PUSH, RECEIVED, Object, message, page_of, raw, read

# ---------------------------------------------------------------- what an event says


def test_a_message_becomes_an_event_with_all_that_its_name_says() -> None:
    (event,) = read(b'{"output":{"data":[' + raw(12) + b"]}}").events
    push = datetime.fromtimestamp(PUSH, UTC)
    assert (event.kind, event.account, event.stream_id) == ("screenshot", "main", "5000_live_12")
    assert event.url == f"http://shots-1250000000.file.myqcloud.com/{message(12)['pic_url']}"
    assert event.occurred_at == push + timedelta(seconds=120)
    assert event.received_at == RECEIVED
    assert event.fields == {
        "file_name": message(12)["pic_url"],
        "width": 300,
        "height": 169,
        "push_started_at": "2016-08-22T07:16:27Z",
        "task_started_at": "2016-08-22T07:16:27Z",
        "offset": 120,
    }


@pytest.mark.parametrize(
    ("created", "moment"),
    [
        (1545030273, datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        ("1545030273", datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        (1545030273000, datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        (1545030273.9, datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        ("2018-12-17 15:04:33", datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        ("2018-99-99 15:04:33", RECEIVED),
        ("soon", RECEIVED),
        (0, RECEIVED),
        (-5, RECEIVED),
        (10**30, RECEIVED),
    ],
)
def test_the_platform_s_own_time_of_a_shot_is_taken_first(created: object, moment: datetime) -> None:
    (event,) = read(json.dumps({"data": [{"pic_url": "p.jpg", "create_time": created}]}).encode()).events
    assert event.occurred_at == moment


def test_the_stream_is_read_from_the_name_where_the_message_has_none() -> None:
    (event,) = read(b'{"data":[{"pic_url":"/2016-09-12/a_b-screenshot-10-03-08-1280x720.jpg"}]}').events
    assert event.stream_id == "a_b"
    assert event.occurred_at == datetime(2016, 9, 12, 2, 3, 8, tzinfo=UTC)


def ids(*messages: Object) -> list[str]:
    return [event.id for event in read(json.dumps({"data": messages}).encode()).events]


def test_one_picture_named_in_many_ways_is_one_event() -> None:
    name = f"a@b_{PUSH}_{PUSH}_10_300_169.jpg"
    ways: list[Object] = [
        {"pic_url": name},
        {"pic_url": "/" + name},
        {"pic_full_url": "http://elsewhere.example/" + name.replace("@", "%40")},
        {"pic_full_url": "http://elsewhere.example/" + name + "?x=1"},
        {"pic_url": name, "pic_full_url": "https://third.example/other.jpg"},
        {"pic_url": name, "create_time": 1545030273, "stream_id": "b"},
    ]
    assert len(set(ids(*ways))) == 1


def test_where_the_name_fixes_no_moment_the_time_or_the_query_tells_events_apart() -> None:
    same = "s-screenshot-10-03-08-1280x720.jpg"
    assert (
        len(
            set(
                ids(
                    {"pic_url": same, "create_time": 1545030273}, {"pic_url": same, "create_time": 1545116673}
                )
            )
        )
        == 2
    )
    assert len(set(ids({"pic_url": "c.jpg?t=1"}, {"pic_url": "c.jpg?t=2"}, {"pic_url": "/c.jpg?t=1"}))) == 2
    dated = "2016-09-12/" + same
    assert len(set(ids({"pic_url": dated}, {"pic_url": dated, "create_time": 1545116673}))) == 1


def test_a_full_url_is_the_event_s_url() -> None:
    full = "http://testbucket-1.cos.region.myqcloud.com/2018-12-17/s-screenshot-19-06-59-640x352.jpg"
    body = {"data": [{"pic_url": "/2018-12-17/s-screenshot-19-06-59-640x352.jpg", "pic_full_url": full}]}
    assert read(json.dumps(body).encode()).events[0].url == full


def test_push_secrets_do_not_pass_into_events() -> None:
    body = raw(0, stream_param="bizid=1&txSecret=0123456789abcdef&txTime=5AB5247F", sign="0123456789abcdef")
    (event,) = read(b'{"data":[' + body + b"]}").events
    assert b"0123456789abcdef" not in event.encoded
    assert json.loads(bytes(event.message))["stream_param"] == "***"


# ---------------------------------------------------------------- what the poll came to

EMPTY, REFUSED, THROTTLED = PollOutcome.EMPTY, PollOutcome.REFUSED, PollOutcome.THROTTLED
FAILED, UNCERTAIN = PollOutcome.FAILED, PollOutcome.UNCERTAIN


@pytest.mark.parametrize(
    ("status", "body", "outcome", "rejects"),
    [
        (200, '{"ret":0,"message":"ok","output":{"count":0,"data":[]}}', EMPTY, 0),
        (200, '{"ret":"0","output":[]}', EMPTY, 0),
        (200, '{"ret":0,"output":null}', EMPTY, 0),
        (200, '{"ret":0}', EMPTY, 0),
        (200, '{"ret":0,"output":{"count":7,"data":null}}', EMPTY, 0),
        (200, '{"ret":0,"output":[{"count":0,"data":[]}]}', EMPTY, 0),
        (200, '{"ret":0,"output":""}', EMPTY, 0),
        (200, '{"output":{"count":"0","data":[]}}', EMPTY, 0),
        (200, '{"ret":10003,"message":"no rows"}', EMPTY, 0),
        (200, '{"ret":"10003"}', EMPTY, 0),
        (200, '{"ret":1202,"message":"too frequent"}', THROTTLED, 0),
        (200, '{"ret":0,"retcode":1202}', THROTTLED, 0),
        (200, '{"ret":77,"errmsg":"call too frequent"}', THROTTLED, 0),
        (429, "", THROTTLED, 0),
        (200, '{"ret":1000,"message":"x"}', REFUSED, 0),
        (200, '{"ret":1001.0}', REFUSED, 0),
        (200, '{"ret":4,"message":"cmd is invalid"}', REFUSED, 0),
        (200, '{"message":"appid is invalid"}', REFUSED, 1),
        (200, '{"ret":-1,"errmsg":"sign invalid"}', REFUSED, 0),
        (200, "sign invalid", REFUSED, 1),
        (403, "", REFUSED, 0),
        (403, "<html>403</html>", REFUSED, 1),
        (401, "{}", REFUSED, 1),
        (200, '{"ret":1201,"message":"internal"}', FAILED, 0),
        (200, '{"ret":1204}', FAILED, 0),
        (200, '{"ret":20601}', FAILED, 0),
        (200, "{}", FAILED, 1),
        (200, "[]", FAILED, 1),
        (200, "null", FAILED, 1),
        (200, "", FAILED, 0),
        (200, " \r\n", FAILED, 0),
        (200, "request failed.no returnData", FAILED, 1),
        (200, "<html><style>a{b}</style>don't \" {</html>", FAILED, 1),
        (500, '{"ret":0,"output":{"data":[]}}', FAILED, 1),
        (502, "<html>Bad Gateway</html>", FAILED, 1),
        (404, "", FAILED, 0),
        (302, "<a href='/login?sign=x'>", FAILED, 1),
        (200, '{"ret":0,"output":{"cou', UNCERTAIN, 1),
    ],
)
def test_nothing_there_too_frequent_not_allowed_and_broken_are_four_things(
    status: int, body: str, outcome: PollOutcome, rejects: int
) -> None:
    reading = read(body.encode(), status=status)
    assert (reading.outcome, len(reading.rejects), reading.events) == (outcome, rejects, ())
    assert bool(reading.detail) == (outcome is not EMPTY)
    assert reading.memory == b"memory"
    assert not reading.expired


@pytest.mark.parametrize(
    "body", ['{"ret":9,"message":"time expired"}', '{"errmsg":"Time  Expired!"}', "time expired"]
)
def test_an_expired_signature_is_told_from_other_refusals(body: str) -> None:
    reading = read(body.encode())
    assert (reading.outcome, reading.expired) == (REFUSED, True)


def test_silence_is_uncertain_and_leaves_nothing() -> None:
    reading = read(b"", status=0, whole=False)
    assert (reading.outcome, reading.rejects, reading.events) == (UNCERTAIN, (), ())


def test_an_error_page_is_kept_up_to_64_kib_and_without_secrets() -> None:
    page = f"<html>/common_access?cmd=1&sign=0123456789abcdef&t=1 {KEY}" + "x" * 100_000
    (reject,) = read(page.encode(), status=502).rejects
    assert len(reject.body) <= 64 * 1024
    assert b"0123456789abcdef" not in reject.body
    assert KEY.encode() not in reject.body


class Queue(ScriptedSource):
    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        return read(page.body, status=page.status)


def ingest() -> Ingest:
    return Ingest(Queue(), MemorySpool("spool", MemorySpool.Settings(type="memory"), {}), Metrics())


def keep(keeper: Ingest, body: bytes, status: int) -> ParsedPage:
    page = RawPage(source="shots", received_at=RECEIVED, status=status, encoding="", whole=True, body=body)
    return keeper.read(page, b"")


ERROR_PAGES = {
    "HTML 200": (200, b"<html><h1>Welcome</h1> request %d at 03:0%d:11</html>"),
    "text 200": (200, b"request failed.no returnData %d %d"),
    "302": (302, b"<html>moved to http://login.example/?id=%d&sign=5ecre7%d</html>"),
    "404": (404, b"<html>not found, trace 00f%da9%d</html>"),
    "502": (502, b"<html><center>502 Bad Gateway</center> %d-%d</html>"),
    "503 JSON": (503, b'{"error":"busy","request_id":"a%df%d"}'),
}


@pytest.mark.parametrize("case", ERROR_PAGES)
def test_an_error_page_is_a_failed_poll_with_its_words_and_is_kept_once(case: str) -> None:
    (status, body), keeper, kept = ERROR_PAGES[case], ingest(), 0
    for turn in range(8):
        reading = keep(keeper, body % (turn, turn), status)
        kept += len(reading.rejects)
        assert reading.outcome in (PollOutcome.FAILED, PollOutcome.REFUSED)
        assert body.split(b"%")[0].split(b"?")[0].decode()[:20].strip() in reading.detail
        assert "5ecre7" not in reading.detail
        assert all(reject.reason.startswith("error page") for reject in reading.rejects)
    assert kept == 1


def test_error_pages_that_differ_are_kept_up_to_a_cap() -> None:
    keeper, kept = ingest(), 0
    for turn in range(60):
        reading = keep(keeper, b"<html>" + b"x" * turn, 502)
        kept += len(reading.rejects)
    assert kept == 16


def test_what_names_a_picture_is_no_error_page_and_kept_each_time() -> None:
    for status, body in ((502, b"<p>pic_url</p>"), (200, b'{"result":[{"picture":"a.jpg"}]}')):
        keeper = ingest()
        keep(keeper, body, status)
        reading = keep(keeper, body, status)
        assert [reject.reason.startswith("error page") for reject in reading.rejects] == [False]


def test_a_refusal_s_detail_is_short_redacted_and_one_line() -> None:
    said = "cmd is invalid\n\x00 sign=0123456789abcdef&" + "x" * 5000
    detail = read(json.dumps({"ret": 5, "message": said}).encode()).detail
    assert "0123456789abcdef" not in detail
    assert "\n" not in detail
    assert len(detail) < 300


def test_a_page_without_any_brackets_closed_takes_linear_time() -> None:
    for bait in (b"[" * 500_000, b'{"a":' * 200_000, b'"\\"' * 300_000, b"[" * 256 + b"}" * 500_000):
        read(b'{"output":{"data":[' + raw(0) + b"," + bait)


def test_reading_is_the_same_again() -> None:
    body = page_of(3, "object")
    assert msgspec.json.encode(read(body).events[0].encoded) == msgspec.json.encode(
        read(body).events[0].encoded
    )


def test_settings_refuse_a_least_delay_above_the_longest() -> None:
    with pytest.raises(ValidationError):
        ScreenshotQueue.Settings(type="screenshot_queue", account="a", min_delay=6.0, max_delay=5.0)
    for wrong in ({"count": 0}, {"count": 101}, {"max_in_flight": 0}, {"max_in_flight": 65}):
        with pytest.raises(ValidationError):
            ScreenshotQueue.Settings.model_validate({"type": "x", "account": "a", **wrong})
    chosen = ScreenshotQueue.Settings(type="screenshot_queue", account="a")
    assert (chosen.queue_id, chosen.count, chosen.min_delay, chosen.max_delay, chosen.max_in_flight) == (
        100,
        100,
        0.25,
        5.0,
        4,
    )


@pytest.mark.parametrize(
    ("status", "body", "blank"),
    [
        (200, b"", True),
        (200, b" \r\n", True),
        (204, b"", True),
        (0, b"", True),
        (502, b"", True),
        (504, b"", True),
        # the rest is said
        (404, b"", False),
        (500, b"", False),
        (200, b"<html>not the platform's</html>", True),
        (502, b"<html>bad gateway</html>", True),
        (403, b"<html>forbidden</html>", False),
        (200, b"{}", True),
        (200, b'{"ret":0}', False),
    ],
)
def test_an_answer_without_a_message_and_without_the_platform_s_word_is_blank(
    status: int, body: bytes, blank: bool
) -> None:
    assert read(body, status=status).blank is blank
