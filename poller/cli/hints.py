"""What `poller check` says of the spool: that it was moved, and which valid settings do not fit what it holds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from poller.core.spool import KeptInFile, SpoolAdmin
    from poller.settings import Settings


def why_moved(spool: "SpoolAdmin") -> str | None:
    """Why no daemon may enter the spool, because its content was moved; None if files of this machine do not say so."""
    from poller.core.errors import StorageError
    from poller.core.moving import CanBeMoved

    if not isinstance(spool, CanBeMoved):
        return None
    try:
        refusal = spool.why_not_in_force()
    except (StorageError, OSError):
        return None  # there is no file yet, or the start of the daemon says what is wrong
    return None if refusal is None else f"spool {spool.place}: {refusal}"


def print_hints(settings: "Settings", spool: "SpoolAdmin") -> None:
    """Print a line on stderr for each hint. A spool without a file gives none, nor one that cannot be read."""
    from poller.core.errors import StorageError
    from poller.core.spool import KeptInFile

    if not isinstance(spool, KeptInFile):
        return
    for some in (_needless_starts, _capacity):
        try:
            hints = list(some(settings, spool))
        except (StorageError, OSError):
            continue  # there is no file yet, or the start of the daemon says what is wrong
        for hint in hints:
            typer.echo(f"hint: {hint}", err=True)


def _needless_starts(settings: "Settings", spool: "KeptInFile") -> Iterator[str]:
    """Sinks whose `start` has no effect, because the spool knows them already."""
    starting = [name for name, sink in settings.sinks.items() if "start" in sink.model_fields_set]
    known = spool.sinks()
    for name in (name for name in starting if name in known):
        yield f"sinks.{name}.start has no effect: the spool knows this sink, which goes on where it was"


def _capacity(settings: "Settings", spool: "KeptInFile") -> Iterator[str]:
    """Settings that are too low for the streams that the spool has seen."""
    from poller.operations.queue_capacity import capacity_hints

    yield from capacity_hints(settings, spool.known_streams())
