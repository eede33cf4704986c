"""Notifications as the platform writes them, signed as it signs, and ways to send them. Independent of our own code."""

import hashlib
import http.client
import json
import time
from collections.abc import Mapping
from typing import Any

KEY = "5d41402abc4b2a76b9719d911017c592"
PATH = "/platform/q7Zt0mWn4vXkE2cLsB9dYr"
PUSH_SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
STREAM_PARAM = f"bizid=20989&txSecret={PUSH_SECRET}&txTime=5AB5247F"

# What the platform's documents and people's published logs show (2016 to 2018), without t and sign.
SCREENSHOT_2016: dict[str, Any] = {
    "channel_id": "2016090090936",
    "create_time": 1473645788,
    "event_type": 200,
    "pic_url": "/2016-09-12/2016090090936-screenshot-10-03-08-1280x720.jpg",
    "stream_id": "2016090090936",
}
SCREENSHOT_2018: dict[str, Any] = {
    "event_type": 200,
    "stream_id": "stream_name",
    "channel_id": "stream_name",
    "create_time": 1545030273,
    "file_size": 7520,
    "width": 640,
    "height": 352,
    "pic_url": "/2018-12-17/stream_name-screenshot-19-06-59-640x352.jpg",
    "pic_full_url": "http://testbucket-1234567890.cos.region.myqcloud.com"
    "/2018-12-17/stream_name-screenshot-19-06-59-640x352.jpg",
}
RECORDING_2016: dict[str, Any] = {
    "channel_id": "3891_@v_tls#3pfnm5fw35qt",
    "end_time": 1471256054,
    "event_type": 100,
    "file_format": "flv",
    "file_id": "16093425727657168197",
    "file_size": 130938971,
    "start_time": 1471254513,
    "stream_id": "3891_@v_tls#3pfnm5fw35qt",
    "video_id": "200024424_a62017f6489748df9ee439360a8cc32c",
    "video_url": "http://200024424.vod.myqcloud.com/200024424_a62017f6489748df9ee439360a8cc32c.f0.flv",
}
RECORDING_2018: dict[str, Any] = {
    "appid": 1256015004,
    "channel_id": "20989_yingyan_10002",
    "duration": 183,
    "end_time": 1521690118,
    "event_type": 100,
    "file_format": "flv",
    "file_id": "7447398155134540229",
    "file_size": 16041914,
    "media_start_time": 2967,
    "record_file_id": "7447398155134540229",
    "start_time": 1521689864,
    "stream_id": "20989_yingyan_10002",
    "stream_param": STREAM_PARAM,
    "task_id": "9531622708116201570",
    "video_id": "210032122_7f4828cfe7df49dfbe1ba2a262878b12",
    "video_url": "http://1256015004.vod2.myqcloud.com/0b6a9c37vodgzp1256015004/681ef9c87447398155134540229/f0.flv",
}
STARTED_2017: dict[str, Any] = {
    "app": "101.226.84.104",
    "appid": 1252571077,
    "appname": "live",
    "channel_id": "10888_100076",
    "errcode": 0,
    "errmsg": "ok",
    "event_time": 1509672428,
    "event_type": 1,
    "idc_id": 33,
    "node": "100.119.17.9",
    "sequence": "653434696377249304",
    "set_id": 2,
    "stream_id": "10888_100076",
    "stream_param": STREAM_PARAM,
    "user_ip": "192.0.2.7",
}
INTERRUPTED_2017: dict[str, Any] = {
    **STARTED_2017,
    "errcode": 1,
    "errmsg": "recv rtmp deleteStream",
    "event_time": 1509672432,
    "event_type": 0,
    "push_duration": "4012",
}
SAMPLES = {
    "screenshot 2016": SCREENSHOT_2016,
    "screenshot 2018": SCREENSHOT_2018,
    "recording 2016": RECORDING_2016,
    "recording 2018": RECORDING_2018,
    "started 2017": STARTED_2017,
    "interrupted 2017": INTERRUPTED_2017,
}


def signature(key: str, t: object) -> str:
    return hashlib.md5(f"{key}{t}".encode()).hexdigest()


def signed(fields: Mapping[str, Any], *, key: str = KEY, t: object = None, now: float | None = None) -> bytes:
    """A body that the platform would send: `t` ten minutes ahead, if not given."""
    if t is None:
        t = int(now if now is not None else time.time()) + 600
    return json.dumps({**fields, "t": t, "sign": signature(key, t)}).encode()


def shot(number: int, stream: str = "room") -> dict[str, Any]:
    """A notification of a screenshot; the same number is the same picture."""
    name = f"{stream}_1700000000_1700000000_{number * 10}_300_169.jpg"
    return {"event_type": 200, "stream_id": stream, "channel_id": stream, "pic_url": name}


def post(
    address: str,
    body: bytes,
    *,
    path: str = PATH,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> tuple[int, bytes]:
    """POST as the platform does; status and body of the answer."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
