"""The small file beside a spool: the last moment that the clock knew, and whether the stop was orderly."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from poller.runtime.ages import ClockHistory
from poller.runtime.durable_files import give_to_owner, sync_folder

_decode = msgspec.json.Decoder(ClockHistory).decode


def _beside(spool: Path) -> Path:
    return spool.with_name(spool.name + ".clock")


def read_known(spool: Path) -> ClockHistory | None:
    """The record of the process before; None when there is no file, or when the file cannot be read."""
    try:
        return _decode(_beside(spool).read_bytes())
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def write_known(spool: Path, known: ClockHistory) -> None:
    """Replace the file durably. Errors of the disk are ignored: without the file, ages follow the wall clock."""
    file = _beside(spool)
    new = file.with_name(file.name + ".new")
    with suppress(OSError):
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(known))
            os.fsync(descriptor)
            give_to_owner(new, descriptor)
        finally:
            os.close(descriptor)
        os.rename(new, file)
        sync_folder(file.parent)
