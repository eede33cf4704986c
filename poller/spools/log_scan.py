"""One step of a scan of a log in memory."""

from collections.abc import Sequence

from poller.core.selection import Scan, Selection
from poller.spools.sink_queue import Member


def selected(chosen: Selection, members: Sequence[Member], limit: int, following: int | None) -> Scan:
    """What is selected among members that a step has read, in the order of the scan.

    `following` is where the next step would begin. At the limit, the next step begins behind the last event found.
    """
    found: list[Member] = []
    for place, (number, event) in enumerate(members):
        if not chosen.selects(event):
            continue
        found.append((number, event))
        if len(found) == limit:
            rest = members[place + 1 :]
            return Scan(found=tuple(found), following=rest[0][0] if rest else following)
    return Scan(found=tuple(found), following=following)
