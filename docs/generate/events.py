"""The page of events, and the JSON Schema of what a sink gets."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from docs.generate.event_fields import COMMON, KINDS, MOMENT, Field, Kind, Schema
from docs.generate.markdown import block, code, page, plain, table
from poller.core.model import SOURCE_PREFIX, TYPE_PREFIX, Event
from poller.pipeline.gaps import GAP as FOUND
from poller.pipeline.gaps import Auditor, gap_event
from poller.qcloud.events.notifications import KINDS as KNOWN
from poller.qcloud.events.notifications import notification_event
from poller.qcloud.events.screenshots import screenshot_event

BASE: Final = "http://shots-1250000000.file.myqcloud.com/"
SOON: Final = 13
"""Seconds from the last moment that a message names to its arrival, in an example."""


def events() -> str:
    """Each kind of event: what it is about, its fields, and one as the program makes it."""
    assert set(KINDS) == {*KNOWN, FOUND}
    return page(
        "Events",
        "Every sink gets the same: one [CloudEvents 1.0](https://cloudevents.io) JSON object for each event. "
        "[`events.schema.json`](events.schema.json) is its JSON Schema (draft 2020-12).",
        table(("member", "what it is"), _envelope()),
        "A sink may see an id again, after a crash or a lost answer. It is the same event, and nothing new has happened. Fields are added in "
        "minor versions and are removed or change their meaning only with a new major version; a reader ignores the fields that it does not know.",
        "These fields of `data` are in every event:",
        _table(COMMON),
        *(part for name, kind in KINDS.items() for part in _kind(name, kind)),
    )


def _envelope() -> list[tuple[str, str]]:
    return [
        (code("specversion"), "`1.0`"),
        (
            code("id"),
            "32 hexadecimal digits. The same picture has the same id, whichever way and however often it came",
        ),
        (code("source"), f"`{SOURCE_PREFIX}` and the account's name in the configuration"),
        (code("type"), f"`{TYPE_PREFIX}` and the kind"),
        (code("subject"), "the stream's id, without control characters; null where there is none"),
        (code("time"), "when it happened; `received_at` where nothing says"),
        (code("data"), "the fields listed below"),
    ]


def _kind(name: str, kind: Kind) -> list[str]:
    shown = json.dumps(json.loads(example(name).encoded), indent=2, ensure_ascii=False)
    return [
        f"## `{TYPE_PREFIX}{name}`",
        kind.about,
        _table(kind.fields) if kind.fields else "It has no fields of its own.",
        block("json", shown),
    ]


def _table(fields: Mapping[str, Field]) -> str:
    rows = (
        (code(name), _type(field), plain(field.says).replace("\\_", "_")) for name, field in fields.items()
    )
    return table(("field", "type", "what it is"), rows)


def _type(field: Field) -> str:
    words = ", may be absent" if field.optional else ""
    if "enum" in field.schema:
        return "one of " + ", ".join(map(code, field.schema["enum"])) + words
    if "anyOf" in field.schema:
        return "text, number, a list of them, or null" + words
    kinds = field.schema["type"]
    names = {"string": "text", "integer": "whole number"}
    if field.schema.get("format") == "date-time":
        names["string"] = "time"
    return " or ".join(names.get(one, one) for one in ([kinds] if isinstance(kinds, str) else kinds)) + words


def example(name: str) -> Event:
    """An event of a kind, made by the program from the platform's message."""
    if name == FOUND:
        return _gap()
    line = json.dumps(KINDS[name].sample)
    named = max(int(digits) for digits in re.findall(r"(?<![0-9])1[0-9]{9}(?![0-9])", line))
    received = datetime.fromtimestamp(named + SOON, UTC)
    read = screenshot_event if name == "screenshot" else notification_event
    return read(line.encode(), account="main", picture_base=BASE, received_at=received)


def _gap() -> Event:
    """The gap that three missing pictures leave."""
    auditor = Auditor(lambda account: 60.0)
    for offset in (10, 20, 30, 70, 80, 90, 100):
        at = datetime.fromtimestamp(1471850187 + offset + 1, UTC)
        line = b'{"pic_url":"room-7_1471850187_1471850187_%d_300_169.jpg"}' % offset
        auditor.take(screenshot_event(line, account="main", picture_base=BASE, received_at=at))
    now = at.timestamp() + 60
    (gap,) = auditor.judge(now)
    return gap_event(gap, datetime.fromtimestamp(now, UTC))


# ---------------------------------------------------------------- the schema


def events_schema() -> str:
    """The schema of an event: the envelope, and for each kind its `data`."""
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of live-screenshot-poller",
        "description": "A CloudEvents 1.0 JSON object. A kind that is not listed here is an event all the same.",
        "allOf": [{"$ref": "#/$defs/event"}, *(_only_for(name) for name in KINDS)],
        "$defs": {"event": _event(), **{name: _data(kind.fields) for name, kind in KINDS.items()}},
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _only_for(name: str) -> Schema:
    return {
        "if": {"properties": {"type": {"const": TYPE_PREFIX + name}}, "required": ["type"]},
        "then": {"properties": {"data": {"$ref": f"#/$defs/{name}"}}},
    }


def _event() -> Schema:
    members: dict[str, Any] = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "source": {"type": "string", "pattern": f"^{SOURCE_PREFIX}"},
        "type": {"type": "string", "pattern": f"^{TYPE_PREFIX.replace('.', '[.]')}[a-z][a-z0-9_]*$"},
        "subject": {"type": ["string", "null"]},
        "time": MOMENT,
        "data": _data({}),
    }
    return {"type": "object", "properties": members, "required": list(members)}


def _data(fields: Mapping[str, Field]) -> Schema:
    whole = {**COMMON, **fields}
    return {
        "type": "object",
        "properties": {name: {**field.schema, "description": field.says} for name, field in whole.items()},
        "required": [name for name, field in whole.items() if not field.optional],
    }
