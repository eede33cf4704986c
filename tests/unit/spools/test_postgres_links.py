"""What the postgres spool understands of the words and codes of a server."""

import asyncpg
import pytest

from poller.core.errors import StorageError
from poller.spools.postgres.links import StorageAway, connect, storage_error


def test_a_standby_is_called_one() -> None:
    error = asyncpg.exceptions.TargetServerAttributeNotMatched("None of the hosts match")
    assert "it is a standby" in str(storage_error("spool", error))


@pytest.mark.parametrize(
    "hosts", ["one:5432,,two", "one,", ",one", "127.0.0.1:65536", "127.0.0.1:port,127.0.0.1:9", "[::1,two"]
)
async def test_an_address_that_names_no_server_is_refused_without_its_password(hosts: str) -> None:
    with pytest.raises(StorageError) as refused:
        await connect("spool", f"postgresql://poller:never-show-this@{hosts}/live", "poller")
    assert not isinstance(refused.value, StorageAway)
    assert "the dsn cannot be read" in str(refused.value)
    assert "never-show-this" not in str(refused.value)
