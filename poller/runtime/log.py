"""Logging to stderr: a console on a terminal, JSON otherwise; tracebacks without local variables."""

import logging
import sys
from typing import Any

import structlog

from poller.runtime import library_log
from poller.runtime.stderr import Stderr

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str, format: str) -> None:
    """Set up structlog; `format` is `auto`, `console` or `json`."""
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_console(sys.stderr.isatty()) if console else _json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line is one write
        cache_logger_on_first_use=False,
    )
    library_log.install()
    logging.raiseExceptions = False
    if isinstance(sys.stderr, Stderr):
        sys.stderr.report = _report_dropped


def _report_dropped(count: int) -> None:
    structlog.get_logger("log").error("log_lines_dropped", count=count)


def _console(colors: bool) -> list[Any]:
    plain = structlog.dev.plain_traceback  # the default one prints local variables, and with them secrets
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _json() -> list[Any]:
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(frames),
        structlog.processors.JSONRenderer(sort_keys=False),
    ]
