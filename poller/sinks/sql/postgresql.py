"""PostgreSQL, by asyncpg. The statement commits by itself: asyncpg returns when the server is ready again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any, Final

import asyncpg

from poller.core.errors import Rejected, SinkError, TryLater
from poller.sinks.servers import CONNECT_WITHIN, LOGIN_REFUSED, LOST, cannot_connect
from poller.sinks.sql.database import Database
from poller.sinks.sql.settings import SqlSettings
from poller.sinks.sql.table import COLUMNS, PROBE, Row, missing, no_table, quote_name

ENGINE: Final = "postgresql"
_KINDS: Final = {"occurred_at": "timestamptz", "received_at": "timestamptz"}
"""The types of parameters that are not text."""
_CASTS: Final = {"event": "event::jsonb"}

_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)


def statement(table: str) -> str:
    """Store rows, which come as an array for each column. A row with the same URL stays untouched."""
    arrays = ", ".join(f"${n}::{_KINDS.get(name, 'text')}[]" for n, name in enumerate(COLUMNS, start=1))
    columns = ", ".join(COLUMNS)
    values = ", ".join(_CASTS.get(name, name) for name in COLUMNS)
    return f"""INSERT INTO {quote_name(ENGINE, table)} AS kept ({columns})
SELECT {values} FROM unnest({arrays}) AS given ({columns})
ON CONFLICT (id) DO UPDATE SET url = excluded.url, event = excluded.event
WHERE kept.url IS DISTINCT FROM excluded.url"""  # noqa: S608 - the table's name is quoted, and its signs are checked by the settings


async def connect(settings: SqlSettings, tls: SSLContext | None) -> Database:
    """Open a connection; raises `TryLater`."""
    host, port = settings.place
    try:
        connection = await asyncpg.connect(
            host=host,
            port=port,
            user=settings.user,
            password=settings.secret or "",
            database=settings.database,
            ssl=False if tls is None else tls,
            timeout=CONNECT_WITHIN,
            server_settings={"application_name": "poller"},
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise cannot_connect(error, translate(error).reason) from None
    opened = PostgreSql(connection, settings.table)
    try:
        with _translating():
            await connection.execute(_DURABLE)
    except BaseException:
        opened.close()
        raise
    return opened


class PostgreSql(Database):
    """A connection to PostgreSQL."""

    def __init__(self, connection: Any, table: str) -> None:
        self._connection = connection
        self._table = table
        self._statement = statement(table)

    async def store(self, rows: Sequence[Row]) -> int:
        """See `Database.store`."""
        arrays = [list(column) for column in zip(*rows, strict=True)]
        with _translating():
            status = await self._connection.execute(self._statement, *arrays)
        return int(status.rpartition(" ")[2])

    async def flaws(self) -> list[str]:
        """See `Database.flaws`."""
        with _translating():
            kept = await self._connection.fetchval(
                "SELECT relpersistence FROM pg_class WHERE oid = to_regclass($1)",
                quote_name(ENGINE, self._table),
            )
            synced = await self._connection.fetchval("SELECT current_setting('fsync')")
        found = []
        if synced != "on":
            found.append("the server does not sync what it commits: set fsync = on")
        if kept is None:
            return [*found, missing(ENGINE, self._table)]
        if kept != b"p":
            found.append(f"the table {self._table} does not survive a crash: ALTER TABLE … SET LOGGED")
        return [*found, *await self._unwritable()]

    async def _unwritable(self) -> list[str]:
        """What hinders storing a row. The connection is closed: this rolls back."""
        try:
            with _translating():
                await self._connection.execute("BEGIN")
            await self.store([PROBE])
        except SinkError as error:
            return [f"cannot store a row in {self._table}: {error.reason}"]
        finally:
            self.close()  # rolls back, and waits for nothing
        return []

    @property
    def is_open(self) -> bool:
        """See `Database.is_open`."""
        return not self._connection.is_closed()

    def close(self) -> None:
        """See `Database.close`."""
        self._connection.terminate()


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise translate(error) from None


def translate(error: Exception) -> SinkError:
    """The sink's error for one of the library. Texts of the server may hold values: they are for the log, masked."""
    if not isinstance(error, asyncpg.PostgresError):
        return TryLater(_words(error))
    code = str(error.sqlstate or "")
    if code == "42P01":
        found: SinkError = no_table()
    elif code in _VALUES or code[:2] in _VALUE_CLASSES:
        found = Rejected(_VALUES.get(code, f"the database refuses a value (SQLSTATE {code})"))
    else:
        found = TryLater(
            _LATER.get(code) or _LATER.get(code[:2]) or f"refused by the database (SQLSTATE {code})"
        )
    found.said = str(getattr(error, "message", "")).encode(
        errors="replace"
    )  # without DETAIL, which shows the row
    return found


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return LOST


_VALUE_CLASSES: Final = frozenset({"22", "23", "54"})
"""SQLSTATE classes that blame the row: wrong data, a constraint, a limit of the server."""
_VALUES: Final = {
    "22001": "a value is too long for its column",
    "22021": "the database stores no NUL byte",
    "22P05": "the database stores no NUL byte",
}
_LATER: Final = {
    "08": LOST,
    "25006": "the database is read-only",
    "28": LOGIN_REFUSED,
    "3D": "there is no such database",
    "42501": "the user lacks a permission",
    "42703": "the table lacks a column",
    "42P10": "the table has no primary key id",
    "53100": "the server's disk is full",
    "53300": "the server has no connection left",
    "57P03": "the server is starting or stopping",
}
"""What to say, by SQLSTATE or by its class."""
