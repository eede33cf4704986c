"""The state of all parts, as `poller status` shows it."""

import os
from collections.abc import Sequence
from datetime import datetime

import msgspec

from poller import __version__
from poller.core.history import Book, Tally
from poller.core.model import Backlog
from poller.core.spool import Member, Shared
from poller.operations.health import STANDS_BY, Condition, Health, examine
from poller.operations.operator_context import OperatorContext
from poller.operations.replay import replay_rows
from poller.operations.requests import Row
from poller.pipeline.intake import Intake


async def status(context: OperatorContext) -> Row:
    """The state of sources, spool, journal and sinks. Ages are in seconds; unknown values are None.

    `ready`, `reasons` and `notes` are those of `/readyz`. Without a daemon, `ready` is false. `possibly_lost` has the
    possible losses of this process, and `books` all counts since the spool file was created (`Tally`). `taken`,
    `delivered` and `died` of a source or sink are from there. `per_second` is the throughput of the last minute, and
    `catch_up` the seconds until a sink has nothing pending at that throughput; None if it falls behind. `next_probe` is
    for a sink that paused by itself. `beat_known` says whether the polls of a source follow bursts that were learned;
    None if there is nothing to learn. `next_poll` is when its next poll is due. `members` are the daemons that share
    the spool: `expires` says after how many seconds without a sign of life others take over what one holds.
    """
    paused, health = await context.spool.paused(), await examine(context)
    tallies = await context.spool.tallies()
    if context.throughput is not None:
        context.throughput.sample(tallies, health.backlogs)
    return {
        "running": context.running,
        "version": __version__,
        "pid": os.getpid() if context.running else None,
        "ready": context.running and not health.reasons,
        "reasons": health.reasons,
        "notes": health.notes,
        "possibly_lost": [msgspec.to_builtins(loss) for loss in health.losses],
        "books": [msgspec.to_builtins(tally) for tally in tallies],
        "sources": _sources(context, health, tallies),
        "spool": await _spool(context, health),
        "journal": _journal(context),
        "members": [_member(context, member) for member in health.members if not member.visits],
        "replays": replay_rows(context, only_open=True),
        "sinks": [
            {
                **await _sink(context, health, sink, sink in paused),
                **_deliveries(context, health, sink, tallies),
            }
            for sink in context.settings.sinks
        ],
    }


async def _spool(context: OperatorContext, health: Health) -> Row:
    path = getattr(context.settings.spool, "path", None)
    return {
        "type": context.settings.spool.type,
        "path": None if path is None else str(path),
        "bytes": await context.spool.size(),
        "quarantined": await context.spool.quarantine_size(),
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


def _count(tallies: Sequence[Tally], owner: str, book: Book) -> int:
    return sum(one.count for one in tallies if (one.owner, one.book) == (owner, book))


def _per_second(context: OperatorContext, owner: str, book: Book) -> float | None:
    return None if context.throughput is None else _round(context.throughput.per_second(owner, book))


def _deliveries(context: OperatorContext, health: Health, sink: str, tallies: Sequence[Tally]) -> Row:
    """What a sink was given since ever, and how fast."""
    backlog, throughput = health.backlogs.get(sink), context.throughput
    catch_up = None if throughput is None or backlog is None else throughput.catch_up(sink, backlog.events)
    return {
        "delivered": _count(tallies, sink, Book.DELIVERED),
        "died": _count(tallies, sink, Book.DEAD),
        "per_second": _per_second(context, sink, Book.DELIVERED),
        "catch_up": _round(catch_up),
    }


def _sources(context: OperatorContext, health: Health, tallies: Sequence[Tally]) -> list[Row]:
    intakes = {intake.source.name: intake for intake in context.intakes}
    found = {**health.sources, **health.receivers}
    return [
        {
            "name": name,
            "type": source.type,
            **_source(context, intakes.get(name), found.get(name)),
            "taken": _count(tallies, name, Book.TAKEN),
            "per_second": _per_second(context, name, Book.TAKEN),
        }
        for name, source in context.settings.sources.items()
    ]


def _source(context: OperatorContext, intake: Intake | None, condition: Condition | None) -> Row:
    if condition is None:
        return {
            "state": "stopped",
            "last_answer": None,
            "trouble": None,
            "polled_by": None,
            "beat_known": None,
            "next_poll": None,
        }
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


async def _sink(context: OperatorContext, health: Health, sink: str, paused: bool) -> Row:
    condition = health.sinks.get(sink)
    backlog = health.backlogs[sink] if condition else await context.spool.backlog(sink)
    return {
        "name": sink,
        "type": context.settings.sinks[sink].type,
        **(_stopped_row(paused) if condition is None else _sink_state(context, sink, condition)),
        **_pending(context, backlog),
    }


def _stopped_row(paused: bool) -> Row:
    why = "by the operator" if paused else ""
    return {
        "state": "paused" if paused else "stopped",
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


def _pending(context: OperatorContext, backlog: Backlog) -> Row:
    return {
        "backlog": backlog.events,
        "retrying": backlog.retrying,
        "oldest": _since(context, backlog.oldest),
        "dead": backlog.dead,
    }


def _since(context: OperatorContext, at: datetime | None) -> float | None:
    return None if at is None else _round(context.clock.age(at))


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 1)
