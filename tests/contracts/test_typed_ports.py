"""A plug-in author's type checker sees what breaks a port, because adapters inherit it and `py.typed` is shipped."""

import subprocess
import sys
from pathlib import Path

import pytest

from poller.core.ports import Sink

SINK = """
from collections.abc import Mapping

from poller.core.model import Batch
from poller.core.ports import Sink


class Mine(Sink):
    def __init__(self, name: str) -> None:
        self.name = name

{deliver}


SINK = Mine("mine")
"""
WRONG = {
    "an argument of another type": ("    async def deliver(self, batch: bytes) -> None: ...", "[override]"),
    "another answer": (
        "    async def deliver(self, batch: Batch) -> bool:\n        return True",
        "[override]",
    ),
    "not a coroutine": ("    def deliver(self, batch: Batch) -> None: ...", "[override]"),
    "another name": ("    async def delivers(self, batch: Batch) -> None: ...", "[abstract]"),
}


def test_a_wrong_deliver_is_a_type_error_and_a_right_one_is_none(tmp_path: Path) -> None:
    for n, (deliver, _) in enumerate(WRONG.values()):
        (tmp_path / f"wrong_{n}.py").write_text(SINK.format(deliver=deliver))
    right = "    async def deliver(self, batch: Batch) -> None: ..."
    (tmp_path / "right.py").write_text(SINK.format(deliver=right))
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--no-incremental", *sorted(tmp_path.glob("*.py"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = found.stdout.splitlines()
    for n, (name, (_, code)) in enumerate(WRONG.items()):
        assert any(line.startswith(f"wrong_{n}.py") and line.endswith(code) for line in lines), (name, lines)
    assert not [line for line in lines if "right.py" in line or "poller/" in line], lines


def test_a_sink_that_inherits_the_port_and_forgets_deliver_cannot_be_made() -> None:
    class Mine(Sink):
        pass

    with pytest.raises(TypeError, match="deliver"):
        Mine()  # type: ignore[abstract]
