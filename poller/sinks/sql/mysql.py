"""MySQL and MariaDB, by asyncmy, with statements that both understand. Each statement commits by itself."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Any, Final

import asyncmy
from asyncmy import errors

from poller.core.errors import Rejected, SinkError, TryLater
from poller.sinks.servers import CONNECT_WITHIN, LOGIN_REFUSED, LOST, cannot_connect
from poller.sinks.sql.database import Database
from poller.sinks.sql.settings import SqlSettings
from poller.sinks.sql.table import COLUMNS, PROBE, Row, missing, no_table, quote_name

ENGINE: Final = "mysql"
STRICT: Final = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
"""A value that does not fit is an error, and is not cut."""


def statement(table: str, count: int) -> str:
    """The statement that stores `count` rows. A row with the same URL stays as it is. `event` is set first, because
    `url` must still be the old one then."""
    places = f"({', '.join(['%s'] * len(COLUMNS))})"
    return (
        f"INSERT INTO {quote_name(ENGINE, table)} ({', '.join(COLUMNS)}) VALUES {', '.join([places] * count)} "  # noqa: S608
        "ON DUPLICATE KEY UPDATE event = IF(url <=> VALUES(url), event, VALUES(event)), url = VALUES(url)"
    )


async def connect(settings: SqlSettings, tls: SSLContext | None) -> Database:
    """Open a connection; raises `TryLater`."""
    host, port = settings.place
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            connection = await asyncmy.connect(
                host=host,
                port=port,
                user=settings.user,
                password=settings.secret or "",
                database=settings.database,
                charset="utf8mb4",
                init_command=STRICT,
                autocommit=True,
                ssl=tls,
                connect_timeout=int(CONNECT_WITHIN),
            )
    except (errors.MySQLError, OSError, TimeoutError) as error:
        raise cannot_connect(error, translate(error).reason) from None
    opened = MySql(connection, settings.table)
    try:
        await opened.learn()
    except BaseException:
        opened.close()
        raise
    return opened


class MySql(Database):
    """A connection to MySQL or MariaDB."""

    def __init__(self, connection: Any, table: str) -> None:
        self._connection = connection
        self._table = table
        self._most = 0

    async def learn(self) -> None:
        """Learn how long a statement may be: a server may end the connection without a word for a longer one."""
        ((self._most,),) = await self._ask("SELECT @@max_allowed_packet")

    async def store(self, rows: Sequence[Row]) -> int:
        """See `Database.store`."""
        values = [_plain(value) for row in rows for value in row]
        text = self._connection.cursor().mogrify(statement(self._table, len(rows)), values).encode()
        if len(text) >= self._most:
            raise Rejected(f"larger than max_allowed_packet of the server, {self._most} bytes")
        with _translating():
            return int(await self._connection.query(text))

    async def flaws(self) -> list[str]:
        """See `Database.flaws`."""
        found = []
        ((synced,),) = await self._ask("SELECT @@innodb_flush_log_at_trx_commit")
        if synced != 1:
            found.append("the server does not sync what it commits: set innodb_flush_log_at_trx_commit = 1")
        *schema, table = self._table.split(".")
        engines = await self._ask(
            "SELECT engine FROM information_schema.tables "
            "WHERE table_schema = COALESCE(%s, DATABASE()) AND table_name = %s",
            (schema[0] if schema else None, table),
        )
        if not engines:
            return [*found, missing(ENGINE, self._table)]
        if (engine := str(engines[0][0])).lower() != "innodb":
            return [*found, f"the table {self._table} is of {engine}, which has no transactions: use InnoDB"]
        return [*found, *await self._unwritable()]

    async def _unwritable(self) -> list[str]:
        """What hinders storing a row. The connection is closed: this rolls back."""
        try:
            await self._ask("START TRANSACTION")
            await self.store([PROBE])
        except SinkError as error:
            return [f"cannot store a row in {self._table}: {error.reason}"]
        finally:
            self._connection.close()  # rolls back, and waits for nothing
        return []

    async def _ask(self, query: str, values: Sequence[object] | None = None) -> Sequence[Sequence[Any]]:
        with _translating():
            cursor = self._connection.cursor()
            await cursor.execute(query, values)
            return await cursor.fetchall() if cursor.description else ()

    @property
    def is_open(self) -> bool:
        """See `Database.is_open`."""
        return bool(self._connection.connected)

    def close(self) -> None:
        """See `Database.close`."""
        self._connection.close()


def _plain(value: object) -> object:
    """Times without a zone, in UTC: a `datetime` column has none."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except (errors.MySQLError, OSError, TimeoutError) as error:
        raise translate(error) from None


def translate(error: Exception) -> SinkError:
    """The sink's error for one of the library. Texts of the server may hold values: they are for the log, masked."""
    if not isinstance(error, errors.MySQLError):
        return TryLater("no answer in time" if isinstance(error, TimeoutError) else LOST)
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if code in _CONNECTION:
        return TryLater(LOST)
    if code == NO_TABLE:
        found: SinkError = no_table()
    elif code in _VALUES:
        found = Rejected(_VALUES[code])
    else:
        found = TryLater(_LATER.get(code, f"refused by the database (error {code})"))
    found.said = str(error.args[-1]).encode(errors="replace") if error.args else b""
    return found


NO_TABLE: Final = 1146
_CONNECTION: Final = frozenset({0, 2003, 2006, 2013, 2014})
_REFUSED: Final = "the database refuses a value"
_VALUES: Final = {
    1048: f"{_REFUSED}: a column must not be empty",
    1062: f"{_REFUSED}: a unique key has it already",
    1153: "larger than max_allowed_packet of the server",
    1264: f"{_REFUSED}: out of range",
    1265: f"{_REFUSED}: a value would be cut",
    1292: f"{_REFUSED}: no such time",
    1366: f"{_REFUSED}: a column cannot hold its signs",
    1406: "a value is too long for its column",
    1452: f"{_REFUSED}: a foreign key",
    3140: f"{_REFUSED}: no JSON",
    3819: f"{_REFUSED}: a constraint",
    4025: f"{_REFUSED}: a constraint",
}
_LATER: Final = {
    1021: "the server's disk is full",
    1040: "the server has no connection left",
    1044: "the user lacks a permission",
    1045: LOGIN_REFUSED,
    1049: "there is no such database",
    1054: "the table lacks a column",
    1053: "the server is stopping",
    1114: "the table is full",
    1142: "the user lacks a permission",
    1143: "the user lacks a permission",
    1205: "another transaction holds the rows",
    1213: "another transaction holds the rows",
    1290: "the database is read-only",
    1836: "the database is read-only",
    3159: "the server wants TLS: add an empty section tls",
    2068: LOGIN_REFUSED,
}
"""What to say, by the server's error number."""
