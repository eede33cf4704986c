"""A reload: what a changed configuration changes in a running daemon, and its execution.

`plan` is pure: it compares two configurations. `Changeover` ends what ends, begins what begins, and leaves alone
what did not change.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from poller.core.errors import PollerError
from poller.daemon.components import Component, Components, close_all
from poller.qcloud.wire.account import Account
from poller.runtime.failpoints import reached
from poller.settings import Settings, SinkSettings, SourceSettings

log = structlog.get_logger("daemon")

NEED_RESTART: Final = ("spool", "journal", "admin", "web", "log", "tracing")
"""The sections that a running daemon cannot change: they need a restart."""


class AdapterChanges(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the sources, or of the sinks, to start, to stop, and to restart with other settings."""

    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()

    @property
    def ending(self) -> tuple[str, ...]:
        """The parts that run now and have to be stopped."""
        return (*self.stop, *self.restart)

    @property
    def beginning(self) -> tuple[str, ...]:
        """The parts that have to be started."""
        return (*self.restart, *self.start)


class ReloadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a reload. `accounts` are changed, new or removed. `needs_restart` are the sections
    whose changes are not applied, because they need a restart of the process."""

    sources: AdapterChanges
    sinks: AdapterChanges
    accounts: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return not self.lines()

    def lines(self) -> list[str]:
        """The plan as text, one line for each change. It contains no value of a setting."""
        found = [f"account {name}: changed" for name in self.accounts]
        for word, parts in (("source", self.sources), ("sink", self.sinks)):
            for verb in ("start", "restart", "stop"):
                found += [f"{word} {name}: {verb}" for name in getattr(parts, verb)]
        return found + [
            f"{section}: changed, needs a restart of the daemon" for section in self.needs_restart
        ]


def plan(old: Settings, new: Settings) -> ReloadPlan:
    """The plan for replacing `old` by `new`. A secret has changed if its content has changed.

    A source restarts when its account changes. Every sink restarts when any account changes, because any sink may use
    all accounts.
    """
    accounts = _changed_names(old.accounts, new.accounts)
    with_account = {
        name for name, source in new.sources.items() if source.account in accounts and name in old.sources
    }
    all_sinks = set(old.sinks) & set(new.sinks) if accounts else set[str]()
    return ReloadPlan(
        sources=_parts(old.sources, new.sources, with_account),
        sinks=_parts(old.sinks, new.sinks, all_sinks),
        accounts=accounts,
        needs_restart=tuple(
            section for section in NEED_RESTART if getattr(old, section) != getattr(new, section)
        ),
    )


def _parts(old: Mapping[str, object], new: Mapping[str, object], also: set[str]) -> AdapterChanges:
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]} | also
    return AdapterChanges(
        start=tuple(name for name in new if name not in old),
        restart=tuple(name for name in new if name in changed),
        stop=tuple(name for name in old if name not in new),
    )


def _changed_names(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))


# ---------------------------------------------------------------- execution


async def new_accounts(planned: ReloadPlan, new: Settings) -> dict[str, Component[Account]]:
    """Enter the accounts that change. Raises `PollerError` if one fails; then all of them are closed again.

    This comes first, because a failure here must leave the running daemon unchanged.
    """
    found: dict[str, Component[Account]] = {}
    for name in planned.accounts:
        if name in new.accounts:
            try:
                found[name] = await Component.enter(Account(name, new.accounts[name]))
            except OSError as error:
                await close_all(found)
                raise PollerError(f"account {name}: {error}") from error
    return found


class Changeover:
    """One change of settings. After `make`, `settings` are the settings that are in force."""

    def __init__(self, components: Components, settings: Settings, planned: ReloadPlan) -> None:
        self.settings = settings
        self._before = settings
        self._components = components
        self._planned = planned

    async def make(
        self, new: Settings, accounts: dict[str, Component[Account]], stopping: Callable[[], bool]
    ) -> None:
        """Carry out the plan. Once `stopping` returns true, no part is started."""
        planned, components = self._planned, self._components
        log.info("reloading", plan=planned.lines())
        await components.end_sources(planned.sources.ending)
        reached("reload.sources_ended")
        await components.end_backfills(planned.accounts)
        await components.end_sinks(planned.sinks.ending)
        for name in planned.sinks.stop:
            await components.forget_sink(name)
        self.settings = _applied_settings(self._before, new, planned)
        gone = {name: components.entered.pop(name) for name in planned.accounts if name in components.entered}
        for name, entered in accounts.items():
            components.add_account(name, entered)
        await close_all(gone)
        for name in accounts:
            await components.open_backfill(name, new.accounts[name])
        reached("reload.ended")
        if stopping():
            return
        for name in accounts:
            components.begin_backfill(name)
        for name in planned.sinks.beginning:
            await self._begin_sink(name, self._before.sinks.get(name))
        for name in planned.sources.beginning:
            await self._begin_source(name, self._before.sources.get(name))
        reached("reload.begun")
        log.info("reloaded", unheeded=planned.needs_restart)

    async def _begin_sink(self, name: str, before: SinkSettings | None) -> None:
        try:
            await self._components.open_sink(name, self.settings.sinks[name])
        except (PollerError, OSError) as error:
            self._keep_old("sinks", name, before, error)
            if before is None:
                await self._components.forget_sink(name)
                return
            await self._components.open_sink(name, before)
        self._components.begin_sink(name)

    async def _begin_source(self, name: str, before: SourceSettings | None) -> None:
        try:
            await self._components.open_source(name, self.settings.sources[name])
        except (PollerError, OSError) as error:
            self._components.forget_source(name)
            self._keep_old("sources", name, before, error)
            if before is None:
                return
            await self._components.open_source(name, before)
        self._components.begin_source(name)

    def _keep_old(self, section: str, name: str, before: object, error: Exception) -> None:
        """Put back the old settings of a part that cannot be opened with its new ones. The next reload tries again."""
        outcome = "stays away" if before is None else "goes on as it was"
        log.error(
            "reload_failed", part=f"{section.removesuffix('s')} {name}", reason=str(error), outcome=outcome
        )
        parts = dict(getattr(self.settings, section))
        del parts[name]
        if before is not None:
            parts[name] = before
        self.settings = self.settings.model_copy(update={section: parts})


def _applied_settings(old: Settings, new: Settings, planned: ReloadPlan) -> Settings:
    """The new settings, with the old sections that need a restart. So the next reload reports these sections again."""
    return new.model_copy(update={section: getattr(old, section) for section in planned.needs_restart})
