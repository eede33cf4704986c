"""The command line in this process, for words that end by themselves: a process would show nothing more."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from poller.cli.app import app
from poller.daemon.signals import SIGNALS, Stop


@dataclass(frozen=True)
class Ended:
    """What `subprocess.CompletedProcess` tells of a process."""

    returncode: int
    stdout: str
    stderr: str


def poller(*words: str, folder: Path | None = None, **environ: str | None) -> Ended:
    """One command, run where the folder is."""
    with contextlib.chdir(folder or os.getcwd()), _given_back():
        done = CliRunner().invoke(app, words, obj=Stop(), env={"COLUMNS": "200", "TERM": "dumb", **environ})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ended(done.exit_code, done.stdout, done.stderr)


@contextlib.contextmanager
def _given_back() -> Iterator[None]:
    """What a command sets for its whole process is this process's own again."""
    handlers, level = logging.root.handlers[:], logging.root.level
    heard = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        for number, handler in heard.items():
            signal.signal(number, handler)
