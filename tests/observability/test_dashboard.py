"""The dashboard agrees with the script that makes it and with the metrics that there are."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from observability import make
from observability.panels import ROWS
from tests.docs.test_operators_chapter import exposed

from .expressions import NOT_OURS, dashboard, filled_in, groupings, panels, queries, rules, selectors
from .promtool import promtool

EACH = list(queries())
IN_A_SPOOL: Final = {
    "poller_streams": (
        'account="main", state="no pictures"',
        'account="other", state="no pictures"',
    ),
    "poller_backlog_events": ('sink="hook"', 'sink="files"'),
    "poller_replay_events": ('sink="hook"', 'sink="files"'),
    "poller_dead_letters": ('sink="hook"', 'sink="files"'),
    "poller_spool_bytes": ("",),
}
"""The gauges of what is in a spool, with labels that they may have. Of the second there is ten times as much."""


def test_the_dashboard_is_as_the_script_would_have_it() -> None:
    assert make.main(["--check"]) == 0, "run python -m observability.make"


def test_the_check_sees_a_change_and_leaves_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = make.FILE.read_text()
    monkeypatch.setattr("observability.make.ROWS", ROWS[1:])
    assert make.main(["--check"]) == 1
    assert "dashboard.json differs" in capsys.readouterr().err
    assert make.FILE.read_text() == before


def test_panels_have_their_own_number_and_place_and_say_what_they_show() -> None:
    placed = dashboard()["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    assert [one["title"] for one in panels() if not one["description"]] == []
    for one, other in combinations(placed, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in placed)


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
        for at, size in (("x", "w"), ("y", "h"))
    )


def test_every_panel_asks_the_data_source_that_the_reader_chose() -> None:
    sources = [one["datasource"]["uid"] for panel in panels() for one in (panel, *panel["targets"])]
    assert set(sources) == {"${datasource}"}
    assert [one["name"] for one in dashboard()["templating"]["list"]] == ["datasource", "job", "instance"]


@pytest.mark.parametrize(("title", "expr"), EACH, ids=[f"{title} {n}" for n, (title, _) in enumerate(EACH)])
def test_a_panel_asks_for_what_there_is(title: str, expr: str) -> None:
    metrics = exposed()
    asked = selectors(expr)
    assert asked
    for one in asked:
        if one.name in NOT_OURS:
            continue
        labels = metrics[one.name]
        assert {"job", "instance"} <= {label for label, _ in one.matchers}, "the reader's choice counts"
        assert {label for label, _ in one.matchers} <= labels | {"job", "instance"}
    known = set[str]().union(*(metrics[one.name] for one in asked if one.name not in NOT_OURS))
    for group in groupings(expr):
        assert group <= known | {"le", "job", "instance"}


def test_a_sum_counts_a_spool_once_however_many_daemons_share_it(tmp_path: Path) -> None:
    """Daemons a and b share a spool in which there is 5 of everything; c has one of its own, with 2."""
    daemons = (("a", "one", 5), ("b", "one", 5), ("c", "other", 2))
    series = [sample("poller_spool_info", instance, 1, f'spool="{spool}"') for instance, spool, _ in daemons]
    for instance, _, there in daemons:
        for name, each in IN_A_SPOOL.items():
            series += [sample(name, instance, there * 10**n, labels) for n, labels in enumerate(each)]
    sums = {expr: {one.name for one in selectors(expr)} & {*IN_A_SPOOL} for _, expr in EACH}
    sums = {expr: names for expr, names in sums.items() if names and expr.startswith("sum")}
    assert set().union(*sums.values()) == {*IN_A_SPOOL}
    check(tmp_path, series, {expr: 77 if len(IN_A_SPOOL[name]) == 2 else 7 for expr, (name,) in sums.items()})


def test_streams_that_one_daemon_sees_change_before_another_count_once(tmp_path: Path) -> None:
    (live,) = (expr for title, expr in EACH if title == "Live streams")
    states = (("a", "live"), ("b", "no pictures"))
    check(
        tmp_path,
        [
            sample("poller_streams", instance, 100, f'account="main", state="{state}"')
            for instance, state in states
        ]
        + [sample("poller_spool_info", instance, 1, 'spool="one"') for instance, _ in states],
        {live: 100},
    )


def sample(name: str, instance: str, value: float, labels: str = "") -> dict[str, str]:
    """A series of a daemon, as promtool takes it."""
    return {"series": f'{name}{{job="poller", instance="{instance}", {labels}}}', "values": f"{value}x5"}


def check(folder: Path, series: Sequence[Mapping[str, str]], sums: Mapping[str, float]) -> None:
    """Fail if the sum of an expression is not as said."""
    asked = [
        {
            "expr": f"sum({filled_in(expr)})",
            "eval_time": "2m",
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for expr, value in sums.items()
    ]
    file = folder / "sums.yml"
    file.write_text(yaml.safe_dump({"tests": [{"input_series": series, "promql_expr_test": asked}]}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    shown = {one.name for _, expr in EACH for one in selectors(expr)}
    alarmed = {one.name for rule in rules() for one in selectors(rule["expr"])}
    assert shown | alarmed == set(exposed()) | NOT_OURS


def test_a_legend_names_a_label_that_its_expression_keeps() -> None:
    for panel in panels():
        for target in panel["targets"]:
            kept = set().union(*groupings(target["expr"])) if groupings(target["expr"]) else set[str]()
            named = {part.partition("}}")[0] for part in target["legendFormat"].split("{{")[1:]}
            assert named <= kept, panel["title"]


def test_the_file_can_be_imported_as_it_is() -> None:
    """Grafana's import takes a model without an id, and asks nothing if there is no `__inputs`."""
    model: dict[str, Any] = json.loads(make.FILE.read_text())
    assert {"id", "__inputs"}.isdisjoint(model)
    assert (model["uid"], model["schemaVersion"]) == ("poller", 39)
