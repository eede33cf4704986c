"""What the errors of the library mean."""

from collections.abc import Mapping
from ssl import SSLError
from typing import Final

from aiormq import exceptions as errors

from poller.core.errors import TryLater
from poller.sinks.servers import LOGIN_REFUSED


def translate(error: BaseException) -> TryLater:
    """What an operator may know of an error. Texts of the library may hold a URL with the password."""
    if isinstance(error, errors.AMQPConnectionError) and isinstance(error.__cause__, SSLError):
        error = error.__cause__
    text = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), type(error).__name__)
    return TryLater(text)


_REASONS: Final[Mapping[type[BaseException], str]] = {  # special classes first
    errors.PublishError: "no queue takes the routing key",
    errors.DeliveryError: "a queue refuses the message: it is full, or has failed",
    errors.ChannelNotFoundEntity: "there is no such exchange",
    errors.ChannelAccessRefused: "this user may not write to the exchange",
    errors.ProbableAuthenticationError: LOGIN_REFUSED,
    errors.AuthenticationError: LOGIN_REFUSED,
    errors.InvalidFrameError: "the server refuses the virtual host",  # it closes instead of opening
    errors.ChannelClosed: "channel closed before the confirmation",
    errors.ChannelInvalidStateError: "connection lost before the confirmation",
    errors.ConnectionClosed: "connection lost before the confirmation",
    SSLError: "TLS fails: check the certificates",
    TimeoutError: "no answer in time",
    OSError: "no server answers",
}
