"""The messages on the control socket: the request is one JSON line, the answer is several.

Each line of an answer is `{"row": {...}}`. The last line is `{"end": true}` or `{"error": "..."}`. An empty line means
that the work is still going on.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from poller.core.errors import PollerError
from poller.core.model import EVERYTHING, Filter
from poller.core.selection import ALL_EVENTS, Selection

LARGEST_REQUEST = 1 << 20
MOST_ROWS = 10_000

Row = dict[str, object]
"""One object of an answer. With `--json`, the command line prints it unchanged."""


class ControlError(PollerError):
    """The request cannot be carried out; the text says why."""


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
    BACKFILL = "backfill"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command.

    `selection` selects events; `chosen` selects dead letters or rejects. `sink` is for `pause` and `resume`; `limit` is
    the most rows of a list. With `dry`, `reload` changes nothing and returns what it would do.
    """

    verb: Verb
    chosen: Filter = EVERYTHING
    selection: Selection = ALL_EVENTS
    limit: Annotated[int, msgspec.Meta(ge=0, le=MOST_ROWS)] = 100
    sink: str = ""
    dry: bool = False


class ReplyLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an answer."""

    row: Row | None = None
    end: bool = False
    error: str | None = None


encode = msgspec.json.Encoder().encode
read_request = msgspec.json.Decoder(Request).decode
NOT_A_REQUEST: Final = (ValueError, RecursionError, msgspec.DecodeError)
"""The exceptions of `read_request`. Their texts describe the form only, and contain no part of the request."""
read_reply_line = msgspec.json.Decoder(ReplyLine).decode
