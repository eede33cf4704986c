"""The platform in a box: queue, pictures and live streams, independent of the client's code."""

from poller.sandbox.callbacks.notified import Notified, read_notified
from poller.sandbox.faults import (
    API_FAULTS,
    CALLBACK_FAULTS,
    COS_FAULTS,
    QUERY_FAULTS,
    UPLOAD_FAULTS,
    Fault,
)
from poller.sandbox.options import Answers, BadOption, Customer, Naming, Options, change_form, era
from poller.sandbox.oracle import Oracle, Removed
from poller.sandbox.query.poison import POISONS
from poller.sandbox.query.synthetic import Load
from poller.sandbox.sandbox import Sandbox, main, serve

__all__ = [
    "API_FAULTS",
    "CALLBACK_FAULTS",
    "COS_FAULTS",
    "POISONS",
    "QUERY_FAULTS",
    "UPLOAD_FAULTS",
    "Answers",
    "BadOption",
    "Customer",
    "Fault",
    "Load",
    "Naming",
    "Notified",
    "Options",
    "Oracle",
    "Removed",
    "Sandbox",
    "change_form",
    "era",
    "main",
    "read_notified",
    "serve",
]
