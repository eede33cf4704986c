"""The generated pages are what the code says, and nothing that is said in the log is left out."""

import ast
import re

import pytest
import yaml

from docs.generate import log_events, modules
from docs.generate.__main__ import DOCS, main


def test_every_generated_page_is_as_the_code_would_have_it() -> None:
    assert main(["--check"]) == 0, "run python -m docs.generate"


def test_the_check_names_a_page_that_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("docs.generate.__main__.pages", lambda: {"reference/metrics.md": "other\n"})
    before = (DOCS / "reference/metrics.md").read_text()
    assert main(["--check"]) == 1
    assert "docs/reference/metrics.md" in capsys.readouterr().err
    assert (DOCS / "reference/metrics.md").read_text() == before


def test_an_event_that_is_chosen_by_a_condition_is_found_with_its_own_level() -> None:
    levels = {
        event: set().union(*(one.levels for one in places)) for event, places in log_events.found().items()
    }
    assert levels["delivery_failed"] == {"warning"}
    assert levels["delivery_postponed"] == {"debug"}
    assert levels["sink_disabled"] == {"error"}
    assert levels["sink_paused"] == {"error", "warning"}
    assert levels["clock_skew"] == {"info", "warning"}


def test_every_text_that_is_given_to_a_logger_is_found() -> None:
    """Also by a simpler reading: the first argument of each method that is named after a level."""
    texts = {
        node.args[0].value
        for name in modules.names()
        for node in ast.walk(modules.tree(name))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in log_events.AS_LEVEL
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(texts) > 30
    assert texts <= set(log_events.found())


def test_a_warning_or_an_error_leads_to_the_page_of_its_alarm() -> None:
    text = (DOCS / "reference/log-events.md").read_text()
    alarming = text.partition("## Error")[2].partition("## Info")[0]
    rows = [line for line in alarming.splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    assert [
        row for row in rows if not re.search(r"\]\(\.\./operations/(alarms/[a-z-]+|upgrading)\.md\) \|$", row)
    ] == []
    (ended,) = [row for row in rows if row.startswith("| `session_ended`")]
    assert "[Fewer daemons share the spool](../operations/alarms/fewer-daemons.md)" in ended


def test_an_event_without_a_meaning_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    meanings = {event: text for event, text in log_events.meant().items() if event != "poll_failed"}
    monkeypatch.setattr(log_events, "meant", lambda: {**meanings, "gone": "It is gone."})
    with pytest.raises(LookupError, match="gone, poll_failed"):
        log_events.log_events()


def test_the_examples_of_settings_are_those_of_their_own_section_and_can_be_written_so() -> None:
    text = (DOCS / "reference/configuration.md").read_text()
    sinks = dict(re.findall(r"^### sink `(\w+)`\n\n(.+?)\n\n", text, re.MULTILINE | re.DOTALL))
    rows = {type: {row[0]: row for row in _cells(body)} for type, body in sinks.items()}
    assert len(rows) > 9
    for type, settings in rows.items():
        for name, row in settings.items():
            yaml.safe_load(f"{name}: {row[4]}")
        assert settings["type"][4] == type
        assert 1 <= int(settings["batch.max_events"][4]) <= 1000
    assert rows["redis"]["key"][4] == "live:{kind}"
    assert rows["kafka"]["password"][4] == "${KAFKA_PASSWORD}"


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip().strip("`") for cell in line.split(" | ")] for line in _rows(table)]


def _rows(table: str) -> list[str]:
    return [line.removeprefix("| ") for line in table.splitlines() if line.startswith("| `")]
