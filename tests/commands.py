"""The command line in this process, for words that end by themselves: a process would show nothing more."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from poller.cli.app import command_line
from poller.daemon.signals import SIGNALS, Stop


@dataclass(frozen=True)
class Ended:
    """What `subprocess.CompletedProcess` tells of a process."""

    returncode: int
    stdout: str
    stderr: str


def poller(*words: str, folder: Path | None = None, **environ: str | None) -> Ended:
    """One command, run where the folder is."""
    told = {"COLUMNS": "200", "TERM": "dumb", **environ}
    with contextlib.chdir(folder or os.getcwd()), _given_back(), CliRunner().isolation(env=told) as files:
        code = _code(words)
        sys.stdout.flush()
        sys.stderr.flush()
        stdout, stderr, _ = (file.getvalue().decode().replace("\r\n", "\n") for file in files)
    return Ended(code, stdout, stderr)


def _code(words: Sequence[str]) -> int:
    """Follow the words to the exit code."""
    with pytest.raises(SystemExit) as end:
        command_line().main(args=words, prog_name="poller", obj=Stop())
    assert isinstance(end.value.code, int)
    return end.value.code


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
