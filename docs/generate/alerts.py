"""The page of alerts, from the rules."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from docs.generate.markdown import code, page, plain, table

RULES: Final = Path(__file__).parents[2] / "observability" / "rules.yml"


def alerts() -> str:
    """Each alerting rule: how bad it is, after how long it fires, what it means, and its page."""
    return page(
        "Alerts",
        "The rules of `observability/rules.yml`. [A dashboard and alarms](../operations/observability.md) says how to use them. "
        "`critical`: pictures are being lost, or nobody gets any. `warning`: nothing is lost yet, or what was lost is counted.",
        table(("alert", "severity", "fires after", "what it means, and what to do first"), _rows()),
    )


def _rows() -> Iterator[tuple[str, ...]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    for group in groups:
        for rule in group["rules"]:
            stem = rule["annotations"]["runbook_url"].rpartition("/")[2].removesuffix(".html")
            link = f"[{code(rule['alert'])}](../operations/alarms/{stem}.md)"
            yield link, rule["labels"]["severity"], rule.get("for", "at once"), _text(rule)


def _text(rule: dict[str, Any]) -> str:
    """The description; what Prometheus fills in is the label's name."""
    text = re.sub(r"\{\{ \$(?:labels\.)?(\w+) \}\}", r"`\1`", rule["annotations"]["description"])
    return "".join(part if n % 2 else plain(part) for n, part in enumerate(re.split("(`[^`]*`)", text)))
