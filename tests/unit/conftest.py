"""What unit tests write lies in memory where there is room: no disk's syncs are waited for."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm"
ENOUGH = 2**30


def _in_memory() -> str | None:
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH
    return MEMORY if roomy else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="poller-unit-", dir=_in_memory()) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _temporary_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of state machines, too, which have no fixture for each example."""
    monkeypatch.setattr(tempfile, "tempdir", _in_memory())
