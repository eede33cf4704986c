"""Everything that the author of a plug-in imports; from 0.1.0 on, only these names are promised.

A plug-in is a package with an entry point in `poller.sinks`, `poller.sources` or `poller.spools`. The entry point's
name is the `type` in the configuration, its value a class. The class

- inherits its port (`Sink`, `Source`, `PushedSource`, `SpoolAdmin`), so that a type checker sees a wrong signature;
- has an attribute `Settings`, built on `SinkSettings`, `SourceSettings` or `SpoolSettings`;
- is built as `Class(name, settings, accounts)`: its name in the configuration, its validated settings, and each
  `Account` by its name (a spool gets none). The constructor only stores: `__aenter__` connects, `__aexit__` closes.

**A sink** has one method, `deliver(batch)`. It returns when every event of the batch is safe on the other side. To say
anything else, it raises:

| raised | what happens |
|---|---|
| `TryLater(reason, after=seconds)` | all of the batch again, after `after` seconds, else with backoff |
| `PlaceGone(reason)` | the same, and `/readyz` fails at once: the sink's own folder cannot be written |
| `Rejected(reason)` | a dead letter; a batch of several is split first, until only the guilty event is left |
| `Gone(reason)` | the sink is disabled until `poller resume`; its events are kept |
| `PartlyFailed({event.id: error})` | each named event as its own error says; the others are delivered |
| anything else | as `TryLater(reason)` |

`batch.events` holds one `Event` or more. `event.encoded` is its CloudEvents JSON, UTF-8 bytes on one line, ready to
send; `event.id` is the same each time the same thing is reported; `event.fields` holds what its kind has besides,
decoded anew each time. `batch.id` stays the same when the same batch is tried again. A reason reaches logs and dead
letters: put no secret into it. Delivery is at least once, so an id may come twice.

**A source** is polled (`Source`: `ready`, `fetch`, `read`) or pushed to (`PushedSource`: `attach`, `close`, `read`).
`read` is pure and makes events with `new_event`, each with an `identity`.

**A spool** keeps events between the two. An engine implements `SpoolAdmin`: `Spool`, which the pipeline uses,
`SpoolHistory`, which looks back, and `Replays`. `BeginsAnew`, `NoticesLoss`, `HasLimits`, `KeptInFile` and
`KeepsTime` are optional.

**Units.** Durations are seconds as float, sizes bytes as int, times aware UTC `datetime`. In the configuration, a
`Duration` is written `30s`, a `Size` `10MiB`, a `Rate` `20/s`. `duration_between` and `size_between` bound them;
`wrong(text)` is the error that a validator of yours raises. A `Secret` is never shown; `get_secret_value()` gives it.

**Tests.** Subclass `SinkContract` or `DurableSpoolContract` (`SpoolContract` for one that forgets with its process)
in a pytest file and say how to build the adapter; `some_event`, `some_reading` and `some_batch` make records,
`ManualClock` is a clock that stands still until it is told to move.
"""

from typing import TYPE_CHECKING, Any

from poller.core.catalogue import Stream
from poller.core.errors import (
    BadConfiguration,
    Gone,
    NotSent,
    PartlyFailed,
    PlaceGone,
    PollerError,
    Rejected,
    SinkError,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageLocked,
    StorageShared,
    TryLater,
    Unreadable,
)
from poller.core.history import (
    Book,
    Delivery,
    Gap,
    LatePicture,
    Origin,
    Replay,
    ReplayState,
    SinkProgress,
    SpoolHistory,
    Stage,
    Tally,
)
from poller.core.model import (
    EVERYTHING,
    Attempt,
    Backlog,
    Batch,
    Dead,
    DeadLetter,
    Done,
    Event,
    Filter,
    Outcome,
    ParsedPage,
    PollOutcome,
    PushOutcome,
    Quarantined,
    RawPage,
    Reject,
    Retry,
    batch_id,
    identity,
    new_event,
    parse_event,
    with_url,
)
from poller.core.ports import ChecksDestination, Follows, PushedSource, PushHandler, Sink, Source, StoresFiles
from poller.core.replays import NoSuchReplay, ReplayPlan, Replays
from poller.core.selection import Scan, Selection
from poller.core.spool import (
    BeginsAnew,
    Damage,
    Examined,
    HasLimits,
    KeptInFile,
    NoticesLoss,
    Pruned,
    Salvaged,
    Spool,
    SpoolAdmin,
    Wants,
    anything,
)
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock, KeepsTime
from poller.settings import (
    AccountSettings,
    BatchSettings,
    Cidr,
    Duration,
    FilePath,
    HostName,
    Kind,
    Listen,
    Name,
    Only,
    Pattern,
    Rate,
    ReadableFile,
    ResolvedPath,
    Secret,
    SecretFile,
    SecretsFile,
    Section,
    SinkSettings,
    Size,
    SourceSettings,
    SpoolSettings,
    TlsSettings,
    Url,
    duration_between,
    size_between,
    wrong,
)

if TYPE_CHECKING:
    from poller.testing import (
        START,
        DurableSpoolContract,
        ManualClock,
        SinkContract,
        SinkWorld,
        SpoolContract,
        some_batch,
        some_change,
        some_event,
        some_reading,
        some_recording,
    )

__all__ = [
    "EVERYTHING",
    "START",
    "Account",
    "AccountSettings",
    "Attempt",
    "Backlog",
    "BadConfiguration",
    "Batch",
    "BatchSettings",
    "BeginsAnew",
    "Book",
    "ChecksDestination",
    "Cidr",
    "Clock",
    "Damage",
    "Dead",
    "DeadLetter",
    "Delivery",
    "Done",
    "DurableSpoolContract",
    "Duration",
    "Event",
    "Examined",
    "FilePath",
    "Filter",
    "Follows",
    "Gap",
    "Gone",
    "HasLimits",
    "HostName",
    "KeepsTime",
    "KeptInFile",
    "Kind",
    "LatePicture",
    "Listen",
    "ManualClock",
    "Name",
    "NoSuchReplay",
    "NotSent",
    "NoticesLoss",
    "Only",
    "Origin",
    "Outcome",
    "ParsedPage",
    "PartlyFailed",
    "Pattern",
    "PlaceGone",
    "PollOutcome",
    "PollerError",
    "Pruned",
    "PushHandler",
    "PushOutcome",
    "PushedSource",
    "Quarantined",
    "Rate",
    "RawPage",
    "ReadableFile",
    "Reject",
    "Rejected",
    "Replay",
    "ReplayPlan",
    "ReplayState",
    "Replays",
    "ResolvedPath",
    "Retry",
    "Salvaged",
    "Scan",
    "Secret",
    "SecretFile",
    "SecretsFile",
    "Section",
    "Selection",
    "Sink",
    "SinkContract",
    "SinkError",
    "SinkProgress",
    "SinkSettings",
    "SinkWorld",
    "Size",
    "Source",
    "SourceSettings",
    "Spool",
    "SpoolAdmin",
    "SpoolContract",
    "SpoolHistory",
    "SpoolSettings",
    "Stage",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "StorageLocked",
    "StorageShared",
    "StoresFiles",
    "Stream",
    "Tally",
    "TlsSettings",
    "TryLater",
    "Unreadable",
    "Url",
    "Wants",
    "anything",
    "batch_id",
    "duration_between",
    "identity",
    "new_event",
    "parse_event",
    "size_between",
    "some_batch",
    "some_change",
    "some_event",
    "some_reading",
    "some_recording",
    "with_url",
    "wrong",
]

# The contracts need pytest, which a daemon does not have: they are imported when one of them is asked for.
_OF_TESTS = frozenset(
    {
        "START",
        "DurableSpoolContract",
        "SinkContract",
        "SinkWorld",
        "SpoolContract",
        "ManualClock",
        "some_batch",
        "some_change",
        "some_event",
        "some_reading",
        "some_recording",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _OF_TESTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from poller import testing  # noqa: PLC0415 - as above

    return getattr(testing, name)
