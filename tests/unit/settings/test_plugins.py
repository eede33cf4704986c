"""Adapters are found by entry points of distributions on the path, and only the named one is imported."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poller.core.errors import BadConfiguration
from poller.runtime import plugins
from poller.settings import load, load_with_doubts, schema

from .adapters import install_strange
from .bad_configurations import GOOD


@pytest.fixture(autouse=True)
def strange(tmp_path: Path) -> Iterator[None]:
    """A second distribution, mostly of adapters that cannot be used."""
    folder = tmp_path / "strange"
    folder.mkdir()
    install_strange(folder)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    for name in ("strange_adapters", "strange_broken", "strange_raising"):
        sys.modules.pop(name, None)


def refused(kind: str, folder: Path) -> str:
    path = folder / "poller.yaml"
    path.write_text("\n".join({**GOOD, 9: f"  out: {{type: {kind}}}"}.values()))
    with pytest.raises(BadConfiguration) as caught:
        load(path, {})
    (finding,) = caught.value.findings
    assert finding.startswith(f"{path}:9:15: sinks.out.type: ")
    return finding


def test_types_are_listed_without_importing_them() -> None:
    assert {"strange_broker", "strange_complete", "stdout", "webhook", "download"} <= set(
        plugins.types(plugins.SINKS)
    )
    assert "strange_broken" not in sys.modules
    assert "strange_adapters" not in sys.modules


def test_a_plug_in_that_is_installed_while_the_process_runs_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    before = plugins.types(plugins.SINKS)
    about = folder / "later-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: later\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[poller.sinks]\nlater = strange_adapters:Pictures\n")
    os.utime(folder, ns=(0, folder.stat().st_mtime_ns + 1))  # a file system may count time in large steps
    assert plugins.types(plugins.SINKS) == sorted([*before, "later"])
    assert plugins.adapter(plugins.SINKS, "later").__name__ == "Pictures"


def test_only_the_named_adapter_is_imported() -> None:
    assert plugins.adapter(plugins.SINKS, "strange_complete").__name__ == "Hook"
    assert "strange_broken" not in sys.modules


def test_a_foreign_sink_is_used_like_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text(
        "\n".join({**GOOD, 9: "  out: {type: strange_complete, url: https://example.com/}"}.values())
    )
    assert load(path, {}).sinks["out"].model_dump()["url"] == "https://example.com/"


def test_an_unknown_type_is_told_from_a_broken_one() -> None:
    with pytest.raises(plugins.UnknownType):
        plugins.adapter(plugins.SINKS, "no_such_thing")


def test_a_missing_library_names_the_command_that_installs_it_and_as_little_else_as_can_be(
    tmp_path: Path,
) -> None:
    finding = refused("strange_broker", tmp_path)
    assert "needs the library a_broker_that_is_not_installed, which is not installed: " in finding
    assert finding.endswith(": pip install 'strange-adapters[broker]'")


def test_an_import_that_raises_is_a_finding_of_one_line(tmp_path: Path) -> None:
    assert "RuntimeError: two\\nlines" in refused("strange_raising", tmp_path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("strange_nothing", "AttributeError"),
        ("strange_bare", "no class with its own Settings"),
        ("strange_number", "no class with its own Settings"),
        ("strange_foreign", "not built on poller.api.SinkSettings"),
    ],
)
def test_what_is_no_adapter_is_refused(kind: str, reason: str, tmp_path: Path) -> None:
    assert reason in refused(kind, tmp_path)


@pytest.mark.parametrize("kind", ["strange_mute", "strange_misspelt", "strange_inherits"])
def test_a_plug_in_without_deliver_is_found_before_anything_runs(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text("\n".join({**GOOD, 9: f"  out: {{type: {kind}}}"}.values()))
    _, (doubt,) = load_with_doubts(path, {})
    assert doubt == f"{path}:9:15: sinks.out.type: the {kind} plug-in's class has no method deliver"


def test_two_distributions_of_one_type_are_refused(tmp_path: Path) -> None:
    about = tmp_path / "strange" / "another-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[poller.sinks]\nstrange_complete = strange_adapters:Pictures\n")
    assert "another, strange-adapters; uninstall all but one" in refused("strange_complete", tmp_path)


# ---------------------------------------------------------------- the schema


def nodes(found: object) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
    if isinstance(found, dict | list):
        for child in found.values() if isinstance(found, dict) else found:
            yield from nodes(child)


def test_the_schema_tells_the_adapters_apart_by_type_and_leaves_out_the_broken_ones() -> None:
    found = schema()
    sinks = found["properties"]["sinks"]["additionalProperties"]["discriminator"]["mapping"]
    assert {"stdout", "webhook", "download", "strange_complete"} <= set(sinks)
    assert not {"strange_broker", "strange_bare", "strange_foreign"} & set(sinks)
    assert {"memory", "sqlite"} <= set(found["properties"]["spool"]["discriminator"]["mapping"])
    assert set(found["required"]) == {"accounts", "sources", "spool", "sinks"}
    json.dumps(found, allow_nan=False)


def test_every_setting_of_the_core_is_described() -> None:
    found = schema()
    for name in (
        "AccountSettings",
        "JournalSettings",
        "AdminSettings",
        "LogSettings",
        "BatchSettings",
        "Only",
    ):
        for setting, described in found["$defs"][name]["properties"].items():
            assert described.get("description", "").endswith("."), (name, setting)


def test_defaults_are_written_as_people_write_them() -> None:
    definitions = schema()["$defs"]
    assert definitions["JournalSettings"]["properties"]["size"]["default"] == "64MiB"
    assert definitions["AccountSettings"]["properties"]["rate"]["default"] == "20/s"
    sink = next(d for d in definitions.values() if "give_up_after" in d.get("properties", {}))
    assert sink["properties"]["give_up_after"]["default"] == "3d"


def test_examples_match_their_own_patterns() -> None:
    seen = 0
    for node in nodes(schema()):
        for example in node.get("examples", ()) if isinstance(node.get("pattern"), str) else ():
            assert re.search(node["pattern"], example)
            seen += 1
    assert seen > 10
