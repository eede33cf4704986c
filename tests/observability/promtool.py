"""Prometheus's own judge of rules and expressions."""

import subprocess
from pathlib import Path

from tests.service.running import tool

from .expressions import RULES


def promtool(*words: str, folder: Path = RULES.parent) -> subprocess.CompletedProcess[str]:
    """Run it in a folder, by default that of the rules."""
    return subprocess.run(
        [tool("promtool"), *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
