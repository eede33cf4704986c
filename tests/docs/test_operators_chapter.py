"""`docs/operations`: every alarm there is has its page, and every alarm on a page exists."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from poller.runtime.metrics import Metrics

ROOT: Final = Path(__file__).parents[2]
OPERATIONS: Final = ROOT / "docs" / "operations"
ALARMS: Final = sorted((OPERATIONS / "alarms").glob("*.md"))
ASIDE: Final = ("sandbox", "demo", "testing")
"""What an operator does not run."""
ALARMING: Final = frozenset({"warning", "error", "exception", "critical"})


def chapter() -> str:
    """All pages for operators."""
    return "\n".join(file.read_text() for file in sorted(OPERATIONS.rglob("*.md")))


def seen_as(page: str) -> str:
    """The list at the beginning of an alarm's page: where it shows."""
    return page.partition("Seen as:\n")[2].partition("\n## ")[0]


def all_seen_as() -> str:
    return "".join(seen_as(file.read_text()) for file in ALARMS)


def ways_to_say(name: str) -> bool:
    return name in ALARMING or name == "say"


def strings(node: ast.AST) -> Iterator[str]:
    """The texts that an argument may be: a constant, or one of a conditional's two."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=other):
            yield from strings(body)
            yield from strings(other)


def log_events() -> Mapping[str, str]:
    """All events that the daemon logs as a warning or worse (`say` is either), and where."""
    found: dict[str, str] = {}
    for file in sorted((ROOT / "poller").rglob("*.py")):
        if file.relative_to(ROOT / "poller").parts[0] in ASIDE:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[first, *_]) if (
                    ways_to_say(name)
                ):
                    found |= dict.fromkeys(strings(first), file.name)
    return {event: file for event, file in found.items() if re.fullmatch(r"[a-z]+(_[a-z]+)*", event)}


def reasons() -> list[str]:
    """The fixed words of all reasons that `/readyz` can give, with `…` for what is filled in."""
    tree = ast.parse((ROOT / "poller" / "operations" / "health.py").read_text())
    found = []
    for method in ast.walk(tree):
        if isinstance(method, ast.AsyncFunctionDef | ast.FunctionDef) and method.name.endswith("_reason"):
            for node in ast.walk(method):
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
                    )
    return [re.sub(r"^(source|sink) …: ", "", reason) for reason in found if reason.count(" ") > 0]


def exposed() -> Mapping[str, frozenset[str]]:
    """The metrics' names as Prometheus sees them, with their labels."""
    found = {}
    for name, part in vars(Metrics()).items():
        if name != "registry":
            (family,) = part.describe()
            ending = {"counter": "_total", "histogram": "_bucket"}.get(family.type, "")
            found[family.name + ending] = frozenset(part._labelnames)
    return found


def test_every_warning_and_error_of_the_log_has_its_line() -> None:
    events = log_events()
    assert {"failed", "poll_failed", "delivery_failed", "clock_skew", "read_failed"} <= set(events)
    missing = {f"{event} ({file})" for event, file in events.items() if f"`{event}`" not in chapter()}
    assert not missing, "write a page in docs/operations/alarms: what it means, what to look at, what to do"


def test_every_reason_not_to_be_ready_has_its_line() -> None:
    found = reasons()
    assert len(found) >= 8, found
    missing = [reason for reason in found if f"`{reason}`" not in all_seen_as()]
    assert not missing, "write a page in docs/operations/alarms: what it means, what to look at, what to do"


def test_every_metric_has_its_place() -> None:
    missing = {
        full
        for name, labels in exposed().items()
        if not re.search(full := rf"`{name}{_labels(labels)}`", chapter())
    }
    assert not missing, "add to an alarm's page, or to docs/operations/monitoring.md"


def _labels(labels: frozenset[str]) -> str:
    return (
        r"\{(?=[a-z,]*\})" + "".join(rf"(?=[a-z,]*\b{one}\b)" for one in sorted(labels)) + r"[a-z,]+\}"
        if labels
        else ""
    )


@pytest.mark.parametrize("file", ALARMS, ids=lambda file: str(file.stem))
def test_an_alarms_page_has_its_anchor_its_parts_and_its_place_in_the_list(file: Path) -> None:
    page = file.read_text()
    assert page.startswith(f"(alarm-{file.stem})=\n# ")
    assert seen_as(page).strip()
    heads = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert heads == ["What it means", "What to look at", "What to do"]
    assert f"\nalarms/{file.stem}\n" in (OPERATIONS / "index.md").read_text()


def test_the_pages_name_nothing_that_is_not_there() -> None:
    metrics = set(re.findall(r"`(poller_\w+)(?:\{[a-z,]*\})?`", chapter()))
    assert metrics <= set(exposed())
    every = "".join(file.read_text() for file in (ROOT / "poller").rglob("*.py"))
    events = {
        event
        for line in re.findall(r"^- log (.+)$", all_seen_as(), re.MULTILINE)
        for event in re.findall(r"`(\w+)`", line)
    }
    assert len(events) > 30
    assert {event for event in events if f'"{event}"' not in every} == set()
