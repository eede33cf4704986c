"""Pages of the screenshot queue in every form, and how the tests read them."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime

from poller.core.model import Event, ParsedPage, PollOutcome, RawPage, parse_event
from poller.qcloud.wire.account import Account
from poller.settings import AccountSettings, CosSettings
from poller.sources.screenshot_queue import ScreenshotQueue

KEY = "c0ffee00c0ffee00c0ffee00c0ffee00"
RECEIVED = datetime(2016, 8, 22, 8, tzinfo=UTC)
PUSH = 1471850187

Object = dict[str, object]


def source(count: int = 100) -> ScreenshotQueue:
    cos = CosSettings(bucket="shots", app_id=1250000000)
    account = Account("main", AccountSettings.model_validate({"app_id": 1234, "key": KEY, "cos": cos}))
    chosen = ScreenshotQueue.Settings(type="screenshot_queue", account="main", count=count)
    return ScreenshotQueue("shots", chosen, {"main": account})


def read(
    body: bytes, *, status: int = 200, whole: bool = True, encoding: str = "", count: int = 100
) -> ParsedPage:
    page = RawPage(
        source="shots", received_at=RECEIVED, status=status, encoding=encoding, whole=whole, body=body
    )
    return source(count).read(page, b"memory")


def message(n: int, **more: object) -> Object:
    return {
        "stream_id": f"5000_live_{n}",
        "pic_url": f"5000_live_{n}_{PUSH}_{PUSH}_{n * 10}_300_169.jpg",
        **more,
    }


def raw(n: int, **more: object) -> bytes:
    return json.dumps(message(n, **more)).encode()


def names(reading: ParsedPage) -> list[object]:
    return [event.fields["file_name"] for event in reading.events]


def expected(count: int) -> list[object]:
    return [message(n)["pic_url"] for n in range(count)]


OUTPUTS: dict[str, Callable[[list[Object]], Object]] = {
    "object": lambda data: {"output": {"count": len(data), "data": data}},
    "array of one": lambda data: {"output": [{"count": len(data), "data": data}]},
    "array of several": lambda data: {"output": [{"data": data[:2]}, {"data": data[2:]}]},
    "bare list": lambda data: {"output": data},
    "beside": lambda data: {"data": data, "output": None},
    "instead": lambda data: {"data": data},
    "text": lambda data: {"output": json.dumps({"count": len(data), "data": data})},
    "data as text": lambda data: {"output": {"data": json.dumps(data)}},
    "texts": lambda data: {"output": {"data": [json.dumps(one) for one in data]}},
    "text in text": lambda data: {"output": json.dumps(json.dumps({"data": data}))},
    "by number": lambda data: {"output": {"data": {str(n): one for n, one in enumerate(data)}}},
    "other words": lambda data: {"response": {"list": data}},
    "deeper": lambda data: {"result": {"output": {"data": data}}},
    "lists in lists": lambda data: {"output": {"data": [[one] for one in data]}},
}
ENVELOPES: dict[str, Object] = {
    "2016": {"ret": 0, "message": "return successfully!"},
    "text": {"ret": "0", "message": "ok"},
    "float": {"ret": 0.0},
    "missing": {},
    "null": {"ret": None, "message": None},
    "extra": {"ret": 0, "retcode": 0, "errmsg": "query data successfully", "count": "7"},
    "huge": {"ret": 2**63, "request": 10**400},
    "failing": {"ret": 1201, "message": "internal error"},
    "odd": {"ret": [], "message": {"a": ["}"]}},
}
BYTES: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "bom": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-16-be-bom": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "padded": lambda text: b"\r\n \t" + text.encode() + b"\r\n\r\n",
    "call": lambda text: b"callback(" + text.encode() + b");\n",
    "garbage": lambda text: text.encode() + b"<!-- served by 10.0.0.1 -->",
    "zeros": lambda text: text.encode() + b"\0\0\0",
}
LAYOUTS: dict[str, Callable[[Object], str]] = {
    "dense": lambda body: json.dumps(body, separators=(",", ":")),
    "pretty": lambda body: json.dumps(body, indent=4),
    "ascii": lambda body: json.dumps(body, ensure_ascii=True),
    "unicode": lambda body: json.dumps(body, ensure_ascii=False),
}


def assert_public(event: Event) -> None:
    """An event's public form says what the event says."""
    back = parse_event(event.encoded)
    assert (back.id, back.stream_id, back.occurred_at, back.url) == (
        event.id,
        event.stream_id,
        event.occurred_at,
        event.url,
    )
    assert bytes(back.message) == bytes(event.message)


def assert_all_read(reading: ParsedPage, count: int) -> None:
    assert sorted(map(str, names(reading))) == sorted(map(str, expected(count)))
    assert reading.outcome is (PollOutcome.FULL if count == 3 else PollOutcome.PARTIAL)
    for event in reading.events:
        assert b"\n" not in event.encoded
        assert_public(event)
        assert json.loads(bytes(event.message))["stream_id"] == event.stream_id


def nested(n: int) -> Object:
    return message(n, extra={"pic_url": "inner.jpg", "data": [{"pic_url": "x"}]})


def page_of(count: int, form: str) -> bytes:
    data = [nested(n) for n in range(count)]
    return LAYOUTS["dense"]({"ret": 0, "message": "ok", **OUTPUTS[form](data), "z": [1]}).encode()
