"""One browser for the tests of this folder, whose windows have no trace of another test."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import sync_playwright

from .rig import Visitor, Windows

PICTURES: Final = Path(__file__).parents[2] / "docs" / "pictures"
PROGRAMS: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first has no windows of its own to draw, and takes less than half of the others' time for the same pages."""


# The scope ends with this folder: Playwright's own loop runs until then, and tests of coroutines need one of theirs.
@pytest.fixture(scope="package")
def windows() -> Iterator[Windows]:
    """Those of Chromium, without a screen."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None and os.environ.get("CI") == "true":
        pytest.fail("there is no Chromium: .ci/packages installs it")
    if program is None:
        pytest.skip("there is no Chromium: .ci/packages installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield Windows(browser)
        browser.close()


@pytest.fixture
def visitor(windows: Windows, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Somebody who opens pages. The test fails if a page reports an error, breaks its CSP, or asks another origin."""
    pictures = PICTURES if request.config.getoption("--pictures") else tmp_path
    with Visitor(windows, pictures) as visitor:
        yield visitor
        visitor.leave()
        visitor.check()
