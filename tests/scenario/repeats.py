"""What was delivered more than once, over all lives of a daemon, and whether something that was done explains it."""

import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from .rig import Process, Scenario

HARD = {"kill", "second signal"}
"""Ends of a life at which what was delivered may not be settled yet."""


def owed(spool: Path, sink: str) -> set[str]:
    """The ids of the events that the file says a sink is still owed."""
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
        (position,) = file.execute("SELECT position FROM sink WHERE name = ?", (sink,)).fetchone()
        pages = file.execute("SELECT first, events FROM page WHERE last >= ?", (position,)).fetchall()
        waiting = file.execute("SELECT events FROM waiting WHERE sink = ?", (sink,)).fetchall()
    lines = [line for first, events in pages for line in events.split(b"\n")[max(0, position - first) :]]
    lines += [line for (events,) in waiting for line in events.split(b"\n")]
    return {json.loads(line)["id"] for line in lines}


def printed(process: Process) -> list[dict[str, Any]]:
    """The events on a life's stdout; a killed life's last line may be cut short."""
    return [json.loads(line) for line in process.stdout_file.read_bytes().split(b"\n")[:-1]]


class Lives:
    """How each life ended, and what its end left owed though it had been delivered; the first life is 1."""

    def __init__(self, daemon: Scenario) -> None:
        self._daemon = daemon
        self._how = ["never lived"]
        self._owed: list[dict[str, set[str]]] = [{}]
        self._delivered: defaultdict[str, set[str]] = defaultdict(set)
        self._receipts = 0
        self.stood_still: set[int] = set()
        """Lives that were frozen: what came in the meantime may be a failure in any of its words."""

    def ended(self, how: str) -> None:
        """The life that began last is over, and the next one has not begun."""
        self._note_receipts()
        self._delivered["console"].update(event["id"] for event in printed(self._daemon.processes[-1]))
        self._how.append(how)
        # a receipt may be written just after its sender was killed: so the last life's are cut down one life later
        self._owed[-1] = {sink: ids & self._delivered[sink] for sink, ids in self._owed[-1].items()}
        self._owed.append({sink: owed(self._daemon.spool_file, sink) for sink in ("hook", "console")})

    def _note_receipts(self) -> None:
        new = self._daemon.environment.hook.receipts[self._receipts :]
        self._receipts += len(new)
        self._delivered["hook"].update(id for receipt in new for id in receipt.event_ids)

    def explain(self) -> Counter[str]:
        """How many deliveries came again, by what explains them; fails for one that nothing does."""
        again: Counter[str] = Counter()
        hook: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for receipt in self._daemon.environment.hook.receipts:
            for id in receipt.event_ids:
                hook[id].append((receipt.life, receipt.id))
        failed = [_failures(process) for process in self._daemon.processes]
        for id, seen in hook.items():
            for (earlier, batch), (later, same) in pairwise(seen):
                if earlier == later:
                    why = failed[earlier - 1][batch]
                    assert batch == same, f"{id} came twice in life {earlier}, in two batches"
                    late = why and (earlier in self.stood_still or "timed out" in why)
                    assert late, f"{id} came twice in life {earlier}: {why or 'no failure'}"
                    again["answered late"] += 1
                else:
                    again[self._between("hook", id, earlier, later)] += 1
        console: defaultdict[str, list[int]] = defaultdict(list)
        for life, process in enumerate(self._daemon.processes, 1):
            for event in printed(process):
                console[event["id"]].append(life)
        for id, lives in console.items():
            assert len(set(lives)) == len(lives), f"{id} was printed twice in one of the lives {lives}"
            for earlier, later in pairwise(lives):
                again[self._between("console", id, earlier, later)] += 1
        return again

    def _between(self, sink: str, id: str, earlier: int, later: int) -> str:
        """What explains that it came in both lives: it was owed at each end between them, and why."""
        how = self._how[earlier]
        assert how in HARD or earlier in self.stood_still, (
            f"{sink}: {id} came in life {earlier}, which ended by {how}, and in life {later}"
        )
        for end in range(earlier, later):
            assert id in self._owed[end][sink], f"{sink}: {id} was not owed after life {end}, and came again"
        return how


def _failures(process: Process) -> defaultdict[str, set[str]]:
    """The reasons for which each batch was tried again, as its log says."""
    reasons: defaultdict[str, set[str]] = defaultdict(set)
    for line in process.said("delivery_failed"):
        reasons[line["batch"]].add(line["reason"])
    return reasons
