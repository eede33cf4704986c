"""Turns output of libraries and the interpreter to stderr into lines of our log.

The text of an error may contain a URL, and a stranger may cause thousands of errors. So a line has only the
logger's name and the error's type, and there are at most ten lines a minute of each kind.
"""

import logging
import sys
import threading
import time
from typing import Any

import structlog

MOST = 10
PERIOD = 60.0
MOST_KINDS = 100

log = structlog.get_logger("library")


class _Rate:
    """Ten lines a minute of each kind; the first of the next minute says how many were left out."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def count_left_out(self, kind: tuple[str, str], now: float) -> int | None:
        """How many of a kind were left out before this one; None where this one is left out too."""
        if len(self._kinds) >= MOST_KINDS and kind not in self._kinds:
            self._kinds.clear()
        since, count = self._kinds.get(kind, (now, 0))
        fresh = now - since >= PERIOD
        self._kinds[kind] = (now, 1) if fresh else (since, count + 1)
        if fresh:
            return max(0, count - MOST)
        return 0 if count < MOST else None


class _ToOurLog(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._rate = _Rate()
        self._reporting = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        raised = record.exc_info[1] if record.exc_info else None
        self.report(record.name, raised)

    def report(self, name: str, raised: BaseException | None) -> None:
        if getattr(self._reporting, "now", False):  # the log itself failed
            return
        error = type(raised).__name__ if raised is not None else "none"
        left_out = self._rate.count_left_out((name, error), time.monotonic())
        if left_out is None:
            return
        more: dict[str, Any] = {"left_out": left_out} if left_out else {}
        self._reporting.now = True
        try:
            log.error("library_error", library=name, error=error, at=place_of(raised), **more)
        finally:
            self._reporting.now = False


def place_of(raised: BaseException | None) -> str:
    """The last line of code that an error passed; empty where there is none."""
    trace = raised.__traceback__ if raised is not None else None
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"


def install() -> None:
    """Send the output of libraries and the interpreter through our log."""
    handler = _ToOurLog()
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.unraisablehook = lambda args: handler.report("python", args.exc_value)
    threading.excepthook = lambda args: handler.report("threading", args.exc_value)
