"""A histogram of delays that takes all delays of a page at once."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

NO_TIME: Final = timedelta()


class DelayHistogram(Collector):
    """The delays by one label. Used by one thread.

    A page of a hundred delays costs a tenth of a hundred calls of `Histogram.observe`: the delays are sorted, and each
    bucket is counted by one bisection.
    """

    def __init__(
        self, name: str, says: str, bounds: Sequence[float], label: str, registry: CollectorRegistry
    ) -> None:
        self._name, self._says = name, says
        self._labelnames = (label,)
        """As the classes of `prometheus_client` have it."""
        self._bounds = [timedelta(seconds=bound) for bound in bounds]
        self._names = [*map(floatToGoString, bounds), "+Inf"]
        self._counts: dict[str, list[int]] = {}
        """How many delays were in each bucket alone, the last one without a bound, by the label's value."""
        self._sums: dict[str, timedelta] = {}
        registry.register(self)

    def declare(self, value: str) -> None:
        """Show the series of a label's value as 0 from the start."""
        if value not in self._counts:
            self._counts[value] = [0] * len(self._names)
            self._sums[value] = NO_TIME

    def observe(self, value: str, delays: Iterable[timedelta]) -> None:
        """Count these delays. A delay below zero counts as none: two clocks differ."""
        self.declare(value)
        ordered = sorted(delays)
        counts, begin = self._counts[value], 0
        for number, bound in enumerate(self._bounds):
            end = bisect_right(ordered, bound, begin)
            counts[number] += end - begin
            begin = end
        counts[-1] += len(ordered) - begin
        if ordered and ordered[0] < NO_TIME:
            ordered = [max(delay, NO_TIME) for delay in ordered]
        self._sums[value] += sum(ordered, NO_TIME)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The name and the help text."""
        yield HistogramMetricFamily(self._name, self._says, labels=self._labelnames)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """All series; each bucket holds those below, as Prometheus wants it."""
        (family,) = self.describe()
        for value, counts in self._counts.items():
            so_far = [sum(counts[: end + 1]) for end in range(len(counts))]
            buckets = list(zip(self._names, map(float, so_far), strict=True))
            family.add_metric([value], buckets, self._sums[value].total_seconds())
        yield family
