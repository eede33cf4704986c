"""What the daemon costs while nothing comes: CPU in % of a core, with an empty queue.

    python -m tests.bench.idle [--seconds 30]

A sandbox with an empty queue, `poller run` with a webhook, five seconds to settle, then the
process's CPU time (utime and stime of /proc/PID/stat, all threads) over the time given. The promise is at most 1 %.
The bare line is the same with one GET every five seconds and nothing else around it, in this process.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from poller.qcloud.wire.account import Account
from poller.settings import AccountSettings
from tests.bench import rig
from tests.bench.figures import Figure

SETTLE = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def daemon(api: str, hook: str, folder: Path, seconds: float) -> float:
    """CPU of the daemon in % of a core."""
    config = rig.configuration(folder, api, {"hook": rig.webhook(hook)})
    command = [sys.executable, "-m", "poller", "run", "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        time.sleep(SETTLE)
        before, began = cpu_of(process.pid), time.monotonic()
        time.sleep(seconds)
        used = (cpu_of(process.pid) - before) / (time.monotonic() - began)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    return used * 100


async def bare(api: str, seconds: float) -> float:
    """CPU of one GET every five seconds, in % of a core."""
    async with Account("main", AccountSettings.model_validate(rig.account(api))) as account:
        inputs = {"Param.n.bid": "100", "Param.n.count": "100"}
        await account.call("Live_Queue_Get", inputs)
        before, began = time.process_time(), time.monotonic()
        while time.monotonic() - began < seconds:
            await asyncio.sleep(min(5.0, seconds))
            await account.call("Live_Queue_Get", inputs)
        return (time.process_time() - before) / (time.monotonic() - began) * 100


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args(arguments).seconds
    with rig.scratch() as folder, rig.platform(folder / "platform") as queue, rig.receiver() as hook:
        ours = daemon(queue.api, hook, folder / "daemon", seconds)
        alone = asyncio.run(bare(queue.api, seconds))
    print(rig.table(["% of a core", "over s", "CPU"], [["bare", seconds, alone], ["daemon", seconds, ours]]))
    return [
        Figure(
            bench="idle",
            name="CPU of an idle daemon, beside bare polls",
            unit="%",
            ours=ours,
            reference=alone,
            at_most=1.0,
            absolute=True,
        )
    ]


if __name__ == "__main__":
    main()
