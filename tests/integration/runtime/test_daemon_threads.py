"""A thread that hangs does not keep the process from ending."""

import subprocess
import sys

from tests.patience import PATIENCE

HANG = """
import threading
from poller.runtime.daemon_threads import DaemonThreads
threads, begun = DaemonThreads(2, "disk"), threading.Event()
threads.submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
print(threads.end(0.1), flush=True)
"""


def test_a_process_ends_while_a_thread_hangs() -> None:
    ran = subprocess.run([sys.executable, "-c", HANG], capture_output=True, timeout=PATIENCE, check=True)
    assert (ran.stdout, ran.stderr) == (b"False\n", b"")
