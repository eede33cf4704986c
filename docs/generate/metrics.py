"""The page of metrics."""

import re
from collections.abc import Iterator

from docs.generate.markdown import codes, page, table
from poller.core.model import PollOutcome, PushOutcome
from poller.operations.stream_states import STATES
from poller.runtime.metrics import Metrics

ENDINGS = {"counter": "_total", "histogram": "_bucket, _sum, _count"}


def metrics() -> str:
    """`/metrics`: each name with its type, its labels and what it says."""
    return page(
        "Metrics",
        "Asked for at `/metrics` of `admin.listen`, in the text form of Prometheus. Names and labels are a promise: they change "
        "only with a new major version. A counter counts from the start of the process.",
        table(("name", "type", "labels", "what it says"), _rows()),
        "## Values of labels",
        f"- `outcome` of `poller_polls_total`: {codes(PollOutcome)}.",
        f"- `outcome` of `poller_callbacks_total`: {codes(PushOutcome)}.",
        "- `outcome` of `poller_deliveries_total`: `done`, `postponed`, `retry`, `dead`.",
        "- `what` of `poller_expired_total`: `dead_letter`, `quarantine`.",
        f"- `state` of `poller_streams`: {codes(STATES)}. [What each means](../operations/monitoring.md#states-of-streams).",
        "- `limit` of `poller_spool_fill_ratio`: the settings `max_bytes` and `min_free` of a `sqlite` spool, `max_events` of a `memory` spool.",
    )


def _rows() -> Iterator[tuple[str, ...]]:
    for name, part in vars(Metrics()).items():
        if name == "registry":
            continue
        (family,) = part.describe()
        ending = ENDINGS.get(family.type, "")
        names = codes(f"{family.name}{one}" for one in re.split(", ", ending))
        yield names, family.type, codes(part._labelnames), family.documentation
