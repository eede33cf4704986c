"""Reads the configuration file section by section, and collects findings with their places."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import Field, ValidationError

from poller.runtime import plugins
from poller.settings.contradictions import contradictions
from poller.settings.fields import Name
from poller.settings.findings import close, findings_of, value_place
from poller.settings.sections import (
    AccountSettings,
    AdminSettings,
    JournalSettings,
    LogSettings,
    Section,
    Settings,
    SinkSettings,
    SourceSettings,
    SpoolSettings,
    TracingSettings,
    WebSettings,
)
from poller.settings.yaml import BROKEN, START, Finding, MappingNode, Node, parse, place_at, values
from poller.settings.yaml import Path as Trail

S = TypeVar("S", bound=Section)

MAX_FILE: Final = 2**20
BASES: Final[Mapping[plugins.Group, type[Section]]] = {
    plugins.SOURCES: SourceSettings,
    plugins.SPOOLS: SpoolSettings,
    plugins.SINKS: SinkSettings,
}


def lines(findings: Sequence[Finding], file: Path) -> list[str]:
    """The findings as lines of text, in the order of the file, without repetitions."""
    ordered = sorted(findings, key=lambda finding: (finding.place.line, finding.place.column))
    return list(dict.fromkeys(finding.line(str(file)) for finding in ordered))


def read_settings(
    file: Path, environ: Mapping[str, str]
) -> tuple[Settings | None, list[Finding], list[Finding]]:
    """The settings (None if they cannot be used), the findings, and the contradictions."""
    _, reading, findings = read_values(file, environ)
    if reading is None:
        return None, findings, []
    reading.findings.extend(findings)
    return reading.settings(), reading.findings, reading.doubts


def read_values(
    file: Path, environ: Mapping[str, str]
) -> tuple[dict[str, object], "DocumentReader | None", list[Finding]]:
    """The content of the file, a reader of its sections, and findings. No reader if the file cannot be read at all."""
    text, unreadable = _read(file)
    if unreadable is not None:
        return {}, None, [unreadable]
    node, findings = parse(text)
    if node is None and not findings:
        return {}, None, [_whole("the file is empty")]
    if node is None:
        return {}, None, findings
    content, more = values(node, environ)
    findings += more
    if content is None:
        return {}, None, [*findings, _whole("the file is empty")]
    if not isinstance(node, MappingNode):
        return {}, None, [*findings, _whole("the file's top level is not a mapping (accounts:, sources:, …)")]
    read = cast(dict[str, object], content)
    return read, DocumentReader(node=node, content=read, folder=file.parent, findings=[], doubts=[]), findings


def _whole(text: str) -> Finding:
    return Finding(place=START, path=(), text=text)


def _read(file: Path) -> tuple[str, Finding | None]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        return "", _whole(f"cannot be read: {reason}")
    if len(content) > MAX_FILE:
        return "", _whole("larger than 1 MiB: this is no configuration")
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        before = content.removeprefix(b"\xef\xbb\xbf")[: error.start].decode("utf-8", "replace")
        wrong = "not UTF-8 text from here on: save the file as UTF-8"
        return "", Finding(place=place_at(before, len(before)), path=(), text=wrong)


class _File(Section):
    """The file without the settings of adapters, which the adapters' own classes read."""

    accounts: dict[Name, AccountSettings] = Field(min_length=1)
    sources: dict[Name, dict[str, Any]] = Field(min_length=1)
    spool: dict[str, Any]
    journal: JournalSettings = JournalSettings()
    sinks: dict[Name, dict[str, Any]] = Field(min_length=1)
    admin: AdminSettings | None = None
    web: WebSettings | None = None
    log: LogSettings = LogSettings()
    tracing: TracingSettings | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentReader:
    """Reads the sections of one file. Faults are added to `findings`, contradictions to `doubts`."""

    node: Node
    content: dict[str, object]
    folder: Path
    findings: list[Finding]
    doubts: list[Finding]

    def settings(self) -> Settings | None:
        """Read all sections, each independently, so that all findings are collected; None if there are any."""
        core = self.section(_File, self.content, ())
        sources = self._adapters(plugins.SOURCES, "sources")
        sinks = self._adapters(plugins.SINKS, "sinks")
        spool = self.adapter(plugins.SPOOLS, self.content.get("spool"), ("spool",))
        self._check_accounts()
        self._check_files(spool, sinks)
        if core is None or spool is None or self.findings:
            return None
        found = Settings(
            accounts=core.accounts,
            sources=cast(dict[str, SourceSettings], sources),
            spool=cast(SpoolSettings, spool),
            journal=core.journal,
            sinks=cast(dict[str, SinkSettings], sinks),
            admin=core.admin,
            web=core.web,
            log=core.log,
            tracing=core.tracing,
        )
        for trail, text in contradictions(found):
            self.doubts.append(Finding(place=value_place(self.node, trail), path=trail, text=text))
        return found

    def _adapters(self, group: plugins.Group, key: str) -> dict[str, Section | None]:
        named = self.content.get(key)
        entries = named.items() if isinstance(named, dict) else ()
        return {name: self.adapter(group, value, (key, name)) for name, value in entries}

    def adapter(self, group: plugins.Group, value: object, path: Trail) -> Section | None:
        """The settings of one adapter, read by its own class; None after a finding, of this method or of `_File`."""
        if not isinstance(value, dict):
            return None
        kind = value.get("type", None)
        if kind == BROKEN:
            return None
        if not isinstance(kind, str):
            word = "is missing" if "type" not in value else "is the name of an adapter"
            self.find((*path, "type"), f"{word}: {_one_of(plugins.types(group))}")
            return None
        model = self._model(group, kind, path)
        return self.section(model, value, path) if model is not None else None

    def _model(self, group: plugins.Group, kind: str, path: Trail) -> type[Section] | None:
        try:
            found: object = cast(Any, plugins.adapter(group, kind)).Settings
        except plugins.UnknownType:
            known = plugins.types(group)
            self.find(
                (*path, "type"), f"no such adapter is installed{close(kind, known) or ': ' + _one_of(known)}"
            )
            return None
        except plugins.BrokenPlugin as error:
            self.find((*path, "type"), str(error))
            return None
        base = BASES[group]
        if isinstance(found, type) and issubclass(found, base):
            return found
        self.find(
            (*path, "type"), f"the {kind} plug-in's Settings are not built on poller.api.{base.__name__}"
        )
        return None

    def section(self, model: type[S], value: object, path: Trail) -> S | None:
        """Read one section; None after a finding in it."""
        try:
            return model.model_validate_json(json.dumps(value), strict=True, context={"folder": self.folder})
        except ValidationError as error:
            self.findings.extend(findings_of(error, model, self.node, path))
            return None

    def _check_accounts(self) -> None:
        known = self.content.get("accounts")
        sources = self.content.get("sources")
        if not isinstance(known, dict) or not isinstance(sources, dict):
            return
        for name, source in sources.items():
            account = source.get("account") if isinstance(source, dict) else None
            if isinstance(account, str) and account != BROKEN and account not in known:
                text = f"no such account under accounts{close(account, known) or ': ' + _one_of(known)}"
                self.find(("sources", name, "account"), text)

    def _check_files(self, spool: Section | None, sinks: Mapping[str, Section | None]) -> None:
        """With a shared spool, a file must not lie where only the daemon that wrote it can see it."""
        if not isinstance(spool, SpoolSettings) or not spool.shared:
            return
        for name, sink in sinks.items():
            if isinstance(sink, SinkSettings) and sink.keeps_files_here:
                self.find(
                    ("sinks", name, "directory"),
                    f"several daemons share a spool of type {spool.type}, and each would leave its files in a "
                    "directory of its own: put it where all of them see it, and add shared: true",
                )

    def find(self, path: Trail, text: str) -> None:
        """Add a finding at a path."""
        self.findings.append(Finding(place=value_place(self.node, path), path=path, text=text))


def _one_of(names: Iterable[str]) -> str:
    found = sorted(names)
    return f"one of {', '.join(found)}" if found else "none is installed"
