"""Why a server is not reached."""

import socket
from ssl import SSLError

import pytest

from poller.sinks.servers import unreachable


def because(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "refused"), "no server answers"),
        (socket.gaierror(-2, "unknown"), "no server answers"),
        (TimeoutError(), "no answer in time"),
        (SSLError(1, "certificate verify failed"), "TLS fails: check the certificates"),
        (
            because(ValueError("of a library, with a password"), SSLError(1, "no")),
            "TLS fails: check the certificates",
        ),
        (because(ValueError("of a library, with a password"), OSError(111, "no")), "no server answers"),
        (ValueError("of a library, with a password"), "connection lost"),
    ],
)
def test_the_reason_for_an_unreachable_server_holds_nothing_of_a_librarys_text(
    error: Exception, told: str
) -> None:
    assert unreachable(error) == told
