"""The walls that the unit `systemd/poller.service` puts around the daemon, for tests to compare with."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from .running import tool

ROOT: Final = Path(__file__).parent.parent.parent
UNIT: Final = ROOT / "systemd" / "poller.service"


def settings(text: str) -> Mapping[str, Sequence[str]]:
    """What a unit's lines say, by name; a name may come more than once."""
    found = defaultdict[str, list[str]](list)
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE):
        found[name].append(value)
    return found


SET: Final = settings(UNIT.read_text())


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    command = [tool("systemd-analyze"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


MDWE: Final = (
    "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True); "
    "sys.exit(77) if libc.prctl(65, 1, 0, 0, 0) else os.execv(sys.argv[1], sys.argv[1:])"
)
"""prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN): the kernel's own form of `MemoryDenyWriteExecute=`."""


@cache
def calls(name: str) -> frozenset[str]:
    """All system calls of one of systemd's groups."""
    done = analyze("syscall-filter", "--no-pager", name)
    assert done.returncode == 0, done.stderr
    words = [line.strip() for line in done.stdout.splitlines()[1:] if not line.strip().startswith("#")]
    inner = (calls(word) if word.startswith("@") else {word} for word in words if word)
    return frozenset().union(*inner)


def allowed() -> frozenset[str]:
    found = frozenset[str]()
    for line in SET["SystemCallFilter"]:
        groups = [calls(name) for name in line.removeprefix("~").split()]
        found = found.difference(*groups) if line.startswith("~") else found.union(*groups)
    return found
