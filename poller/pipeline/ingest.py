"""What both ways in share: a page is read so that a bug loses nothing, committed, and counted."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import msgspec
import structlog

from poller.core.model import ERROR_PAGE, ParsedPage, PollOutcome, RawPage, Reject
from poller.core.ports import PushedSource, Source
from poller.core.spool import Spool
from poller.core.tracing import NO_TRACING, Tracing
from poller.qcloud.wire.bodies import open_body
from poller.qcloud.wire.redaction import redact
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics

log = structlog.get_logger("ingest")

MOST_ERROR_PAGES = 16
"""The most distinct error pages of a source that are kept until the next start."""
_VARIES = re.compile(rb"(?i)[0-9a-f]*[0-9][0-9a-f:.+-]*|\s+")
"""The parts that differ between two copies of an error page: request ids, times, numbers, addresses."""


class Ingest:
    """Reads and commits the pages of one source."""

    def __init__(
        self,
        source: Source | PushedSource,
        spool: Spool,
        metrics: Metrics,
        *,
        clock: Clock | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._source = source
        self._spool = spool
        self._metrics = metrics
        self._tracing = tracing
        self._clock = clock or Clock()
        self._error_pages: set[bytes] = set()
        self._log = log.bind(source=source.name, account=source.account)

    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """Parse a page. If the source's `read` raises, the whole page is a reject, and the memory stays as it was."""
        try:
            return self._with_new_error_pages(self._source.read(page, memory))
        except Exception as error:  # a bug must not become a crash loop
            self._log.exception("read_failed", error=type(error).__name__)
            reason = f"reading raised {type(error).__name__}"
            reject = whole_reject(page, reason)
            return ParsedPage(
                events=(),
                rejects=(reject,),
                outcome=PollOutcome.FAILED,
                detail=reason,
                memory=memory,
                about=page.about,
            )

    def _with_new_error_pages(self, reading: ParsedPage) -> ParsedPage:
        """The reading without known error pages, and without new ones beyond `MOST_ERROR_PAGES`."""
        if not any(map(_is_error_page, reading.rejects)):
            return reading
        return msgspec.structs.replace(reading, rejects=tuple(filter(self._is_kept, reading.rejects)))

    def _is_kept(self, reject: Reject) -> bool:
        if not _is_error_page(reject):
            return True
        digest = hashlib.blake2b(_VARIES.sub(b"0", reject.body), digest_size=8).digest()
        if digest in self._error_pages or len(self._error_pages) >= MOST_ERROR_PAGES:
            return False
        self._error_pages.add(digest)
        return True

    async def write(self, readings: Sequence[ParsedPage]) -> None:
        """Commit readings in one transaction and count their contents; raises `StorageError`."""
        source, account = self._source.name, self._source.account
        # begun before the commit, because a batch may be claimed in the same moment
        spans = [self._tracing.begin_page(source, account, reading) for reading in readings]
        new = await self._spool.append(source, readings)
        for span in spans:
            span.end()
        came = Counter(event.kind for reading in readings for event in reading.events)
        for kind, count in came.items():
            self._metrics.events.labels(kind).inc(new[kind])
            self._metrics.known_events.labels(kind).inc(count - new[kind])
        self._measure(readings, pictures=new["screenshot"] > 0)
        rejects = [reject for reading in readings for reject in reading.rejects]
        for reject in rejects:
            if _is_error_page(reject):  # no warning here: the failed poll is reported already
                self._log.info("error_page_kept", reason=reject.reason, bytes=len(reject.body))
            else:
                self._log.warning("quarantined", reason=reject.reason, bytes=len(reject.body))
                self._metrics.quarantined.inc()
        self._log.debug("committed", events=came.total(), new=new.total(), rejects=len(rejects))

    def _measure(self, readings: Sequence[ParsedPage], *, pictures: bool) -> None:
        """Record when the newest event arrived, and how old the pictures were when they were committed.

        Without new pictures their ages are left out: a page that is read again after a crash was committed earlier.
        """
        now = self._clock.now()
        for reading in readings:
            if not reading.events:
                continue
            self._metrics.last_event.labels(self._source.name).set(reading.events[-1].received_at.timestamp())
            if pictures:
                delays = [now - event.occurred_at for event in reading.events if event.kind == "screenshot"]
                self._metrics.picture_lag.observe(self._source.account, delays)


def _is_error_page(reject: Reject) -> bool:
    return reject.reason.startswith(ERROR_PAGE)


def whole_reject(page: RawPage, reason: str, *secrets: str) -> Reject:
    """A whole page as a reject, unpacked if possible; secrets are masked, among them each of `secrets`."""
    opened = open_body(page.body, page.encoding)
    encoding = "" if opened.opened else page.encoding
    body = redact(opened.text, *secrets)
    return Reject(received_at=page.received_at, reason=reason, encoding=encoding, body=body)
