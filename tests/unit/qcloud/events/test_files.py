"""What a file list holds, in every shape of row."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from poller.core.model import PollOutcome
from poller.qcloud.events.files import FileList, read_files

SAMPLE = {
    "appid": "1257046543",
    "create_time": "2018-11-02 13:48:12",
    "end_time": "2018-11-02 13:48:09",
    "err_code": "0",
    "expire_time": "2038-01-19 11:14:07",
    "file_format": "3",
    "file_id": "5285890782777207037",
    "file_size": "4571794",
    "id": "276837460",
    "record_file_id": "5285890782777207037",
    "record_file_url": "http://1257046543.vod2.myqcloud.com/c78eb187vodcq1257046543/07ef3cd35285890782777207037/f0.mp4",
    "record_type": None,
    "report_message": None,
    "start_time": "2018-11-02 13:47:40",
    "stream_id": "32810_f0403e6ebfbe1f6d2df9b4d6b0eba2f0",
    "task_id": None,
    "task_sub_type": "0",
    "vid": "210130088_4532e20cf01c42f99afbf549fe71901c",
    "vod2Flag": "1",
}
SPEC = {"vid": "200_a", "start_time": "2016-08-22 12:00:00", "end_time": "2016-08-22 12:30:00"}


def read(output: object, ret: object = 0, **more: Any) -> FileList:
    body = json.dumps({"ret": ret, "message": "ok", "output": output, **more}).encode()
    found, verdict = read_files(body, "", status=200, whole=True)
    assert verdict.outcome is PollOutcome.FULL, verdict
    assert found is not None
    return found


def test_a_row_of_2018_is_read_with_every_field() -> None:
    found = read({"all_count": 1, "file_list": [SAMPLE]})
    (segment,) = found.segments
    assert found.total == 1
    assert segment.start == datetime(2018, 11, 2, 5, 47, 40, tzinfo=UTC)
    assert segment.end == datetime(2018, 11, 2, 5, 48, 9, tzinfo=UTC)
    assert (segment.vid, segment.file_id) == (SAMPLE["vid"], SAMPLE["file_id"])
    assert (segment.url, segment.file_format) == (SAMPLE["record_file_url"], "mp4")
    assert (segment.file_size, segment.duration) == (4571794, None)
    assert json.loads(segment.message) == SAMPLE


@pytest.mark.parametrize(
    "output",
    [
        {"all_count": "1", "file_list": [SPEC]},
        [{"all_count": 1, "file_list": [SPEC]}],
        {
            "file_list": [
                {**SPEC, "file_id": None, "record_file_url": "", "file_size": None, "new": {"a": [1]}}
            ]
        },
    ],
)
def test_a_row_of_2016_is_read_in_every_envelope(output: object) -> None:
    (segment,) = read(output).segments
    assert (segment.vid, segment.file_id, segment.url) == ("200_a", "", "")
    assert segment.end == datetime(2016, 8, 22, 4, 30, tzinfo=UTC)
    assert (segment.file_format, segment.file_size) == ("", None)


@pytest.mark.parametrize("output", [{"all_count": 0, "file_list": []}, [], None, {}, {"file_list": None}])
def test_an_empty_list_is_nothing_there(output: object) -> None:
    assert read(output).rows == 0


@pytest.mark.parametrize("ret", [10003, "10003", 20601])
def test_no_rows_is_nothing_there(ret: object) -> None:
    assert read(None, ret).rows == 0


def test_numbers_are_as_good_as_strings() -> None:
    row = {
        "vid": 7,
        "file_id": 5285890782777207037,
        "start_time": 1471256054,
        "end_time": 1471257854,
        "file_size": 12.0,
    }
    (segment,) = read({"file_list": [row]}).segments
    assert (segment.vid, segment.file_id, segment.file_size) == ("7", "5285890782777207037", 12)
    assert segment.end == datetime.fromtimestamp(1471257854, UTC)


def test_a_segment_that_goes_on_has_no_end() -> None:
    for end in (None, "", "0000-00-00 00:00:00"):
        (segment,) = read({"file_list": [{**SPEC, "end_time": end}]}).segments
        assert segment.end is None


@pytest.mark.parametrize(
    "bad",
    [
        b'"a string"',
        b"null",
        b"[1]",
        b"{}",
        b'{"vid":"","file_id":null,"record_file_url":""}',
        b'{"vid":"x","end_time":"tomorrow"}',
        b'{"vid":"x\xff","end_time":"2016-08-22 12:30:00"}',
        b'{"vid":"x","n":NaN}',
        b'{"vid":"x","s":"\\ud800"}',
        b'{"vid":"x","d":' + b"[" * 90 + b"]" * 90 + b"}",
    ],
)
def test_a_bad_row_is_a_reject_and_its_neighbours_live(bad: bytes) -> None:
    good = [json.dumps({**SPEC, "vid": name}).encode() for name in ("a", "b")]
    body = b'{"ret":0,"output":{"all_count":3,"file_list":[%s,%s,%s]}}' % (good[0], bad, good[1])
    found, verdict = read_files(body, "", status=200, whole=True)
    assert found is not None, verdict
    assert [segment.vid for segment in found.segments if segment.vid in "ab"] == ["a", "b"]
    if bad[:1] == b"{" and b"ud800" not in bad:
        assert [row for _, row in found.rejects] == [bad]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"", PollOutcome.FAILED),
        (b"<html>", PollOutcome.FAILED),
        (b'{"ret":1202,"message":"too frequent"}', PollOutcome.THROTTLED),
        (b'{"ret":1,"message":"sign invalid"}', PollOutcome.REFUSED),
        (b'{"ret":0,"output":{"all_count":1,"file_list":', PollOutcome.UNCERTAIN),
    ],
)
def test_what_is_no_list_is_none(body: bytes, outcome: PollOutcome) -> None:
    found, verdict = read_files(body, "", status=200, whole=True)
    assert (found, verdict.outcome) == (None, outcome)
