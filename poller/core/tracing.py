"""The port for traces: a span for each page that is taken in, and one for each attempt to deliver a batch.

Tracing never waits and never raises. Without tracing these classes are used as they are, and do nothing.
"""

from collections.abc import Sequence
from typing import Final

from poller.core.model import Batch, Outcome, ParsedPage


class PageSpan:
    """A page on its way into the spool. A span that is never ended is never reported."""

    def end(self) -> None:
        """The page was committed."""


class BatchSpan:
    """One attempt to deliver a batch."""

    traceparent = ""
    """The W3C trace context of the span, for the receiver; empty where nothing is traced."""

    def settle(self, outcomes: Sequence[Outcome], error: Exception | None) -> None:
        """Note what became of each event, and the error of the sink."""

    def split(self) -> None:
        """Note that the batch was refused as a whole and split."""

    def end(self) -> None:
        """The attempt is over; without an outcome it was cancelled."""


class Tracing:
    """Makes the spans."""

    def begin_page(self, source: str, account: str, reading: ParsedPage) -> PageSpan:
        """Begin the span of a page before its commit. It counts from the poll, or from the receipt of a push."""
        return _NO_PAGE

    def begin_batch(self, batch: Batch) -> BatchSpan:
        """Begin the span of an attempt. It is linked to the pages that brought its events, as far as they are known."""
        return _NO_BATCH


_NO_PAGE: Final = PageSpan()
_NO_BATCH: Final = BatchSpan()
NO_TRACING: Final = Tracing()
