"""What the server's answers and the errors of the library mean."""

from collections.abc import Mapping
from typing import Final

import msgspec
import nats.errors
import nats.js.errors

from poller.core.errors import Rejected, SinkError, TryLater
from poller.sinks.servers import LOGIN_REFUSED, unreachable

FULL: Final = frozenset({10023, 10047, 10077})
"""Error codes of a stream or server without room: insufficient resources, storage exceeded, maximum exceeded."""
NO_STREAM: Final = -1
"""Stands for an answer without a body: nobody listens to the subject."""
TOO_LARGE: Final = 10054
"""The error code of a message that is larger than the stream allows."""
OTHER_STREAM: Final = 10060
"""The error code of a message that is meant for another stream. The check asks for it: the message is not stored."""


class Refused(msgspec.Struct, frozen=True):
    """Why the server refuses a message."""

    err_code: int = 0


class Confirmation(msgspec.Struct, frozen=True):
    """The server's answer to a message (`PubAck`), or its refusal."""

    stream: str = ""
    error: Refused | None = None


def translate(error: BaseException) -> SinkError:
    """The error of a connection or a question. A text of the library may hold a password, and is not passed on."""
    if isinstance(error, nats.js.errors.APIError):
        return refusal(error.err_code or 0)
    if "authorization" in str(error).lower():  # the library has no class of its own for it
        return TryLater(LOGIN_REFUSED)
    known = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), type(error).__name__)
    return TryLater(unreachable(error) if isinstance(error, OSError) else known)


def refusal(code: int) -> SinkError:
    """The error for a code of the server's."""
    if code == TOO_LARGE:
        return Rejected("the message is larger than the stream allows")
    if code == NO_STREAM:
        return TryLater("no stream takes the subject")
    return TryLater("the stream is full" if code in FULL else f"refused by the stream (error {code})")


def code_of(confirmation: Confirmation) -> int:
    """The code of a refusal; 0 for none."""
    return 0 if confirmation.error is None else confirmation.error.err_code


read_confirmation: Final = msgspec.json.Decoder(Confirmation).decode
NOBODY_LISTENS: Final = Confirmation(error=Refused(err_code=NO_STREAM))
_REASONS: Final[Mapping[type[BaseException], str]] = {
    nats.errors.NoServersError: "no server answers",
    nats.errors.ConnectionClosedError: "connection closed",
}
