"""Writes `dashboard.json`; with `--check` it only says whether the file differs, and exits with 1."""

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

from observability.model import SELECTION, Graph, Number, Query, Row
from observability.panels import ROWS

FILE: Final = Path(__file__).with_name("dashboard.json")
WIDTH: Final = 24
NUMBER: Final = (4, 4)
GRAPH: Final = (8, 8)
"""Width and height."""
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> str:
    """The dashboard in Grafana's classic model, as a file for its import."""
    model = {
        "uid": "poller",
        "title": "poller",
        "description": "Live-stream screenshots: the way in, the spool, the way out.",
        "tags": ["poller"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_data_source(), *_variables()]},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_panels()),
    }
    return json.dumps(model, indent=1, ensure_ascii=False) + "\n"


def _data_source() -> Mapping[str, object]:
    return {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"}


def _variables() -> Iterator[Mapping[str, object]]:
    for name, query in (
        ("job", "label_values(poller_build_info, job)"),
        ("instance", 'label_values(poller_build_info{job=~"$job"}, instance)'),
    ):
        yield {
            "type": "query",
            "name": name,
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "current": {"text": "All", "value": "$__all"},
        }


def _panels() -> Iterator[Mapping[str, object]]:
    ids, y = count(1), 0
    for row in ROWS:
        heading = {"id": next(ids), "type": "row", "title": row.title, "collapsed": False, "panels": []}
        yield {**heading, "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        y += 1
        for panel, place in _placed(row, y):
            yield {"id": next(ids), "gridPos": place, **_panel(panel)}
            y = max(y, place["y"])
        y += place["h"]


def _placed(row: Row, y: int) -> Iterator[tuple[Number | Graph, dict[str, int]]]:
    """The panels of a row with their places: from left to right, in as many lines as needed."""
    width, height = NUMBER if isinstance(row.panels[0], Number) else GRAPH
    for number, panel in enumerate(row.panels):
        line, column = divmod(number, WIDTH // width)
        yield panel, {"x": column * width, "y": y + line * height, "w": width, "h": height}


def _panel(panel: Number | Graph) -> Mapping[str, object]:
    body = _number(panel) if isinstance(panel, Number) else _graph(panel)
    return {"title": panel.title, "description": panel.about, "datasource": SOURCE, **body}


def _number(panel: Number) -> Mapping[str, object]:
    words = {value: {"text": text, "index": n} for n, (value, text) in enumerate(panel.words)}
    return {
        "type": "stat",
        "targets": [_target(panel.query, 0, instant=True)],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "decimals": 0 if panel.unit == "short" else 1,
                "noValue": "–",
                "mappings": [{"type": "value", "options": words}] if words else [],
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"value": v, "color": c} for v, c in panel.steps],
                },
            },
            "overrides": [],
        },
        "options": {
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "name" if panel.shows_name else "value",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def _graph(panel: Graph) -> Mapping[str, object]:
    custom: dict[str, Any] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 0,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }
    least = {} if panel.least is None else {"min": panel.least}
    return {
        "type": "timeseries",
        "targets": [_target(query, number) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom, **least}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _target(query: Query, number: int, *, instant: bool = False) -> Mapping[str, object]:
    return {
        "refId": chr(ord("A") + number),
        "datasource": SOURCE,
        "expr": query.expr.replace("@", SELECTION),
        "legendFormat": query.legend or "__auto",
        "instant": instant,
        "range": not instant,
    }


def main(arguments: list[str]) -> int:
    """Write, or check."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m observability.make [--check]", file=sys.stderr)
        return 2
    text = dashboard()
    if FILE.is_file() and FILE.read_text() == text:
        return 0
    if arguments:
        print(
            "observability/dashboard.json differs from the code: run python -m observability.make",
            file=sys.stderr,
        )
        return 1
    FILE.write_text(text)
    print("observability/dashboard.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
