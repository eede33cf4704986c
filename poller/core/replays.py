"""The port for replays: retained events that one sink gets again.

A replay looks at a fixed range of the log. Its events are queued in pieces, at most `MOST_REPLAYED` at a time, and go
out after all other events of the sink.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from poller.core.errors import PollerError
from poller.core.history import Replay, ReplayState
from poller.core.model import Event, unchanged
from poller.core.selection import Selection

MOST_REPLAYED: Final = 1_000
"""The most replayed events that wait for one sink at a time."""
OPEN: Final = frozenset({ReplayState.RUNNING, ReplayState.PAUSED})


class NoSuchReplay(PollerError):
    """There is no open replay with this number."""


@dataclass(frozen=True, kw_only=True)
class ReplayPlan:
    """What a replay would send if it was ordered now. Count it, then order it.

    sink:    the sink
    chosen:  selects the events
    at:      the number of the first event to look at
    until:   the number at which the replay ends; the sink has been served up to here at least
    wants:   whether the sink wants an event
    pending: the ids of events that are in hand or wait for the sink; they are not sent a second time
    dead:    the ids of the sink's dead letters; they are for `retry_dead`
    """

    sink: str
    chosen: Selection
    at: int
    until: int
    wants: Callable[[Event], bool]
    pending: frozenset[str]
    dead: frozenset[str]

    def leaves_out(self, event: Event) -> bool:
        """Whether a selected event is not sent, because the sink gets it anyway or has it as a dead letter."""
        return event.id in self.pending or event.id in self.dead


class Replays(Protocol):
    """The replays of one spool.

    The replays of one sink run one after the other, in the order in which they were ordered. Events have the ids that
    they had, so that a receiver that drops known ids drops replayed ones too.
    """

    @abstractmethod
    async def plan(self, sink: str, chosen: Selection, below: int | None = None) -> ReplayPlan:
        """Fix the range of a replay for an attached sink: what the sink has settled, and below the number `below`.

        Nothing is changed. Events that are pending, in hand or wait for the sink stay out of the range or are named.
        """
        ...

    @abstractmethod
    def keep(self, planned: ReplayPlan) -> AbstractContextManager[None]:
        """While this is entered, pruning for age deletes nothing of the plan's range, so that its count stays right."""
        ...

    @abstractmethod
    async def order(self, planned: ReplayPlan, total: int, left_out: frozenset[str]) -> Replay:
        """Order a planned replay of `total` events, without the events `left_out`.

        On return the order is as durable as the engine makes it. Until the replay is done or cancelled, pruning for age
        keeps its events.
        """
        ...

    @abstractmethod
    async def ready(self) -> None:
        """Wait until `fill` can do something. May be cancelled at any time."""
        ...

    @abstractmethod
    async def fill(self, sink: str, rebuild: Callable[[Event], Event] = unchanged) -> Replay | None:
        """Queue a bounded piece of the sink's running replay, or note that the replay is done. Returns it when done.

        The piece is queued, and the replay moves past it, in one transaction. At most `MOST_REPLAYED` events of a sink
        are queued and not settled. `rebuild` may change the URL of an event, and nothing else. A replay is done when
        its last event is settled. Does nothing for a sink that is not attached.
        """
        ...

    @abstractmethod
    async def change(self, number: int, state: ReplayState) -> Replay:
        """Pause (`PAUSED`), resume (`RUNNING`) or cancel (`CANCELLED`) an open replay. Raises `NoSuchReplay`.

        A paused replay queues nothing, and its events are not handed out. Cancelling removes all that waits of it, in
        one transaction; a batch in hand is delivered to its end, and is not retried.
        """
        ...

    @abstractmethod
    def all(self) -> list[Replay]:
        """All open replays and the newest finished ones, in the order of their numbers."""
        ...

    @abstractmethod
    def unsettled(self, replay: Replay) -> int | None:
        """How many events of a replay are queued and not settled; None if the sink is not attached."""
        ...
