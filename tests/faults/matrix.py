"""Every fault that the project promises to survive, its promise in a few words, and the tests that show it.

A test is named by its file below `tests/` and its name. Where a fault is one of the sandbox's own, `sandbox` names it
as `table:fault` (see `poller/sandbox/faults.py`); the test then asserts that it fired. `fired` says, for all others, by
what a test knows that the fault happened.
"""

from typing import Final

from .brokers import BROKERS
from .downloads import BODIES, DOWNLOADS
from .platform import PLATFORM
from .ports import PORTS, RECEIVER, SECRETS
from .process import PROCESS
from .sinks import SINKS
from .storage import STORAGE
from .upstream import UPSTREAM

MATRIX: Final = {
    "process and host": PROCESS,
    "storage": STORAGE,
    "upstream": UPSTREAM,
    "sinks": SINKS,
    "brokers, databases, buckets and commands": BROKERS,
    "downloads": DOWNLOADS,
    "cut bodies and checksums": BODIES,
    "the callback receiver": RECEIVER,
    "listening ports": PORTS,
    "secrets": SECRETS,
    "the platform in a box": PLATFORM,
}

NOT_APPLICABLE: Final[dict[str, str]] = {}
"""Faults of the sandbox (`table:fault`) that cannot meet the daemon, each with the reason."""
