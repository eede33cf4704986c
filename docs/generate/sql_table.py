"""The page of the table that the sink `sql` fills."""

from collections.abc import Iterator

from docs.generate.markdown import code, page, table
from poller.sinks.sql.settings import SqlSettings
from poller.sinks.sql.table import COLUMNS, creation

MEANING = {
    "id": "the event's id, the primary key",
    "account": "the account's name in the configuration",
    "kind": "such as `screenshot`",
    "stream": "the stream's id; empty for an event without a stream",
    "occurred_at": "when it happened; in MySQL and MariaDB in UTC, without a zone",
    "received_at": "when the program received it; likewise",
    "url": "the URL of the picture or the recording; NULL where there is none",
    "event": "the whole event as CloudEvents JSON",
}
ENGINES = {"postgresql": "PostgreSQL", "mysql": "MySQL and MariaDB"}


def sql_table() -> str:
    """The statement for each database, and what each column holds."""
    assert tuple(MEANING) == COLUMNS
    return page(
        "The table of the sink `sql`",
        "`poller check --connect` prints the statement while the table is missing. `table` of the sink names another table.",
        table(("column", "what it holds"), ((code(name), MEANING[name]) for name in COLUMNS)),
        *_statements(),
    )


def _statements() -> Iterator[str]:
    name = SqlSettings.model_fields["table"].default
    for engine, title in ENGINES.items():
        yield f"## {title}"
        yield f"```sql\n{creation(engine, name)}\n```"
