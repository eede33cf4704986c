"""What the power cut tests need of the machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.power.image import Image, unseen


@pytest.fixture(scope="session", autouse=True)
def power(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Root and a loop-mounted ext4; without them the tests are skipped, in CI they fail."""
    reason = why_not(tmp_path_factory.mktemp("power"))
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"power cuts cannot be tested: {reason}")
    pytest.skip(f"POWER CUTS NOT TESTED: {reason}")


def why_not(folder: Path) -> str | None:
    """Why the power cannot be cut here; None when it can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("mkfs.ext4", "e2fsck", "mount", "umount", "truncate"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    try:
        return unseen(lambda: _probe(folder / "probe"))
    except (OSError, subprocess.SubprocessError) as error:
        return f"no loop-mounted ext4 with a shutdown: {getattr(error, 'stderr', None) or error}"


def _probe(folder: Path) -> str | None:
    with Image(folder) as image:
        image.cut()
        if not image.is_dead():
            return "the disk outlives its cut"
        image.unmount()
        image.mount()
    return None
