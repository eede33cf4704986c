"""Finding pictures that never came, from the names of those that came. Pure.

Names
    A name of grammar A says of which push and of which screenshot task a picture is, and how many seconds after the
    start of the push it was taken (its offset). Pictures of one push and one task are a run. A new push or a new task
    begins a new run, and nothing is missing between two runs. Names of another grammar say nothing of this.

Judging
    A step is the time between two neighbours in a run. Pictures are missing in a step that is much longer than the
    steps on both sides of it, if those steps are alike (`missing_between`). So an interval that changes leaves no gap,
    and neither do the first and the last picture of a run. An interruption that a `channel` event reports within the
    step leaves no gap either.

Waiting
    Messages come late and out of order. A step is judged when the pictures on both sides were received `settle` seconds
    ago, and with the three steps behind it; with fewer, only after the end of its run.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from statistics import fmean, median_low
from typing import Final

import msgspec

from poller.core.history import Gap, LatePicture
from poller.core.model import Event, identity, new_event

GAP: Final = "gap"
PICTURE, CHANNEL = "screenshot", "channel"
LOOKED_AT: Final = frozenset({PICTURE, CHANNEL})
"""The kinds of event that `Auditor.take` needs."""
SIDE: Final = 3
"""The steps on each side that are compared with a long step."""
LONGER: Final = 1.75
"""How many times the usual step is long."""
NOTABLE: Final = 1.4
"""A step that is less than this factor times the shortest step before it is never looked at closely."""
ALIKE: Final = 0.25
"""The part of the usual step by which a step may differ from it."""
QUIET: Final = 10
"""After this number of usual steps without a picture, a run may have ended."""
REPLACED_KEPT: Final = 3_600.0
KEPT: Final = 86_400.0
"""Seconds without a picture after which a run is forgotten; the shorter one for a run that another has replaced."""
MOST_BREAKS: Final = 16
MOST_STREAMS: Final = 100_000
_BEGINS, _OFFSET = b'"push_started_at":', b',"offset":'
_EARLIEST: Final = 340
"""No public form with both times has the offset before this place."""
_LONGEST: Final = 63
"""The bytes between the two names where both times are given."""

Key = tuple[str, str]
"""Account and stream id."""


# ---------------------------------------------------------------- names


class _Named(msgspec.Struct):
    push_started_at: str | None = None
    task_started_at: str | None = None
    offset: int | None = None


class _Parts(msgspec.Struct):
    data: _Named


_parts = msgspec.json.Decoder(_Parts).decode


def run_and_offset(event: Event) -> tuple[str, int] | None:
    """The run of a picture and its offset; None where its name says neither. Quick for events as we encode them."""
    text = event.encoded
    ends = text.find(_OFFSET, _EARLIEST)
    first = ends + len(_OFFSET)
    digits = text[first : text.find(b",", first, first + 10)]
    named = text[ends - _LONGEST : ends]
    if text[ends - _LONGEST - len(_BEGINS) : ends - _LONGEST] == _BEGINS and digits.isdigit():
        return _run_name(named), int(digits)
    return _decoded(text)


@lru_cache(maxsize=16_384)
def _run_name(named: bytes) -> str:
    return f"{named[1:21].decode()} {named[-21:-1].decode()}"


def _decoded(text: bytes) -> tuple[str, int] | None:
    try:
        named = _parts(text).data
    except msgspec.MsgspecError:  # a plug-in's fields
        return None
    push, task = named.push_started_at, named.task_started_at
    if named.offset is None or (push is None and task is None):
        return None
    return f"{push or ''} {task or ''}", named.offset


# ---------------------------------------------------------------- steps


def missing_between(before: Sequence[int], step: int, after: Sequence[int]) -> tuple[int, float] | None:
    """How many pictures are missing in a step, and the usual step; None where nothing shows that any is.

    `before` and `after` are up to `SIDE` steps on each side, in order. The usual step must be seen on both sides:
    either at most one of the steps differs from it, or none on one side and not the nearest one on the other.
    """
    if not before or not after:
        return None
    usual = median_low([*before, *after])
    sides = [_alike(side, usual) for side in (before[::-1], after)]
    differing = [side.count(False) for side in sides]
    nearest = all(side[0] for side in sides) and any(len(side) == SIDE and all(side) for side in sides)
    if not all(map(any, sides)) or (sum(differing) > 1 and not nearest):
        return None
    cadence = fmean(one for one in (*before, *after) if abs(one - usual) <= ALIKE * usual)
    return (round(step / cadence) - 1, cadence) if step >= LONGER * cadence else None


def _alike(steps: Sequence[int], usual: int) -> list[bool]:
    return [abs(one - usual) <= ALIKE * usual for one in steps]


def _steps(offsets: Sequence[int], first: int, last: int) -> list[int]:
    """The steps between the offsets at places `first` to `last`, as far as there are any."""
    reach = offsets[max(first, 0) : last + 1]
    return [after - before for before, after in pairwise(reach)]


def _stands_out(offsets: Sequence[int], at: int) -> bool:
    """Whether a step is longer than some step before it, so that pictures may be missing. Quick for equal steps."""
    if at == 0:
        return False
    step = offsets[at + 1] - offsets[at]
    if step == offsets[at] - offsets[at - 1] and (at == 1 or step == offsets[at - 1] - offsets[at - 2]):
        return False
    return step > NOTABLE * min(_steps(offsets, at - SIDE, at))


# ---------------------------------------------------------------- runs


class Run(msgspec.Struct, array_like=True):
    """The newest pictures of one run, in the order of their offsets.

    zero:     the epoch of offset 0
    offsets:  of the pictures
    received: when each of them was received (epoch)
    at:       the place of the next step to judge: from this offset to the next
    replaced: when the first picture of another run of the stream was received
    gaps:     how many gaps were found
    """

    zero: float
    offsets: list[int]
    received: list[float]
    at: int = 0
    replaced: float | None = None
    gaps: int = 0

    @property
    def end(self) -> float:
        """When the last picture was taken."""
        return self.zero + self.offsets[-1]

    def insert(self, offset: int, received: float) -> bool:
        """Put a picture in its place; whether its place was judged already."""
        place = bisect_left(self.offsets, offset)
        if self.offsets[place] == offset:
            return False
        self.offsets.insert(place, offset)
        self.received.insert(place, received)
        if place > self.at or self.at == 0:
            return False
        self.at += 1
        return True

    def shorten(self) -> None:
        """Drop what no step to judge needs."""
        if (surplus := self.at - SIDE) > 0:
            del self.offsets[:surplus], self.received[:surplus]
            self.at = SIDE

    def extend(self, offset: int, received: float, settle: float) -> bool:
        """Add the newest picture; whether some step has to be judged. Passes steps that are like those before them."""
        offsets, times = self.offsets, self.received
        offsets.append(offset)
        times.append(received)
        at, last = self.at, len(offsets) - 1
        while at < last and received - times[at + 1] >= settle and not _stands_out(offsets, at):
            at += 1
        self.at = at
        if at > 2 * SIDE:
            self.shorten()
        return _stands_out(offsets, len(offsets) - 2)

    @property
    def waits(self) -> bool:
        """Whether some step has to be judged."""
        return any(_stands_out(self.offsets, at) for at in range(self.at, len(self.offsets) - 1))

    def may_judge(self, after: int, usual: int, now: float, settle: float) -> bool:
        """Whether a long step can be judged by the `after` steps behind it."""
        first = self.at + 1
        # a stamp of a clock that was wrong may lie ahead
        if any(abs(now - moment) < settle for moment in self.received[first : first + after + 1]):
            return False
        if after == SIDE or (self.replaced is not None and abs(now - self.replaced) >= settle):
            return True
        return bool(after) and now - self.received[-1] >= settle + QUIET * usual

    def is_old(self, now: float) -> bool:
        """Whether nothing more is expected of the run."""
        return abs(now - max(self.received)) > (KEPT if self.replaced is None else REPLACED_KEPT)


class Audited(msgspec.Struct, array_like=True):
    """What is known of a stream: its runs, and the epochs of interruptions.

    upto: the stored state includes the stream's events below this number
    """

    runs: dict[str, Run]
    breaks: list[float]
    upto: int = 0

    def interrupted(self, since: float, until: float) -> bool:
        """Whether an interruption was reported within this time."""
        return any(since <= at <= until for at in self.breaks)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Audited).decode


class Auditor:
    """Looks at pictures in the order of the log and finds gaps. Its state can be stored, stream by stream.

    The states may be stored at different times, and be ahead of the place where looking begins again: each says which
    events it includes.

    `settle` returns the seconds that a hole of this account stays open, and None for an account that is not audited.
    """

    def __init__(
        self, settle: Callable[[str], float | None], stored: Mapping[str, bytes] | None = None
    ) -> None:
        self.pictures = 0
        """How many pictures it could look at."""
        self.unnamed: set[Key] = set()
        """Streams with pictures whose names say too little."""
        self.late: list[LatePicture] = []
        """Pictures that came after their place was judged, since `take_late`."""
        self._settle = settle
        self._streams: dict[Key, Audited] = {}
        self._open: set[Key] = set()
        self.changed: set[Key] = set()
        """Streams whose state has changed since it was stored (`keep`), or that were forgotten."""
        self._included = 0
        """No restored state includes an event with this number or a later one."""
        for name, state in (stored or {}).items():
            self._restore(name, state)

    @property
    def streams(self) -> int:
        """How many streams it knows."""
        return len(self._streams)

    @property
    def waits(self) -> bool:
        """Whether a step waits to be judged."""
        return bool(self._open)

    # ------------------------------------------------------------ taking

    def take(self, event: Event, number: int | None = None) -> None:
        """Look at an event. With its number, it is passed over if the stored state of its stream includes it."""
        if (settle := self._settle(event.account)) is None:
            return
        key = (event.account, event.stream_id)
        if number is not None and number < self._included and number < self._upto(key):
            return
        if event.kind == PICTURE:
            self._take_picture(key, event, settle)
        elif event.kind == CHANNEL and (audited := self._streams.get(key)) and _interrupts(event):
            audited.breaks = [*audited.breaks, event.occurred_at.timestamp()][-MOST_BREAKS:]
            self.changed.add(key)

    def _upto(self, key: Key) -> int:
        audited = self._streams.get(key)
        return audited.upto if audited else 0

    def _take_picture(self, key: Key, event: Event, settle: float) -> None:
        found = run_and_offset(event)
        if found is None:
            self.unnamed.add(key)
            return
        name, offset = found
        self.pictures += 1
        received = event.received_at.timestamp()
        run = self._run(key, name, offset, received, event)
        if run is None:
            return
        self.changed.add(key)
        if offset > run.offsets[-1]:
            if run.extend(offset, received, settle):
                self._open.add(key)
            return
        self._open.add(key)
        if run.insert(offset, received) and run.gaps:
            self.late.append(
                LatePicture(account=key[0], stream_id=key[1], taken_at=_moment(run.zero + offset))
            )

    def _run(self, key: Key, name: str, offset: int, received: float, event: Event) -> Run | None:
        """The run of this name; a new one if there is none. None where there are too many streams."""
        audited = self._streams.get(key)
        if audited is None:
            if len(self._streams) >= MOST_STREAMS:
                return None
            audited = self._streams[key] = Audited(runs={}, breaks=[])
        run = audited.runs.get(name)
        if run is None:
            zero = event.occurred_at.timestamp() - offset
            run = Run(zero=zero, offsets=[offset], received=[received])
            for other in audited.runs.values():
                older = other if other.end < run.end else run
                older.replaced = received if older.replaced is None else older.replaced
            audited.runs[name] = run
        return run

    def take_late(self) -> list[LatePicture]:
        """The late pictures, once."""
        late, self.late = self.late, []
        return late

    # ------------------------------------------------------------ judging

    def judge(self, now: float, place: int | None = None) -> list[Gap]:
        """The gaps that are certain at this moment (epoch). Each is returned once.

        Where `place` is the number of the next event to look at, a restored state that is ahead of it waits.
        """
        found: list[Gap] = []
        for key in list(self._open):
            audited, settle = self._streams[key], self._settle(key[0])
            if _is_ahead(audited, place):
                continue
            waits = False
            for name, run in audited.runs.items():
                before = run.at
                if settle is not None:
                    found.extend(_judge_run(key, audited, name, now, settle))
                if run.at != before:
                    self.changed.add(key)
                run.shorten()
                waits = waits or run.waits
            if not waits:
                self._open.discard(key)
        return found

    def forget(self, now: float, place: int | None = None) -> None:
        """Forget the runs of which nothing more is expected. `place` is as in `judge`."""
        for key, audited in list(self._streams.items()):
            if _is_ahead(audited, place):
                continue
            old = [name for name, run in audited.runs.items() if run.is_old(now)]
            for name in old:
                del audited.runs[name]
            if old:
                self.changed.add(key)
            if not audited.runs:
                del self._streams[key]
                self._open.discard(key)

    def drop(self, unwanted: Callable[[str], bool]) -> None:
        """Forget all streams of these accounts."""
        for key in [key for key in self._streams if unwanted(key[0])]:
            del self._streams[key]
            self._open.discard(key)
            self.changed.add(key)

    # ------------------------------------------------------------ storing

    def states(self, keys: Iterable[Key], upto: int) -> dict[str, bytes]:
        """The states of streams, which include their events below `upto`; empty for a stream that was forgotten."""
        return {"/".join(key): self._state(key, upto) for key in keys}

    def _state(self, key: Key, upto: int) -> bytes:
        if (audited := self._streams.get(key)) is None:
            return b""
        audited.upto = max(audited.upto, upto)
        return _pack(audited)

    def keep(self, keys: Iterable[Key]) -> None:
        """The states of these streams are stored."""
        self.changed.difference_update(keys)

    def _restore(self, name: str, state: bytes) -> None:
        account, _, stream_id = name.partition("/")
        try:
            audited = self._streams[account, stream_id] = _unpack(state)
        except msgspec.MsgspecError:  # of another version: the stream is looked at anew
            return
        self._included = max(self._included, audited.upto)
        self._open.add((account, stream_id))


def _is_ahead(audited: Audited, place: int | None) -> bool:
    return place is not None and audited.upto > place


def _judge_run(key: Key, audited: Audited, name: str, now: float, settle: float) -> Iterator[Gap]:
    """Judge the steps of a run, as far as that is possible by now."""
    run = audited.runs[name]
    offsets = run.offsets
    while run.at < len(offsets) - 1:
        at = run.at
        step = offsets[at + 1] - offsets[at]
        if abs(now - run.received[at + 1]) < settle:
            return
        if _stands_out(offsets, at):
            before = _steps(offsets, at - SIDE, at)
            after = _steps(offsets, at + 1, at + 1 + SIDE)
            if not run.may_judge(len(after), min(before), now, settle):
                return
            if (missing := missing_between(before, step, after)) is not None:
                gap = _gap(key, name, run, *missing)
                if not audited.interrupted(gap.from_at.timestamp(), gap.to_at.timestamp()):
                    run.gaps += 1
                    yield gap
        run.at += 1


def _interrupts(event: Event) -> bool:
    """Whether a change of state shows that a push ended or began then. A poll may see a live channel late."""
    fields = event.fields
    return fields.get("state") != "live" or fields.get("seen_by") == "callbacks"


# ---------------------------------------------------------------- gaps


def _gap(key: Key, name: str, run: Run, missing: int, cadence: float) -> Gap:
    before, after = run.offsets[run.at], run.offsets[run.at + 1]
    first = before + round(cadence)
    push, _, task = name.partition(" ")
    return Gap(
        id=identity(GAP, key[0], f"{key[1]}\0{name}\0{first}"),
        account=key[0],
        stream_id=key[1],
        from_at=_moment(run.zero + before),
        to_at=_moment(run.zero + after),
        missing=missing,
        why=f"{after - before} s without a picture of the same task, with one every {cadence:g} s before and after",
        cadence=round(cadence, 3),
        push_started_at=datetime.fromisoformat(push) if push else None,
        task_started_at=datetime.fromisoformat(task) if task else None,
        first_missing_offset=first,
    )


def gap_event(gap: Gap, now: datetime) -> Event:
    """The event that reports a gap. It happened when the first missing picture was due."""
    return new_event(
        id=gap.id,
        kind=GAP,
        account=gap.account,
        stream_id=gap.stream_id,
        occurred_at=_moment(gap.from_at.timestamp() + gap.cadence),
        received_at=now,
        url=None,
        fields={
            "from": gap.from_at,
            "to": gap.to_at,
            "missing": gap.missing,
            "cadence": gap.cadence,
            "push_started_at": gap.push_started_at,
            "task_started_at": gap.task_started_at,
            "first_missing_offset": gap.first_missing_offset,
            "why": gap.why,
        },
        message=msgspec.Raw(b"{}"),
    )


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
