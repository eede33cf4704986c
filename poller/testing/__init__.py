"""The ports' contracts as tests: subclass one in your own pytest file, say how to build the adapter, and run it.

```python
from poller.api import SinkContract, SinkWorld


class TestMySink(SinkContract):
    @asynccontextmanager
    async def world(self, folder):
        ...
        yield SinkWorld(sink=sink, arrived=..., breaks=..., mends=...)
```
"""

from poller.core.spool import anything
from poller.testing.books import Books, BooksAfterwards
from poller.testing.corrections import Corrections, CorrectionsAfterwards
from poller.testing.dead_letters import Letters
from poller.testing.deliveries import Deliveries
from poller.testing.durable import Afterwards
from poller.testing.factories import (
    START,
    ManualClock,
    some_batch,
    some_change,
    some_event,
    some_reading,
    some_recording,
)
from poller.testing.gaps import Gaps, GapsAfterwards
from poller.testing.history import History
from poller.testing.ordered import Ordered
from poller.testing.ordered_afterwards import OrderedAfterwards
from poller.testing.quarantine import Kept
from poller.testing.replays import Replaying, ReplayingAfterwards
from poller.testing.scans import Scans, ScansAfterwards
from poller.testing.shared import SharedSpoolContract
from poller.testing.sinks import SinkContract, SinkWorld

__all__ = [
    "START",
    "DurableSpoolContract",
    "ManualClock",
    "SharedSpoolContract",
    "SinkContract",
    "SinkWorld",
    "SpoolContract",
    "anything",
    "some_batch",
    "some_change",
    "some_event",
    "some_reading",
    "some_recording",
]


class SpoolContract(Deliveries, Ordered, Letters, Kept, Corrections, History, Scans, Books, Replaying, Gaps):
    """What every spool promises."""


class DurableSpoolContract(
    SpoolContract,
    Afterwards,
    OrderedAfterwards,
    CorrectionsAfterwards,
    BooksAfterwards,
    ReplayingAfterwards,
    ScansAfterwards,
    GapsAfterwards,
):
    """What a spool promises that outlives its process."""
