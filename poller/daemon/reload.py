"""What a changed configuration changes in a running daemon. Pure: told both configurations, it says what to do."""

from collections.abc import Mapping
from typing import Final

import msgspec

from poller.settings import Settings

UNHEEDED: Final = ("spool", "journal", "admin", "log")
"""Sections that are built into the whole of a running daemon."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Names of sources, or of sinks: those to start, to stop, and to stop and start with other settings."""

    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()

    @property
    def ending(self) -> tuple[str, ...]:
        """Those that run now and end."""
        return (*self.stop, *self.restart)

    @property
    def beginning(self) -> tuple[str, ...]:
        """Those that begin."""
        return (*self.restart, *self.start)


class ReloadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload does. `accounts` are those that change, come or go; `unheeded` are sections that changed and
    that only a restart of the process heeds."""

    sources: Changes
    sinks: Changes
    accounts: tuple[str, ...] = ()
    unheeded: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return not self.lines()

    def lines(self) -> list[str]:
        """The plan for people, a line for each change; holds no setting's value."""
        found = [f"account {name}: changed" for name in self.accounts]
        for word, parts in (("source", self.sources), ("sink", self.sinks)):
            for verb in ("start", "restart", "stop"):
                found += [f"{word} {name}: {verb}" for name in getattr(parts, verb)]
        return found + [f"{section}: changed, needs a restart of the daemon" for section in self.unheeded]


def plan(old: Settings, new: Settings) -> ReloadPlan:
    """What to do about a configuration that replaces another; secrets count by their content.

    A source restarts with its account; every sink does with any account, as any sink may use all of them.
    """
    accounts = _changed(old.accounts, new.accounts)
    with_account = {
        name for name, source in new.sources.items() if source.account in accounts and name in old.sources
    }
    all_sinks = set(old.sinks) & set(new.sinks) if accounts else set[str]()
    return ReloadPlan(
        sources=_parts(old.sources, new.sources, with_account),
        sinks=_parts(old.sinks, new.sinks, all_sinks),
        accounts=accounts,
        unheeded=tuple(section for section in UNHEEDED if getattr(old, section) != getattr(new, section)),
    )


def _parts(old: Mapping[str, object], new: Mapping[str, object], also: set[str]) -> Changes:
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]} | also
    return Changes(
        start=tuple(name for name in new if name not in old),
        restart=tuple(name for name in new if name in changed),
        stop=tuple(name for name in old if name not in new),
    )


def _changed(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))
