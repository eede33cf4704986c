"""One step of a scan of a log in memory."""

from collections.abc import Sequence

from poller.core.selection import ALL_EVENTS, Numbered, Scan, Selection
from poller.spools.tail import Tail

TAIL_STEP = 1_000


def selected(chosen: Selection, members: Sequence[Numbered], limit: int, following: int | None) -> Scan:
    """What is selected among members that a step has read, in the order of the scan.

    `following` is where the next step would begin. At the limit, the next step begins behind the last event found.
    """
    if chosen == ALL_EVENTS:
        rest = members[limit:]
        return Scan(found=tuple(members[:limit]), following=rest[0][0] if rest else following)
    found: list[Numbered] = []
    for place, (number, event) in enumerate(members):
        if not chosen.selects(event):
            continue
        found.append((number, event))
        if len(found) == limit:
            rest = members[place + 1 :]
            return Scan(found=tuple(found), following=rest[0][0] if rest else following)
    return Scan(found=tuple(found), following=following)


def scan_tail(tail: Tail, head: int, chosen: Selection, start: int | None, limit: int) -> Scan | None:
    """One upward step among the newest events, which are in memory; None if `start` is not among them."""
    members = None if start is None else tail.members(start, limit if chosen == ALL_EVENTS else TAIL_STEP)
    if not members:
        return None
    following = members[-1][0] + 1
    return selected(chosen, members, limit, following if following < head else None)
