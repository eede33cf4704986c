"""What an operator sees of all parts at one glance."""

import os
from datetime import datetime

import msgspec

from poller import __version__
from poller.core.model import Backlog
from poller.operations.health import Condition, Health, examine
from poller.operations.operator_context import Works
from poller.operations.requests import Row
from poller.pipeline.intake import Intake


async def status(works: Works) -> Row:
    """Sources, spool and sinks as they stand; ages and the like in seconds, None for what is not known.

    `ready`, `reasons` and `notes` are those of `/readyz`; without a daemon there is nothing that could be ready.
    """
    paused, health = await works.spool.paused(), await examine(works)
    path = getattr(works.settings.spool, "path", None)
    return {
        "running": works.running,
        "version": __version__,
        "pid": os.getpid() if works.running else None,
        "ready": works.running and not health.reasons,
        "reasons": health.reasons,
        "notes": health.notes,
        "possibly_lost": [msgspec.to_builtins(loss) for loss in health.losses],
        "sources": _sources(works, health),
        "spool": {
            "type": works.settings.spool.type,
            "path": None if path is None else str(path),
            "bytes": await works.spool.size(),
            "quarantined": await works.spool.quarantine_size(),
            "trouble": health.spool.why or None,
        },
        "journal": _journal(works),
        "sinks": [await _sink(works, health, sink, sink in paused) for sink in works.settings.sinks],
    }


def _journal(works: Works) -> Row | None:
    """What the spool does not have yet, and for how long the oldest of it has waited in this process."""
    if works.journal is None:
        return None
    return {"bytes": works.journal.bytes_held, "oldest": _rounded(works.journal.oldest)}


def _sources(works: Works, health: Health) -> list[Row]:
    intakes = {intake.source.name: intake for intake in works.intakes}
    found = {**health.sources, **health.receivers}
    return [
        {"name": name, "type": source.type, **_source(works, intakes.get(name), found.get(name))}
        for name, source in works.settings.sources.items()
    ]


def _source(works: Works, intake: Intake | None, condition: Condition | None) -> Row:
    if condition is None:
        return {"state": "stopped", "last_answer": None, "trouble": None}
    answered = None if intake is None else intake.last_answer
    age = None if answered is None else works.clock.monotonic() - answered
    return {"state": condition.state, "last_answer": _rounded(age), "trouble": condition.why or None}


async def _sink(works: Works, health: Health, sink: str, paused: bool) -> Row:
    condition = health.sinks.get(sink)
    backlog = health.backlogs[sink] if condition else await works.spool.backlog(sink)
    return {
        "name": sink,
        "type": works.settings.sinks[sink].type,
        **(_stopped(paused) if condition is None else _served(works, sink, condition)),
        **_pending(works, backlog),
    }


def _stopped(paused: bool) -> Row:
    why = "by the operator" if paused else ""
    return {
        "state": "paused" if paused else "stopped",
        "why": why,
        "last_error": None,
        "last_error_age": None,
    }


def _served(works: Works, sink: str, condition: Condition) -> Row:
    courier = works.courier(sink)
    at, error = (courier and courier.last_error) or (None, None)
    return {
        "state": condition.state,
        "why": condition.why,
        "last_error": error,
        "last_error_age": _since(works, at),
    }


def _pending(works: Works, backlog: Backlog) -> Row:
    return {
        "backlog": backlog.events,
        "retrying": backlog.retrying,
        "oldest": _since(works, backlog.oldest),
        "dead": backlog.dead,
    }


def _since(works: Works, at: datetime | None) -> float | None:
    return None if at is None else _rounded(works.clock.age(at))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 1)
