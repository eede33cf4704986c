"""Finds the modules of the program by import, wherever they lie, and reads their syntax."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import poller

LEFT_OUT = ("poller.sandbox", "poller.testing", "poller.cli.demo", "poller.__main__")
"""What an operator does not run."""


def names() -> Iterator[str]:
    """The dotted names of all modules that the daemon is made of."""
    for found in pkgutil.walk_packages(poller.__path__, "poller."):
        if not any(found.name == left or found.name.startswith(f"{left}.") for left in LEFT_OUT):
            yield found.name


@cache
def tree(name: str) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(Path(str(importlib.import_module(name).__file__)).read_text())
