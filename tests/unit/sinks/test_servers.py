"""What sinks that connect to a server share: their settings, and why a server is not reached."""

import socket
from pathlib import Path
from ssl import SSLError

import pytest

from poller.sinks.servers import ServerSettings, unreachable


def test_a_password_is_given_once_as_text_or_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("of-the-file\n")
    given: list[dict[str, object]] = [{}, {"password": "of-the-text"}, {"password_file": file}]
    found = [ServerSettings.model_validate({"type": "any", **one}).secret for one in given]
    assert found == [None, "of-the-text", "of-the-file"]
    with pytest.raises(ValueError, match="does not go with password: remove one"):
        ServerSettings.model_validate({"type": "any", "password": "p", "password_file": file})


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
