"""The dsn of a spool in PostgreSQL: what is taken. What is refused stands among the bad configurations."""

import pytest

from poller.spools.postgres.settings import PostgresSettings


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://poller:p%40ss%2Fw:rd@db1.example.com:5432/poller",
        "postgres://poller@db1.example.com:5432,db2.example.com,[::1]:5433/poller?sslmode=verify-full",
        "postgresql:///poller?host=/run/postgresql&application_name=shots",
        "postgresql://%2Frun%2Fpostgresql/poller",
        "postgresql://poller@127.0.0.1:5432",
    ],
)
def test_a_dsn_that_the_library_reads_is_taken_as_it_is(dsn: str) -> None:
    assert PostgresSettings.model_validate({"type": "postgres", "dsn": dsn}).database == dsn
