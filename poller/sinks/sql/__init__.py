"""The sink `sql`: one row for each event, in a table of PostgreSQL, MySQL or MariaDB.

Delivered
    The database has committed the batch, which is one statement. PostgreSQL then has the rows on its disk:
    `synchronous_commit` is set to `on` where it is `off`.

Twice
    The primary key is the event's id. A repeated event changes no row, and an event with another URL changes the row's
    `url` and `event`.
"""

from poller.sinks.sql.settings import SqlSettings
from poller.sinks.sql.sink import Sql

__all__ = ["Sql", "SqlSettings"]
