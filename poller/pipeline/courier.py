"""Delivery from the spool to one sink.

Purpose
    A courier claims batches from the spool, delivers them, decides what becomes of each event, and settles it.

Invariants
    Retries happen here only; a sink makes one attempt. A claimed batch is settled, unless the process stops first: then
    the spool hands its events out again. The courier, not the sink, counts failures and pauses. Nothing is delivered
    while the lease of a shared spool is not proven: another daemon may deliver the same events by then.

Life cycle
    `run` serves until `stop`. `hold` and `resume` are the operator's pause and its end. A sink that raises `Gone` is
    disabled until `resume` or a restart.
"""

import asyncio
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import assert_never

import msgspec
import structlog

from poller.core.errors import Gone, PartlyFailed, PlaceGone, Rejected, SinkError, StorageFull, TryLater
from poller.core.model import Batch, Dead, Done, Outcome, Retry, in_order
from poller.core.ports import Sink
from poller.core.spool import Shared, Spool
from poller.core.tracing import NO_TRACING, BatchSpan, Tracing
from poller.pipeline.retry import RetryPolicy, backoff, describe, judge, judge_each
from poller.qcloud.wire.excerpts import excerpt
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.runtime.metrics import Metrics
from poller.runtime.throttle import Throttle, alone

log = structlog.get_logger("courier")

FAILURES_TO_PAUSE = 5
LONGEST_PROBE_WAIT = 60.0
RELEASE_AGAIN = 1.0
"""Seconds until the next attempt to free what is held of a disabled sink, while the spool does not answer."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink is served; times in seconds. `rate` is batches per period, None for no limit.

    `ordered` means that the events of each stream are delivered in order (`Spool.attach`).
    """

    policy: RetryPolicy
    timeout: float
    concurrency: int
    max_events: int
    max_wait: float
    rate: tuple[int, float] | None = None
    ordered: bool = False
    words: Callable[[bytes | str], str] = excerpt
    """Shortens and masks the other side's answer so that it may be logged and shown."""


class SinkState(StrEnum):
    """A sink's state as users see it. A sink is paused by the operator, or after failures; then it is probed."""

    SERVING = "serving"
    PAUSED = "paused"
    DISABLED = "disabled"


BY_THE_OPERATOR = "by the operator"


class SinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A sink's state, and the reason when it is not served."""

    state: SinkState
    why: str = ""


SERVING = SinkStatus(state=SinkState.SERVING)


class _CarrierState(IntEnum):
    """What a carrier is doing. A pause must not cancel a carrier with a claimed batch, nor a stop one that delivers."""

    WAITING = 0
    CLAIMED = 1
    CARRYING = 2


class Courier:
    """Serves one sink with `concurrency` carriers. After five failures in a row it pauses the sink and probes it.

    Nothing is claimed while the operator has paused the sink, or after the sink has raised `Gone`.
    """

    def __init__(
        self,
        sink: Sink,
        spool: Spool,
        terms: Terms,
        *,
        metrics: Metrics,
        clock: Clock,
        settled: asyncio.Event | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.sink = sink
        self.name = sink.name
        self._spool = spool
        self._terms = terms
        self._metrics = metrics
        self._clock = clock
        self._tracing = tracing
        self._shared = spool if isinstance(spool, Shared) else None
        self._throttle = Throttle(*terms.rate, self._sharers) if terms.rate else None
        self._gate = asyncio.Lock()
        self._turnstile = asyncio.Lock()
        self._not_before = 0.0
        self._failures = 0
        self._stopping = False
        self._carriers: dict[asyncio.Task[None], _CarrierState] = {}
        self._deliveries: set[asyncio.Timeout] = set()
        self._interruptions = 0
        self._running = False
        self._bell = asyncio.Event()
        self._held = False
        self._pausing = ""
        self._last_reported = SERVING
        self._log = log.bind(sink=sink.name)
        self.disabled: str | None = None
        """Why the sink is disabled until a restart or `resume`; None while it is served."""
        self.last_error: tuple[datetime, str] | None = None
        """Time and text of the last failed attempt. A refused event is no failure. Kept after later successes."""
        self.failing_since: float | None = None
        """When attempts began to fail, on the monotonic clock; None unless the last attempt failed."""
        self.place_gone: str | None = None
        """What is wrong with the sink's folder, if the last attempt failed for that reason; else None."""
        self.settled = settled or asyncio.Event()
        """Set at every settlement. A caller that waits for the next settlement clears it first."""
        self.dead = 0
        """The number of deliveries that this courier gave up as dead letters."""

    @property
    def paused(self) -> bool:
        """Whether the sink is only probed, after too many failures in a row."""
        return self._failures >= FAILURES_TO_PAUSE

    @property
    def held(self) -> bool:
        """Whether the operator has paused the sink."""
        return self._held

    @property
    def status(self) -> SinkStatus:
        """The sink's state, as users see it."""
        if self.disabled is not None:
            return SinkStatus(state=SinkState.DISABLED, why=self.disabled)
        if self._held:
            return SinkStatus(state=SinkState.PAUSED, why=BY_THE_OPERATOR)
        if self.paused:
            return SinkStatus(state=SinkState.PAUSED, why=self._pausing)
        return SERVING

    @property
    def next_probe(self) -> float | None:
        """Seconds until a sink that paused by itself is tried again; None for any other sink."""
        if self.disabled is not None or self._held or not self.paused:
            return None
        return max(0.0, self._not_before - self._clock.monotonic())

    def stop(self) -> None:
        """Claim nothing more. Deliveries in progress go on until they end or are cancelled."""
        self._stopping = True
        self._end_shift(_CarrierState.CARRYING)

    def hold(self) -> None:
        """Pause for the operator: claim nothing until `resume`. Claimed batches are still delivered."""
        self._held = True
        self._end_shift(_CarrierState.CLAIMED)
        self._report_status()

    def resume(self) -> None:
        """End every pause, and enable a disabled sink. The sink is served at once, as if nothing had failed."""
        self._held, self.disabled = False, None
        self._failures, self._not_before = 0, 0.0
        self.failing_since, self.place_gone = None, None
        self._end_shift(_CarrierState.CLAIMED)  # a carrier may be asleep until the next probe
        self._report_status()

    def interrupt(self) -> None:
        """Cancel what is being delivered, because the lease of the shared spool is not proven any more.

        Each batch is settled once the lease is proven again, and is due at once.
        """
        self._interruptions += 1
        for delivery in self._deliveries:
            if not delivery.expired():
                delivery.reschedule(asyncio.get_running_loop().time())

    def _sharers(self) -> int:
        return alone() if self._shared is None else self._shared.live_members

    @property
    def _may_deliver(self) -> bool:
        return self._shared is None or self._shared.proven.is_set()

    def _end_shift(self, below: _CarrierState) -> None:
        self._running = False
        for carrier, hand in self._carriers.items():
            if hand < below:
                carrier.cancel()
        self._bell.set()

    async def run(self) -> None:
        """Serve until `stop`, in shifts. A pause ends a shift; the next one begins once all its carriers have ended."""
        while not self._stopping:
            self._bell.clear()
            if self._held or self.disabled is not None:
                await self._rest()
                continue
            self._running = True
            async with asyncio.TaskGroup() as group:
                for _ in range(self._terms.concurrency):
                    carrier = group.create_task(self._serve())
                    self._carriers[carrier] = _CarrierState.WAITING
            self._carriers.clear()

    async def _rest(self) -> None:
        """Wait until the sink is served again, or `stop`. Other daemons may deliver what is held of a disabled sink."""
        if self._shared is not None and self.disabled is not None:
            await self._release(self._shared)
        await self._bell.wait()

    async def _release(self, shared: Shared) -> None:
        """Release the sink as soon as the spool answers, unless the bell rings before."""
        while not self._bell.is_set():
            try:
                await shared.release(self.name)
            except StorageFull:  # it does not answer now, which others report
                with suppress(TimeoutError):
                    async with asyncio.timeout(RELEASE_AGAIN):
                        await self._bell.wait()
            else:
                return

    async def _serve(self) -> None:
        while self._running:
            await self.step()

    async def step(self) -> int:
        """Wait for one batch and deliver it; returns the number of deliveries that were settled."""
        while self.paused:
            async with self._gate:  # one probe at a time
                if self.paused:
                    return await self._turn()
        return await self._turn()

    async def _turn(self) -> int:
        while (wait := self._not_before - self._clock.monotonic()) > 0:
            await asyncio.sleep(wait)
        batch = await self._spool.claim(self.name, self._terms.max_events, self._terms.max_wait)
        self._set_carrier_state(_CarrierState.CLAIMED)
        reached("batch.claimed")
        try:
            if self._throttle is not None:
                async with self._turnstile:  # asyncio-throttle polls: one waiter, not one per carrier
                    await self._throttle.acquire()
            self._set_carrier_state(_CarrierState.CARRYING)
            return await self.carry(batch)
        finally:
            self._set_carrier_state(_CarrierState.WAITING)

    def _set_carrier_state(self, hand: _CarrierState) -> None:
        carrier = asyncio.current_task()
        if carrier in self._carriers:
            self._carriers[carrier] = hand

    async def carry(self, batch: Batch) -> int:
        """Deliver a claimed batch and settle it."""
        span = self._tracing.begin_batch(batch)
        try:
            return await self._carry(batch, span)
        finally:
            span.end()

    async def _carry(self, batch: Batch, span: BatchSpan) -> int:
        reached("batch.carrying")
        if span.traceparent:
            error = await self._deliver(msgspec.structs.replace(batch, traceparent=span.traceparent))
        else:
            error = await self._deliver(batch)
        reached("batch.delivered")
        if isinstance(error, _Interrupted):
            return await self._postpone(batch, error, span)
        if isinstance(error, Gone):
            self._disable(error)
            return await self._postpone(batch, error, span)
        outcomes = self._judge(batch, error)
        self._note_failure(batch, error)
        self._count_failure(error)
        if len(batch.events) > 1 and isinstance(outcomes[0], Dead) and not isinstance(error, PartlyFailed):
            span.split()
            return await self._halve(batch, outcomes[0].reason)
        await self._spool.settle(batch, outcomes)
        span.settle(outcomes, error)
        reached("batch.settled")
        self._report(batch, outcomes, expected=_is_expected(error))
        self.settled.set()
        return len(outcomes)

    async def _postpone(self, batch: Batch, error: "Gone | _Interrupted", span: BatchSpan) -> int:
        """Give the batch back as it was. It is due at once."""
        again = Retry(after=0.0, reason=error.reason, counted=False)
        if self._shared is not None:
            await self._shared.proven.wait()
        await self._spool.settle(batch, [again] * len(batch.events))
        span.settle([again], error)
        return 0

    async def _deliver(self, batch: Batch) -> Exception | None:
        if not self._may_deliver:
            return _Interrupted()
        before = self._interruptions
        try:
            with self._metrics.delivery_seconds.labels(self.name).time():
                await self._attempt(batch)
        except TimeoutError as error:
            return error if self._interruptions == before else _Interrupted()
        except Exception as error:  # an unknown exception of a plug-in means "retry"
            return self._public_error(error)
        return None

    async def _attempt(self, batch: Batch) -> None:
        """One attempt. Raises `TimeoutError` after the time that the sink has, and after `interrupt`."""
        async with asyncio.timeout(self._terms.timeout) as limit:
            self._deliveries.add(limit)
            try:
                await self.sink.deliver(batch)
            finally:
                self._deliveries.discard(limit)

    def _public_error(self, error: Exception) -> Exception:
        """The error with the other side's answer, or the exception's text, in a form that may be shown."""
        if isinstance(error, PartlyFailed):
            return PartlyFailed({id: self._public_error(one) for id, one in error.failures.items()})
        if isinstance(error, SinkError):
            words = self._terms.words(error.said) if error.said else ""
            error.reason = f"{error.reason}: {words}" if words else error.reason
            error.said = b""
            return error
        if isinstance(error, TimeoutError):
            return error
        # Frames only: an exception's own text may hold a secret.
        self._log.debug("delivery_raised", frames=traceback.format_tb(error.__traceback__))
        words = self._terms.words(str(error))
        return TryLater(f"{type(error).__name__}: {words}" if words else type(error).__name__)

    def _judge(self, batch: Batch, error: Exception | None) -> list[Outcome]:
        first = batch.first_attempt_at
        age = self._clock.age(first) if first else 0.0
        failures = error.failures if isinstance(error, PartlyFailed) else None
        if failures is None:
            return [judge(error, batch.attempt, age, self._terms.policy)] * len(batch.events)
        outcomes = judge_each(batch.events, failures, batch.attempt, age, self._terms.policy)
        return in_order(batch.events, outcomes) if self._terms.ordered else outcomes

    async def _halve(self, batch: Batch, reason: str) -> int:
        """Split a refused batch, so that one bad event does not condemn the others. Both halves are due at once."""
        self._log.info("batch_split", batch=batch.id, events=len(batch.events), reason=reason)
        halves = await self._spool.split(batch)
        reached("batch.split")
        for half in halves:
            again = Retry(after=0.0, reason=reason, counted=False)
            await self._spool.settle(half, [again] * len(half.events))
        return 0

    def _note_failure(self, batch: Batch, error: Exception | None) -> None:
        """Note since when the sink fails.

        A batch counts as failed when all of its events failed, and not only for pictures that are not uploaded yet.
        """
        failures = error.failures if isinstance(error, PartlyFailed) else {}
        all_failed = len(failures) == len(batch.events) and not _is_expected(error)
        if error is None or isinstance(error, Rejected) or (failures and not all_failed):
            self.failing_since, self.place_gone = None, None
            return
        first = next(iter(failures.values()), error)
        if self.failing_since is None:
            self.failing_since = self._clock.monotonic()
        self.place_gone = first.reason if isinstance(first, PlaceGone) else None
        self.last_error = (self._clock.now(), describe(first))

    def _count_failure(self, error: Exception | None) -> None:
        """Count failures of the sink as a whole. A partial failure or a refusal shows that the sink is alive."""
        if error is None or isinstance(error, PartlyFailed | Rejected):
            self._failures = 0
            self._report_status()
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
            self._pausing = f"probed after {FAILURES_TO_PAUSE} failures in a row: {describe(error)}"
        self._report_status()

    def _disable(self, error: Gone) -> None:
        self.disabled = error.reason
        self.last_error = (self._clock.now(), error.reason)
        self._end_shift(_CarrierState.CLAIMED)
        self._report_status()

    def _report_status(self) -> None:
        """Log each change of state once, and set the metric."""
        now, before = self.status, self._last_reported
        if now == before:
            return
        self._last_reported = now
        self._metrics.sink_paused.labels(self.name).set(now.state is not SinkState.SERVING)
        if now.state is SinkState.SERVING:
            self._log.info("sink_resumed", before=before.why)
        elif now.why == BY_THE_OPERATOR:
            self._log.warning("sink_paused", reason=now.why)
        else:
            word = "sink_disabled" if now.state is SinkState.DISABLED else "sink_paused"
            self._log.error(word, reason=now.why)

    def _report(self, batch: Batch, outcomes: Sequence[Outcome], *, expected: bool) -> None:
        done = dead = 0
        retry: Retry | None = None
        for place, outcome in enumerate(outcomes):
            match outcome:
                case Done():
                    done += 1
                case Retry():
                    retry = outcome if retry is None or outcome.after < retry.after else retry
                case Dead(reason=reason):
                    dead += 1
                    id = batch.events[place].id  # no other event is looked at: they may not be decoded yet
                    self._log.error("dead_letter", event_id=id, reason=reason, attempt=batch.attempt)
                case _:
                    assert_never(outcome)
        again = len(outcomes) - done - dead
        self.dead += dead
        for word, count in (("done", done), ("postponed" if expected else "retry", again), ("dead", dead)):
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


class _Interrupted(SinkError):
    """A delivery was cancelled, because this daemon may have lost what it held to another one."""

    def __init__(self) -> None:
        super().__init__("the lease of this daemon was not proven")


def _is_expected(error: Exception | None) -> bool:
    """Whether each failure only asks for a wait, as for a picture that is not uploaded yet."""
    return isinstance(error, PartlyFailed) and all(
        isinstance(failure, TryLater) and failure.after is not None for failure in error.failures.values()
    )
