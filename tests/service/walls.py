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


FILTER: Final = """
import ctypes, os, struct, sys
SOCKET, MMAP, MPROTECT = {"x86_64": (41, 9, 10), "aarch64": (198, 222, 226)}[os.uname().machine]
LOAD, EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06
NUMBER, FIRST, THIRD = 0, 16, 32  # where the call's number and its arguments are
ALLOW, REFUSE, NO_FAMILY = 0x7FFF0000, 0x50001, 0x50061  # EPERM, EAFNOSUPPORT
program = [
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 5, SOCKET), (LOAD, 0, 0, FIRST), (EQUAL, 11, 0, 1), (EQUAL, 10, 0, 2), (EQUAL, 9, 0, 10),
    (RETURN, 0, 0, NO_FAMILY),
    (EQUAL, 0, 3, MMAP), (LOAD, 0, 0, THIRD), (AND, 0, 0, 6), (EQUAL, 5, 4, 6),
    (EQUAL, 0, 3, MPROTECT), (LOAD, 0, 0, THIRD), (AND, 0, 0, 4), (EQUAL, 1, 0, 4),
    (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
whole = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert libc.prctl(22, 2, whole, 0, 0) == 0, "PR_SET_SECCOMP"
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A program that runs another one behind the filters that systemd makes of two lines of the unit.

`RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX` refuses other sockets. `MemoryDenyWriteExecute=yes` refuses memory
that is written and executed, and any memory that becomes executable later, which is more than the kernel's form does.
"""


@cache
def calls(name: str) -> frozenset[str]:
    """All system calls of one of systemd's groups."""
    done = analyze("syscall-filter", "--no-pager", name)
    assert done.returncode == 0, done.stderr
    words = [line.strip() for line in done.stdout.splitlines()[1:] if not line.strip().startswith("#")]
    inner = (calls(word) if word.startswith("@") else {word} for word in words if word)
    return frozenset().union(*inner)


def allowed(*more: str) -> frozenset[str]:
    """The system calls that the unit lets pass, with more lines of a filter behind its own."""
    found = frozenset[str]()
    for line in (*SET["SystemCallFilter"], *more):
        groups = [calls(name) for name in line.removeprefix("~").split()]
        found = found.difference(*groups) if line.startswith("~") else found.union(*groups)
    return found
