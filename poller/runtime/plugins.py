"""Finds adapters by their entry points, and imports none but the one that is asked for."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from importlib.util import find_spec
from typing import Final, Literal

from poller.core.errors import PollerError

Group = Literal["poller.sources", "poller.spools", "poller.sinks"]

SOURCES: Final = "poller.sources"
SPOOLS: Final = "poller.spools"
SINKS: Final = "poller.sinks"

ENTERED: Final = ("__aenter__", "__aexit__")
NEEDED: Final[Mapping[Group, tuple[str, ...]]] = {
    SOURCES: ("ready", "fetch", "read"),
    SPOOLS: ("check_writable", "attach", "append", "claim", "settle"),
    SINKS: ("deliver",),
}
PUSHED: Final = ("attach", "close", "read")
"""The methods that a pushed source needs instead."""


class UnknownType(PollerError):
    """No installed distribution offers an adapter of this type."""


class BrokenPlugin(PollerError):
    """The adapter is installed and cannot be used. The text gives the reason and the remedy."""


def types(group: Group) -> list[str]:
    """The types installed in a group, sorted; imports nothing."""
    return sorted({point.name for point in _entry_points(group)})


def has_foreign(group: Group) -> bool:
    """Whether another distribution offers an adapter of this group; imports nothing."""
    own = __name__.partition(".")[0]
    return any(point.module.partition(".")[0] != own for point in _entry_points(group))


def adapter(group: Group, type: str) -> type:
    """The class behind a type's entry point, with its attribute `Settings`.

    Raises `UnknownType`, or `BrokenPlugin` when it cannot be imported, when two distributions offer
    different ones, or when what it names is not an adapter class.
    """
    point = _entry_point(group, type)
    try:
        found = point.load()
    except _IMPORT_ERRORS as error:
        hint = _hint(point, error)
        if hint and isinstance(error, ModuleNotFoundError):
            raise BrokenPlugin(
                f"{type} needs the library {error.name}, which is not installed{hint}"
            ) from error
        reason = f"{error.__class__.__name__}: {error}"
        raise BrokenPlugin(f"the {type} plug-in cannot be imported ({reason}){hint}") from error
    if not isinstance(found, _CLASS) or not isinstance(getattr(found, "Settings", None), _CLASS):
        raise BrokenPlugin(f"the {type} plug-in names {point.value}, which is no class with its own Settings")
    return found


def missing_methods(group: Group, type: str) -> list[str]:
    """The methods that every adapter of the group needs and this one lacks; raises as `adapter` does."""
    found = adapter(group, type)
    pushed = group == SOURCES and hasattr(found, "attach")
    needed = (*ENTERED, *(PUSHED if pushed else NEEDED[group]))
    lacking = {name for name in needed if not callable(getattr(found, name, None))}
    return sorted(lacking | getattr(found, "__abstractmethods__", frozenset()))


def otel_is_installed() -> bool:
    """Whether the packages of the extra `otel` are there; imports no more than their parents."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None and (
            find_spec("opentelemetry.sdk.trace") is not None
        )
    except ImportError:
        return False


_CLASS: Final = type
_IMPORT_ERRORS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def _entry_point(group: Group, type: str) -> EntryPoint:
    points = list(_entry_points(group).select(name=type))
    if not points:
        raise UnknownType(f"there is no {type} in {group}")
    if len({point.value for point in points}) > 1:
        owners = ", ".join(sorted({point.dist.name for point in points if point.dist is not None}))
        raise BrokenPlugin(f"several distributions offer a {type}: {owners}; uninstall all but one")
    return points[0]


def _entry_points(group: Group) -> EntryPoints:
    return _read_entry_points(tuple((folder, _changed(folder)) for folder in sys.path))[group]


@lru_cache(maxsize=1)
def _read_entry_points(folders: tuple[tuple[str, int], ...]) -> Mapping[Group, EntryPoints]:
    """Read the metadata of all distributions, which takes milliseconds, once for all groups until a folder changes."""
    found = entry_points()
    return {group: found.select(group=group) for group in NEEDED}


def _changed(folder: str) -> int:
    """When something was last installed there; 0 if it is no folder."""
    try:
        return os.stat(folder or os.curdir).st_mtime_ns
    except OSError:
        return 0


def _hint(point: EntryPoint, error: BaseException) -> str:
    """The command that installs what is missing: an extra of the plug-in's distribution."""
    if point.dist is None or not isinstance(error, ImportError):
        return ""
    extras = set(point.dist.metadata.get_all("Provides-Extra") or ())
    missing = (error.name or "").partition(".")[0]
    brought = _requirements_of_extras(point.dist.requires or ())
    found = [extra for extra in extras if any(_same(name, missing) for name in brought.get(extra, ()))]
    # An extra such as `dev` may hold the others' requirements too.
    found.sort(key=lambda extra: (extra != point.name, len(brought[extra]), extra))
    extra = next(iter(found), point.name if point.name in extras else None)
    return f": pip install '{point.dist.name}[{extra}]'" if extra else ""


def _requirements_of_extras(requires: Iterable[str]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in requires:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        if name and extra:
            found.setdefault(extra.group(1), set()).add(name.group())
    return found


def _same(distribution: str, module: str) -> bool:
    return re.sub(r"[-_.]+", "_", distribution).lower() == module.lower()
