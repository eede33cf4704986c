"""The records that all parts share: pages, parsed pages, events, batches, outcomes, dead letters."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

TYPE_PREFIX = "com.qcloud.live."
SOURCE_PREFIX = "/qcloud/live/"
KINDS: Final = frozenset(
    {
        "screenshot",
        "recording",
        "channel",
        "moderation",
        "recording_status",
        "push_exception",
        "other",
        "gap",
    }
)
"""The kinds of event that the program's own sources and the audit give. A plug-in may give others."""
LARGEST_NUMBER: Final = 2**63 - 1
"""The largest number of a dead letter or a reject."""
_COMMON = frozenset({"stream_id", "url", "received_at", "message"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


# ---------------------------------------------------------------- in: pages and readings


class RawPage(msgspec.Struct, frozen=True, kw_only=True):
    """One answer or push as it came, not decoded.

    source:      the name of the source in the configuration
    received_at: aware UTC
    status:      the HTTP status; 0 if the headers did not arrive
    encoding:    the Content-Encoding; empty for none
    whole:       false if the answer was cut or too long; its whole messages still count
    about:       the subject of the request, such as a channel; empty for a source with one subject
    odd:         what is unusual about the head or the framing; empty for an ordinary answer
    """

    source: str
    received_at: datetime
    status: int
    encoding: str
    whole: bool
    body: bytes
    about: str = ""
    odd: str = ""


class PollOutcome(StrEnum):
    """The result of a poll. The values are labels of a metric."""

    FULL = "full"
    PARTIAL = "partial"
    EMPTY = "empty"
    REFUSED = "refused"
    THROTTLED = "throttled"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


class PushOutcome(StrEnum):
    """The result of a push. The values are labels of a metric.

    `known` was accepted before. `refused_signature` was not signed, signed wrongly, or signed for another time.
    `unavailable` could not be committed, so its sender has to repeat it.
    """

    ACCEPTED = "accepted"
    KNOWN = "known"
    REFUSED_SIGNATURE = "refused_signature"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


ERROR_PAGE = "error page"
"""The beginning of a reject's reason if the reject is an error page, which holds no message."""


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that could not be parsed, and the reason. They go to quarantine."""

    received_at: datetime
    reason: str
    encoding: str
    body: bytes


class ParsedPage(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one page.

    detail:      the platform's own words for an outcome that is not good, redacted, for the log
    expired:     the platform called the signature expired; the next poll follows at once, one time
    blank:       the answer held neither a message nor an error of the platform: a middle box replaced it
    memory:      the state of the source after this page, for the subject `about`; committed with the events
    provisional: nothing proves the content of these events; the same event from another page corrects it
    kept_as:     the number of the page in the journal; 0 if the journal does not hold it
    asked_at:    when the poll was sent (UTC), set by the intake; None for a push, and for a page of the journal
    """

    events: tuple["Event", ...]
    rejects: tuple[Reject, ...]
    outcome: PollOutcome
    detail: str = ""
    expired: bool = False
    blank: bool = False
    memory: bytes = b""
    about: str = ""
    provisional: bool = False
    kept_as: int = 0
    asked_at: datetime | None = None


# ---------------------------------------------------------------- events


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that happened on the platform.

    id:          32 hex digits; the same thing has the same id, whichever way and however often it is reported
    kind:        such as `screenshot`: the CloudEvents type without `com.qcloud.live.`
    account:     the account's name in the configuration
    stream_id:   the stream it belongs to; empty for none
    occurred_at: aware UTC; falls back to `received_at` where nothing says better
    received_at: aware UTC; when it arrived here
    url:         the URL of the picture or the recording; None where there is none
    encoded:     the public form, made once: one CloudEvents 1.0 JSON object in UTF-8, without a newline

    `fields` and `message` are read from `encoded`.
    """

    id: str
    kind: str
    account: str
    stream_id: str
    occurred_at: datetime
    received_at: datetime
    url: str | None
    encoded: bytes

    @property
    def ids(self) -> tuple[str, ...]:
        """The id, and for a recording also the id that its `vid` alone gives: it may have come under that id before."""
        vid = self.fields.get("vid") if self.kind == "recording" else None
        if not isinstance(vid, str) or not vid:
            return (self.id,)
        return tuple(dict.fromkeys((self.id, identity(self.kind, self.account, vid))))

    @property
    def fields(self) -> dict[str, object]:
        """The fields of this kind (`file_name`, `width`, … of a screenshot), decoded from JSON at each call."""
        parts = _parts.decode(self.encoded).data
        return {name: msgspec.json.decode(raw) for name, raw in parts.items() if name not in _COMMON}

    @property
    def stream(self) -> tuple[str, str] | None:
        """The stream of the event, as account and stream id; None for an event without a stream."""
        return (self.account, self.stream_id) if self.stream_id else None

    @property
    def message(self) -> bytes:
        """The platform's JSON object as it came, with push secrets masked."""
        return bytes(_parts.decode(self.encoded).data["message"])


def identity(kind: str, account: str, key: str) -> str:
    """An event's id: 32 hex digits, BLAKE2b-128 of kind, account and what fixes the event (its path)."""
    text = f"{kind}\0{account}\0{key}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def new_event(
    *,
    id: str,
    kind: str,
    account: str,
    stream_id: str,
    occurred_at: datetime | None,
    received_at: datetime,
    url: str | None,
    fields: Mapping[str, object],
    message: msgspec.Raw,
) -> Event:
    """Build an event and its public form; `message` is one valid JSON value without a newline."""
    when = occurred_at or received_at
    data: dict[str, object] = {"stream_id": stream_id, "url": url, "received_at": received_at, **fields}
    data["message"] = message
    public = _Public(
        id=id,
        source=SOURCE_PREFIX + account,
        type=TYPE_PREFIX + kind,
        subject=_CONTROL.sub(" ", stream_id) or None,
        time=when,
        data=data,
    )
    return Event(
        id=id,
        kind=kind,
        account=account,
        stream_id=stream_id,
        occurred_at=when,
        received_at=received_at,
        url=url,
        encoded=_encoder.encode(public),
    )


def with_url(event: Event, url: str | None) -> Event:
    """Return the event with another URL. The rest of its public form stays the same, byte for byte."""
    if url == event.url:
        return event
    encoded = _with_data(event.encoded, url=_encoder.encode(url))
    return msgspec.structs.replace(event, url=url, encoded=encoded)


def unchanged(event: Event) -> Event:
    """The event itself."""
    return event


def parse_event(encoded: bytes) -> Event:
    """Parse an event from its public form; raises `msgspec.DecodeError`."""
    public = _decoder.decode(encoded)
    return Event(
        id=public.id,
        kind=public.type.removeprefix(TYPE_PREFIX),
        account=public.source.removeprefix(SOURCE_PREFIX),
        stream_id=public.data.stream_id,
        occurred_at=public.time,
        received_at=public.data.received_at,
        url=public.data.url,
        encoded=encoded,
    )


def corrected(event: Event, by: Event) -> Event:
    """The event with the URL and the message of a later report of it; the event itself if the URLs are equal.

    Its id, time and stream stay, and so does its place in the log and in the order of its stream.
    """
    if event.url == by.url:
        return event
    encoded = _with_data(event.encoded, url=_encoder.encode(by.url), message=by.message)
    return msgspec.structs.replace(event, url=by.url, encoded=encoded)


def _with_data(encoded: bytes, **members: bytes) -> bytes:
    """A public form with other members in its data, given as JSON. The rest stays the same, byte for byte."""
    public = _members(encoded)
    data = _members(public["data"]) | {name: msgspec.Raw(value) for name, value in members.items()}
    return _encoder.encode({**public, "data": data})


class _Public(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="specversion", tag="1.0"):
    id: str
    source: str
    type: str
    subject: str | None
    time: datetime
    data: dict[str, object]


class _Common(msgspec.Struct, frozen=True, gc=False):
    stream_id: str
    url: str | None
    received_at: Annotated[datetime, msgspec.Meta(tz=True)]


class _Published(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="specversion", tag="1.0"):
    id: str
    source: str
    type: str
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    data: _Common


class _Parts(msgspec.Struct, frozen=True, gc=False):
    data: dict[str, msgspec.Raw]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Published)
_parts = msgspec.json.Decoder(_Parts)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


# ---------------------------------------------------------------- out: batches and outcomes


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events that are delivered to one sink together, in their order.

    Where all members failed alike, the retry carries the same members under the same `id`.

    id:               the own id of a single event, else a hash of the ids of all members (32 hex digits)
    sink:             the name of the sink in the configuration
    events:           one or more; those of a backlog are no tuple, and are decoded when one of them is looked at
    attempt:          counts from 1, without the attempts that only asked for a wait
    first_attempt_at: aware UTC; None before the first attempt
    ticket:           belongs to the spool that gave the batch out
    traceparent:      the W3C trace context of this attempt, for the receiver; empty where nothing is traced
    """

    id: str
    sink: str
    events: Sequence[Event]
    attempt: int = 1
    first_attempt_at: datetime | None = None
    ticket: object = None
    traceparent: str = ""


def batch_id(event_ids: list[str]) -> str:
    """The id of a batch with these members in this order. It holds no dot, as Standard Webhooks demands."""
    if len(event_ids) == 1:
        return event_ids[0]
    return hashlib.blake2b("".join(event_ids).encode(), digest_size=16).hexdigest()


class Done(msgspec.Struct, frozen=True):
    """Delivered."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Deliver again after this many seconds. `counted` is false if the sink only asked for a wait."""

    after: float
    reason: str
    counted: bool = True


class Dead(msgspec.Struct, frozen=True, kw_only=True):
    """Give up: the event becomes a dead letter, which is kept for the operator."""

    reason: str


Outcome = Done | Retry | Dead


class Attempt(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One failed attempt: its time, and the reason."""

    at: Annotated[datetime, msgspec.Meta(tz=True)]
    reason: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that one sink will not get, with its last ten attempts, oldest first.

    `number` is given by the spool, grows, and is never used again; 0 before it is stored.
    """

    event: Event
    sink: str
    attempts: int
    first_attempt_at: datetime
    died_at: datetime
    reason: str
    history: tuple[Attempt, ...]
    number: int = 0


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A reject in quarantine. `number` is given by the spool, grows, and is never used again."""

    number: int
    source: str
    reject: Reject


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects dead letters, or rejects in quarantine. A field that is None does not restrict.

    of:            the sink of a dead letter, or the source of a reject
    reason:        a part of the reason
    stream:        the stream id of a dead letter
    ids:           event ids, or numbers of rejects in decimal digits
    before, since: the time at which a dead letter died or a reject was received
    below:         the number at which to continue a list

    The bounds also hold for requests on the control socket, so that an engine can compare every value.
    """

    of: str | None = None
    reason: str | None = None
    stream: str | None = None
    ids: frozenset[str] | None = None
    before: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    below: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)] | None = None

    def letter(self, letter: DeadLetter) -> bool:
        """Whether this dead letter is selected."""
        if self.stream is not None and letter.event.stream_id != self.stream:
            return False
        return self._takes(letter.number, letter.sink, letter.event.id, letter.died_at, letter.reason)

    def reject(self, kept: Quarantined) -> bool:
        """Whether this reject is selected. `stream` is ignored."""
        reject = kept.reject
        return self._takes(kept.number, kept.source, str(kept.number), reject.received_at, reject.reason)

    def _takes(self, number: int, of: str, id: str, at: datetime, reason: str) -> bool:
        return (
            (self.of is None or self.of == of)
            and (self.ids is None or id in self.ids)
            and (self.reason is None or self.reason in reason)
            and (self.before is None or at < self.before)
            and (self.since is None or at >= self.since)
            and (self.below is None or number < self.below)
        )


EVERYTHING = Filter()


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """The pending events of one sink: those not yet settled, retries included.

    `oldest` is when the oldest of them was received; None if there is none. Replayed events that are queued and not
    settled are counted in `replaying` only.
    """

    events: int
    retrying: int
    dead: int
    oldest: datetime | None
    replaying: int = 0


def in_order(events: Sequence[Event], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of a batch for an ordered sink: behind a retry, every later event of the same stream is retried too.

    So the settled events of a stream are always the first ones. An event that was refused behind a retry is attempted
    again.
    """
    if Retry not in set(map(type, outcomes)):
        return list(outcomes)
    waits: dict[tuple[str, str], Retry] = {}
    kept: list[Outcome] = []
    for event, outcome in zip(events, outcomes, strict=True):
        stream = event.stream
        if stream is None:
            kept.append(outcome)
            continue
        if isinstance(outcome, Retry):
            waits.setdefault(stream, outcome)
        kept.append(waits.get(stream, outcome))
    return kept
