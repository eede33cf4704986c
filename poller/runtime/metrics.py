"""What the daemon counts; the names are part of the operator's contract."""

import platform
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from poller import __version__
from poller.core.model import PollOutcome, PushOutcome
from poller.runtime.delay_histogram import DelayHistogram

POLL_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LAG_BUCKETS = (0.5, 1, 2, 5, 10, 15, 20, 30, 60, 300, 3600)
DELIVERY_OUTCOMES = ("done", "postponed", "retry", "dead")


class Metrics:
    """All counters and gauges of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody asks for
        self.registry = CollectorRegistry()
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.build_info = gauge(
            "build_info", "Always 1; the labels say which version runs.", "version", "python"
        )
        self.build_info.labels(__version__, platform.python_version()).set(1)
        self.ready = gauge("ready", "1 while /readyz gives no reason, else 0.")
        self.sink_ready = gauge(
            "sink_ready", "1 while /readyz gives no reason about the sink, else 0.", "sink"
        )
        self.polls = counter("polls", "Polls, by outcome.", "account", "source", "outcome")
        self.beat_known = gauge(
            "beat_known", "1 while polls follow the beat on which messages come, else 0.", "account", "source"
        )
        self.callbacks = counter(
            "callbacks", "Notifications that were pushed to a source, by outcome.", "source", "outcome"
        )
        self.events = counter("events", "New events, by kind.", "kind")
        self.known_events = counter("known_events", "Events whose id was known already, by kind.", "kind")
        self.last_event = gauge(
            "last_event_timestamp_seconds",
            "Unix time at which the newest event of a source arrived.",
            "source",
        )
        self.streams = gauge("streams", "Streams of the catalogue, by state.", "account", "state")
        self.picture_lag = DelayHistogram(
            "poller_picture_lag_seconds",
            "Seconds from the moment of a picture to its commit in the spool.",
            LAG_BUCKETS,
            "account",
            self.registry,
        )
        self.poll_seconds = histogram(
            "poll_seconds",
            "Seconds from a poll's request to the end of its answer.",
            POLL_BUCKETS,
            "account",
            "source",
        )
        self.delivery_seconds = histogram(
            "delivery_seconds", "Seconds that one attempt to deliver a batch took.", POLL_BUCKETS, "sink"
        )
        self.deliveries = counter(
            "deliveries",
            "Deliveries by outcome; a postponed one is about a picture that is not uploaded yet.",
            "sink",
            "outcome",
        )
        self.quarantined = counter(
            "quarantined", "Rejects: messages, rows or whole answers that could not be read."
        )
        self.expired = counter(
            "expired",
            "Dead letters and rejects that were deleted because of their age; no sink ever got them.",
            "what",
        )
        for what in ("dead_letter", "quarantine"):
            self.expired.labels(what)
        self.gap_pictures = counter("gap_pictures", "Pictures that never came, by the audit.", "account")
        self.backlog = gauge("backlog_events", "Pending events of a sink.", "sink")
        self.oldest = gauge(
            "oldest_undelivered_seconds", "Age of the oldest pending event of a sink.", "sink"
        )
        self.dead_letters = gauge("dead_letters", "Dead letters of a sink that are in the spool.", "sink")
        self.replay_left = gauge(
            "replay_events", "Events of running and paused replays that a sink has yet to get.", "sink"
        )
        self.sink_paused = gauge(
            "sink_paused", "1 while a sink is paused (by itself or the operator) or disabled.", "sink"
        )
        self.spool_info = gauge(
            "spool_info",
            "Always 1. Daemons with the same label share a spool, and say the same of what is in it.",
            "spool",
        )
        self.spool_members = gauge(
            "spool_members", "Daemons that share the spool, with this one; 0 for a spool that is not shared."
        )
        self.spool_bytes = gauge("spool_bytes", "Size of the spool in bytes.")
        self.spool_fill = gauge(
            "spool_fill_ratio",
            "How near the spool is to a limit: at 1 it takes no more events, and polling pauses.",
            "limit",
        )
        self.spool_files_aside = gauge("spool_files_aside", "Damaged spool files that were moved aside.")
        self.journal_bytes = gauge("journal_bytes", "Bytes of journal pages that are not in the spool yet.")
        self.log_lines_dropped = counter("log_lines_dropped", "Log lines that could not be written.")
        self.backfilled = counter(
            "backfilled_pictures", "Pictures that never came, and were found in the bucket.", "account"
        )
        self.clock_skew = gauge(
            "clock_skew_seconds", "Seconds by which the platform's clock is ahead of ours.", "account"
        )

    def declare_source(self, account: str, source: str) -> None:
        """Show every outcome of a source as 0 from the start."""
        self.poll_seconds.labels(account, source)
        for outcome in PollOutcome:
            self.polls.labels(account, source, outcome.value)

    def declare_pushed_source(self, source: str) -> None:
        """Show every outcome of a pushed source as 0 from the start."""
        for outcome in PushOutcome:
            self.callbacks.labels(source, outcome.value)

    def declare_account(self, account: str) -> None:
        """Let what is counted of an account be seen as 0 from the start."""
        self.backfilled.labels(account)
        self.picture_lag.declare(account)

    def declare_sink(self, sink: str) -> None:
        """Show every outcome of a sink as 0 from the start."""
        self.delivery_seconds.labels(sink)
        for outcome in DELIVERY_OUTCOMES:
            self.deliveries.labels(sink, outcome)
        self.sink_paused.labels(sink).set(0)

    def count_streams(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Set the number of streams by account and state, and forget what is not named."""
        self.streams.clear()
        for labels, count in counts.items():
            self.streams.labels(*labels).set(count)

    def show_beats(self, known: Mapping[tuple[str, str], bool | None]) -> None:
        """Set whether the beat of each source is known, by account and source. None stands for a source without a beat.

        A source that is not named is forgotten.
        """
        self.beat_known.clear()
        for labels, one in known.items():
            if one is not None:
                self.beat_known.labels(*labels).set(one)

    def count_dropped_lines(self, total: int) -> None:
        """Set the counter to `total`, the number of log lines that were dropped since the start of the process."""
        counter = self.log_lines_dropped
        counter.inc(max(0, total - counter._value.get()))

    def polled(self) -> dict[str, float]:
        """How many polls each source has sent since the start of the process."""
        return _sum(self.polls, "source")

    def delivered(self) -> dict[str, float]:
        """How many events each sink has taken since the start of the process."""
        return _sum(self.deliveries, "sink", outcome="done")

    def forget_sink(self, sink: str) -> None:
        """Remove the gauges of a sink that is not configured any more. Its counters stay."""
        for gauge in (
            self.backlog,
            self.oldest,
            self.dead_letters,
            self.replay_left,
            self.sink_paused,
            self.sink_ready,
        ):
            if (sink,) in gauge._metrics:
                gauge.remove(sink)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"poller_{name}", says, labels, registry=self.registry)

    def _histogram(self, name: str, says: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"poller_{name}", says, labels, registry=self.registry, buckets=buckets)

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(f"poller_{name}", says, labels, registry=self.registry)


def _sum(counter: Counter, by: str, **having: str) -> dict[str, float]:
    """The sums of a counter by one label, over the samples that have these labels."""
    found: dict[str, float] = {}
    for metric in counter.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total") and having.items() <= sample.labels.items():
                found[sample.labels[by]] = found.get(sample.labels[by], 0.0) + sample.value
    return found
