"""Machines on a network: namespaces, each with one interface, behind a bridge."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests import networks

HOST: Final = "10.77.0.1"
"""The address of all that stands around the daemons. It is the bridge's."""
NETWORK: Final = "10.77.0.0/24"
BRIDGE: Final = "lan"
DEADLINE: Final = 30.0
STATE: Final = 3
OWNER: Final = 9
NOBODY: Final = "0"
SENDING: Final = {"04", "09", "0B"}
"""Of a connection that its process has closed, and whose last bytes are not confirmed: FIN_WAIT1, LAST_ACK, CLOSING."""


class Machine:
    """A network with one address. Processes enter it by its open file `network`."""

    def __init__(self, number: int) -> None:
        self.name = f"machine{number}"
        self.address = f"10.77.0.{10 + number}"
        self.network = networks.new()

    def plug_in(self) -> None:
        """Make its interface, and join the bridge."""
        own = f"/proc/{os.getpid()}/fd/{self.network}"
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", own)
        for words in (
            ("address", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            run("nsenter", f"--net={own}", "ip", *words)
        ip("link", "set", self.name, "up")
        self.join()

    def cut(self) -> None:
        """Let nothing through any more, and tell nobody: both sides send into the void."""
        ip("link", "set", self.name, "nomaster")

    def join(self) -> None:
        """Let all through."""
        ip("link", "set", self.name, "master", BRIDGE)

    def still_sends(self) -> bool:
        """Whether the kernel still sends what a process left behind that is dead: after a cut, it tries for seconds."""

        def connections() -> str:
            networks.enter(self.network)
            return Path("/proc/thread-self/net/tcp").read_text()

        with ThreadPoolExecutor(1) as thread:
            rows = [line.split() for line in thread.submit(connections).result().splitlines()[1:]]
        return any(row[STATE] in SENDING and row[OWNER] == NOBODY for row in rows)

    def close(self) -> None:
        """Forget the network, which ends with the last process in it."""
        os.close(self.network)


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """`count` machines in the network of the calling thread, which must have none yet: see `networks.apart`."""
    ip("link", "set", "lo", "up")
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    with ExitStack() as stack:
        found = [Machine(number) for number in range(count)]
        for machine in found:
            stack.callback(machine.close)
            machine.plug_in()
        yield found


def ip(*words: str) -> None:
    """One command of iproute2, in the network of the calling thread."""
    run("ip", *words)


def run(*words: str) -> None:
    """A command; raises RuntimeError with what it says if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
