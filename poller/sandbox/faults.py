"""What can go wrong on purpose: by seed with a probability, or the next few times by order."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from poller.sandbox.options import BadOption


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that goes wrong.

    takes:   whether the call still removes its messages from the queue
    seconds: how long a delay lasts, how long a drip waits between bytes, or how long ago a stale `t` was
    offset:  after how many bytes of the body a cut comes; None: anywhere
    status:  the HTTP status sent
    ret:     the `ret` sent by wrong_ret
    size:    bytes of an endless body or of a bomb, unpacked
    poison:  which poison messages are mixed in; empty: some of all kinds
    """

    name: str
    takes: bool = False
    seconds: float = 0.5
    offset: int | None = None
    status: int = 500
    ret: int = 1201
    size: int = 100 * 1024 * 1024
    poison: tuple[str, ...] = ()


API_FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        # The answer arrives whole and is odd.
        Fault(name="latency", takes=True),
        Fault(name="duplicate", takes=True),
        Fault(name="duplicate_later", takes=True),
        Fault(name="reorder", takes=True),
        Fault(name="wrong_ret", takes=True),
        Fault(name="wrong_type", takes=True),
        Fault(name="poison", takes=True),
        # The messages are gone and the answer does not arrive whole.
        Fault(name="cut", takes=True),
        Fault(name="cut_chunked", takes=True),
        Fault(name="cut_close", takes=True),
        Fault(name="reset_after", takes=True),
        Fault(name="reset_headers", takes=True),
        Fault(name="close", takes=True),
        Fault(name="hang", takes=True),
        Fault(name="drip", takes=True, seconds=1.0),
        # Nothing is taken and the answer is not one.
        Fault(name="reset_before"),
        Fault(name="status"),
        Fault(name="redirect", status=302),
        Fault(name="html"),
        Fault(name="text"),
        Fault(name="too_frequent"),
        Fault(name="endless"),
        Fault(name="bomb"),
    )
}

QUERY_FAULTS: Mapping[str, Fault] = {
    name: fault
    for name, fault in API_FAULTS.items()
    if name not in ("duplicate", "duplicate_later", "reorder", "poison")  # these need a queue
}

COS_FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(name="latency"),
        Fault(name="not_found", status=404),
        Fault(name="status", status=503),
        Fault(name="redirect", status=302),
        Fault(name="html"),
        Fault(name="cut"),
        Fault(name="cut_chunked"),
        Fault(name="cut_close"),
        Fault(name="reset_before"),
        Fault(name="reset_headers"),
        Fault(name="close"),
        Fault(name="hang"),
        Fault(name="drip", seconds=1.0),
        Fault(name="wrong_checksum"),
        Fault(name="truncated"),
        Fault(name="wrong_type"),
        Fault(name="endless"),
        Fault(name="bomb"),
    )
}

UPLOAD_FAULTS: Mapping[str, Fault] = {
    "lost": Fault(name="lost"),
    "late": Fault(name="late", seconds=60.0),
}


CALLBACK_FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        # It comes at another time than it should, or not at all.
        Fault(name="lost"),
        Fault(name="late", seconds=30.0),
        Fault(name="out_of_order"),
        # Its first attempt is not to be trusted, nor are repeats of the same bytes.
        Fault(name="stale", seconds=7200.0),
        Fault(name="unsigned"),
        Fault(name="wrong_sign"),
        # It was answered and comes once more: the same bytes, or with a fresh `t`.
        Fault(name="replay"),
        Fault(name="twice"),
    )
}


class Faults:
    """Decides for each turn whether something goes wrong, and counts what did."""

    def __init__(self, known: Mapping[str, Fault], rates: Mapping[str, float], rng: random.Random) -> None:
        self._known = known
        self._rng = rng
        self._next: deque[Fault] = deque()
        self.rates: dict[str, float] = {}
        self.fired: Counter[str] = Counter()
        self.set_rates(rates)

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Replaces all probabilities; they may not sum to more than 1."""
        for name, rate in rates.items():
            self.named(name)
            if not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise BadOption(f"{name}: {rate!r} is no probability")
        if sum(rates.values()) > 1 + 1e-9:
            raise BadOption("the probabilities sum to more than 1")
        self.rates = {name: rate for name, rate in rates.items() if rate}

    def seed(self, seed: int) -> None:
        self._rng.seed(seed)

    def named(self, name: str, **params: Any) -> Fault:
        """The fault of that name with some of its parameters set."""
        if name not in self._known:
            raise BadOption(f"{name!r} is none of the faults {', '.join(sorted(self._known))}")
        unknown = params.keys() - {field.name for field in fields(Fault)}
        if unknown:
            raise BadOption(f"{name}: a fault has no {', '.join(sorted(unknown))}")
        return replace(self._known[name], **params)

    def order(self, name: str, times: int = 1, **params: Any) -> None:
        """Orders a fault for the next `times` turns, after the faults ordered earlier."""
        self._next.extend([self.named(name, **params)] * times)

    def clear(self) -> None:
        """Removes all faults and probabilities."""
        self._next.clear()
        self.rates = {}

    @property
    def ordered(self) -> int:
        return len(self._next)

    def draw(self) -> Fault | None:
        """The fault of this turn, if any; counts it."""
        if not self._next and not self.rates:
            return None
        fault = self._next.popleft() if self._next else self._roll()
        if fault is not None:
            self.fired[fault.name] += 1
        return fault

    def _roll(self) -> Fault | None:
        point = self._rng.random()
        for name, rate in self.rates.items():
            point -= rate
            if point < 0:
                return self._known[name]
        return None
