"""The state of all parts, as `poller status` shows it."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import msgspec

from poller import __version__
from poller.core.errors import StorageFull
from poller.core.history import Book, Tally
from poller.core.model import Backlog
from poller.core.spool import Away, Member, Shared
from poller.operations.health import (
    ASKED_WITHIN,
    STANDS_BY,
    Condition,
    Health,
    away_of,
    examine,
    who_polls,
)
from poller.operations.operator_context import OperatorContext
from poller.operations.replay import replay_rows
from poller.operations.requests import Row
from poller.pipeline.intake import Intake

ELSEWHERE: Final = "elsewhere"
"""The state of a part that no daemon on this machine has, while daemons elsewhere share the spool."""


async def status(context: OperatorContext) -> Row:
    """The state of sources, spool, journal and sinks. Ages are in seconds; unknown values are None.

    `ready`, `reasons` and `notes` are those of `/readyz`. Without a daemon, `ready` is false. `possibly_lost` has the
    possible losses of this process, and `books` all counts since the spool was made (`Tally`). `taken`,
    `delivered` and `died` of a source or sink are from there. `per_second` is the throughput of the last minute, and
    `catch_up` the seconds until a sink has nothing pending at that throughput; None if it falls behind. `next_probe` is
    for a sink that paused by itself. `beat_known` says whether the polls of a source follow bursts that were learned;
    None if there is nothing to learn. `next_poll` is when its next poll is due. `members` are the daemons that share
    the spool: `expires` says after how many seconds without a sign of life others take over what one holds.

    `away` tells of an outage of the database of a shared spool. Meanwhile the daemon answers from its memory: counts
    are those of `known_at`, and what the daemon does not know is None. Without an outage `away` is None.
    """
    health = await examine(context)
    stored = await _stored(context, health)
    if stored.known_at is not None:  # no throughput is known of an outage
        context = replace(context, throughput=None)
    return {
        "running": context.running,
        "version": __version__,
        "pid": os.getpid() if context.running else None,
        "ready": context.running and not health.reasons,
        "reasons": health.reasons,
        "notes": health.notes,
        "possibly_lost": [msgspec.to_builtins(loss) for loss in health.losses],
        "away": _away(context, health, stored),
        "books": [msgspec.to_builtins(tally) for tally in stored.tallies or ()],
        "sources": _sources(context, health, stored.tallies),
        "spool": await _spool(context, health, stored),
        "journal": _journal(context),
        "members": [_member(context, member) for member in health.members if not member.visits],
        "replays": replay_rows(context, only_open=True),
        "sinks": [
            {
                **_sink(context, health, stored, sink),
                **_deliveries(context, stored, sink),
            }
            for sink in context.settings.sinks
        ],
    }


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the spool says. None is not known.

    known_at: None if the spool was asked just now; while its database is away, when it was asked last
    """

    known_at: datetime | None = None
    tallies: Sequence[Tally] | None = None
    backlogs: Mapping[str, Backlog] = {}
    paused: frozenset[str] = frozenset()
    quarantined: int | None = None


async def _stored(context: OperatorContext, health: Health) -> _Stored:
    """Ask the spool. While its database is away: what was known last."""
    if health.counted:
        try:
            async with asyncio.timeout(ASKED_WITHIN if isinstance(context.spool, Shared) else None):
                return await _ask(context, health)
        except (StorageFull, TimeoutError):
            if not context.running:
                raise
    known = None if context.throughput is None else context.throughput.known
    if known is None:
        return _Stored(known_at=context.clock.now())
    return _Stored(known_at=known.at, tallies=known.tallies, backlogs=known.backlogs)


async def _ask(context: OperatorContext, health: Health) -> _Stored:
    tallies, paused = await context.spool.tallies(), await context.spool.paused()
    if context.throughput is not None:
        context.throughput.sample(tallies, health.backlogs)
    unserved = [sink for sink in context.settings.sinks if sink not in health.backlogs]
    return _Stored(
        tallies=tallies,
        backlogs={**health.backlogs, **{sink: await context.spool.backlog(sink) for sink in unserved}},
        paused=frozenset(paused),
        quarantined=await context.spool.quarantine_size(),
    )


def _away(context: OperatorContext, health: Health, stored: _Stored) -> Row | None:
    if stored.known_at is None:
        return None
    away = away_of(context.spool) or Away(since=context.clock.now(), why=health.spool.why)
    return {"since": away.since, "why": away.why, "known_at": stored.known_at}


async def _spool(context: OperatorContext, health: Health, stored: _Stored) -> Row:
    path = getattr(context.settings.spool, "path", None)
    return {
        "type": context.settings.spool.type,
        "path": None if path is None else str(path),
        "bytes": await context.spool.size(),
        "quarantined": stored.quarantined,
        "trouble": health.spool.why or None,
    }


def _member(context: OperatorContext, member: Member) -> Row:
    spool = context.spool
    here = context.running and isinstance(spool, Shared) and spool.member == member.number
    return {
        "number": member.number,
        "name": member.name,
        "here": here,
        "since": member.since,
        "expires": _round(member.expires),
        "duties": list(member.duties),
        "held": dict(member.held),
    }


def _journal(context: OperatorContext) -> Row | None:
    """The bytes that are not yet in the spool, and how long the oldest page has waited in this process."""
    if context.journal is None:
        return None
    return {"bytes": context.journal.bytes_held, "oldest": _round(context.journal.oldest)}


def _count(tallies: Sequence[Tally] | None, owner: str, book: Book) -> int | None:
    return (
        None
        if tallies is None
        else sum(one.count for one in tallies if (one.owner, one.book) == (owner, book))
    )


def _per_second(context: OperatorContext, owner: str, book: Book) -> float | None:
    return None if context.throughput is None else _round(context.throughput.per_second(owner, book))


def _deliveries(context: OperatorContext, stored: _Stored, sink: str) -> Row:
    """What a sink was given since ever, and how fast."""
    backlog, throughput, tallies = stored.backlogs.get(sink), context.throughput, stored.tallies
    catch_up = None if throughput is None or backlog is None else throughput.catch_up(sink, backlog.events)
    return {
        "delivered": _count(tallies, sink, Book.DELIVERED),
        "died": _count(tallies, sink, Book.DEAD),
        "per_second": _per_second(context, sink, Book.DELIVERED),
        "catch_up": _round(catch_up),
    }


def _sources(context: OperatorContext, health: Health, tallies: Sequence[Tally] | None) -> list[Row]:
    intakes = {intake.source.name: intake for intake in context.intakes}
    found = {**health.sources, **health.receivers}
    return [
        {
            "name": name,
            "type": source.type,
            **(
                _source(context, intakes.get(name), found[name])
                if name in found
                else _source_elsewhere(context, health, name)
            ),
            "taken": _count(tallies, name, Book.TAKEN),
            "per_second": _per_second(context, name, Book.TAKEN),
        }
        for name, source in context.settings.sources.items()
    ]


def _runs_elsewhere(context: OperatorContext, health: Health) -> bool:
    """Whether no daemon runs here, and others share the spool."""
    return not context.running and any(not member.visits for member in health.members)


def _source_elsewhere(context: OperatorContext, health: Health, name: str) -> Row:
    return {
        "state": ELSEWHERE if _runs_elsewhere(context, health) else "stopped",
        "last_answer": None,
        "trouble": None,
        "polled_by": who_polls(name, health.members) or None,
        "beat_known": None,
        "next_poll": None,
    }


def _source(context: OperatorContext, intake: Intake | None, condition: Condition) -> Row:
    stands_by = condition.state == STANDS_BY
    answered = None if intake is None else intake.last_answer
    age = None if answered is None else context.clock.monotonic() - answered
    return {
        "state": condition.state,
        "last_answer": _round(age),
        "trouble": None if stands_by else condition.why or None,
        "polled_by": condition.why if stands_by else None,
        "beat_known": None if intake is None or stands_by else intake.beat_known,
        "next_poll": None if intake is None or stands_by else _round(intake.next_poll),
    }


def _sink(context: OperatorContext, health: Health, stored: _Stored, sink: str) -> Row:
    condition = health.sinks.get(sink)
    stopped = ELSEWHERE if _runs_elsewhere(context, health) else "stopped"
    return {
        "name": sink,
        "type": context.settings.sinks[sink].type,
        **(
            _stopped_row(stopped, sink in stored.paused)
            if condition is None
            else _sink_state(context, sink, condition)
        ),
        **_pending(context, stored.backlogs.get(sink)),
    }


def _stopped_row(stopped: str, paused: bool) -> Row:
    why = "by the operator" if paused else ""
    return {
        "state": "paused" if paused else stopped,
        "why": why,
        "last_error": None,
        "last_error_age": None,
        "next_probe": None,
    }


def _sink_state(context: OperatorContext, sink: str, condition: Condition) -> Row:
    courier = context.courier(sink)
    at, error = (courier and courier.last_error) or (None, None)
    return {
        "state": condition.state,
        "why": condition.why,
        "last_error": error,
        "last_error_age": _since(context, at),
        "next_probe": None if courier is None else _round(courier.next_probe),
    }


def _pending(context: OperatorContext, backlog: Backlog | None) -> Row:
    return {
        "backlog": None if backlog is None else backlog.events,
        "retrying": None if backlog is None else backlog.retrying,
        "oldest": None if backlog is None else _since(context, backlog.oldest),
        "dead": None if backlog is None else backlog.dead,
    }


def _since(context: OperatorContext, at: datetime | None) -> float | None:
    return None if at is None else _round(context.clock.age(at))


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 1)
