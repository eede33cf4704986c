"""The spool of a stopped daemon, opened for the time of one command.

A spool that one daemon has for itself is locked meanwhile. A shared one is opened beside the daemons that run.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from poller.control import ControlError, OperatorContext
from poller.core.ports import PushedSource, Sink, Source
from poller.core.spool import Shared
from poller.daemon.wiring import attach, build_sink, build_source, build_spool, event_filter
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock, KeepsTime
from poller.runtime.metrics import Metrics
from poller.settings import Settings, SourceSettings
from poller.settings.stored import is_whole


@asynccontextmanager
async def open_offline(settings: Settings) -> AsyncIterator[OperatorContext]:
    """The context for commands without a daemon. Never creates a spool file.

    Raises `StorageLocked` if a daemon has the spool for itself, and `ControlError` if the spool has no file or the file
    does not exist.
    """
    spool = build_spool(settings.spool)
    if isinstance(spool, Shared):
        spool.visits = True
    else:
        _check_file(settings)
    async with spool:
        clock = spool.clock if isinstance(spool, KeepsTime) else Clock()
        for name, sink in settings.sinks.items():
            await attach(spool, name, sink, clock)
        yield OperatorContext(
            settings=settings,
            spool=spool,
            clock=clock,
            metrics=Metrics(),
            source=lambda name: _source(settings, name),
            sink=lambda name: _sink(settings, name),
            wants=lambda name: event_filter(settings.sinks[name].only),
        )


def _check_file(settings: Settings) -> None:
    path = getattr(settings.spool, "path", None)
    if path is None:
        raise ControlError("no daemon runs, and a spool without a file can only be asked through one")
    if not path.exists():
        raise ControlError(f"no daemon runs, and there is no spool {path} yet")


def _source(settings: Settings, name: str) -> Source | PushedSource | None:
    """A source that is only used for its `read`, so neither the source nor its account is entered."""
    if name not in settings.sources:
        return None
    source, accounts = settings.sources[name], _accounts(settings)
    if source.account not in accounts or type(source) is SourceSettings:
        return None  # its settings cannot be read: `check` says why
    return build_source(name, source, accounts)


def _sink(settings: Settings, name: str) -> Sink | None:
    """A sink that is only asked for the paths of its files, so neither the sink nor its accounts are entered."""
    found = settings.sinks.get(name)
    if found is None or not is_whole(found):
        return None  # its settings cannot be read without its secrets
    return build_sink(name, found, _accounts(settings))


def _accounts(settings: Settings) -> Mapping[str, Account]:
    return {account: Account(account, given) for account, given in settings.accounts.items()}
