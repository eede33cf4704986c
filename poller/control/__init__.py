"""The operator's commands, and the socket on which a running daemon receives them."""

from poller.control.client import NotRunning, ask, ask_events
from poller.control.place import socket_path
from poller.control.server import ControlServer
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import ControlError, EventRow, Request, Row, Verb
from poller.operations.tap import tap
from poller.operations.verbs import answer

__all__ = [
    "ControlError",
    "ControlServer",
    "EventRow",
    "NotRunning",
    "OperatorContext",
    "Request",
    "Row",
    "Verb",
    "answer",
    "ask",
    "ask_events",
    "socket_path",
    "tap",
]
