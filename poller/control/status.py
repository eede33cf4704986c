"""What an operator sees of all parts at one glance."""

import asyncio
import os
from datetime import datetime

from poller import __version__
from poller.control.requests import Row
from poller.control.works import Works
from poller.courier import Courier
from poller.errors import StorageError
from poller.intake import Intake
from poller.reception import Reception

PROVE_WITHIN = 5.0


async def status(works: Works) -> Row:
    """Sources, spool and sinks as they stand; ages and the like in seconds, None for what is not known."""
    paused = await works.spool.paused()
    path = getattr(works.settings.spool, "path", None)
    return {
        "running": works.running,
        "version": __version__,
        "pid": os.getpid() if works.running else None,
        "sources": _sources(works),
        "spool": {
            "type": works.settings.spool.type,
            "path": None if path is None else str(path),
            "bytes": await works.spool.size(),
            "quarantined": await works.spool.quarantine_size(),
            "trouble": await _spool_trouble(works),
        },
        "journal": None if works.journal is None else {"bytes": works.journal.bytes_held},
        "sinks": [await _sink(works, sink, sink in paused) for sink in works.settings.sinks],
    }


def _sources(works: Works) -> list[Row]:
    told: dict[str, Row] = {
        **{intake.source.name: _polled(works, intake) for intake in works.intakes},
        **{reception.source.name: _pushed(reception) for reception in works.receptions},
    }
    unknown: Row = {"state": "stopped", "last_answer": None, "trouble": None}
    return [
        {"name": name, "type": source.type, **told.get(name, unknown)}
        for name, source in works.settings.sources.items()
    ]


def _polled(works: Works, intake: Intake) -> Row:
    age = None if intake.last_answer is None else works.clock.monotonic() - intake.last_answer
    state, trouble = "polling", None
    if intake.trouble is not None:
        state, trouble = "paused", intake.trouble
    elif intake.failing:
        state, trouble = "failing", intake.failure
    return {"state": state, "last_answer": _rounded(age), "trouble": trouble}


def _pushed(reception: Reception) -> Row:
    state = "receiving" if reception.trouble is None else "paused"
    return {"state": state, "last_answer": None, "trouble": reception.trouble}


async def _spool_trouble(works: Works) -> str | None:
    try:
        async with asyncio.timeout(PROVE_WITHIN):
            await works.spool.prove()
    except StorageError as error:
        return str(error)
    except TimeoutError:
        return f"no write within {PROVE_WITHIN:.0f} s"
    return None


async def _sink(works: Works, sink: str, paused: bool) -> Row:
    backlog = await works.spool.backlog(sink)
    courier = works.courier(sink)
    return {
        "name": sink,
        "type": works.settings.sinks[sink].type,
        **(_stopped(paused) if courier is None else _served(works, courier)),
        "backlog": backlog.events,
        "retrying": backlog.retrying,
        "oldest": _since(works, backlog.oldest),
        "dead": backlog.dead,
    }


def _stopped(paused: bool) -> Row:
    why = "by the operator" if paused else ""
    return {
        "state": "paused" if paused else "stopped",
        "why": why,
        "last_error": None,
        "last_error_age": None,
    }


def _served(works: Works, courier: Courier) -> Row:
    standing = courier.standing
    at, error = courier.last_error or (None, None)
    return {
        "state": standing.state.value,
        "why": standing.why,
        "last_error": error,
        "last_error_age": _since(works, at),
    }


def _since(works: Works, at: datetime | None) -> float | None:
    return None if at is None else _rounded((works.clock.now() - at).total_seconds())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 1)
