"""Batches that wait for a retry, as every engine keeps them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from poller.core.event_lines import ids_of
from poller.core.model import Attempt, DeadLetter, Event, batch_id, corrected
from poller.core.selection import Numbered
from poller.spools import places
from poller.spools.tail import Chunk

KEPT_HISTORY = 10

Corrections = Mapping[str, Event]
"""Later events with the same ids, whose URL and message replace those of the earlier ones (`model.corrected`)."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that waits for its retry. `failed` counts the failed attempts, without those that only asked for a wait.

    `history` is empty for a batch that was never attempted.
    """

    id: str
    members: tuple[Numbered, ...]
    failed: int
    first_attempt_at: datetime
    due: datetime
    history: tuple[Attempt, ...]

    @property
    def is_tried(self) -> bool:
        """Whether it was attempted before."""
        return bool(self.failed or self.history)


def revive(
    letters: Sequence[DeadLetter], together: int, now: datetime, rebuild: Callable[[Event], Event]
) -> list[Waiting]:
    """Make batches of one sink's dead letters, to be delivered again now, with each event as `rebuild` returns it.

    Their place in the log is gone: they get numbers below all of it, in the order in which they died.
    """
    found = []
    for start in range(0, len(letters), together):
        some = letters[start : start + together]
        history = tuple(sorted((a for letter in some for a in letter.history), key=lambda one: one.at))
        waiting = Waiting(
            id=batch_id([letter.event.id for letter in some]),
            members=tuple((places.of_letter(letter.number), rebuild(letter.event)) for letter in some),
            failed=0,
            first_attempt_at=now,
            due=now,
            history=history[-KEPT_HISTORY:],
        )
        found.append(waiting)
    return found


def waits_for_replay(number: int, event: Event, now: datetime) -> Waiting:
    """A replayed event as a waiting batch of its own, by its number in the log."""
    place = places.of_replayed(number)
    return Waiting(
        id=places.row_id(place, event.id),
        members=((place, event),),
        failed=0,
        first_attempt_at=now,
        due=now,
        history=(),
    )


def correct_members(members: Sequence[Numbered], by: Corrections) -> list[Numbered]:
    """Members, each as it is corrected."""
    if not by:
        return list(members)
    return [(number, corrected(e, by[e.id]) if e.id in by else e) for number, e in members]


def correct_chunks(chunks: Sequence[Chunk], by: Corrections) -> list[Chunk]:
    """Chunks whose events are corrected. A chunk without one of these ids stays as it is, and is not decoded."""
    if not by:
        return list(chunks)
    return [
        chunk
        if by.keys().isdisjoint(ids_of(chunk.events))
        else Chunk(chunk.first, tuple([corrected(e, by[e.id]) if e.id in by else e for e in chunk.events]))
        for chunk in chunks
    ]


def correct_batch(waiting: Waiting, by: Corrections) -> Waiting:
    """A waiting batch whose members are corrected; its id is theirs and stays."""
    if not any(event.id in by for _, event in waiting.members):
        return waiting
    return msgspec.structs.replace(waiting, members=tuple(correct_members(waiting.members, by)))
