"""One row of the fault matrix."""

from typing import NamedTuple


class Row(NamedTuple):
    """One fault."""

    fault: str
    promise: str
    fired: str
    tests: tuple[str, ...]
    sandbox: tuple[str, ...] = ()


def row(fault: str, promise: str, fired: str, *tests: str, sandbox: str = "") -> Row:
    """A row of the table; `sandbox` is `table:fault fault …`."""
    table, _, names = sandbox.partition(":")
    return Row(fault, promise, fired, tests, tuple(f"{table}:{name}" for name in names.split()))
