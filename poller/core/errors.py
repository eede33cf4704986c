"""The errors that may cross a port, and what each means to its caller."""

from collections.abc import Mapping, Sequence
from typing import Final


class PollerError(Exception):
    """The base of all errors of the project. Their texts never hold a secret."""


class BadConfiguration(PollerError):
    """The configuration has mistakes. Each finding is one line `FILE:LINE:COLUMN: SETTING: REASON`."""

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = tuple(findings)


# ---------------------------------------------------------------- sources


class NotSent(PollerError):
    """The request did not leave this machine (DNS, refused connection, TLS, address): no message can be lost."""


# ---------------------------------------------------------------- journal and spool


class StorageError(PollerError):
    """A file could not be written or read."""


class StorageFull(StorageError):
    """There is no space now, or a server does not answer. The same call may succeed later."""


class StorageCorrupt(StorageError):
    """The file is damaged: the next start moves it aside and begins a new one."""


class Unreadable(StorageCorrupt):
    """Stored bytes cannot be parsed: they were changed on the disk."""


class StorageLocked(StorageError):
    """Another process owns the spool or the journal."""


class Fenced(StorageError):
    """The session of this daemon in a shared spool has ended: other daemons have taken over what it held."""


class StorageShared(StorageError):
    """The file has more than one name, so two processes could open it, each with a log of its own."""


# ---------------------------------------------------------------- sinks

LONGEST_WAIT: Final = 3600.0
"""Seconds that a sink may ask to wait (`TryLater.after`, `Retry-After`); a longer wait is cut to it."""


class SinkError(PollerError):
    """What a sink raises for a batch. Any other exception means the same as `TryLater(reason)`.

    `said` is the beginning of the destination's answer. It may echo secrets, so only the courier may show it, masked.
    """

    said: bytes = b""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TryLater(SinkError):
    """Deliver again after `after` seconds if the destination asked for that, else with backoff."""

    def __init__(self, reason: str, *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class PlaceGone(TryLater):
    """The sink's folder on this machine is gone or cannot be written. `/readyz` reports it at once."""


class Rejected(SinkError):
    """The destination will never accept this. A batch is split until only the guilty event becomes a dead letter."""


class Gone(SinkError):
    """The destination wants no more events. The sink is disabled until a restart or `poller resume`; its events are
    kept."""


class PartlyFailed(SinkError):
    """Some events of a batch failed and the others are delivered. `failures` maps event ids to their errors."""

    def __init__(self, failures: Mapping[str, Exception]) -> None:
        super().__init__(f"{len(failures)} events of the batch failed")
        self.failures = dict(failures)
