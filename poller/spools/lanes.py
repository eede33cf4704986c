"""Lanes: an ordered sink that several daemons serve is divided by stream. Each lane is a queue of its own.

A stream is always in the same lane as long as the number of lanes stays. What has no stream is in the first one.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from poller.core.model import Event, batch_id
from poller.core.selection import Numbered
from poller.core.spool import Wants
from poller.spools.places import row_id
from poller.spools.waiting import Waiting

MARK: Final = "#"
"""Between the name of a sink and the number of a lane. No name has it."""


def key_of(sink: str, lane: int) -> str:
    """The name of a lane's queue."""
    return f"{sink}{MARK}{lane}"


def sink_of(key: str) -> str:
    """The sink of a queue."""
    return key.partition(MARK)[0]


def lane_of(stream: tuple[str, str] | None, lanes: int) -> int:
    """The lane of a stream, from 0 on."""
    if stream is None or lanes == 1:
        return 0
    return zlib.crc32("\0".join(stream).encode("utf-8", "surrogatepass")) % lanes


def wanted_in(lane: int, lanes: int, wants: Wants) -> Wants:
    """The filter of a lane."""

    def wanted(event: Event) -> bool:
        return lane_of(event.stream, lanes) == lane and wants(event)

    return wanted


def divided(waiting: Waiting, lanes: int) -> Mapping[int, Waiting]:
    """A batch as one for each lane that it has events of."""
    members: dict[int, list[Numbered]] = {}
    for number, event in waiting.members:
        members.setdefault(lane_of(event.stream, lanes), []).append((number, event))
    if len(members) == 1:
        return dict.fromkeys(members, waiting)
    return {lane: _part(waiting, some) for lane, some in members.items()}


def _part(waiting: Waiting, members: Iterable[Numbered]) -> Waiting:
    some = tuple(members)
    id = row_id(some[0][0], batch_id([event.id for _, event in some]))
    return msgspec.structs.replace(waiting, id=id, members=some)
