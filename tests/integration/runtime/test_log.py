"""What a traceback in the log holds."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import structlog
from poller.runtime.log import configure

configure("debug", sys.argv[1])

def sign(key, url):
    raise LookupError("no such thing")

try:
    sign("canary-" + "key", "http://example.com/?sign=" + "canary-sign")
except LookupError:
    structlog.get_logger().exception("read_failed")
"""


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, format], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    assert "read_failed" in done.stderr
    assert "LookupError" in done.stderr, "the traceback itself is there"
    assert "canary-key" not in done.stderr
    assert "canary-sign" not in done.stderr
