"""Selecting events of the log, and reading the log in bounded steps."""

from datetime import datetime
from typing import Annotated

import msgspec

from poller.core.model import Event

Aware = Annotated[datetime, msgspec.Meta(tz=True)]
Numbered = tuple[int, Event]
"""An event with its number in the log."""


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects events of the log. A field that is None or empty does not restrict.

    account, stream:          the account's name in the configuration, and the stream id
    kinds:                    such as `screenshot`
    ids:                      ids of events, also the earlier id of a recording (`Event.ids`)
    since, until:             received at or after, and received before
    taken_since, taken_until: happened at or after, and happened before (`Event.occurred_at`)
    """

    account: str | None = None
    stream: str | None = None
    kinds: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    since: Aware | None = None
    until: Aware | None = None
    taken_since: Aware | None = None
    taken_until: Aware | None = None

    def selects(self, event: Event) -> bool:
        """Whether the event is selected."""
        return (
            (self.stream is None or event.stream_id == self.stream)
            and (self.account is None or event.account == self.account)
            and (not self.kinds or event.kind in self.kinds)
            and _within(event.received_at, self.since, self.until)
            and _within(event.occurred_at, self.taken_since, self.taken_until)
            and (not self.ids or not self.ids.isdisjoint(event.ids))
        )


ALL_EVENTS = Selection()


def _within(moment: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or moment >= since) and (until is None or moment < until)


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """One bounded step through the log: the selected events, in the direction of the scan, and where to go on.

    `following` is the `start` of the next step; None when the scan has reached the end of the log.
    """

    found: tuple[Numbered, ...]
    following: int | None
