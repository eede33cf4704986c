"""The kinds of event: what each is about, its own fields, and a message of the platform that gives one.

The messages are from the platform's documents and from what people published; keys, addresses and secrets are left out.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
MOMENT: Final[Schema] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z$",
}


def or_null(schema: Schema) -> Schema:
    """The same, or null where the platform does not say."""
    return {**schema, "type": [schema["type"], "null"]}


TEXT_OR_NULL: Final = or_null(TEXT)
MOMENT_OR_NULL: Final = or_null(MOMENT)
NUMBER_OR_NULL: Final[Schema] = {"type": ["number", "null"]}
WHOLE_OR_NULL: Final[Schema] = {"type": ["integer", "null"]}


class Field(NamedTuple):
    """One field of `data`; an optional one may be absent."""

    schema: Schema
    says: str
    optional: bool = False


class Kind(NamedTuple):
    """A kind of event; `sample` is a message of the platform."""

    about: str
    fields: Mapping[str, Field]
    sample: Mapping[str, Any]


COMMON: Final[Mapping[str, Field]] = {
    "stream_id": Field(TEXT, "the stream's id; empty where nothing names one"),
    "url": Field(TEXT_OR_NULL, "where the picture or the recording is fetched; null where there is none"),
    "received_at": Field(MOMENT, "when the daemon received it"),
    "message": Field(
        {"type": ["object", "array"]},
        "the platform's own message, with its secrets masked; of a channel's status a list of one object",
    ),
}

SCREENSHOT: Final = Kind(
    "A picture of a stream was taken.",
    {
        "file_name": Field(TEXT, "the picture's path in its bucket"),
        "width": Field(WHOLE_OR_NULL, "its width in pixels"),
        "height": Field(WHOLE_OR_NULL, "its height in pixels"),
        "push_started_at": Field(MOMENT_OR_NULL, "when the push started, from the name"),
        "task_started_at": Field(MOMENT_OR_NULL, "when the screenshot task started, from the name"),
        "offset": Field(WHOLE_OR_NULL, "seconds from the start of the push to the picture, from the name"),
        "create_time": Field(MOMENT, "when it was taken, as the platform says it", optional=True),
        "file_size": Field(WHOLE_OR_NULL, "its size in bytes", optional=True),
        "backfilled": Field(
            {"type": "boolean"},
            "true where the picture was found in the bucket, and never came by a source",
            optional=True,
        ),
    },
    {
        "stream_id": "room-7",
        "pic_url": "room-7_1471850187_1471850187_10_300_169.jpg",
    },
)

RECORDING: Final = Kind(
    "A segment of a recording is ready.",
    {
        "vid": Field(TEXT_OR_NULL, "the platform's id of the video"),
        "file_id": Field(TEXT_OR_NULL, "the platform's id of the file"),
        "start_time": Field(MOMENT_OR_NULL, "when the segment starts"),
        "end_time": Field(MOMENT_OR_NULL, "when it ends"),
        "duration": Field(NUMBER_OR_NULL, "its seconds, which need not be the difference of the two"),
        "file_format": Field(TEXT_OR_NULL, "the platform's word for its format"),
        "file_size": Field(NUMBER_OR_NULL, "its size in bytes"),
    },
    {
        "event_type": 100,
        "stream_id": "room-7",
        "video_id": "200024424_2f1c7a",
        "file_id": "16093425727657168197",
        "video_url": "http://200024424.vod.myqcloud.com/200024424_2f1c7a.f0.flv",
        "file_format": "flv",
        "file_size": 130938971,
        "start_time": 1471850187,
        "end_time": 1471851987,
    },
)

CHANNEL: Final = Kind(
    "A channel went live, was interrupted or was disabled.",
    {
        "state": Field({"enum": ["live", "interrupted", "disabled", "never"]}, "the new state"),
        "seen_by": Field({"enum": ["channel_status", "callbacks"]}, "the type of the source that saw it"),
        "rate_type": Field(
            WHOLE_OR_NULL, "with `channel_status`: 0 original, 10 standard, 20 high", optional=True
        ),
        "recv_type": Field(
            WHOLE_OR_NULL, "with `channel_status`: 1 RTMP and FLV, 2 HLS, 3 both", optional=True
        ),
        "sequence": Field(
            TEXT_OR_NULL, "with `callbacks`: the push, the same at its start and its end", optional=True
        ),
        "errcode": Field(NUMBER_OR_NULL, "with `callbacks`: the platform's number for why", optional=True),
        "errmsg": Field(TEXT_OR_NULL, "with `callbacks`: the platform's words for why", optional=True),
        "push_duration": Field(
            NUMBER_OR_NULL, "with `callbacks`: how long the push lasted, in milliseconds", optional=True
        ),
        "node": Field(TEXT_OR_NULL, "with `callbacks`: the platform's server", optional=True),
    },
    {
        "appname": "live",
        "channel_id": "10888_100076",
        "errcode": 1,
        "errmsg": "recv rtmp deleteStream",
        "event_time": 1509672432,
        "event_type": 0,
        "sequence": "653434696377249304",
        "stream_id": "10888_100076",
    },
)

LABEL: Final[Schema] = {"type": ["string", "integer"]}

MODERATION: Final = Kind(
    "The platform judged a picture of a stream.",
    {
        "file_name": Field(TEXT_OR_NULL, "the picture's path"),
        "type": Field(
            {"anyOf": [LABEL, {"type": "null"}, {"type": "array", "items": LABEL}]}, "the platform's labels"
        ),
        "score": Field(NUMBER_OR_NULL, "how sure the platform is"),
        "suggestion": Field(TEXT_OR_NULL, "what the platform suggests"),
    },
    {
        "event_type": 317,
        "streamId": "room-7",
        "img": "http://shots-1250000000.cos.ap-shanghai.myqcloud.com/2019-12-05/room-7-screenshot-10-32-54-960x540.jpg",
        "type": [1],
        "score": 97,
        "suggestion": "review",
        "screenshotTime": 1575513174,
    },
)

RECORDING_STATUS: Final = Kind(
    "A recording started, paused or ended.",
    {"record_event": Field(TEXT_OR_NULL, "the platform's word for what happened")},
    {
        "event_type": 332,
        "stream_id": "room-7",
        "record_event": "record_start",
        "event_time": 1575513174,
    },
)

PUSH_EXCEPTION: Final = Kind(
    "The platform noticed something wrong with a push; `message` says what.",
    {},
    {"event_type": 321, "stream_id": "room-7", "report_interval": 5000, "event_time": 1575513174},
)

OTHER: Final = Kind(
    "Anything else that the platform says. New types of notification arrive as this.",
    {"event_type": Field({"type": ["integer", "string", "null"]}, "the platform's number for it")},
    {"event_type": 314, "stream_id": "room-7", "event_time": 1575513174},
)

GAP: Final = Kind(
    "Pictures of a stream never came, although pictures of the same push and task did before and after them. The daemon itself "
    "finds this (`accounts.NAME.audit`), once for each gap; `message` is empty.",
    {
        "from": Field(MOMENT, "when the last picture before the gap was taken"),
        "to": Field(MOMENT, "when the first picture after it was taken"),
        "missing": Field({"type": "integer"}, "how many pictures are missing"),
        "cadence": Field({"type": "number"}, "the usual seconds between two pictures around the gap"),
        "push_started_at": Field(MOMENT_OR_NULL, "when the push started, from the names"),
        "task_started_at": Field(MOMENT_OR_NULL, "when the screenshot task started, from the names"),
        "first_missing_offset": Field(
            {"type": "integer"}, "seconds from the start of the push to the first missing picture"
        ),
        "why": Field(TEXT, "how the gap shows, for people"),
    },
    {},
)

KINDS: Final[Mapping[str, Kind]] = {
    "screenshot": SCREENSHOT,
    "recording": RECORDING,
    "channel": CHANNEL,
    "moderation": MODERATION,
    "recording_status": RECORDING_STATUS,
    "push_exception": PUSH_EXCEPTION,
    "other": OTHER,
    "gap": GAP,
}
