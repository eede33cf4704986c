"""Fail points: places in the code where a test can kill the process.

`POLLER_FAILPOINT=NAME[:N]` kills the process when it passes the point for the N-th time. Without the
variable, a point is a call that does nothing. An unknown name is refused at the start (`refused`), so that a
slip or an old script does not go unnoticed. An armed point is logged.
"""

import itertools
import os
import signal
from collections.abc import Callable
from typing import Final

VARIABLE: Final = "POLLER_FAILPOINT"

POINTS: Final = frozenset(
    {
        # opening the journal, and reading in what it held
        "journal.created",
        "journal.scanned",
        "recovery.proved",
        "recovery.read",
        "recovery.committed",
        "recovery.released",
        # a page: asked for, kept, read, committed
        "poll.answered",
        "journal.written",
        "journal.synced",
        "page.kept",
        "page.read",
        "page.committed",
        "page.released",
        # what was pushed
        "push.taken",
        "push.committed",
        # the spool's transactions
        "append.written",
        "correction.written",
        "settlements.written",
        "catalogue.written",
        "prune.written",
        "transaction.written",
        "transaction.committed",
        "wal.emptied",
        # a batch
        "batch.claimed",
        "batch.carrying",
        "batch.delivered",
        "batch.settled",
        "batch.split",
        # a picture
        "picture.written",
        "picture.synced",
        "picture.renamed",
        "folders.synced",
        # a reload
        "reload.sources_ended",
        "reload.ended",
        "reload.begun",
        # a replay
        "replay.ordered",
        "replay.filled",
        "replay.queued",
        "replay.cancelled",
        "replay.done",
        # a move of the spool
        "move.begun",
        "move.written",
        "move.complete",
        "move.given_up",
        "move.ended",
        # what an operator asks, and the end
        "dead.moved",
        "dead.owed",
        "quarantine.taken",
        "stop.begun",
        "spool.closing",
    }
)


def _nothing(name: str) -> None:
    """No point is armed."""


def arm(wish: str) -> Callable[[str], None]:
    """The function to call at every point, for a value of the variable; raises `ValueError` for a wrong value."""
    wanted, _, times = wish.partition(":")
    if wanted not in POINTS:
        raise ValueError(f"there is no point {wanted!r}; there are: {', '.join(sorted(POINTS))}")
    if times and not (times.isascii() and times.isdigit() and int(times)):
        raise ValueError(f"{times!r} is no number of times: write {wanted} or {wanted}:3")
    count, last = itertools.count(1), int(times or "1")  # a count's step is whole in any thread

    def kill_at(name: str) -> None:
        if name == wanted and next(count) == last:
            os.write(2, f"poller: killed at the fail point {name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    return kill_at


def _from_environment() -> tuple[Callable[[str], None], str, str]:
    wish = os.environ.get(VARIABLE)
    if wish is None:
        return _nothing, "", ""
    try:
        return arm(wish), wish, ""
    except ValueError as error:
        return _nothing, "", f"{VARIABLE}: {error}"


reached, at, refused = _from_environment()
"""Called at every point; where the process is to die ("" if nowhere); why the wish was refused ("" if it was not)."""
