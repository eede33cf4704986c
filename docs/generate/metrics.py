"""The page of metrics."""

import re
from collections.abc import Iterator

from docs.generate.markdown import codes, page, table
from poller.core.model import PollOutcome, PushOutcome
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
    )


def _rows() -> Iterator[tuple[str, ...]]:
    for name, part in vars(Metrics()).items():
        if name == "registry":
            continue
        (family,) = part.describe()
        ending = ENDINGS.get(family.type, "")
        names = codes(f"{family.name}{one}" for one in re.split(", ", ending))
        yield names, family.type, codes(part._labelnames), family.documentation
