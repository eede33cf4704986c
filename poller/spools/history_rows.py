"""How rows of a database hold counts, deliveries, gaps and replays, as every engine with a database keeps them."""

import msgspec

from poller.core.history import Book, Delivery, Gap, Replay, ReplayState, Tally
from poller.core.selection import Selection
from poller.spools.delivered import Delivered, Settled
from poller.spools.rows import Row, epoch, history_blob, history_of, moment, reads_back, typed

TALLY_COLUMNS = "owner, book, count, at"


@reads_back
def tally_of(row: Row) -> Tally:
    """A count from its row."""
    owner, book, number, at = typed(row, tuple[str, Book, int, float])
    return Tally(owner=owner, book=book, count=number, at=moment(at))


# ---------------------------------------------------------------- deliveries

DELIVERED_COLUMNS = "sink, at, first, last, holes, attempt, took_ms, history"
AGAIN_COLUMNS = "event_id, sink, at, attempt, took_ms, history"
DELIVERY_COLUMNS = "sink, at, attempt, took_ms, history"
"""`AGAIN_COLUMNS` without the id of the event."""

_DeliveredRow = tuple[str, float, int, int, bytes, int, int, bytes]
_DeliveryRow = tuple[str, float, int, int, bytes]


def delivered_row(one: Delivered) -> Row:
    """A row of `delivered`, without its number."""
    return (
        one.sink,
        epoch(one.at),
        one.first,
        one.last,
        one.holes,
        one.attempt,
        _ms(one.took),
        history_blob(one.history),
    )


@reads_back
def delivered_of(row: Row) -> Delivered:
    """Deliveries from their row (`DELIVERED_COLUMNS`)."""
    sink, at, first, last, holes, attempt, took, history = typed(row, _DeliveredRow)
    return Delivered(
        sink=sink,
        at=moment(at),
        first=first,
        last=last,
        holes=holes,
        attempt=attempt,
        took=took / 1000,
        history=history_of(history),
    )


def again_rows(sink: str, done: Settled) -> list[Row]:
    """The rows of `redelivered` for the retried dead letters of a settlement, without their numbers."""
    rest = (sink, epoch(done.at), done.attempt, _ms(done.took), history_blob(done.history))
    return [(id, *rest) for id in done.ids]


@reads_back
def delivery_of(row: Row) -> Delivery:
    """A delivery from its row of `redelivered` (`DELIVERY_COLUMNS`)."""
    sink, at, attempt, took, history = typed(row, _DeliveryRow)
    return Delivery(sink=sink, at=moment(at), attempt=attempt, took=took / 1000, history=history_of(history))


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


# ---------------------------------------------------------------- gaps

GAP_COLUMNS = (
    "id, account, stream_id, from_at, to_at, missing, why, filled, cadence, push_started_at, task_started_at,"
    " first_missing_offset"
)

_GapRow = tuple[str, str, str, float, float, int, str, int, float, float | None, float | None, int]


def gap_row(gap: Gap) -> Row:
    """A row of `gap`."""
    return (
        gap.id,
        gap.account,
        gap.stream_id,
        epoch(gap.from_at),
        epoch(gap.to_at),
        gap.missing,
        gap.why,
        gap.filled,
        gap.cadence,
        None if gap.push_started_at is None else epoch(gap.push_started_at),
        None if gap.task_started_at is None else epoch(gap.task_started_at),
        gap.first_missing_offset,
    )


@reads_back
def gap_of(row: Row) -> Gap:
    """A gap from its row (`GAP_COLUMNS`)."""
    id, account, stream_id, from_at, to_at, missing, why, filled, cadence, push, task, first = typed(
        row, _GapRow
    )
    return Gap(
        id=id,
        account=account,
        stream_id=stream_id,
        from_at=moment(from_at),
        to_at=moment(to_at),
        missing=missing,
        why=why,
        filled=filled,
        cadence=cadence,
        push_started_at=None if push is None else moment(push),
        task_started_at=None if task is None else moment(task),
        first_missing_offset=first,
    )


# ---------------------------------------------------------------- replays

REPLAYS = (
    "SELECT replay.n, sink, chosen, at, until, asked_at, total, queued, state, ids"
    " FROM replay LEFT JOIN replay_without ON replay.n = replay_without.n ORDER BY replay.n"
)
"""All replays in the order of their numbers, each with the ids that it leaves out."""

_chosen = msgspec.json.Decoder(Selection)
_ids = msgspec.json.Decoder(frozenset[str])
_ReplayRow = tuple[int, str, bytes, int, int, float, int, int, ReplayState, bytes | None]


def replay_row(replay: Replay) -> Row:
    """A row of `replay`."""
    return (
        replay.number,
        replay.sink,
        msgspec.json.encode(replay.chosen),
        replay.at,
        replay.until,
        epoch(replay.asked_at),
        replay.total,
        replay.queued,
        replay.state.value,
    )


def without_row(replay: Replay, left_out: frozenset[str]) -> Row:
    """A row of `replay_without`."""
    return (replay.number, msgspec.json.encode(sorted(left_out)))


@reads_back
def replay_of(row: Row) -> tuple[Replay, frozenset[str]]:
    """A replay and the ids that it leaves out, from its rows (`REPLAYS`)."""
    number, sink, chosen, at, until, asked_at, total, queued, state, ids = typed(row, _ReplayRow)
    replay = Replay(
        number=number,
        sink=sink,
        chosen=_chosen.decode(chosen),
        at=at,
        until=until,
        asked_at=moment(asked_at),
        total=total,
        queued=queued,
        state=state,
    )
    return replay, frozenset() if ids is None else _ids.decode(ids)
