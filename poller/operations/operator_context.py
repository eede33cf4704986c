"""The parts that the operator's commands work on: those of a running daemon, or the spool of a stopped one."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from poller.core.model import Event
from poller.core.ports import PushedSource, Source, StoresFiles
from poller.core.spool import Shared, SpoolAdmin, Wants, anything
from poller.operations.requests import ControlError
from poller.operations.throughput import Throughput
from poller.pipeline.courier import Courier
from poller.pipeline.intake import Intake
from poller.pipeline.journal import Journal
from poller.pipeline.losses import Losses
from poller.pipeline.push_intake import PushIntake
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import AdminSettings, Settings


class ReloadSummary(Protocol):
    """What a reload does, for people."""

    def lines(self) -> list[str]:
        """One line for each change; none holds a setting's value."""
        ...


@dataclass(frozen=True, kw_only=True)
class OperatorContext:
    """The parts. Without a daemon there are no intakes, couriers or journal. The spool is open, its sinks attached."""

    settings: Settings
    spool: SpoolAdmin
    clock: Clock
    metrics: Metrics
    source: Callable[[str], Source | PushedSource | None]
    """Returns the source of a name, for its `read`; None if the source is not available."""
    sink: Callable[[str], object | None] = lambda name: None
    """Returns the sink of a name; None if it is not available. It is entered only in a running daemon."""
    running: bool = False
    intakes: Sequence[Intake] = ()
    push_intakes: Sequence[PushIntake] = ()
    couriers: Sequence[Courier] = ()
    journal: Journal | None = None
    losses: Losses | None = None
    throughput: Throughput | None = None
    reload: Callable[..., Awaitable[ReloadSummary]] | None = None
    """`Daemon.reload`."""
    pages: Callable[[], str] | None = None
    """Returns an address that opens the pages, with a code that logs in once if people have to log in; None without
    pages."""
    wants: Callable[[str], Wants] = lambda name: anything
    """Returns the filter of a configured sink."""
    accounts: Mapping[str, Account] = field(default_factory=dict)
    """The accounts of the daemon, with their throttles."""

    @property
    def sink_age_limit(self) -> float:
        """Seconds after which a sink's oldest event is too old."""
        admin = self.settings.admin or AdminSettings()
        return admin.sink_age_limit

    def known_sink(self, sink: str) -> None:
        """Raise `ControlError` for a sink that is not configured."""
        _check_known("sink", sink, self.settings.sinks)

    def known_source(self, source: str) -> None:
        """Raise `ControlError` for a source that is not configured."""
        _check_known("source", source, self.settings.sources)

    def file_of(self, sink: str, event: Event) -> Path | None:
        """Where a configured sink keeps the file of an event; None if it keeps none."""
        stores = self.sink(sink) if sink in self.settings.sinks else None
        return stores.path_of(event) if isinstance(stores, StoresFiles) else None

    async def read_file(self, sink: str, event: Event) -> bytes | None:
        """The content of the file of an event, from a configured sink of a running daemon; None if it has none."""
        stores = self.sink(sink) if self.running and sink in self.settings.sinks else None
        return await stores.read_file(event) if isinstance(stores, StoresFiles) else None

    async def no_daemon(self, alone: str) -> ControlError:
        """The error of a command that needs a running daemon. `alone` ends its text if no daemon runs anywhere."""
        members = await self.spool.members() if isinstance(self.spool, Shared) else ()
        if not (count := sum(not one.visits for one in members)):
            return ControlError(f"no daemon runs{alone}")
        others = "1 other shares" if count == 1 else f"{count} others share"
        return ControlError(
            f"no daemon runs on this machine, and {others} the spool: run this on the machine of one of them"
        )

    def courier(self, sink: str) -> Courier | None:
        """The sink's courier; None when no daemon runs. Raises `ControlError` for a sink that is not configured."""
        self.known_sink(sink)
        return next((courier for courier in self.couriers if courier.name == sink), None)


def _check_known(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ControlError(f"no {what} {name} is configured; there are: {', '.join(sorted(known))}")
