"""Loads modules at the start that a daemon needs later: without a free descriptor, nothing can be imported."""

import codecs
import importlib
import resource

CODECS = (
    "ascii",
    "idna",
    "latin-1",
    "punycode",
    "unicode_escape",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
)
MODULES = ("email.utils", "idna.uts46data", "stringprep")
MOST_FILES = 1 << 20
"""The soft limit of open files if the hard limit is infinite."""


def load_all() -> None:
    """Import what Python and the libraries import on first use."""
    for name in CODECS:
        codecs.lookup(name)
    for name in MODULES:
        importlib.import_module(name)


def open_files() -> str:
    """The soft limit of open files that this process has, as `ulimit -n` takes it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


_STARTED_WITH = open_files()


def original_open_files() -> str:
    """The limit with which this process was started."""
    return _STARTED_WITH


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard one; the usual soft one is for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
