"""What the postgres spool understands of the words and codes of a server."""

from types import SimpleNamespace
from typing import Any

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


def test_a_standby_is_called_one() -> None:
    error = asyncpg.exceptions.TargetServerAttributeNotMatched("None of the hosts match")
    assert "it is a standby" in str(storage_error("spool", error))


@pytest.mark.parametrize(
    "hosts", ["one:5432,,two", "one,", ",one", "127.0.0.1:65536", "127.0.0.1:port,127.0.0.1:9", "[::1,two"]
)
async def test_an_address_that_names_no_server_is_refused_without_its_password(hosts: str) -> None:
    with pytest.raises(StorageError) as refused:
        await connect(Address("spool", f"postgresql://poller:never-show-this@{hosts}/live", "poller"))
    assert not isinstance(refused.value, StorageAway)
    assert "the dsn cannot be read" in str(refused.value)
    assert "never-show-this" not in str(refused.value)
