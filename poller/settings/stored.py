"""Reads the part of the configuration that the operator's commands need.

The commands need the spool, the journal's path, and the names of sources and sinks. They must work when a
credential is missing or another section is broken. So no file with a secret is read, and findings in other
sections are ignored.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from pydantic import BaseModel, SecretStr, ValidationError, create_model

from poller.core.errors import BadConfiguration, PollerError
from poller.runtime import plugins
from poller.settings.findings import section_at
from poller.settings.reading import DocumentReader, lines, read_values
from poller.settings.sections import (
    AccountSettings,
    JournalSettings,
    LogSettings,
    Section,
    Settings,
    SinkSettings,
    SourceSettings,
    SpoolSettings,
)
from poller.settings.yaml import BROKEN

NEEDED: Final = ("only", "order", "lanes", "batch", "start")
"""The settings that decide which events of the spool are pending for a sink, and how they are grouped."""
UNUSED: Final = "unused-in-place-of-a-secret"


def load_stored(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings without secrets.

    Raises `BadConfiguration` for findings in the spool, in the journal's path, and in `only`, `order`, `lanes`, `batch`
    or `start` of a sink. Accounts have placeholders for their keys; an account that cannot be read is left out.
    A sink or a source has all of its settings if they can be read, a sink else those that all sinks share.
    """
    file = Path(path)
    content, reading, findings = read_values(file, environ)
    if reading is None:
        raise BadConfiguration(lines(findings, file))
    spool = reading.adapter(plugins.SPOOLS, content.get("spool"), ("spool",))
    journal = reading.section(JournalSettings, _some(content.get("journal"), ("path",)), ("journal",))
    sinks = {
        name: _sink(reading, name, value, file.parent) for name, value in _named_entries(content, "sinks")
    }
    if not isinstance(content.get("spool"), dict):
        reading.find(("spool",), "is missing: where events are kept")
    found = [finding for finding in findings if finding.path[:1] == ("spool",)] + reading.findings
    if found:
        raise BadConfiguration(lines(found, file))
    return Settings.model_construct(
        accounts=_readable_accounts(content, file.parent),
        sources={name: _source(value, file.parent) for name, value in _named_entries(content, "sources")},
        spool=cast(SpoolSettings, spool),
        journal=cast(JournalSettings, journal),
        sinks=cast(dict[str, SinkSettings], sinks),
        admin=None,
        web=None,
        log=_read(LogSettings, content.get("log"), file.parent) or LogSettings(),
    )


def _named_entries(content: Mapping[str, object], key: str) -> list[tuple[str, dict[str, object]]]:
    entries = content.get(key)
    if not isinstance(entries, dict):
        return []
    return [(name, value) for name, value in entries.items() if isinstance(value, dict)]


def _some(value: object, keys: tuple[str, ...]) -> dict[str, object]:
    return {key: value[key] for key in keys if key in value} if isinstance(value, dict) else {}


def _kind(value: Mapping[str, object]) -> str:
    kind = value.get("type")
    return kind if isinstance(kind, str) and kind != BROKEN else "unknown"


def _sink(reading: DocumentReader, name: str, value: dict[str, object], folder: Path) -> SinkSettings | None:
    """The settings of a sink, or only those that all sinks share, with its adapter's defaults."""
    kept = {**_some(value, NEEDED), "type": _kind(value)}
    shared = reading.section(_sink_model(_kind(value)), kept, ("sinks", name))
    try:
        model: Any = plugins.adapter(plugins.SINKS, _kind(value))
        whole: SinkSettings | None = _read(model.Settings, value, folder)
    except (PollerError, AttributeError):
        return shared
    return shared if shared is None else whole or shared


def is_whole(sink: SinkSettings) -> bool:
    """Whether a sink of `load_stored` has all of its settings."""
    try:
        adapter: Any = plugins.adapter(plugins.SINKS, sink.type)
        return isinstance(sink, adapter.Settings)
    except (PollerError, AttributeError):
        return False


def _sink_model(kind: str) -> type[SinkSettings]:
    try:
        adapter: Any = plugins.adapter(plugins.SINKS, kind)
        own = adapter.Settings.model_fields
    except (PollerError, AttributeError):
        return SinkSettings
    fields: Any = {name: (own[name].annotation, own[name]) for name in NEEDED if name in own}
    model = create_model("SinkSettings", __base__=SinkSettings, **fields)
    model.fetches_pictures = getattr(adapter.Settings, "fetches_pictures", False)
    return model


def _source(value: dict[str, object], folder: Path) -> SourceSettings:
    kind, account = _kind(value), value.get("account")
    try:
        model: Any = plugins.adapter(plugins.SOURCES, kind)
        found = _read(model.Settings, value, folder)
    except (PollerError, AttributeError):
        found = None
    return found or SourceSettings.model_construct(type=kind, account=str(account))


def _readable_accounts(content: Mapping[str, object], folder: Path) -> dict[str, AccountSettings]:
    found = {
        name: _read(AccountSettings, value, folder) for name, value in _named_entries(content, "accounts")
    }
    return {name: account for name, account in found.items() if account is not None}


def _read(model: type[Section], value: object, folder: Path) -> Any:
    """A section with placeholders for its secrets; None if it cannot be read."""
    if not isinstance(value, dict):
        return None
    try:
        kept = json.dumps(_drop_secrets(model, value))
        return model.model_validate_json(kept, strict=True, context={"folder": folder})
    except (ValidationError, ValueError):
        return None


def _drop_secrets(model: type[BaseModel], value: dict[str, object]) -> dict[str, object]:
    kept: dict[str, object] = {}
    for name, given in value.items():
        field = model.model_fields.get(name)
        if name == "tls":
            continue
        if field is None or SecretStr.__name__ not in str(field.annotation):
            section = section_at(model, (name,))
            kept[name] = _drop_secrets(section, given) if section and isinstance(given, dict) else given
        elif name == "path":
            kept[name] = f"/{UNUSED}"
        else:
            kept[name.removesuffix("_file")] = [UNUSED] if name.endswith("s") else UNUSED
    return kept
