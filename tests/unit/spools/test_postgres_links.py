"""What the postgres spool understands of the words and codes of a server."""

import errno
import socket
import ssl
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from poller.core.errors import StorageError
from poller.spools.postgres.links import Address, EndedWaits, StorageAway, connect, storage_error


def test_a_cancelled_wait_is_noticed_whatever_language_the_server_speaks() -> None:
    heard: list[Any] = []
    waits = EndedWaits(SimpleNamespace(add_log_listener=heard.append))
    message = SimpleNamespace(
        severity="WARNUNG",
        message="storniere Warten auf synchrone Replikation wegen Benutzeraufforderung",
        server_source_function="SyncRepWaitForLSN",
    )
    heard[0](None, message)
    assert waits.take()
    assert not waits.take()


def test_another_warning_of_the_server_ends_no_wait() -> None:
    heard: list[Any] = []
    waits = EndedWaits(SimpleNamespace(add_log_listener=heard.append))
    heard[0](None, SimpleNamespace(message="vacuum it", server_source_function="GetNewTransactionId"))
    heard[0](None, SimpleNamespace(message="of a server that names no function"))
    assert not waits.take()


@pytest.mark.parametrize("code", ["25P03", "25P04", "57P05", "40001", "53300"])
def test_an_error_that_passes_ends_no_daemon(code: str) -> None:
    error = type("Passing", (asyncpg.PostgresError,), {})("words of the server")
    error.sqlstate = code
    assert isinstance(storage_error("spool", error), StorageAway)


READ_ONLY: Final = asyncpg.exceptions.TargetServerAttributeNotMatched("None of the hosts match")
WHY: Final = {
    "Connection refused": ConnectionRefusedError(
        errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 5433)"
    ),
    "Name or service not known": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    "no answer within 5 s": TimeoutError(),
    "takes no writes: it is a standby, or read-only by a setting": READ_ONLY,
    "has no TLS, which sslmode asks for": ConnectionError("PostgreSQL server at 'x' rejected SSL upgrade"),
    "the connection broke": ConnectionResetError(),
    "TLS fails": ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"),
    "the connection to the database is lost": asyncpg.InternalClientError("unexpected data"),
}


async def failure_of(monkeypatch: pytest.MonkeyPatch, errors: Mapping[str, Exception]) -> StorageError:
    """The error of a connection to servers that fail, each by its name."""

    async def fail(dsn: str, **settings: object) -> None:
        raise errors[urlsplit(dsn).netloc.rpartition("@")[2]]

    monkeypatch.setattr(asyncpg, "connect", fail)
    dsn = f"postgresql://poller:never-show-this@{','.join(errors)}/live"
    with pytest.raises(StorageError) as failure:
        await connect(Address("spool", dsn, "poller"))
    assert "never-show-this" not in str(failure.value)
    return failure.value


@pytest.mark.parametrize("why", WHY)
async def test_a_server_that_cannot_be_reached_is_named_with_the_reason(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = await failure_of(monkeypatch, {"db1.example.com": WHY[why]})
    assert str(failure) == f"spool: cannot connect to the database: db1.example.com:5432: {why}"
    assert isinstance(failure, StorageAway)


async def test_of_several_servers_each_is_named_with_its_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"db1:5433": WHY["Connection refused"], "db2": READ_ONLY, "[::1]:5434": TimeoutError()}
    assert str(await failure_of(monkeypatch, errors)) == (
        "spool: cannot connect to the database: db1:5433: Connection refused; db2:5432: takes no writes: it is a "
        "standby, or read-only by a setting; [::1]:5434: no answer within 5 s"
    )


async def test_a_login_that_is_refused_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = asyncpg.InvalidPasswordError('password authentication failed for user "poller"')
    failure = await failure_of(monkeypatch, {"db1": WHY["Connection refused"], "db2": refused})
    assert "db2:5432: password authentication failed" in str(failure)
    assert not isinstance(failure, StorageAway)


@pytest.mark.parametrize(
    "hosts", ["one:5432,,two", "one,", ",one", "127.0.0.1:65536", "127.0.0.1:port,127.0.0.1:9", "[::1,two"]
)
async def test_an_address_that_names_no_server_is_refused_without_its_password(hosts: str) -> None:
    with pytest.raises(StorageError) as refused:
        await connect(Address("spool", f"postgresql://poller:never-show-this@{hosts}/live", "poller"))
    assert not isinstance(refused.value, StorageAway)
    assert "the dsn cannot be read" in str(refused.value)
    assert "never-show-this" not in str(refused.value)
