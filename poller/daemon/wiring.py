"""From settings to parts: the adapter, the filter and the delivery policy of a sink, and the paths of files."""

import fnmatch
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from poller import control
from poller.core.model import Event
from poller.core.ports import PushedSource, Sink, Source
from poller.core.spool import Shared, SpoolAdmin, Wants, anything
from poller.core.tracing import NO_TRACING, Tracing
from poller.pipeline.courier import Terms
from poller.pipeline.retry import RetryPolicy
from poller.qcloud.wire.account import Account
from poller.qcloud.wire.excerpts import excerpt
from poller.runtime import plugins
from poller.runtime.clock import Clock
from poller.runtime.plugins import otel_is_installed
from poller.settings import Only, Settings, SinkSettings, SourceSettings, SpoolSettings, TracingSettings


def build_source(
    name: str, settings: SourceSettings, accounts: Mapping[str, Account]
) -> Source | PushedSource:
    """The source that these settings ask for, not yet entered."""
    source: Source | PushedSource = plugins.adapter(plugins.SOURCES, settings.type)(name, settings, accounts)
    return source


def build_spool(settings: SpoolSettings) -> SpoolAdmin:
    """The spool that these settings ask for, not yet entered."""
    spool: SpoolAdmin = plugins.adapter(plugins.SPOOLS, settings.type)("spool", settings, {})
    return spool


def build_tracing(settings: TracingSettings | None) -> AbstractAsyncContextManager[Tracing]:
    """The tracing that these settings ask for, not yet entered; none where its packages are missing."""
    if settings is None or not otel_is_installed():
        return nullcontext(NO_TRACING)
    from poller.runtime.otel import OtlpTracing  # noqa: PLC0415 - only who asks for traces pays for them

    return OtlpTracing(settings.otlp)


def build_sink(name: str, settings: SinkSettings, accounts: Mapping[str, Account]) -> Sink:
    """The sink that these settings ask for, not yet entered."""
    sink: Sink = plugins.adapter(plugins.SINKS, settings.type)(name, settings, accounts)
    return sink


def journal_path(settings: Settings) -> Path:
    """The path of the journal: by default beside the spool."""
    if settings.journal.path is not None:
        return settings.journal.path
    spool = getattr(settings.spool, "path", None)
    return (
        spool.with_name(spool.name + ".journal")
        if isinstance(spool, Path)
        else Path("poller.journal").absolute()
    )


def control_path(settings: Settings) -> Path:
    """The path of the control socket: beside the spool, or beside the journal if the spool has no file."""
    spool = getattr(settings.spool, "path", None)
    return control.socket_path(spool if isinstance(spool, Path) else journal_path(settings))


def event_filter(only: Only | None) -> Wants:
    """A predicate for the events that pass the `only` of a sink."""
    if only is None:
        return anything
    kinds = None if only.kinds is None else frozenset(only.kinds)
    streams = None if only.streams is None else re.compile("|".join(map(fnmatch.translate, only.streams)))

    def wanted(event: Event) -> bool:
        if kinds is not None and event.kind not in kinds:
            return False
        return streams is None or streams.match(event.stream_id) is not None

    return wanted


async def attach(spool: SpoolAdmin, name: str, settings: SinkSettings, clock: Clock) -> None:
    """Attach a sink to the spool with these settings.

    Of the batches that it has in hand at once, one is kept free for fresh events. With a rate, only one batch of a
    replay is in hand, because fresh events wait for the rate behind it.
    """
    if isinstance(spool, Shared):
        spool.divide(name, settings.lanes if settings.ordered else 1)
    await spool.attach(
        name,
        event_filter(settings.only),
        ordered=settings.ordered,
        start=settings.start.moment(clock.now()),
        replays=1 if settings.rate is not None else max(1, settings.concurrency - 1),
    )


def delivery_policy(settings: SinkSettings, words: Callable[[bytes | str], str] = excerpt) -> Terms:
    """The delivery policy of a sink, from its settings."""
    rate = settings.rate
    return Terms(
        policy=RetryPolicy(give_up_after=settings.give_up_after),
        timeout=settings.timeout,
        concurrency=settings.concurrency,
        max_events=settings.batch.max_events,
        max_wait=settings.batch.max_wait,
        rate=None if rate is None else (rate.limit, rate.period),
        ordered=settings.ordered,
        words=words,
    )
