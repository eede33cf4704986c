"""The pump from the spool to one sink: claim, carry, judge, settle; nobody else retries."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import assert_never

import msgspec
import structlog
from asyncio_throttle.throttler import Throttler

from poller.clock import Clock
from poller.errors import Gone, PartlyFailed, Rejected, TryLater
from poller.metrics import Metrics
from poller.model import Batch, Dead, Done, Outcome, Retry
from poller.ports import Sink, Spool
from poller.retry import RetryPolicy, backoff, describe, judge

log = structlog.get_logger("courier")

FAILURES_TO_PAUSE = 5
LONGEST_PROBE_WAIT = 60.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink wants to be served; times in seconds. `rate` is batches per period, None for no limit."""

    policy: RetryPolicy
    timeout: float
    concurrency: int
    max_events: int
    max_wait: float
    rate: tuple[int, float] | None = None


class Courier:
    """Serves one sink with `concurrency` carriers. After five failures in a row it pauses and probes."""

    def __init__(
        self,
        sink: Sink,
        spool: Spool,
        terms: Terms,
        *,
        metrics: Metrics,
        clock: Clock,
        settled: asyncio.Event | None = None,
    ) -> None:
        self.sink = sink
        self.name = sink.name
        self._spool = spool
        self._terms = terms
        self._metrics = metrics
        self._clock = clock
        self._throttle: Callable[[], Awaitable[None]] | None = (
            Throttler(*terms.rate).acquire if terms.rate else None
        )
        self._gate = asyncio.Lock()
        self._turnstile = asyncio.Lock()
        self._not_before = 0.0
        self._failures = 0
        self._stopping = False
        self._carriers: dict[asyncio.Task[None], bool] = {}
        self._log = log.bind(sink=sink.name)
        self.disabled: str | None = None
        """Why the sink gets nothing until a restart; None while it is served."""
        self.settled = settled or asyncio.Event()
        """Set at every settlement; whoever waits for one clears it first."""
        self.dead = 0
        """Deliveries given up in this run."""

    @property
    def paused(self) -> bool:
        """Whether so many attempts failed in a row that the sink is only probed."""
        return self._failures >= FAILURES_TO_PAUSE

    def stop(self) -> None:
        """Claim no more; what is being carried goes on until it ends or is cancelled."""
        self._stopping = True
        for carrier, carrying in self._carriers.items():
            if not carrying:
                carrier.cancel()

    async def run(self) -> None:
        """Serve until `stop`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._terms.concurrency):
                carrier = group.create_task(self._serve())
                self._carriers[carrier] = False

    async def _serve(self) -> None:
        while not self._stopping and self.disabled is None:
            await self.step()

    async def step(self) -> int:
        """Wait for one batch and carry it; returns how many deliveries were settled."""
        while self.paused:
            async with self._gate:  # one probe at a time
                if self.paused:
                    return await self._turn()
        return await self._turn()

    async def _turn(self) -> int:
        while (wait := self._not_before - self._clock.monotonic()) > 0:
            await asyncio.sleep(wait)
        batch = await self._spool.claim(self.name, self._terms.max_events, self._terms.max_wait)
        if self._throttle is not None:
            async with self._turnstile:  # asyncio-throttle polls: one waiter, not one per carrier
                await self._throttle()
        carrier = asyncio.current_task()
        if carrier in self._carriers:
            self._carriers[carrier] = True
        try:
            return await self.carry(batch)
        finally:
            if carrier in self._carriers:
                self._carriers[carrier] = False

    async def carry(self, batch: Batch) -> int:
        """Deliver a claimed batch and settle it."""
        error = await self._deliver(batch)
        if isinstance(error, Gone):
            self._disable(error)
            return 0
        outcomes = self._judge(batch, error)
        self._breathe(error)
        if (
            len(batch.deliveries) > 1
            and isinstance(outcomes[0], Dead)
            and not isinstance(error, PartlyFailed)
        ):
            return await self._halve(batch, outcomes[0].reason)
        await self._spool.settle(batch, outcomes)
        self._tell(batch, outcomes, expected=_expected(error))
        self.settled.set()
        return len(outcomes)

    async def _deliver(self, batch: Batch) -> Exception | None:
        try:
            async with asyncio.timeout(self._terms.timeout):
                await self.sink.deliver(batch)
        except Exception as error:  # whatever a plug-in raises means "again"
            return error
        return None

    def _judge(self, batch: Batch, error: Exception | None) -> list[Outcome]:
        first = batch.first_attempt_at
        age = (self._clock.now() - first).total_seconds() if first else 0.0
        failures = error.failures if isinstance(error, PartlyFailed) else None
        if failures is None:
            return [judge(error, batch.attempt, age, self._terms.policy)] * len(batch.deliveries)
        return [
            judge(failures.get(delivery.event.id), batch.attempt, age, self._terms.policy)
            for delivery in batch.deliveries
        ]

    async def _halve(self, batch: Batch, reason: str) -> int:
        """One bad event must not take its batch along: halves are carried on their own, at once."""
        self._log.info("batch_split", batch=batch.id, events=len(batch.deliveries), reason=reason)
        for half in await self._spool.split(batch):
            await self._spool.settle(half, [Retry(after=0.0, reason=reason)] * len(half.deliveries))
        return 0

    def _breathe(self, error: Exception | None) -> None:
        """Count what the sink as a whole did: a partial failure or a refusal shows that it lives."""
        if error is None or isinstance(error, PartlyFailed | Rejected):
            if self.paused:
                self._log.info("sink_resumed", failures=self._failures)
                self._metrics.sink_paused.labels(self.name).set(0)
            self._failures = 0
            return
        self._failures += 1
        wait = 0.0
        if self.paused:
            policy = msgspec.structs.replace(self._terms.policy, longest_backoff=LONGEST_PROBE_WAIT)
            wait = backoff(self._failures - FAILURES_TO_PAUSE + 1, policy)
        if isinstance(error, TryLater) and error.after is not None:
            wait = max(wait, min(error.after, self._terms.policy.longest_wait))
        self._not_before = max(self._not_before, self._clock.monotonic() + wait)
        if self._failures == FAILURES_TO_PAUSE:
            self._log.error("sink_paused", reason=describe(error), failures=self._failures)
            self._metrics.sink_paused.labels(self.name).set(1)

    def _disable(self, error: Gone) -> None:
        if self.disabled is None:
            self._log.error("sink_disabled", reason=error.reason)
        self.disabled = error.reason
        self._metrics.sink_paused.labels(self.name).set(1)
        self.stop()

    def _tell(self, batch: Batch, outcomes: Sequence[Outcome], *, expected: bool) -> None:
        done = dead = 0
        retry: Retry | None = None
        for delivery, outcome in zip(batch.deliveries, outcomes, strict=True):
            match outcome:
                case Done():
                    done += 1
                case Retry():
                    retry = outcome
                case Dead(reason=reason):
                    dead += 1
                    self._log.error(
                        "dead_letter", event_id=delivery.event.id, reason=reason, attempt=batch.attempt
                    )
                case _:
                    assert_never(outcome)
        again = len(outcomes) - done - dead
        self.dead += dead
        for word, count in (("done", done), ("retry", again), ("dead", dead)):
            if count:
                self._metrics.deliveries.labels(self.name, word).inc(count)
        if retry is None:
            self._log.debug("delivered", batch=batch.id, events=done, attempt=batch.attempt)
        else:
            say = self._log.debug if expected else self._log.warning
            say(
                "delivery_postponed" if expected else "delivery_failed",
                batch=batch.id,
                attempt=batch.attempt,
                done=done,
                again=again,
                reason=retry.reason,
                retry_in=round(retry.after, 3),
            )


def _expected(error: Exception | None) -> bool:
    """Whether a sink only said when to come again, event by event: a picture that is not uploaded yet."""
    return isinstance(error, PartlyFailed) and all(
        isinstance(failure, TryLater) and failure.after is not None for failure in error.failures.values()
    )
