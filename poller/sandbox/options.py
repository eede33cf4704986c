"""Every setting of the sandbox, as frozen records."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

Grammar = Literal["A", "B"]
Year = Literal["2016", "2017", "2018", "today"]


LARGEST_OFFSET = 1e9
"""Seconds by which the platform's clock may be wrong; beyond them it could show no date."""
KEY_BYTES = 32
"""Of the key that signs queries."""
EXAMPLE = 3
"""The `cmd` of the document's own examples. The default customer answers to it as well."""


class BadOption(ValueError):
    """An option, or a request to the control port, that makes no sense; the text says why."""


def check_choices(record: Any) -> None:
    """Refuses a value that its field's Literal does not list."""
    hints = get_type_hints(type(record))
    for item in fields(record):
        hint, value = hints[item.name], getattr(record, item.name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            choices = ", ".join(get_args(hint))
            raise BadOption(f"{item.name}: {value!r} is none of {choices}")
        if isinstance(hint, type) and not isinstance(value, hint):
            raise BadOption(f"{item.name}: is not of type {hint.__name__}")  # it may be a secret


def _check_secret(name: str, value: object) -> None:
    """Refuses what is no text, such as YAML's numbers, without repeating it."""
    if value is None and name in ("push_key", "callback_key"):
        return
    if not isinstance(value, str) or not value or not value.isprintable():
        raise BadOption(f"{name}: is no text; a key of digits alone needs quotes")


@dataclass(frozen=True, kw_only=True)
class Customer:
    """One customer of the platform: who it is, its key, where its pictures lie."""

    app_id: int = 1234
    key: str = field(default="5d41402abc4b2a76b9719d911017c592", repr=False)
    """Signs its queries; 32 bytes."""
    bucket: str = "shots"
    cos_app_id: int = 1250000000
    biz_id: int = 0
    """Names the place of its recordings: http://(biz id).vod.myqcloud.com/. By default 200024490 more than `app_id`."""
    push_key: str | None = field(default=None, repr=False)
    """Where set, a push needs `txTime` (hex epoch) and `txSecret` = md5(push key + stream + txTime)."""
    secret_id: str = "AKIDsandbox"
    secret_key: str = field(default="sandbox", repr=False)
    """With these two, uploads into the bucket are signed."""
    callback_url: str | None = field(default=None, repr=False)
    """Where its notifications are posted to; its path may be a secret. None: nowhere."""
    callback_key: str | None = field(default=None, repr=False)
    """Signs them. None: they carry neither `t` nor `sign`."""

    def __post_init__(self) -> None:
        for name in ("key", "push_key", "secret_key", "callback_key"):
            _check_secret(name, getattr(self, name))
        check_choices(self)
        if len(self.key.encode()) != KEY_BYTES:
            raise BadOption(f"key: has {len(self.key.encode())} bytes, not {KEY_BYTES}")
        if self.callback_url is not None:
            check_url(self.callback_url, "callback_url")
        if not self.biz_id:
            object.__setattr__(self, "biz_id", 200024490 + self.app_id)

    @property
    def host_label(self) -> str:
        """The first label of the picture host, which is also the bucket's name in a path."""
        return f"{self.bucket}-{self.cos_app_id}"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The form in which the interfaces answer, wherever the platform's was seen to vary or is unknown."""

    output: Literal["object", "array", "list"] = "object"
    """Of Live_Queue_Get: an object, an array of that one object, or the bare list of messages."""
    file_list: Literal["object", "array"] = "object"
    """`output` of Live_Tape_GetFilelist: an object, or an array of that one object."""
    status: Literal["array", "object"] = "array"
    """`output` of Live_Channel_GetStatus: an array of one object, or that object."""
    empty: Literal["object", "array", "null", "missing", "10003"] = "object"
    """What `output` is when no message or segment is there; `10003` is the documented code, without any output."""
    rows: Literal["spec", "later"] = "spec"
    """A segment's row: `vid`, `start_time`, `end_time`; or all that was seen later, strings and nulls."""
    place: Literal["vid", "url", "both"] = "both"
    """Of a later row, what is filled: `vid`, `record_file_url`, or both."""
    count: Literal["int", "string", "wrong"] = "int"
    """Of Live_Queue_Get: how many messages the answer holds."""
    all_count: Literal["int", "string", "wrong"] = "int"
    """Of Live_Tape_GetFilelist: how many segments there are over all pages."""
    ret: Literal["int", "string"] = "int"
    extra: bool = False
    """Whether `retcode` and `errmsg` stand beside `ret` and `message`."""
    success: str = "return successfully!"
    fields: Literal["pic_url", "create_time", "pic_full_url"] = "pic_url"
    """`create_time` adds it to `pic_url`; `pic_full_url` also puts that in the place of `pic_url`."""
    url: Literal["bare", "slash", "full", "query"] = "bare"
    """How `pic_url` is written. `pic_full_url` is always a full URL."""
    content_type: str = "application/json; charset=utf-8"
    encoding: Literal["utf-8", "utf-8-bom", "utf-16"] = "utf-8"
    gzip: bool = False
    """Compressed, whether or not the client asked for it."""
    pretty: bool = False
    framing: Literal["length", "chunked", "close"] = "length"
    refused: int = 1
    """The `ret` of refusals whose number is unknown (`cmd is invalid`, `sign invalid`, `time expired`)."""
    callbacks: Year = "2016"
    """The year in whose form notifications are written, and by whose rule they are repeated."""

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a picture is named. `folder` goes before the name; `{date}` in it is the date in UTC+8."""

    grammar: Grammar = "A"
    folder: str = ""

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that can be set when a sandbox starts."""

    directory: Path
    """Holds `removed.ndjson` (the oracle), `cos/` (pictures) and `clips/`; made if missing."""
    listen: str = "127.0.0.1:0"
    """HOST:PORT of the query interface; port 0 takes a free one."""
    cos_listen: str | None = None
    """HOST:PORT of the picture server; by default a free port of the same host."""
    vod_listen: str | None = None
    """HOST:PORT of the recordings' server; by default a free port of the same host."""
    rtmp_listen: str | None = None
    """HOST:PORT to push to; by default a free port of the same host."""
    control_listen: str | None = None
    """HOST:PORT of the control port, which trusts whoever reaches it; by default a free port of 127.0.0.1."""
    customers: tuple[Customer, ...] = (Customer(),)
    """A push belongs to the one whose `biz_id` it names (`?bizid=`, or the host's first label), else to the first."""
    id_params: tuple[str, ...] = ("cmd", "appid")
    """By which parameters a customer may say who it is."""
    answers: Answers = Answers()
    naming: Naming = Naming()
    streams: int = 0
    """How many live streams start with the sandbox."""
    stream_name: str = "live_{n}"
    """Their stream ids; `{n}` counts from 1."""
    videos: tuple[Path, ...] = ()
    """Files with H.264 video that the streams show in a loop, in turn; none: a clip encoded here."""
    interval: float = 10.0
    """Seconds between two pictures of a stream, at multiples of the absolute system clock."""
    width: int = 300
    exact: bool = False
    """Whether a picture is the frame of its moment, which costs decoding a GOP, or the keyframe before it."""
    segment: float = 1800.0
    """Seconds that no recorded segment exceeds."""
    silence: float = 6.0
    """Seconds after which a pusher that says nothing is taken for gone."""
    retain: float = 15 * 86400.0
    """Seconds that pictures, recordings and what is known of channels are kept."""
    upload_delay: tuple[float, float] = (0.0, 15.0)
    """Seconds from the shot until the picture can be fetched, evenly random between the two."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """Faults of Live_Queue_Get, each with its probability per call."""
    query_faults: Mapping[str, float] = field(default_factory=dict)
    """Faults of the other two interfaces, each with its probability per call."""
    cos_faults: Mapping[str, float] = field(default_factory=dict)
    """Faults of the picture server, each with its probability per request."""
    upload_faults: Mapping[str, float] = field(default_factory=dict)
    """Faults of the upload (`lost`, `late`), each with its probability per picture."""
    callback_faults: Mapping[str, float] = field(default_factory=dict)
    """Faults of the notifications, each with its probability per notification."""
    callback_pace: float = 1.0
    """By what the pauses between repeats of a notification are multiplied."""
    callback_timeout: float = 20.0
    """Seconds within which a notification must be answered."""
    callback_fresh: float = 0.5
    """The probability that a repeat carries a fresh `t` and `sign`; else it is the same bytes again."""
    callback_limit: int = 10_000
    """Notifications that wait for a customer; beyond it the oldest are dropped, and counted."""
    seed: int = 0
    """Fixes every random choice."""
    clock_offset: float = 0.0
    """Seconds by which the platform's clock (`Date`, and the judging of `t`) is ahead of ours."""
    rate_limit: float | None = None
    """Calls a second and customer beyond which the answer is 1202, too frequent; 0 is no limit."""
    queue_limit: int = 1_000_000
    """Messages a customer's queue holds; beyond it the oldest are dropped, and counted."""

    def __post_init__(self) -> None:
        if self.interval < 1 and self.naming.grammar == "B":
            raise BadOption("interval: grammar B cannot tell two pictures of one second apart")
        if not self.customers:
            raise BadOption("customers: at least one is needed")
        for name in ("interval", "segment", "silence", "retain", "callback_timeout", "callback_limit"):
            if not getattr(self, name) > 0:
                raise BadOption(f"{name}: {getattr(self, name)!r} is not above 0")
        if not 0 <= self.callback_fresh <= 1:
            raise BadOption(f"callback_fresh: {self.callback_fresh!r} is no probability")
        check_pace(self.callback_pace)
        check_offset(self.clock_offset)
        if self.rate_limit is not None and not 0 <= self.rate_limit < math.inf:
            raise BadOption(f"rate_limit: {self.rate_limit!r} is no number from 0 on")
        for name in ("app_id", "biz_id", "host_label"):
            if len({getattr(one, name) for one in self.customers}) < len(self.customers):
                raise BadOption(f"customers: two have the same {name}")
        for name in ("listen", "cos_listen", "vod_listen", "rtmp_listen", "control_listen"):
            split_address(getattr(self, name) or "x:0", name)


def split_address(text: str, option: str = "listen") -> tuple[str, int]:
    """`HOST:PORT` (also `[::1]:PORT`) as a pair."""
    match = re.fullmatch(r"\[?([^\]]+?)\]?:(\d{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise BadOption(f"{option}: {text!r} is not HOST:PORT")
    return match[1], int(match[2])


def check_url(text: object, option: str) -> str:
    """The text, if it is an HTTP URL; else BadOption, which does not repeat it."""
    try:
        parts = urlsplit(text) if isinstance(text, str) else None
        good = parts is not None and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise BadOption(f"{option}: not an http or https URL")
    return str(text)


def check_pace(pace: object) -> float:
    """The number, if pauses can be multiplied by it."""
    if not isinstance(pace, int | float) or not 0 <= pace < math.inf:
        raise BadOption(f"callback_pace: {pace!r} is no number from 0 on")
    return pace


def check_interval(interval: object) -> float:
    """The interval in seconds, if it is a whole number from 1 to 3600."""
    if not isinstance(interval, int) or isinstance(interval, bool) or not 1 <= interval <= 3600:
        raise BadOption(f"interval: {interval!r} is no whole number of seconds from 1 to 3600")
    return float(interval)


def check_offset(offset: object) -> float:
    """The number, if a clock can be ahead by so many seconds and still show a date."""
    if not isinstance(offset, int | float) or not abs(offset) <= LARGEST_OFFSET:
        raise BadOption(f"clock_offset: {offset!r} is no number of seconds within {LARGEST_OFFSET:.0f}")
    return float(offset)


def check_delay(delay: Sequence[float]) -> tuple[float, float]:
    """The pair, if it is two times in seconds, the shorter first."""
    low, high = (float(one) for one in delay)
    if not 0 <= low <= high < math.inf:
        raise BadOption(f"upload_delay: {low:g} and {high:g} are no range from 0 on")
    return low, high


def era(year: Year) -> tuple[Answers, Naming]:
    """How the platform answered and named in that year, as far as is known."""
    if year == "2016":
        return Answers(count="string"), Naming()
    if year == "2017":
        answers = Answers(fields="create_time", url="slash", rows="later", callbacks="2017")
        return answers, Naming(grammar="B", folder="{date}")
    if year in ("2018", "today"):  # of today's queries nothing else is known
        answers = Answers(fields="pic_full_url", extra=True, rows="later", callbacks=year)
        return answers, Naming(grammar="B", folder="{date}")
    raise BadOption(f"era: {year!r} is none of 2016, 2017, 2018, today")


def change_form(answers: Answers, changes: Iterable[tuple[str, str]]) -> Answers:
    """The form with some of its fields set from text. Raises BadOption."""
    found: dict[str, Any] = {}
    known = {item.name: getattr(answers, item.name) for item in fields(Answers)}
    for name, text in changes:
        if name not in known:
            raise BadOption(f"{name!r} is none of the answers' {', '.join(known)}")
        found[name] = _like(known[name], name, text)
    return replace(answers, **found)


def _like(example: object, name: str, text: str) -> object:
    if isinstance(example, bool):
        if text not in ("true", "false"):
            raise BadOption(f"{name}: {text!r} is none of true, false")
        return text == "true"
    if isinstance(example, int):
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise BadOption(f"{name}: {text!r} is no number")
        return int(text)
    return text
