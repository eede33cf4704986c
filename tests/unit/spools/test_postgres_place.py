"""Where a PostgreSQL spool lies, for people: never a part of a password."""

import pytest

from poller.spools.postgres.moving import where


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://poller:secret@db.example.com:5432/live", "db.example.com:5432/live"),
        ("postgresql://poller@one:5432,two:5433/live?password=secret", "one:5432,two:5433/live"),
        ("postgresql://poller:secret@[::1]:5432/live", "[::1]:5432/live"),
        ("postgresql:///live", "/live"),
        ("postgresql://poller:sec@ret@db/live", "db/live"),
    ],
)
def test_hosts_and_database_are_shown(dsn: str, shown: str) -> None:
    assert where(dsn) == shown


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://poller:sec/ret@db/live",
        "postgresql://poller:12/ret@db/live",
        "postgresql://poller:sec?ret@db/live",
        "postgresql://poller:sec#ret@db/live",
        "postgresql://poller:12?ret@db/live",
        "host=db user=poller password=secret",
        "postgresql://poller:secret@[db/live",
    ],
)
def test_what_may_be_a_part_of_a_password_is_not_shown(dsn: str) -> None:
    found = where(dsn)
    assert [part for part in ("sec", "ret", "12", "poller:") if part in found] == []
