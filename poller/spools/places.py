"""The numbers of events in waiting batches. An event that is delivered again has a number below all of the log.

In the log
    The events of the log have numbers from 1 on.
Replayed
    An event that a replay has queued has its number in the log minus 2^61.
Letters
    A retried dead letter has its number as a dead letter minus 2^62: its place in the log is gone.

The three ranges do not meet while all numbers are below 2^61.
"""

from typing import Final

_REPLAYED: Final = 2**61
_LETTERS: Final = 2**62


def of_letter(number: int) -> int:
    """The number of a retried dead letter."""
    return number - _LETTERS


def of_replayed(number: int) -> int:
    """The number of a replayed event, by its number in the log."""
    return number - _REPLAYED


def is_replayed(place: int) -> bool:
    """Whether this is the number of a replayed event."""
    return -_REPLAYED < place < 0


def in_log(place: int) -> int | None:
    """The number in the log of an event in a waiting batch; None for a retried dead letter."""
    if place > 0:
        return place
    return place + _REPLAYED if is_replayed(place) else None


def row_id(place: int, batch: str) -> str:
    """The id of a waiting batch, by the number of its first event and the id as a batch.

    An event may wait twice: replayed, and as a dead letter that is retried.
    """
    return f"replayed {batch}" if is_replayed(place) else batch
