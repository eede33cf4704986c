"""The machines of the tests: what is cut reaches nobody, and nothing of them is seen in the machine's own network."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests import networks

from .across.machines import HOST, Machine, ip, machines
from .environment import PATIENCE, needs_root, until

NEWS: Final = 1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR: what Chromium listens to."""
PORT: Final = 8080


@contextmanager
def news() -> Iterator[socket.socket]:
    """Hears of every interface and address that comes or goes in the network of the calling thread."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as heard:
        heard.bind((0, NEWS))
        heard.setblocking(False)
        yield heard


def has_news(heard: socket.socket) -> bool:
    try:
        return bool(heard.recv(65536))
    except BlockingIOError:
        return False


def reached(machine: Machine) -> bool:
    """Whether a connection from the machine is taken within a second."""
    probe = f"timeout 1 bash -c 'exec 3<>/dev/tcp/{HOST}/{PORT}'"
    own = f"/proc/{os.getpid()}/fd/{machine.network}"
    return subprocess.run(["nsenter", f"--net={own}", "sh", "-c", probe], check=False).returncode == 0


@pytest.mark.root
def test_machines_come_and_go_and_the_network_of_the_other_tests_hears_nothing() -> None:
    needs_root("makes networks")

    def come_and_go() -> bool:
        with news() as inside:
            with machines(3) as found:
                found[0].cut()
                found[0].join()
            return has_news(inside)

    before = socket.if_nameindex()
    with news() as heard:
        assert networks.apart(come_and_go), "the ear is deaf"
        assert not has_news(heard)
    assert socket.if_nameindex() == before


@pytest.mark.root
def test_a_machine_that_is_cut_off_reaches_nobody_and_one_that_joins_again_does() -> None:
    needs_root("makes networks")

    def cut_and_join() -> None:
        with machines(2) as (one, two), socket.create_server((HOST, PORT)):
            assert reached(one)
            one.cut()
            assert not reached(one)
            assert reached(two)
            one.join()
            assert reached(one)

    networks.apart(cut_and_join)


@pytest.mark.root
def test_what_a_dead_process_sent_before_a_cut_is_still_under_way() -> None:
    """Its kernel tries again, so it may arrive long after the end of the process."""
    needs_root("makes networks")

    def send_and_die() -> None:
        with machines(1) as (machine,), socket.create_server((HOST, PORT)) as server:
            words = f"exec 3<>/dev/tcp/{HOST}/{PORT}; read -r line; echo hello >&3"
            own = f"/proc/{os.getpid()}/fd/{machine.network}"
            command = ["nsenter", f"--net={own}", "bash", "-c", words]
            with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
                taken, _ = server.accept()
                machine.cut()
                process.communicate(b"\n")
            assert machine.still_sends()
            machine.join()
            with taken:
                taken.settimeout(PATIENCE)
                assert taken.recv(100) == b"hello\n"
            until(lambda: not machine.still_sends())

    networks.apart(send_and_die)


@pytest.mark.root
def test_a_network_apart_has_nothing_of_the_others() -> None:
    needs_root("makes networks")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        def alone() -> None:
            ip("link", "set", "lo", "up")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, 1)

        networks.apart(alone)
        socket.create_connection(address, 1).close()
