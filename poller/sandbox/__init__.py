"""The platform in a box: queue, pictures and live streams, independent of the client's code.

Each name is imported when it is asked for. A pusher, which is a program of its own for each stream, needs few of the
modules, and starts in a third of the time without the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_MODULES = {
    "callbacks.notified": ("Notified", "read_notified"),
    "faults": ("API_FAULTS", "CALLBACK_FAULTS", "COS_FAULTS", "QUERY_FAULTS", "UPLOAD_FAULTS", "Fault"),
    "options": ("Answers", "BadOption", "Customer", "Naming", "Options", "change_form", "era"),
    "oracle": ("Oracle", "Removed"),
    "query.poison": ("POISONS",),
    "query.synthetic": ("Load",),
    "sandbox": ("Sandbox", "main", "serve"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
