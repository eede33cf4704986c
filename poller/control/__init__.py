"""The operator's commands, and the socket on which a running daemon receives them."""

from poller.control.client import NotRunning, ask
from poller.control.place import socket_path
from poller.control.server import ControlServer
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import ControlError, Request, Row, Verb
from poller.operations.verbs import answer

__all__ = [
    "ControlError",
    "ControlServer",
    "NotRunning",
    "OperatorContext",
    "Request",
    "Row",
    "Verb",
    "answer",
    "ask",
    "socket_path",
]
