"""Parts of statements: conditions with numbered parameters, and rows as arrays."""

from collections.abc import Iterable

from poller.spools.retention import Stretches
from poller.spools.rows import Row


def all_of(parts: Iterable[tuple[str, object]]) -> tuple[str, list[object]]:
    """A condition of all parts whose argument is not None, with these arguments. `{}` stands for the argument."""
    given = [(condition, argument) for condition, argument in parts if argument is not None]
    found = [condition.format(f"${place}") for place, (condition, _) in enumerate(given, 1)]
    return " AND ".join(["true", *found]), [argument for _, argument in given]


def is_old(column: str, young: Stretches) -> tuple[str, list[object]]:
    """A condition, with its arguments: the column's moment is old."""
    if len(young) == 1:  # the usual case, in which nobody set the clock: this form can use an index
        return f"{column} < $1", [young[0][0]]
    within = (
        f"SELECT FROM {spread('float8', 'float8')} AS young (low, high) WHERE {column} BETWEEN low AND high"
    )
    return f"NOT EXISTS ({within})", [[low for low, _ in young], [high for _, high in young]]


def as_text(text: str) -> str:
    """Text from outside as an argument for a column of type `text`, which holds neither NUL nor half a character."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def spread(*kinds: str) -> str:
    """Rows from one array for each column, of these types; see `arrays`."""
    return f"unnest({', '.join(f'${place}::{kind}[]' for place, kind in enumerate(kinds, 1))})"


def arrays(rows: Iterable[Row]) -> list[list[object]]:
    """Rows as the arguments of `spread`. There is at least one row."""
    return [list(column) for column in zip(*rows, strict=True)]


def affected(status: str) -> int:
    """The number of rows that a statement changed, by the server's answer."""
    return int(status.rpartition(" ")[2])
