"""Ports for servers that begin to listen later, or again after they were down."""

import random
import socket
from contextlib import suppress


def lasting_port() -> int:
    """A port that nobody has, and that nobody is given by chance meanwhile: those begin at 32768."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
