"""Reads the configuration, and reports all findings at once, each with its place in the file and without secrets.

The program calls `load` or `load_with_doubts`. Adapters build their `Settings` on the sections and types of
this package.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from poller.core.errors import BadConfiguration
from poller.settings.fields import (
    Cidr,
    FilePath,
    HostName,
    Kind,
    Listen,
    Name,
    Pattern,
    ReadableFile,
    ResolvedPath,
    Secret,
    SecretFile,
    SecretsFile,
    Url,
)
from poller.settings.reading import lines, read_settings
from poller.settings.schema import schema
from poller.settings.sections import (
    AccountSettings,
    AdminSettings,
    AuditSettings,
    BatchSettings,
    CosSettings,
    JournalSettings,
    LogSettings,
    Only,
    Section,
    Settings,
    SinkSettings,
    SourceSettings,
    SpoolSettings,
    TlsSettings,
    TracingSettings,
    VodSettings,
    WebSettings,
)
from poller.settings.stored import load_stored
from poller.settings.units import Duration, Rate, Size, duration_between, size_between, wrong

__all__ = [
    "AccountSettings",
    "AdminSettings",
    "AuditSettings",
    "BatchSettings",
    "Cidr",
    "CosSettings",
    "Duration",
    "FilePath",
    "HostName",
    "JournalSettings",
    "Kind",
    "Listen",
    "LogSettings",
    "Name",
    "Only",
    "Pattern",
    "Rate",
    "ReadableFile",
    "ResolvedPath",
    "Secret",
    "SecretFile",
    "SecretsFile",
    "Section",
    "Settings",
    "SinkSettings",
    "Size",
    "SourceSettings",
    "SpoolSettings",
    "TlsSettings",
    "TracingSettings",
    "Url",
    "VodSettings",
    "WebSettings",
    "duration_between",
    "load",
    "load_stored",
    "load_with_doubts",
    "schema",
    "size_between",
    "wrong",
]


def load(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a file; raises `BadConfiguration` with all findings if there are any.

    It reads the file and the files of secrets, and imports the adapters that the file names. It has no other
    effects.
    """
    return load_with_doubts(path, environ)[0]


def load_with_doubts(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ
) -> tuple[Settings, list[str]]:
    """The same as `load`, with a line for each contradiction (`contradictions`).

    The command `check` refuses contradictions. A daemon logs them and starts, so that an upgrade that finds
    new ones does not stop a service.
    """
    file = Path(path)
    settings, findings, doubts = read_settings(file, environ)
    if settings is None or findings:
        raise BadConfiguration(lines(findings, file))
    return settings, lines(doubts, file)
