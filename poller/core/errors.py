"""The error tree: what may be raised across a port, and what it means to the pump that catches it."""

from collections.abc import Mapping, Sequence
from typing import Final


class PollerError(Exception):
    """The root of all our errors; its text never holds a secret."""


class BadConfiguration(PollerError):
    """The settings cannot be used; every finding is one line `file:line:column: path: what is wrong`."""

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = tuple(findings)


# ---------------------------------------------------------------- sources


class NotSent(PollerError):
    """The request never left this machine (DNS, refused, TLS, address): no message can be lost."""


# ---------------------------------------------------------------- journal and spool


class StorageError(PollerError):
    """The disk did not take it, or did not give it back."""


class StorageFull(StorageError):
    """No space for it now; the same call may succeed later."""


class StorageCorrupt(StorageError):
    """The file is damaged: the next start moves it aside and begins a new one."""


class Unreadable(StorageCorrupt):
    """Stored bytes do not read back: they were changed on the disk."""


class StorageLocked(StorageError):
    """Another process owns the file."""


class StorageShared(StorageError):
    """The file can be reached by more than one name: two processes could open it, each with a log of its own."""


# ---------------------------------------------------------------- sinks

LONGEST_WAIT: Final = 3600.0
"""Seconds that a sink may ask to wait (`TryLater.after`, `Retry-After`); a longer wait is cut to it."""


class SinkError(PollerError):
    """A sink's own word about a batch; any other exception means the same as `TryLater(reason)`.

    `said` is the beginning of what the other side said. It may echo secrets: only the courier turns it into words.
    """

    said: bytes = b""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TryLater(SinkError):
    """Again later: after `after` seconds if the other side said so, else with backoff."""

    def __init__(self, reason: str, *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class PlaceGone(TryLater):
    """The sink's own place on this machine (its folder) is gone, or cannot be written: `/readyz` says so at once."""


class Rejected(SinkError):
    """The other side will never take this; a batch is split until only the guilty event dies."""


class Gone(SinkError):
    """The other side wants nothing more, ever: the sink is disabled until a restart or `poller resume`, its
    deliveries kept."""


class PartlyFailed(SinkError):
    """Some of a batch failed, the rest is delivered: `failures` maps event ids to what each one raised."""

    def __init__(self, failures: Mapping[str, Exception]) -> None:
        super().__init__(f"{len(failures)} events of the batch failed")
        self.failures = dict(failures)
