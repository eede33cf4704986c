"""Deliberate bugs in traces: what is linked, what is told, and what waits for the collector."""

from .bugs import Bug

TOLD = "tests/scenario/test_tracing.py::"
SPANS = "tests/integration/runtime/test_otel.py::"

TRACING = (
    Bug(
        "a stop waits for a collector that hangs",
        "poller/runtime/otel.py",
        "FLUSH_WITHIN: Final = 2.0",
        "FLUSH_WITHIN: Final = 60.0",
        (TOLD + "test_a_stop_does_not_wait_for_a_collector_that_hangs",),
    ),
    Bug(
        "a page counts as taken before its commit",
        "poller/pipeline/ingest.py",
        "        new = await self._spool.append(source, readings)\n        for span in spans:\n",
        "        for span in spans:\n            span.end()\n"
        "        new = await self._spool.append(source, readings)\n        for span in ():\n",
        (SPANS + "test_a_page_lasts_from_its_poll_to_its_commit_and_comes_once_although_the_spool_was_full",),
    ),
    Bug(
        "pages are remembered for ever",
        "poller/runtime/otel.py",
        "        if len(self._pages) >= MOST_PAGES:\n            del self._pages[next(iter(self._pages))]\n",
        "",
        (SPANS + "test_pages_are_forgotten_the_oldest_first",),
    ),
    Bug(
        "the receiver gets the trace and not the span",
        "poller/runtime/otel.py",
        "{context.span_id:016x}",
        "{context.trace_id >> 64:016x}",
        (TOLD + "test_the_receiver_of_a_webhook_gets_the_span_of_its_batch_as_the_parent",),
    ),
)
