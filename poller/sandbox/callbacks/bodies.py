"""What notifications say, without `t` and `sign`, in each year's form.

The keys of 2016 to 2018 are those of the published bodies in wire-samples.json, and of the platform's own example of an
interruption in 2016; those of today are the documented ones.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping
from urllib.parse import quote

from poller.sandbox.callbacks.rules import PICTURE
from poller.sandbox.live import LivePush
from poller.sandbox.media.recordings import Recording, later_url, spec_url
from poller.sandbox.names import Shot
from poller.sandbox.options import Customer, Year

Body = dict[str, object]

NODE = "127.0.0.1"
LONGEST = 4096
"""Characters of a push's query that a notification repeats: 10,000 notifications may wait in memory."""
LATER: tuple[Year, ...] = ("2018", "today")

ENDINGS: Mapping[str, tuple[int, str]] = {
    "unpublished": (1, "recv rtmp deleteStream"),
    "closed": (3, "recv() return 0"),
    "reset": (4, "recv() return error"),
    "silent": (4, "recv() return error"),
    "replaced": (4, "recv() return error"),
    "broken": (7, "rtmp message large than 1M"),
}
"""`errcode` and `errmsg` by how a push ended. The pairs are documented; `silent` and `replaced` are guesses."""
OTHER_ENDING = (100, "internal error")
"""Other codes are documented as errors of the platform, without numbers."""


def push_begin_body(push: LivePush, year: Year) -> Body:
    """Event 1: a push has begun."""
    return _push(push, year) | {"event_type": 1, "event_time": push.push, "errcode": 0, "errmsg": "ok"}


def push_end_body(push: LivePush, why: str, year: Year) -> Body:
    """Event 0: a push has ended. `why` is the reason that `Push.end` was given."""
    code, text = ENDINGS.get(why, OTHER_ENDING)
    body = _push(push, year) | {"event_type": 0, "event_time": int(time.time())}
    body |= {"errcode": code, "errmsg": text}
    if year in LATER:
        body["push_duration"] = str(round(push.duration * 1000))
    return body


def recording_body(recording: Recording, customer: Customer, push: LivePush | None, year: Year) -> Body:
    """Event 100: a segment is finished. The push is None where it ended with an earlier sandbox."""
    body: Body = _stream_fields(recording.stream_id) | {
        "event_type": 100,
        "video_id": recording.vid,
        "video_url": spec_url(recording, customer),
        "file_id": recording.file_id,
        "file_format": "flv",
        "file_size": recording.size,
        "start_time": int(recording.start_time),
        "end_time": int(recording.end_time),
    }
    if year in LATER:
        body |= {
            "appid": customer.app_id,
            "duration": round(recording.end_time - recording.start_time),
            "media_start_time": 0,
            "record_file_id": recording.file_id,
            "stream_param": "" if push is None else _param(push),
            "task_id": "0" if push is None else push.sequence,
            "video_url": later_url(recording, customer),
        }
    if year == "today":
        body |= {"app": "", "appname": ""} if push is None else _address(push)
    return body


def screenshot_body(shot: Shot, path: str, size: int, push: LivePush, year: Year) -> Body:
    """Event 200: a screenshot can be fetched. `path` is its place in the bucket, `size` is in bytes."""
    body: Body = _stream_fields(shot.stream_id) | {
        "event_type": PICTURE,
        "pic_url": f"/{path}",
        "create_time": shot.at,
    }
    if year in LATER:
        host = f"{push.customer.host_label}.file.myqcloud.com"
        body |= {
            "pic_full_url": f"http://{host}/{quote(path, safe='/-_.~')}",
            "file_size": size,
            "width": shot.width,
            "height": shot.height,
        }
    if year == "today":
        body |= _address(push) | {"stream_param": _param(push), "task_id": push.sequence}
    return body


def _push(push: LivePush, year: Year) -> Body:
    """The members that the notifications of a push's beginning and of its end share."""
    body = _stream_fields(push.stream_id) | _address(push)
    body |= {
        "sequence": push.sequence,
        "node": NODE,
        "user_ip": mask_address(push.request.peer),
        "stream_param": _param(push),
    }
    if year != "2016":
        body |= {"appid": push.customer.app_id, "set_id": 2}
    if year in ("2017", "2018"):
        body["idc_id"] = 33
    if year == "today":
        body |= {"width": 0, "height": 0}  # the platform says 0 where it does not know yet
    return body


def _stream_fields(stream_id: str) -> Body:
    return {"stream_id": stream_id, "channel_id": stream_id}


def _address(push: LivePush) -> Body:
    return {"app": push.request.host, "appname": push.request.app}


def _param(push: LivePush) -> str:
    """The push's query as the pusher wrote it, with its secret: the platform sends the secret too."""
    parts = (f"{quote(name)}={quote(value)}" for name, value in push.request.query.items())
    return "&".join(parts)[:LONGEST]


def mask_address(peer: str) -> str:
    """The network of an `ADDRESS:PORT`: of IPv4 the first 24 bits, of IPv6 the first 48; empty if it is none."""
    try:
        address = ipaddress.ip_address(peer.rpartition(":")[0].partition("%")[0])
    except ValueError:
        return ""
    bits = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False).network_address)
