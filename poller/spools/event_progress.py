"""The progress of single events, as every engine reports it."""

from poller.core.history import SinkProgress, Stage
from poller.core.model import DeadLetter
from poller.spools.waiting import Waiting


def waiting_progress(sink: str, waiting: Waiting) -> SinkProgress:
    """The progress of every event of a waiting batch."""
    return SinkProgress(
        sink=sink,
        stage=Stage.RETRYING if waiting.is_tried else Stage.PENDING,
        attempts=waiting.failed,
        due=waiting.due if waiting.is_tried else None,
        history=waiting.history,
        reason=waiting.history[-1].reason if waiting.history else "",
    )


def dead_progress(letter: DeadLetter) -> SinkProgress:
    """The progress of the event of a dead letter."""
    return SinkProgress(
        sink=letter.sink,
        stage=Stage.DEAD,
        attempts=letter.attempts,
        history=letter.history,
        reason=letter.reason,
    )


def settled_progress(sink: str) -> SinkProgress:
    """The progress of an event that the sink has settled."""
    return SinkProgress(sink=sink, stage=Stage.SETTLED)
