"""What libraries and the interpreter would print to stderr is a line of our log, without their texts, and bounded."""

import json
import subprocess
import sys

import pytest

CAUSES = {
    "a library's error": "logging.getLogger('aiohttp.server').error('canary %s', 'canary')",
    "a library's traceback": """
try:
    raise LookupError('canary')
except LookupError:
    logging.getLogger('asyncio').exception('canary')
""",
    "an error that nobody can raise": """
class Bad:
    def __del__(self):
        raise ValueError('canary')
Bad()
""",
    "a thread that fails": """
def bad():
    raise KeyError('canary')
for _ in range(3):
    thread = threading.Thread(target=bad, name='canary')
    thread.start()
    thread.join()
""",
    "a callback that fails on the event loop": """
async def main():
    def bad():
        raise RuntimeError('canary')
    asyncio.get_running_loop().call_soon(bad)
    await asyncio.sleep(0.05)
uvloop.run(main())
""",
    "a warning": "warnings.simplefilter('always'); warnings.warn('canary')",
}
PROGRAM = """
import asyncio, logging, sys, threading, warnings
import uvloop
from poller.runtime.log import configure
configure("debug", "json")
for _ in range(30):
{cause}
"""


@pytest.mark.parametrize("name", CAUSES)
def test_what_a_library_says_is_a_few_lines_of_json_without_its_words(name: str) -> None:
    cause = "\n".join(f"    {line}" for line in CAUSES[name].splitlines())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(cause=cause)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["event"] for line in lines} <= {"library_error"}
    assert len(lines) == (0 if name == "a warning" else 10)
    assert "canary" not in done.stderr
    assert all(line["library"] and line["error"] for line in lines)
