"""Where the control socket is, and how to reach it whatever the length of its path."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 107
"""Bytes that a unix socket's address may have (unix(7): `sun_path`, without its final zero)."""
LONGEST_NAME = 80
"""Bytes of a file's name that still fit behind `/proc/self/fd/NUMBER/`."""


def socket_path(beside: Path) -> Path:
    """The socket that belongs to a file: `spool.db.sock` beside `spool.db`, by a hash if the name is very long."""
    name = os.fsencode(beside.name + ".sock")
    if len(name) > LONGEST_NAME:
        name = hashlib.blake2b(name, digest_size=16).hexdigest().encode() + b".sock"
    return beside.with_name(os.fsdecode(name))


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """An address for the socket at a path; good while the block lasts. A long one leads through the open folder."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
