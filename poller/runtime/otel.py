"""Traces by OpenTelemetry: the only module that imports it, and only where the configuration asks for traces.

Invariants
    Spans are exported by the SDK's own thread. If the collector is slow or gone, the newest spans push out the oldest;
    nothing waits. No text of an error and no URL becomes part of a span.

Life cycle
    Leaving sends what is left, for at most `FLUSH_WITHIN` seconds.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode

from poller import __version__
from poller.core.errors import BadConfiguration, PartlyFailed
from poller.core.model import Batch, Done, Outcome, ParsedPage
from poller.core.tracing import BatchSpan, PageSpan, Tracing

log = structlog.get_logger("tracing")

FLUSH_WITHIN: Final = 2.0
MOST_PAGES: Final = 4_096
"""The newest pages that batches are linked to."""
MOST_LINKS: Final = 128
PATH: Final = "/v1/traces"
LARGEST_ANSWER: Final = 64 * 1024
"""Bytes that are read of a collector's answer. Nobody needs them, but a connection that was read is used again."""

PageKey = tuple[str, datetime]
"""Account, and time of receipt: all events of a page share it, and events keep it wherever they are stored."""


class OtlpTracing(Tracing):
    """Sends spans to a collector by OTLP over HTTP. Without its URL the OTEL_* variables say where."""

    def __init__(self, collector: str | None) -> None:
        self._endpoint = None if collector is None else collector.rstrip("/") + PATH
        self._pages: dict[PageKey, SpanContext] = {}

    async def __aenter__(self) -> Self:
        quiet = logging.getLogger("opentelemetry")  # `_Exporter` reports what fails, once
        quiet.propagate = False
        quiet.addHandler(logging.NullHandler())
        try:
            self._exporter = _Exporter(OTLPSpanExporter(endpoint=self._endpoint, session=_session()))
            self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        except (ValueError, OSError) as error:
            reason = f"tracing: an OTEL_* variable is wrong ({type(error).__name__})"
            raise BadConfiguration([reason]) from None
        self._tracer = self._provider.get_tracer("poller", __version__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def flush() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set)

        # a daemon thread: a collector that hangs cannot hold up the end of the process
        threading.Thread(target=flush, name="tracing", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_WITHIN):
                await ended.wait()
        except TimeoutError:
            self._exporter.report("the last spans were not taken in time")

    def begin_page(self, source: str, account: str, reading: ParsedPage) -> PageSpan:
        """See `Tracing.begin_page`."""
        span = self._tracer.start_span(
            f"take {source}",
            kind=SpanKind.CONSUMER,
            attributes={
                "poller.source": source,
                "poller.account": account,
                "poller.outcome": reading.outcome.value,
                "poller.events": len(reading.events),
                "poller.rejects": len(reading.rejects),
            },
            start_time=_begun(reading),
        )
        if reading.events:
            self._remember((account, reading.events[0].received_at), span.get_span_context())
        return _PageSpan(span)

    def _remember(self, key: PageKey, context: SpanContext) -> None:
        if len(self._pages) >= MOST_PAGES:
            del self._pages[next(iter(self._pages))]
        self._pages[key] = context

    def begin_batch(self, batch: Batch) -> BatchSpan:
        """See `Tracing.begin_batch`."""
        keys = dict.fromkeys((event.account, event.received_at) for event in batch.events)
        known = [context for key in keys if (context := self._pages.get(key)) is not None]
        accounts = {account for account, _ in keys}
        span = self._tracer.start_span(
            f"deliver {batch.sink}",
            kind=SpanKind.PRODUCER,
            links=[Link(context) for context in known[:MOST_LINKS]],
            attributes={
                "poller.sink": batch.sink,
                "poller.account": ", ".join(sorted(accounts)),
                "poller.events": len(batch.events),
                "poller.attempt": batch.attempt,
                "poller.batch": batch.id,
            },
        )
        return _BatchSpan(span)


class _PageSpan(PageSpan):
    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self) -> None:
        self._span.end()


class _BatchSpan(BatchSpan):
    def __init__(self, span: Span) -> None:
        self._span = span
        self._outcome = "cancelled"
        context = span.get_span_context()
        if context.is_valid:
            self.traceparent = (
                f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
            )

    def settle(self, outcomes: Sequence[Outcome], error: Exception | None) -> None:
        counts = Counter(type(outcome).__name__.lower() for outcome in outcomes)
        self._outcome = next(iter(counts)) if len(counts) == 1 else "mixed"
        if len(counts) > 1:
            self._span.set_attributes({f"poller.{word}": count for word, count in counts.items()})
        if error is not None and not all(isinstance(outcome, Done) for outcome in outcomes):
            first = next(iter(error.failures.values()), error) if isinstance(error, PartlyFailed) else error
            self._span.set_attribute("error.type", type(first).__name__)
            self._span.set_status(Status(StatusCode.ERROR))

    def split(self) -> None:
        self._outcome = "split"
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        self._span.set_attribute("poller.outcome", self._outcome)
        self._span.end()


class _Exporter(SpanExporter):
    """Reports once that spans are not taken, and once that they are again. Called by the SDK's thread."""

    def __init__(self, inner: OTLPSpanExporter) -> None:
        self._inner = inner
        self._collector = urlsplit(str(getattr(inner, "_endpoint", ""))).netloc.rpartition("@")[2]
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self.report("the collector does not answer, or refuses")
            elif self._failing:
                self._failing = False
                log.info("tracing_resumed", collector=self._collector)
        return result

    def report(self, reason: str) -> None:
        """Log why spans are lost, unless that was reported already."""
        if not self._failing:
            self._failing = True
            log.warning("tracing_failed", collector=self._collector, reason=reason)

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def _session() -> requests.Session:
    """The SDK alone would hold an answer of any size, and take a redirect, which it does not follow, for success."""
    session = requests.Session()
    session.stream = True
    session.hooks["response"].append(_receive)
    return session


def _receive(response: requests.Response, *arguments: Any, **settings: Any) -> None:
    with response:
        response.raw.read(LARGEST_ANSWER)
    if 300 <= response.status_code < 400:
        raise requests.RequestException("the collector is elsewhere")


def _resource() -> Resource:
    """The service's name and version, unless the OTEL_* variables say otherwise."""
    own = Resource.create({"service.name": "poller", "service.version": __version__})
    return own.merge(OTELResourceDetector().detect())


def _begun(reading: ParsedPage) -> int | None:
    """When the poll was sent or the push received, in nanoseconds; None for now."""
    received = [one.received_at for one in reading.events[:1]] + [
        one.received_at for one in reading.rejects[:1]
    ]
    at = reading.asked_at or next(iter(received), None)
    return None if at is None else int(at.timestamp() * 1e9)
