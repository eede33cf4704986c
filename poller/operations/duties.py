"""What one daemon alone does, where several share a spool."""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from poller.core.spool import Shared, SpoolAdmin

AUDIT: Final = "audit"


def source_duty(source: str) -> str:
    """The duty of polling a source."""
    return f"source:{source}"


def backfill_duty(account: str) -> str:
    """The duty of looking into the bucket of an account."""
    return f"backfill:{account}"


def on_duty(spool: SpoolAdmin, name: str) -> AbstractAsyncContextManager[None]:
    """Hold a duty, once no other daemon has it. A daemon that has the spool for itself does not wait."""
    return spool.duty(name) if isinstance(spool, Shared) else nullcontext()
