"""What an operator sees: why a daemon is not ready, what is not as usual, and the gauges."""

import asyncio
from collections.abc import Mapping

from poller.control import Works
from poller.courier import SinkState
from poller.errors import StorageError
from poller.ports import BeginsAnew
from poller.qcloud.account import Account

POLLED_LATELY = 180.0
"""Without a good answer for so many seconds, a source is not ready."""
PROVE_WITHIN = 5.0


async def refresh(works: Works, accounts: Mapping[str, Account]) -> None:
    """Set the gauges to what is now."""
    metrics, now = works.metrics, works.clock.now()
    for courier in works.couriers:
        backlog = await works.spool.backlog(courier.name)
        age = (now - backlog.oldest).total_seconds() if backlog.oldest else 0.0
        metrics.backlog.labels(courier.name).set(backlog.events)
        metrics.oldest.labels(courier.name).set(max(0.0, age))
        metrics.dead_letters.labels(courier.name).set(backlog.dead)
    metrics.spool_bytes.set(await works.spool.size())
    if isinstance(works.spool, BeginsAnew):
        metrics.spool_files_aside.set(len(works.spool.files_aside()))
    if works.journal is not None:
        metrics.journal_bytes.set(works.journal.bytes_held)
    for name, account in accounts.items():
        metrics.clock_skew.labels(name).set(account.skew)


async def reasons(works: Works) -> list[str]:
    """Why the daemon is not ready; empty when it is."""
    return [*_source_reasons(works), *await _spool_reasons(works), *await _sink_reasons(works)]


def notes(works: Works) -> list[str]:
    """What is not as usual, and no reason by itself: sinks that are paused, until they are too far behind."""
    standings = [(courier.name, courier.standing) for courier in works.couriers]
    return [
        f"sink {name}: {standing.state}: {standing.why}"
        for name, standing in standings
        if standing.state is SinkState.PAUSED
    ]


def _source_reasons(works: Works) -> list[str]:
    found = []
    for intake in works.intakes:
        name = intake.source.name
        if intake.trouble is not None:
            found.append(f"source {name}: polling is paused: {intake.trouble}")
        elif not intake.source.destructive and not intake.failing:
            continue  # it asks when something is due, which may take hours
        elif intake.last_answer is None:
            found.append(f"source {name}: no good answer yet")
        elif (age := works.clock.monotonic() - intake.last_answer) > POLLED_LATELY:
            found.append(f"source {name}: no good answer for {age:.0f} s")
    for reception in works.receptions:
        if reception.trouble is not None:
            found.append(f"source {reception.source.name}: takes nothing: {reception.trouble}")
    return found


async def _spool_reasons(works: Works) -> list[str]:
    try:
        async with asyncio.timeout(PROVE_WITHIN):
            await works.spool.prove()
    except StorageError as error:
        return [f"spool: {error}"]
    except TimeoutError:
        return [f"spool: no write within {PROVE_WITHIN:.0f} s"]
    return []


async def _sink_reasons(works: Works) -> list[str]:
    assert works.settings.admin is not None
    limit, now, found = works.settings.admin.sink_age_limit, works.clock.now(), []
    for courier in works.couriers:
        backlog = await works.spool.backlog(courier.name)
        age = (now - backlog.oldest).total_seconds() if backlog.oldest else 0.0
        if courier.disabled is not None:
            found.append(f"sink {courier.name}: disabled: {courier.disabled}")
        elif age > limit and not courier.held:  # who paused it knows
            state = "paused and probed, " if courier.paused else ""
            found.append(f"sink {courier.name}: {state}its oldest event waits for {age:.0f} s")
    return found
