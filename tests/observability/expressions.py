"""The expressions of the dashboard and of the rules, and what they ask for."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "observability"
DASHBOARD: Final = FOLDER / "dashboard.json"
RULES: Final = FOLDER / "rules.yml"
RULES_TEST: Final = FOLDER / "rules_test.yml"
NOT_OURS: Final = {"up", "ALERTS"}
"""Series that Prometheus makes by itself."""
SELECTOR: Final = re.compile(r"\b(poller_\w+|up|ALERTS)(?:\{([^}]*)\})?(?!\w)")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A selector: the metric's name as it is exposed, and the matchers' labels with their values."""

    name: str
    text: str
    matchers: tuple[tuple[str, str], ...]


def selectors(expr: str) -> list[Asked]:
    """Every selector of an expression."""
    return [
        Asked(
            name=name, text=f"{name}{{{inside}}}", matchers=tuple(re.findall(r'(\w+)[!=]~?"([^"]*)"', inside))
        )
        for name, inside in SELECTOR.findall(expr)
    ]


def groupings(expr: str) -> list[set[str]]:
    """The labels of every `by (…)`."""
    return [set(labels.split(", ")) for labels in re.findall(r"\bby \(([^)]*)\)", expr)]


def rules() -> list[dict[str, Any]]:
    """All rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """All panels of the dashboard but the headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard() -> Mapping[str, Any]:
    """The file as it is."""
    found = json.loads(DASHBOARD.read_text())
    assert isinstance(found, dict)
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboard, beside the title of its panel."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def filled_in(expr: str) -> str:
    """An expression of the dashboard as Grafana sends it, with all daemons chosen and a short step."""
    for variable, value in (
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$__rate_interval", "15s"),
        ("$__range", "5m"),
    ):
        expr = expr.replace(variable, value)
    assert "$" not in expr
    return expr
