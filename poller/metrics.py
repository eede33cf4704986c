"""What the daemon counts; the names are part of the operator's contract."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from poller.model import PollOutcome, PushOutcome


class Metrics:
    """All counters and gauges of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = self._counter, self._gauge
        self.polls = counter("polls", "Polls by what they came to.", "account", "source", "outcome")
        self.callbacks = counter(
            "callbacks", "What was pushed to us, by what became of it.", "source", "outcome"
        )
        self.events = counter("events", "New events, by kind.", "kind")
        self.known_events = counter("known_events", "Events whose id was seen before.", "kind")
        self.deliveries = counter("deliveries", "Settled deliveries by outcome.", "sink", "outcome")
        self.quarantined = counter("quarantined", "Bytes that could not be read, by the piece.")
        self.expired = counter(
            "expired", "What was forgotten for its age without anybody having had it.", "what"
        )
        for what in ("dead_letter", "quarantine"):
            self.expired.labels(what)
        self.backlog = gauge("backlog_events", "Events owed to a sink.", "sink")
        self.oldest = gauge("oldest_undelivered_seconds", "Age of the oldest event owed to a sink.", "sink")
        self.dead_letters = gauge("dead_letters", "Deliveries that were given up.", "sink")
        self.sink_paused = gauge(
            "sink_paused", "1 while a sink is paused (by itself or the operator) or disabled.", "sink"
        )
        self.spool_bytes = gauge("spool_bytes", "Bytes the spool holds.")
        self.spool_files_aside = gauge("spool_files_aside", "Damaged spool files that were moved aside.")
        self.journal_bytes = gauge("journal_bytes", "Bytes of pages not yet in the spool.")
        self.clock_skew = gauge("clock_skew_seconds", "The platform's clock minus ours.", "account")

    def declare_source(self, account: str, source: str) -> None:
        """Let every outcome of a source be seen as 0 from the start."""
        for outcome in PollOutcome:
            self.polls.labels(account, source, outcome.value)

    def declare_pushed_source(self, source: str) -> None:
        """Let every outcome of a pushed source be seen as 0 from the start."""
        for outcome in PushOutcome:
            self.callbacks.labels(source, outcome.value)

    def declare_sink(self, sink: str) -> None:
        """Let every outcome of a sink be seen as 0 from the start."""
        for outcome in ("done", "retry", "dead"):
            self.deliveries.labels(sink, outcome)
        self.sink_paused.labels(sink).set(0)

    def forget_sink(self, sink: str) -> None:
        """It is not configured any more: its gauges go, its counters stay."""
        for gauge in (self.backlog, self.oldest, self.dead_letters, self.sink_paused):
            if (sink,) in gauge._metrics:
                gauge.remove(sink)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"poller_{name}", says, labels, registry=self.registry)

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(f"poller_{name}", says, labels, registry=self.registry)
