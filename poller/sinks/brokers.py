"""What sinks to message brokers share: the CloudEvents modes, names by template, and the failures of a batch."""

import re
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import AfterValidator

from poller.core.errors import PartlyFailed, SinkError, TryLater
from poller.core.model import Batch, Event
from poller.settings import wrong

Mode = Literal["structured", "binary"]
MODE_DESCRIPTION: Final = (
    "structured: the message is the event as CloudEvents JSON. "
    "binary: the message is its data, and the rest is in headers."
)
STRUCTURED: Final = "application/cloudevents+json"
DATA: Final = "application/json"
FIELDS: Final = ("account", "kind", "stream")


class _Public(msgspec.Struct, frozen=True, gc=False):
    """The parts of an event's public form."""

    id: str
    source: str
    type: str
    time: str
    data: msgspec.Raw
    specversion: str = "1.0"
    subject: str | None = None


_read = msgspec.json.Decoder(_Public).decode


def attributes(event: Event) -> tuple[dict[str, str], bytes]:
    """The CloudEvents attributes of an event, without the content type, and its data as JSON."""
    public = _read(event.encoded)
    found = {
        "specversion": public.specversion,
        "id": public.id,
        "source": public.source,
        "type": public.type,
        "time": public.time,
    }
    if public.subject is not None:
        found["subject"] = public.subject
    return found, bytes(public.data)


def header_value(text: str) -> str:
    """A value for a header that takes only printable ASCII, percent-encoded as the CloudEvents HTTP binding does."""
    return quote(text, safe=_PLAIN)


_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def messages(events: Sequence[Event], mode: Mode, prefix: str) -> list[tuple[Mapping[str, str], bytes]]:
    """Headers and body of the message for each event. In binary mode, `prefix` begins the name of a header."""
    if mode == "structured":
        headers = {"content-type": STRUCTURED}
        return [(headers, event.encoded) for event in events]
    found: list[tuple[Mapping[str, str], bytes]] = []
    for event in events:
        named, data = attributes(event)
        found.append(
            ({"content-type": DATA, **{prefix + name: value for name, value in named.items()}}, data)
        )
    return found


# ---------------------------------------------------------------- names by template


def _template(text: str) -> str:
    try:
        fields = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError:
        raise wrong("a brace stands for a field, such as {stream}") from None
    if any(form or conversion for _, _, form, conversion in fields):
        raise wrong("a field is written {stream}, without : or !")
    if unknown := [name for _, name, _, _ in fields if name not in FIELDS]:
        raise wrong(f"{{{unknown[0]}}} is no field: there are {', '.join(f'{{{name}}}' for name in FIELDS)}")
    return text


Template = Annotated[str, AfterValidator(_template)]
"""A name with `{account}`, `{kind}` and `{stream}`."""


def any_name(template: str) -> str:
    """A name that the template could give: each field is `_`."""
    return re.sub(r"\{\w+\}", "_", template)


def fill_in(template: str, event: Event, unsafe: re.Pattern[str]) -> str:
    """The name for an event. Characters that match `unsafe` in its fields become `_`, and an empty field is `_`."""
    stream = event.stream_id if "{stream" in template else ""
    return _fill_in(template, event.account, event.kind, stream, unsafe)


@lru_cache(maxsize=4096)
def _fill_in(template: str, account: str, kind: str, stream: str, unsafe: re.Pattern[str]) -> str:
    fields = {"account": account, "kind": kind, "stream": stream}
    return template.format_map({name: unsafe.sub("_", value) or "_" for name, value in fields.items()})


# ---------------------------------------------------------------- failures


def raise_for(batch: Batch, failures: Mapping[str, SinkError]) -> None:
    """Raise what a batch's failures, by the event's id, amount to.

    If no event could be delivered for now, the batch has failed as a whole, so that a sink that is down is paused. Its
    reason is then that of each event, if they differ.
    """
    if len(failures) == len(batch.events) == 1:
        raise next(iter(failures.values()))
    if len(failures) == len(batch.events) and all(isinstance(one, TryLater) for one in failures.values()):
        raise TryLater("; ".join(dict.fromkeys(one.reason for one in failures.values())))
    if failures:
        raise PartlyFailed(failures)
