"""Reads the configuration: every finding at once, with its place in the file, and no secret in any of them.

`load` is what the program calls; adapters build their `Settings` on the sections and types named here.
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
    VodSettings,
)
from poller.settings.stored import load_stored
from poller.settings.units import Duration, Rate, Size, duration_between, size_between, wrong

__all__ = [
    "AccountSettings",
    "AdminSettings",
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
    "Url",
    "VodSettings",
    "duration_between",
    "load",
    "load_stored",
    "load_with_doubts",
    "schema",
    "size_between",
    "wrong",
]


def load(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a file; `BadConfiguration` with every finding when they cannot be used.

    Reads the file and the secrets' files, and imports the adapters it names; nothing else happens.
    """
    return load_with_doubts(path, environ)[0]


def load_with_doubts(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ
) -> tuple[Settings, list[str]]:
    """The same, with a line for each thing that cannot work although its setting is right (`contradictions`).

    `check` refuses them. A daemon logs them and starts, so that an upgrade that knows more stops nobody's service.
    """
    file = Path(path)
    settings, findings, doubts = read_settings(file, environ)
    if settings is None or findings:
        raise BadConfiguration(lines(findings, file))
    return settings, lines(doubts, file)
