"""The alerting rules: what Prometheus thinks of them, what they ask for, and where they lead at night."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from poller.core.model import PollOutcome, PushOutcome
from poller.operations.stream_states import STATES
from poller.runtime.metrics import DELIVERY_OUTCOMES
from tests.docs.test_operators_chapter import exposed, seen_as

from .expressions import NOT_OURS, ROOT, RULES, RULES_TEST, groupings, rules, selectors
from .promtool import promtool
from .server import RULE_FILE, SHOWN, scrape_configuration

BASE: Final = "https://poller.example.com/docs/"
VALUES: Final = {
    "outcome": {*map(str, PollOutcome), *map(str, PushOutcome), *DELIVERY_OUTCOMES},
    "state": set(STATES),
    "limit": {"max_bytes", "min_free", "max_events"},
    "job": {"poller"},
}
ONLY_SHOWN: Final = {
    "poller_backfilled_pictures_total",
    "poller_backlog_events",
    "poller_beat_known",
    "poller_build_info",
    "poller_dead_letters",
    "poller_delivery_seconds_bucket",
    "poller_events_total",
    "poller_journal_bytes",
    "poller_known_events_total",
    "poller_last_event_timestamp_seconds",
    "poller_picture_lag_seconds_bucket",
    "poller_poll_seconds_bucket",
    "poller_replay_events",
    "poller_sink_ready",
    "poller_spool_bytes",
    "poller_spool_info",
}
"""Metrics for the dashboard: of these, trouble shows in another one, or in `/readyz`."""
each_rule = pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))


# ---------------------------------------------------------------- promtool


def test_promtool_has_nothing_to_say_about_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(rules())} rules found" in done.stdout


def test_the_rules_fire_where_they_should_and_nowhere_else() -> None:
    done = promtool("test", "rules", RULES_TEST.name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("before", "after", "seen_by"),
    [
        (
            "poller_ready == 0",
            "poller_ready == 2",
            "a daemon that is not ready for five minutes, while another one is",
        ),
        (
            "poller_sink_paused == 1\n        for: 15m",
            "poller_sink_paused == 1\n        for: 5m",
            "a sink is paused and falls behind",
        ),
        (
            'state=~"live|late|unknown"',
            'state="unknown"',
            "one silent stream among many is no alarm at night",
        ),
        (
            "abs(poller_clock_skew_seconds)",
            "poller_clock_skew_seconds",
            "a damaged file, and a clock that is behind",
        ),
        ("or absent", "and absent", "a Prometheus without a daemon says so"),
    ],
)
def test_the_tests_of_the_rules_see_mistakes(tmp_path: Path, before: str, after: str, seen_by: str) -> None:
    text, tests = RULES.read_text(), yaml.safe_load(RULES_TEST.read_text())
    assert text.count(before) == 1
    (seer,) = (one for one in tests["tests"] if one["name"] == seen_by)
    (tmp_path / RULES_TEST.name).write_text(yaml.safe_dump({**tests, "tests": [seer]}))
    (tmp_path / RULES.name).write_text(text.replace(before, after))
    assert promtool("test", "rules", RULES_TEST.name, folder=tmp_path).returncode == 1


def test_promtool_accepts_the_configuration_that_the_documents_show(tmp_path: Path) -> None:
    (tmp_path / RULE_FILE).write_text(RULES.read_text())
    (tmp_path / "token").write_text("secret")
    configuration = scrape_configuration(SHOWN, token_file=tmp_path / "token")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    done = promtool("check", "config", "prometheus.yml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@each_rule
def test_a_rule_is_seen_to_fire(rule: Mapping[str, Any]) -> None:
    assert re.search(rf'alertname="{rule["alert"]}"', RULES_TEST.read_text())


# ---------------------------------------------------------------- what a rule asks for


@each_rule
def test_a_rule_asks_for_what_there_is(rule: Mapping[str, Any]) -> None:
    metrics, asked = exposed(), selectors(rule["expr"])
    assert asked
    for one in asked:
        labels = {"job"} if one.name in NOT_OURS else metrics[one.name]
        for label, values in one.matchers:
            assert label in labels
            assert set(values.split("|")) <= VALUES[label]
        for group in groupings(rule["expr"]):
            assert {"job", "instance"} <= group <= labels | {"job", "instance"}, "two daemons are two alarms"


@each_rule
def test_a_rules_texts_name_labels_that_it_has(rule: Mapping[str, Any]) -> None:
    kept = set().union(*groupings(rule["expr"])) or {"job", "instance"}.union(
        *(exposed().get(one.name, frozenset()) for one in selectors(rule["expr"]))
    )
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= kept


def test_there_is_an_alarm_for_every_trouble_that_is_counted() -> None:
    asked = {one.name for rule in rules() for one in selectors(rule["expr"])}
    assert asked - NOT_OURS == set(exposed()) - ONLY_SHOWN


# ---------------------------------------------------------------- the reader at night


@each_rule
def test_a_rule_says_how_bad_it_is_what_it_means_and_what_to_do_first(rule: Mapping[str, Any]) -> None:
    assert rule["alert"].startswith("Poller")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    means, _, first = rule["annotations"]["description"].partition(" First: ")
    assert means
    assert first
    assert len(rule["annotations"]["summary"]) <= 120


@each_rule
def test_a_rule_leads_to_a_page_that_names_it(rule: Mapping[str, Any]) -> None:
    address = rule["annotations"]["runbook_url"]
    assert address.startswith(BASE)
    page = ROOT / "docs" / address.removeprefix(BASE).replace(".html", ".md")
    assert page.parent.name == "alarms"
    assert f"\n- alert `{rule['alert']}`" in seen_as(page.read_text())


def test_the_pages_name_no_alert_that_there_is_not() -> None:
    pages = (ROOT / "docs" / "operations").rglob("*.md")
    named = {name for page in pages for name in re.findall(r"`(Poller\w+)`", page.read_text())}
    assert named == {rule["alert"] for rule in rules()}
