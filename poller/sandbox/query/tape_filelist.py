"""Live_Tape_GetFilelist: the recorded segments of a channel, by pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial

from poller.sandbox.media.recordings import Recording, Recordings, later_url
from poller.sandbox.names import BEIJING
from poller.sandbox.options import Answers, Customer
from poller.sandbox.query.answers import Row, file_list
from poller.sandbox.query.reading import read_file_query
from poller.sandbox.query.responder import Telling

FORMAT_FLV = "1"
"""3 was seen for mp4; 1 for FLV is from memory of the platform's documents, 2 is HLS there."""
NEVER = 2**31 - 1
"""When a file expired that is kept for good: 2038-01-19 11:14:07 in Beijing."""


def file_list_answer(recordings: Recordings, query: Mapping[str, str], customer: Customer) -> Telling:
    """The answer to Live_Tape_GetFilelist. Raises QueryRefused."""
    asked = read_file_query(query)
    total, found = recordings.page(
        customer.app_id,
        asked.channel_id,
        offset=asked.offset,
        limit=asked.limit,
        newest_first=asked.newest_first,
        since=asked.since,
        until=asked.until,
    )
    return partial(_text, total, found, customer)


def _text(total: int, found: list[Recording], customer: Customer, form: Answers, ret: int) -> bytes:
    row = _spec_row if form.rows == "spec" else _later_row
    return file_list(total, [row(one, customer, form) for one in found], form, ret)


def _spec_row(one: Recording, customer: Customer, form: Answers) -> Row:
    return {"vid": one.vid, "start_time": date(one.start_time), "end_time": date(one.end_time)}


def _later_row(one: Recording, customer: Customer, form: Answers) -> Row:
    """A row as in 2018 (wire-samples.json, file_list_2018), with its order of members: strings or null."""
    return {
        "appid": str(customer.app_id),
        "create_time": date(one.end_time),
        "end_time": date(one.end_time),
        "err_code": "0",
        "expire_time": date(NEVER),
        "file_format": FORMAT_FLV,
        "file_id": one.file_id,
        "file_size": str(one.size),
        "id": str(int(one.file_id) % 10**9),
        "record_file_id": one.file_id,
        "record_file_url": "" if form.place == "vid" else later_url(one, customer),
        "record_type": None,
        "report_message": None,
        "start_time": date(one.start_time),
        "stream_id": one.stream_id,
        "task_id": None,
        "task_sub_type": "0",
        "vid": "" if form.place == "url" else one.vid,
        "vod2Flag": "1",
    }


def date(moment: float) -> str:
    """A moment (epoch) as the platform writes it: Beijing's time, whole seconds."""
    return datetime.fromtimestamp(int(moment), BEIJING).strftime("%Y-%m-%d %H:%M:%S")
