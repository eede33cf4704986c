"""A process that has imported a program once and forks into each of its lives: `python -m poller`, less the imports.

    python -m tests.warm FILE PROGRAM

takes its orders from an open socket. The program is `poller`, or a module of the tests that has a function `main`.

A life is the whole program, with a process, arguments, environment, folder and standard files of its own. It ends as a
child of `multiprocessing` does: threads and exit handlers end in their order, and files are written. Python takes no
module apart, which would take longer than all the rest of a short life.

The process has one thread and no event loop, so that a fork copies all there is. It is the lives' parent: it starts one
at an order, and gives the exit code of one that has ended. It ends with its orders.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import poller
from poller.cli.app import command_line
from poller.core.errors import BadConfiguration
from poller.qcloud.wire.redaction import redact, redact_message
from poller.runtime import preload
from poller.settings import load
from tests import networks

POLLER: Final = "poller"
MOST: Final = 1 << 20
"""Bytes of an order: the words and the environment."""
EXAMPLE: Final = Path(__file__).parents[1] / "config.example.yaml"
FAIL_POINTS: Final = "poller.runtime.failpoints"


def import_all() -> None:
    """Import all that `poller` may, but for its first lines and the sandbox."""
    for module in pkgutil.walk_packages(poller.__path__, "poller."):
        if not module.name.startswith(("poller.__main__", "poller.sandbox", "poller.testing")):
            importlib.import_module(module.name)


def prepare() -> None:
    """Do once what each life would do in the same way: what options and settings need is made at their first use."""
    command_line().commands["run"].make_context("run", ["--config", os.devnull])
    with suppress(BadConfiguration):  # its secrets are not there
        load(EXAMPLE, {})
    preload.load_all()
    redact(redact_message(b"txSecret=1"))  # compiles its rules


def next_life(orders: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Follow orders. Returns in each new life, with its order and files; ends with the orders."""
    while True:
        text, files, _, _ = socket.recv_fds(orders, MOST, 4)
        if not text:
            sys.exit()
        order = json.loads(text)
        if "reap" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1])
        elif (answer := os.fork()) == 0:
            return order, files
        for file in files:
            os.close(file)
        orders.send(str(answer).encode())


def become(order: dict[str, Any], files: list[int]) -> None:
    """What a new process has of its parent. Files behind the third are namespaces that it lives in."""
    standard, namespaces = files[:3], files[3:]
    for namespace in namespaces:
        networks.enter(namespace)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environ"])
    for number, file in enumerate(standard):
        os.dup2(file, number)
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    if order["terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[0] = order["cwd"]
    sys.argv[1:] = order["words"]
    if FAIL_POINTS in sys.modules:
        read_fail_point()


def read_fail_point() -> None:
    """Fail points are read from the environment when they are imported, and were imported before."""
    module = sys.modules[FAIL_POINTS]
    before = vars(module)["reached"]
    after = vars(importlib.reload(module))["reached"]
    for name, one in list(sys.modules.items()):
        if name.startswith("poller.") and vars(one).get("reached") is before:
            vars(one)["reached"] = after


def run(program: str) -> None:
    """The program itself."""
    if program == POLLER:
        runpy.run_module(POLLER, run_name="__main__", alter_sys=True)
    else:
        sys.modules[program].main()


def end(code: int) -> NoReturn:
    """Python's own end, but for what it takes apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end the orders
    file, program = sys.argv[1:]
    sys.argv = [program]
    if program == POLLER:
        import_all()
        prepare()
    else:
        importlib.import_module(program)
    gc.collect()
    gc.freeze()  # what is not looked at is not copied
    assert threading.active_count() == 1
    with socket.socket(fileno=int(file)) as channel:
        channel.send(b"ready")
        own = next_life(channel)
        channel.detach()  # `become` closes it
    become(*own)
    try:
        run(program)
    except SystemExit as exit_:
        if isinstance(exit_.code, int):
            end(exit_.code)
        raise
