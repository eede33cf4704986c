"""Settings for a trial run that leaves no files behind: files that do not exist yet are made in a scratch folder.

The scratch folder is made where the file would be, so the trial shows whether that place can be written.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from poller.core.errors import StorageError
from poller.daemon.wiring import journal_path
from poller.settings import Section, Settings

Part = TypeVar("Part", bound=Section)


@contextmanager
def trial(settings: Settings) -> Iterator[Settings]:
    """The same settings, with scratch paths for the files that a start would make.

    Raises `StorageError` if a file cannot be made in its place. The scratch folders are deleted after the `with` block.
    """
    with ExitStack() as stack:
        journal = settings.journal.model_copy(update={"path": _file(stack, journal_path(settings))})
        sinks = {name: _with_scratch(stack, sink, _folder) for name, sink in settings.sinks.items()}
        spool = _with_scratch(stack, settings.spool, _file)
        yield settings.model_copy(update={"spool": spool, "journal": journal, "sinks": sinks})


def _with_scratch(stack: ExitStack, part: Part, tried: Callable[[ExitStack, Path], Path]) -> Part:
    paths = {name: value for name, value in part if isinstance(value, Path)}
    return part.model_copy(update={name: tried(stack, path) for name, path in paths.items()})


def _file(stack: ExitStack, path: Path) -> Path:
    """The path itself if it exists, else a path in a scratch folder."""
    return path if os.path.lexists(path) else _scratch(stack, path)


def _folder(stack: ExitStack, path: Path) -> Path:
    """The path itself if it is a file, else a path in a scratch folder: in a real folder, a sink makes folders."""
    return path if os.path.lexists(path) and not path.is_dir() else _scratch(stack, path)


def _scratch(stack: ExitStack, path: Path) -> Path:
    folder = next(one for one in (path, *path.parents) if one.exists())
    try:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=".poller-check-", dir=folder))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    return Path(scratch) / path.name
