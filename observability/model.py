"""The kinds of panels.

In an expression `@` stands for the selection of the daemon, by the dashboard's two variables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SELECTION: Final = 'job=~"$job", instance=~"$instance"'
GREEN: Final = "green"
RED: Final = "red"
AMBER: Final = "orange"
Steps = tuple[tuple[float | None, str], ...]
"""Colours by the value from which on they apply; the first step has no value."""
ANY_IS_BAD: Final[Steps] = ((None, GREEN), (1, RED))
ANY_IS_DOUBTFUL: Final[Steps] = ((None, GREEN), (1, AMBER))
PLAIN: Final[Steps] = ((None, "text"),)


@dataclass(frozen=True, kw_only=True)
class Query:
    """An expression, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Number:
    """A panel with one number, coloured by its steps."""

    title: str
    about: str
    query: Query
    unit: str = "short"
    steps: Steps = PLAIN
    words: tuple[tuple[str, str], ...] = ()
    """Texts that are shown instead of values."""
    shows_name: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A panel with lines over time."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    stacked: bool = False
    least: float | None = 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Number | Graph]


def once(gauge: str, *by: str) -> str:
    """The sum of a gauge about what is in a spool, by these labels. A spool counts once, however many daemons share it.

    Of the sums that its daemons tell, the largest one counts. The gauge may have a selection of its own, after `@`.
    """
    told = f"{gauge} * on (job, instance) group_left (spool) poller_spool_info{{@}}"
    of_each = f"sum by ({', '.join((*by, 'spool', 'job', 'instance'))}) ({told})"
    of_spools = f"max by ({', '.join((*by, 'spool'))}) ({of_each})"
    return f"sum by ({', '.join(by)}) ({of_spools})" if by else f"sum ({of_spools})"


def quantiles(metric: str, by: str, legend: str) -> tuple[Query, ...]:
    """Three lines of a histogram: what half, 95 and 99 of 100 do not exceed."""
    return tuple(
        Query(
            expr=f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{{@}}[$__rate_interval])))",
            legend=f"{legend} {name}",
        )
        for share, name in ((0.5, "half"), (0.95, "95 %"), (0.99, "99 %"))
    )
