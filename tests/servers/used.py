"""Which servers a run has used. The workers tell the process that writes the summary."""

from typing import Any, Final

import pytest

_names: Final[set[str]] = set()


def used(name: str) -> None:
    """A server of this name runs."""
    _names.add(name)


def tell(config: pytest.Config) -> None:
    """At a worker's end."""
    if (output := getattr(config, "workeroutput", None)) is not None:
        output["servers"] = sorted(_names)


def hear(node: Any) -> None:
    """At the end of a worker, in the process that started it."""
    _names.update(getattr(node, "workeroutput", {}).get("servers", ()))


def summary() -> str:
    """A line for the end of the run; empty if there was no server."""
    return f"servers of this run: {', '.join(sorted(_names))}" if _names else ""
