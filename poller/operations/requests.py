"""The messages on the control socket: the request is one JSON line, the answer is several.

Each line of an answer is `{"row": {...}}`. The last line is `{"end": true}` or `{"error": "..."}`. An empty line means
that the work is still going on.
"""

from collections.abc import AsyncGenerator
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from poller.core.errors import PollerError
from poller.core.model import EVERYTHING, LARGEST_NUMBER, Filter
from poller.core.selection import ALL_EVENTS, Aware, Selection

LARGEST_REQUEST = 1 << 20
MOST_ROWS = 10_000
NO_EVENT: Final = msgspec.Raw(b"")

Row = dict[str, object]
"""One object of an answer. With `--json`, the command line prints it unchanged."""
Rows = AsyncGenerator[Row | None, None]
"""An answer as it is made. None means that the work is still going on."""


class ControlError(PollerError):
    """The request cannot be carried out; the text says why."""


class NotKnown(ControlError):
    """The request names an account or a stream that does not exist."""


class CountChanged(ControlError):
    """Another number of entries matches than the request expects. Nothing was changed."""

    def __init__(self, reason: str, *, count: int) -> None:
        super().__init__(reason)
        self.count = count


class Verb(StrEnum):
    """The operator's commands."""

    STATUS = "status"
    RELOAD = "reload"
    PAUSE = "pause"
    RESUME = "resume"
    DEAD_LIST = "dead list"
    DEAD_SHOW = "dead show"
    DEAD_RETRY = "dead retry"
    DEAD_PURGE = "dead purge"
    QUARANTINE_LIST = "quarantine list"
    QUARANTINE_SHOW = "quarantine show"
    QUARANTINE_RETRY = "quarantine retry"
    QUARANTINE_PURGE = "quarantine purge"
    REPLAY = "replay"
    REPLAYS = "replays"
    REPLAYS_PAUSE = "replays pause"
    REPLAYS_RESUME = "replays resume"
    REPLAYS_CANCEL = "replays cancel"
    EVENTS = "events"
    FIND = "find"
    LATEST = "latest"
    STREAMS = "streams"
    TAP = "tap"
    TOP = "top"
    TRACE = "trace"
    PAGES = "pages"
    AUDIT = "audit"
    BACKFILL = "backfill"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command.

    `selection` selects events; `chosen` selects dead letters or rejects. `sink` is for `pause`, `resume` and `replay`;
    `limit` is the most rows of a list. With `dry`, `reload` changes nothing and returns what it would do, and `replay`
    only counts.

    below:          `replay` looks at numbers below this one only
    expect:         `replay`, `retry` and `purge` do nothing unless this is the number of what matches
    number:         the number of a replay
    at:             the time that `find` looks for
    start:          the number from which on `tap` reports events, None for those that come from now on; with `onwards`
                    that from which on `events` does, None for the oldest
    sinks, streams: `tap` reports only events that one of these sinks wants, and events of these streams
    state:          `streams` lists only streams in this state, or that need attention for this reason
    onwards:        `events` reports the oldest `limit` events from `start` on, instead of the newest
    event:          the id or the file name that `trace` is about; else `at` and the stream of `selection` name it
    """

    verb: Verb
    chosen: Filter = EVERYTHING
    selection: Selection = ALL_EVENTS
    limit: Annotated[int, msgspec.Meta(ge=0, le=MOST_ROWS)] = 100
    sink: str = ""
    dry: bool = False
    expect: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)] | None = None
    below: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)] | None = None
    number: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)] = 0
    at: Aware | None = None
    start: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)] | None = None
    sinks: frozenset[str] = frozenset()
    streams: frozenset[str] = frozenset()
    state: str | None = None
    onwards: bool = False
    event: str = ""


class ReplyLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an answer."""

    row: Row | None = None
    end: bool = False
    error: str | None = None


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `events` and `tap`, without a copy of the event's bytes.

    number, event: an event as its sinks get it, with its number in the log; 0 and empty for any other row
    head:          the number that the next event gets; a tap begins there
    following:     the `start` that continues an answer to `onwards`; 0 at the end of the log
    more:          whether older events that match were left out
    missed:        how many events were deleted, or could not be read, before they could be reported
    """

    number: int = 0
    event: msgspec.Raw = NO_EVENT
    head: int = 0
    following: int = 0
    more: bool = False
    missed: int = 0


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the answer to `events` or `tap`."""

    row: EventRow | None = None
    end: bool = False
    error: str | None = None


encode = msgspec.json.Encoder().encode
read_request = msgspec.json.Decoder(Request).decode
NOT_A_REQUEST: Final = (ValueError, RecursionError, msgspec.DecodeError)
"""The exceptions of `read_request`. Their texts describe the form only, and contain no part of the request."""
read_reply_line = msgspec.json.Decoder(ReplyLine).decode
read_event_line = msgspec.json.Decoder(EventLine).decode
