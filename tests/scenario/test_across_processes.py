"""Daemons share a spool, and are killed, frozen, stopped and cut off while its database is moved: the books balance.

Each daemon has a machine of its own, with a network and a journal. `--fault-seed` repeats a run, and `--soak` has the
full counts.
"""

import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from poller.sandbox import Removed
from tests import lives, networks
from tests.servers.guard import guard
from tests.servers.processes import cannot_start

from .across import spool
from .across.cluster import SINKS, Cluster, cluster
from .across.counts import (
    Repeat,
    check_lost,
    check_order,
    check_repeats,
    check_settled_soon,
    check_stored_once,
    check_whereabouts,
)
from .across.receivers import is_refused
from .environment import needs_root

DAEMONS: Final = 3
STREAMS: Final = 40
IN_THE_GATE: Final = {"kill": 4, "freeze": 1, "stop": 1, "cut": 1, "promotion": 1, "restart": 1}
FULL: Final = {"kill": 100, "freeze": 20, "stop": 20, "cut": 10, "promotion": 10, "restart": 10}


@pytest.mark.root
@pytest.mark.timeout(10_000)
def test_whatever_happens_to_daemons_and_database_nothing_is_lost_and_what_comes_twice_has_its_reason(
    tmp_path: Path, shared: Path, soak: bool, fault_seed: int
) -> None:
    needs_root("makes networks")
    if shutil.which("ip") is None:
        cannot_start("needs ip: apt-get install iproute2")
    lives.warm()  # in the network of the other tests, which share it
    guard()
    events, plan = (1_000_000, FULL) if soak else (20_000, IN_THE_GATE)
    print(f"\nacross processes: --fault-seed {fault_seed}")
    networks.apart(lambda: _run(tmp_path, shared, fault_seed, events, plan))


def _run(folder: Path, shared: Path, seed: int, events: int, plan: Mapping[str, int]) -> None:
    rng, began = random.Random(seed), time.monotonic()
    pollers = rng.choice(("one", "all"))
    print(f"polled by {pollers}")
    with cluster(folder, shared, rng, DAEMONS, pollers) as members:
        _go_on(members, rng, events, plan)
        members.finish()
        print(f"{events} events, {dict(members.happened)}, {time.monotonic() - began:.0f} s")
        assert members.happened == plan
        assert members.caught >= plan["kill"] / 4, "too few kills met a poll in flight"
        _balanced(members, events)


def _go_on(members: Cluster, rng: random.Random, events: int, plan: Mapping[str, int]) -> None:
    """All that is planned happens, in any order, while messages come in equal parts."""
    happenings = rng.sample(sorted(Counter(plan).elements()), sum(plan.values()))
    parts = len(happenings) + 1
    for number, kind in enumerate(happenings):
        members.until(partial(_is_nearly_delivered, members, events // parts), "for the sinks")
        target = members.place.counts.removed + rng.randrange(1, events // parts)
        members.place.enqueue(events // parts, streams=STREAMS)
        members.until(partial(_are_removed, members, target))
        print(f"{number + 1}. {kind}, {members.place.counts.removed} removed")
        members.happen(kind)
    members.place.enqueue(events - events // parts * (parts - 1), streams=STREAMS)


def _are_removed(members: Cluster, count: int) -> bool:
    return bool(members.place.counts.removed >= count)


def _is_nearly_delivered(members: Cluster, part: int) -> bool:
    """Whether the sinks are at most two parts behind: what happens is to meet deliveries of all ages."""
    return spool.owed(members.server) <= 2 * part * len(SINKS)


def _balanced(members: Cluster, events: int) -> None:
    """Every message is found again, and every repetition is explained."""
    removed, stored = members.place.oracle.removed(), spool.read(members.server)
    endings = members.endings(stored.numbers)
    assert len(removed) == events + DAEMONS
    assert not stored.rejects
    check_stored_once(stored.twice, stored.numbers, removed)
    lost = check_lost(removed, stored.numbers, stored.rejects, endings)
    by_name = {name: members.names.number(name) for name in stored.numbers}
    refused = {number for name, number in by_name.items() if is_refused(name)}
    assert refused
    numbers = {by_name[name]: number for name, number in stored.numbers.items()}
    again: dict[str, list[Repeat]] = {}
    for sink in SINKS:
        deliveries = members.receivers[sink].deliveries
        dead = {by_name[name] for name in stored.dead.get(sink, ())}
        pending = {by_name[name] for name in stored.pending[sink]}
        check_whereabouts(sink, set(by_name.values()), set(deliveries.events), dead, pending)
        assert dead == (refused if sink == "picky" else set())
        assert not pending
        again[sink] = check_repeats(sink, deliveries, endings, numbers)
    streams = _streams(removed, by_name)
    back = {
        sink: check_order(sink, members.receivers[sink].deliveries, endings, streams, numbers)
        for sink, settings in SINKS.items()
        if "order" in settings
    }
    came_again = {sink: dict(Counter(one.ending.kind for one in found)) for sink, found in again.items()}
    print(
        f"polls lost: {dict(lost)}, caught {members.caught}; delivered again: {came_again}; steps back: {back}"
    )
    print(f"sessions ended: {Counter(one.kind for one in endings)}")
    assert any(again.values()), "nothing came twice: the kills met nobody"
    check_settled_soon([one for found in again.values() for one in found])


def _streams(removed: list[Removed], by_name: Mapping[str, int]) -> dict[int, str]:
    """The stream of each stored event."""
    return {by_name[path]: str(one.stream_id) for one in removed if (path := str(one.path)) in by_name}
