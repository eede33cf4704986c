"""What is said on the control socket: one JSON line asks, JSON lines answer.

Each line of an answer is `{"row": {...}}`, or last of all `{"end": true}` or `{"error": "..."}`; an empty one says
that the work goes on.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from poller.core.errors import PollerError
from poller.core.model import EVERYTHING, Filter

LARGEST_REQUEST = 1 << 20
MOST_ROWS = 10_000

Row = dict[str, object]
"""One object of an answer; the command line prints it as it is with `--json`."""


class ControlError(PollerError):
    """What was asked cannot be done; the text says why."""


class Verb(StrEnum):
    """What can be asked."""

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


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question or order. `sink` is what `pause` and `resume` are about, `limit` bounds a list; `dry` only asks what
    `reload` would do."""

    verb: Verb
    chosen: Filter = EVERYTHING
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
"""What `read_request` raises: its texts are about the form, and hold nothing of what was sent."""
read_reply_line = msgspec.json.Decoder(ReplyLine).decode
