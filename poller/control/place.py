"""The path of the control socket, and an address for it, even if the path is too long for a socket."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 107
"""The most bytes in the address of a unix socket (unix(7): `sun_path`, without its final zero)."""
LONGEST_NAME = 80
"""The most bytes in a file's name that fit behind `/proc/self/fd/NUMBER/` in such an address."""


def socket_path(beside: Path) -> Path:
    """The socket of a file: `spool.db.sock` beside `spool.db`. A very long name is replaced by its hash."""
    name = os.fsencode(beside.name + ".sock")
    if len(name) > LONGEST_NAME:
        name = hashlib.blake2b(name, digest_size=16).hexdigest().encode() + b".sock"
    return beside.with_name(os.fsdecode(name))


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """An address for the socket at a path, valid inside the `with` block. A long path is reached through its folder's
    file descriptor."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
