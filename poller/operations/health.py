"""The condition of each part. It is decided here only, for `status`, `/readyz`, the gauges and the log."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from poller.core.errors import StorageError, StorageFull
from poller.core.model import Backlog
from poller.core.spool import Away, Member, Shared, SpoolAdmin
from poller.operations.duties import source_duty
from poller.pipeline.courier import Courier, SinkState
from poller.pipeline.intake import Intake
from poller.pipeline.journal import Journal
from poller.pipeline.losses import Loss, Losses
from poller.pipeline.push_intake import PushIntake
from poller.runtime.clock import Clock

FAILING_FOR = 60.0
"""Seconds after which a failing source or sink is a reason not to be ready."""
SILENT_FOR = 180.0
"""Seconds after which a queue without a good answer is a reason, even if no poll failed. A poll takes 60 s at most."""
KEPT_LONG = 60.0
"""Seconds after which a page that is still in the journal is a reason: a page is normally committed at once."""
PROVE_WITHIN = 5.0
ASKED_WITHIN = 3.0
"""Seconds for questions to a shared spool. `/readyz` has ten for all of it, also while the network swallows packets."""
STANDS_BY = "stands by"
"""The state of a source that another daemon polls."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """The condition of one part. `why` explains an unusual state.

    `reason` is set if the daemon is not ready because of this part, and says why. `note` is information for users that
    does not affect readiness.
    """

    state: str
    why: str = ""
    reason: str | None = None
    note: str | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The condition of all parts, by name, at one moment."""

    sources: Mapping[str, Condition]
    receivers: Mapping[str, Condition]
    spool: Condition
    sinks: Mapping[str, Condition]
    backlogs: Mapping[str, Backlog]
    losses: Sequence[Loss]
    journal: Condition = Condition(state="passing on")
    members: Sequence[Member] = ()
    """The daemons that share the spool; none for a spool that one daemon has for itself."""
    counted: bool = True
    """False if the spool could not be asked: then nothing is known of backlogs and members."""

    @property
    def reasons(self) -> list[str]:
        """Why the daemon is not ready; empty when it is."""
        storage = [self.spool, self.journal]
        parts = [*self.sources.values(), *self.receivers.values(), *storage, *self.sinks.values()]
        damage = [_damage_reason(loss) for loss in self.losses if loss.damaged]
        return [*(part.reason for part in parts if part.reason is not None), *damage]

    @property
    def reasons_for_pushes(self) -> list[str]:
        """Why pushed pages cannot be taken. Only the spool and the receivers count."""
        parts = [*self.receivers.values(), self.spool]
        return [part.reason for part in parts if part.reason is not None]

    @property
    def notes(self) -> list[str]:
        """Information for users that does not affect readiness."""
        parts = [*self.sources.values(), *self.receivers.values(), *self.sinks.values()]
        lost = [_loss_note(loss) for loss in self.losses if not loss.damaged]
        return [*(part.note for part in parts if part.note is not None), *lost]


class HealthInputs(Protocol):
    """The parts that `examine` looks at."""

    @property
    def spool(self) -> SpoolAdmin: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def journal(self) -> Journal | None: ...
    @property
    def intakes(self) -> Sequence[Intake]: ...
    @property
    def push_intakes(self) -> Sequence[PushIntake]: ...
    @property
    def couriers(self) -> Sequence[Courier]: ...
    @property
    def losses(self) -> Losses | None: ...
    @property
    def sink_age_limit(self) -> float: ...


async def examine(parts: HealthInputs) -> Health:
    """Determine the condition of all parts. This writes to the spool, to check that it can be written."""
    couriers = list(parts.couriers)  # a reload may change them meanwhile
    spool = await spool_condition(parts.spool)
    members: Sequence[Member] = ()
    backlogs: Mapping[str, Backlog] = {}
    counted = away_of(parts.spool) is None
    try:
        async with asyncio.timeout(ASKED_WITHIN if isinstance(parts.spool, Shared) else None):
            if counted:
                backlogs = {courier.name: await parts.spool.backlog(courier.name) for courier in couriers}
                members = await parts.spool.members() if isinstance(parts.spool, Shared) else ()
    except (StorageFull, TimeoutError) as error:
        why = str(error) or spool.why or "the database does not answer"
        spool, backlogs, counted = _spool_reason(why), {}, False
    return Health(
        members=members,
        counted=counted,
        sources={one.source.name: source_condition(one, parts.clock, members) for one in parts.intakes},
        receivers={one.source.name: receiver_condition(one) for one in parts.push_intakes},
        spool=spool,
        journal=journal_condition(parts.journal),
        sinks={
            one.name: sink_condition(
                one, backlogs.get(one.name), parts.clock, parts.sink_age_limit, _waits_for(parts.spool, one)
            )
            for one in couriers
        },
        backlogs=backlogs,
        losses=[] if parts.losses is None else parts.losses.all(),
    )


def away_of(spool: SpoolAdmin) -> Away | None:
    """The outage of the spool's database that goes on; None if there is none."""
    return spool.away if isinstance(spool, Shared) else None


def in_words(away: Away) -> str:
    """An outage, in words."""
    return f"the database is away since {away.since:%Y-%m-%dT%H:%M:%SZ}: {away.why}"


def _waits_for(spool: SpoolAdmin, courier: Courier) -> str:
    return spool.waits_for(courier.name) if isinstance(spool, Shared) else ""


# ---------------------------------------------------------------- the condition of each part


def source_condition(intake: Intake, clock: Clock, members: Sequence[Member] = ()) -> Condition:
    """A polled source: paused, failing, polling, or polled by another daemon."""
    if intake.stands_by:
        return Condition(state=STANDS_BY, why=_why_it_stands_by(intake, members))
    if intake.trouble is not None:
        return Condition(state="paused", why=intake.trouble, reason=_source_reason(intake, clock))
    if intake.failing:
        return Condition(state="failing", why=intake.failure, reason=_source_reason(intake, clock))
    return Condition(state="polling", reason=_source_reason(intake, clock))


def _why_it_stands_by(intake: Intake, members: Sequence[Member]) -> str:
    return who_polls(intake.source.name, members) or "another daemon polls it"


def who_polls(source: str, members: Sequence[Member]) -> str:
    """Which of the daemons polls a source, in words; empty if none does."""
    polls = [one for one in members if source_duty(source) in one.duties]
    return f"polled by daemon {polls[0].number} ({polls[0].name})" if polls else ""


def _source_reason(intake: Intake, clock: Clock) -> str | None:
    name, destructive = intake.source.name, intake.source.destructive
    if intake.trouble is not None:
        return f"source {name}: polling is paused: {intake.trouble}"
    if (count := intake.brought_nothing) > 0:
        return f"source {name}: {count} polls were sent and brought nothing, so it is polled once a minute"
    if destructive and intake.last_answer is None:
        return f"source {name}: no good answer yet"
    if (failing := _seconds_since(intake.failing_since, clock)) > FAILING_FOR:
        return f"source {name}: failing for {failing:.0f} s: {intake.failure}"
    if destructive and (silent := _seconds_since(intake.last_answer, clock)) > SILENT_FOR:
        return f"source {name}: no good answer for {silent:.0f} s"
    return None  # a source that is not destructive polls when something is due, which may take hours


def receiver_condition(intake: PushIntake) -> Condition:
    """A pushed source: paused or receiving."""
    if intake.trouble is None:
        return Condition(state="receiving")
    return Condition(state="paused", why=intake.trouble, reason=_receiver_reason(intake))


def _receiver_reason(intake: PushIntake) -> str:
    return f"source {intake.source.name}: takes nothing: {intake.trouble}"


def journal_condition(journal: Journal | None) -> Condition:
    """Whether kept pages are committed to the spool in time."""
    oldest = None if journal is None else journal.oldest
    if oldest is None or oldest < KEPT_LONG:
        return Condition(state="passing on")
    return Condition(
        state="holding", reason=f"journal: its oldest page waits for the spool for {oldest:.0f} s"
    )


async def spool_condition(spool: SpoolAdmin) -> Condition:
    """Whether the spool can be written, which is tried."""
    unproven = isinstance(spool, Shared) and not spool.proven.is_set()
    why = "the lease of this daemon is not proven, so nothing is delivered" if unproven else ""
    if (away := away_of(spool)) is not None:
        return _spool_reason("; ".join(filter(None, (in_words(away), why))))
    if unproven:
        return _spool_reason(why)
    try:
        async with asyncio.timeout(PROVE_WITHIN):
            await spool.check_writable()
    except StorageError as error:
        return _spool_reason(str(error))
    except TimeoutError:
        return _spool_reason(f"no write within {PROVE_WITHIN:.0f} s")
    return Condition(state="writable")


def _spool_reason(why: str) -> Condition:
    why = why.removeprefix("spool: ")  # of a spool that has no path to be named by
    return Condition(state="not writable", why=why, reason=f"spool: {why}")


def sink_condition(
    courier: Courier, backlog: Backlog | None, clock: Clock, age_limit: float, waits_for: str = ""
) -> Condition:
    """A sink: disabled, paused, waiting for other daemons (`Shared.waits_for`), failing or serving.

    `backlog` is None while it is not known.
    """
    status, reason = courier.status, _sink_reason(courier, backlog, clock, age_limit)
    if status.state is not SinkState.SERVING:
        note = f"sink {courier.name}: {status.state}: {status.why}" if reason is None else None
        return Condition(state=status.state.value, why=status.why, reason=reason, note=note)
    if waits_for:
        note = f"sink {courier.name}: {waits_for}"
        return Condition(state="waiting", why=waits_for, reason=reason, note=note)
    if courier.failing_since is not None:
        _, error = courier.last_error or (None, "")
        return Condition(state="failing", why=error, reason=reason)
    return Condition(state=status.state.value, reason=reason)


def _sink_reason(courier: Courier, backlog: Backlog | None, clock: Clock, age_limit: float) -> str | None:
    name, why = courier.name, courier.status.why
    if courier.disabled is not None:
        return f"sink {name}: disabled: {why}"
    if courier.held:  # the operator paused it, and knows
        return None
    if courier.place_gone is not None:
        return f"sink {name}: its folder: {courier.place_gone}"
    if courier.paused:
        return f"sink {name}: paused: {why}"
    if (failing := _seconds_since(courier.failing_since, clock)) > FAILING_FOR:
        return f"sink {name}: failing for {failing:.0f} s: {(courier.last_error or ('', ''))[1]}"
    age = clock.age(backlog.oldest) if backlog is not None and backlog.oldest else 0.0
    return f"sink {name}: its oldest event waits for {age:.0f} s" if age > age_limit else None


def _seconds_since(moment: float | None, clock: Clock) -> float:
    return 0.0 if moment is None else clock.monotonic() - moment


def _damage_reason(loss: Loss) -> str:
    return f"{loss.where}: damaged, {loss.count} may be lost: {loss.detail}"


def _loss_note(loss: Loss) -> str:
    return f"{loss.where}: {loss.count} may be lost, last at {loss.at:%Y-%m-%dT%H:%M:%SZ}: {loss.detail}"
