"""What the dashboard shows: its rows and panels, with their expressions."""

from typing import Final

from observability.model import (
    AMBER,
    ANY_IS_BAD,
    ANY_IS_DOUBTFUL,
    GREEN,
    RED,
    Graph,
    Number,
    Query,
    Row,
    once,
    quantiles,
)

WELL: Final = Row(
    title="Is everything well?",
    panels=(
        Number(
            title="Ready",
            about="Not ready: `/readyz` and `poller status` say why. 5 minutes of it are an alarm.",
            query=Query(expr="min(poller_ready{@})"),
            steps=((None, RED), (1, GREEN)),
            words=(("0", "not ready"), ("1", "ready")),
        ),
        Number(
            title="Live streams",
            about="Streams that the platform calls live, and those of unknown state that bring pictures.",
            query=Query(expr=once('poller_streams{@, state=~"live|late|no pictures|unknown"}')),
        ),
        Number(
            title="Live, without pictures",
            about="Streams that the platform calls live and of which nothing arrives. `poller streams` names them.",
            query=Query(expr=once('poller_streams{@, state="no pictures"}')),
            steps=ANY_IS_BAD,
        ),
        Number(
            title="Oldest pending event",
            about="How long the oldest event waits for a sink.",
            query=Query(expr="max(poller_oldest_undelivered_seconds{@})"),
            unit="s",
            steps=((None, GREEN), (300, AMBER), (900, RED)),
        ),
        Number(
            title="Dead letters",
            about="Deliveries that were given up and are kept. `poller dead list` shows them.",
            query=Query(expr=once("poller_dead_letters{@}")),
            steps=ANY_IS_DOUBTFUL,
        ),
        Number(
            title="Spool filled",
            about="The nearest limit of the spool. At 100 % polling pauses.",
            query=Query(expr="max(poller_spool_fill_ratio{@})"),
            unit="percentunit",
            steps=((None, GREEN), (0.8, AMBER), (0.9, RED)),
        ),
        Number(
            title="Polls that may have lost pictures",
            about="Answers that broke half-way, in the dashboard's time.",
            query=Query(expr='sum(increase(poller_polls_total{@, outcome="uncertain"}[$__range]))'),
            steps=ANY_IS_DOUBTFUL,
        ),
        Number(
            title="Pictures that never came",
            about="By the audit, in the dashboard's time. `poller audit` lists them.",
            query=Query(expr="sum(increase(poller_gap_pictures_total{@}[$__range]))"),
            steps=ANY_IS_DOUBTFUL,
        ),
        Number(
            title="… of them found in the bucket",
            about="Pictures that were missing and that the daemon found in the bucket.",
            query=Query(expr="sum(increase(poller_backfilled_pictures_total{@}[$__range]))"),
        ),
        Number(
            title="Age of pictures, 95 %",
            about="95 of 100 pictures are in the spool within this time after they were taken.",
            query=Query(
                expr="histogram_quantile(0.95, sum by (le)"
                " (rate(poller_picture_lag_seconds_bucket{@}[$__rate_interval])))"
            ),
            unit="s",
            steps=((None, GREEN), (60, AMBER), (300, RED)),
        ),
        Number(
            title="Alarms",
            about="Rules of `rules.yml` that fire now.",
            query=Query(
                expr='count(ALERTS{alertname=~"Poller.+", alertstate="firing"}) or vector(0)',
            ),
            steps=ANY_IS_BAD,
        ),
        Number(
            title="Version",
            about="The versions that run.",
            query=Query(expr="count by (version, python) (poller_build_info{@})", legend="{{version}}"),
            shows_name=True,
        ),
    ),
)

WAY_IN: Final = Row(
    title="The way in",
    panels=(
        Graph(
            title="New events",
            about="Events that were not known before, by kind.",
            queries=(
                Query(
                    expr="sum by (kind) (rate(poller_events_total{@}[$__rate_interval]))", legend="{{kind}}"
                ),
            ),
            unit="eps",
            stacked=True,
        ),
        Graph(
            title="Age of pictures in the spool",
            about="From the moment of a picture to its commit. The platform's own part is usually most of it.",
            queries=quantiles("poller_picture_lag_seconds", "account", "{{account}}"),
            unit="s",
        ),
        Graph(
            title="Streams by state",
            about="`silent`: nothing arrives, and no source reports states.",
            queries=(Query(expr=once("poller_streams{@}", "state"), legend="{{state}}"),),
            stacked=True,
        ),
        Graph(
            title="Polls by outcome",
            about="`uncertain`: an answer broke half-way. `refused`, `throttled`, `failed`: nothing was taken.",
            queries=(
                Query(
                    expr="sum by (source, outcome) (rate(poller_polls_total{@}[$__rate_interval]))",
                    legend="{{source}} {{outcome}}",
                ),
            ),
            unit="reqps",
        ),
        Graph(
            title="Beat known",
            about="1: polls sleep until messages are expected. 0: pauses grow while nothing comes.",
            queries=(Query(expr="min by (source) (poller_beat_known{@})", legend="{{source}}"),),
        ),
        Graph(
            title="Length of a poll",
            about="From a poll's request to the end of its answer.",
            queries=quantiles("poller_poll_seconds", "source", "{{source}}"),
            unit="s",
        ),
        Graph(
            title="Since the newest event",
            about="A queue that is silent while streams are live is a bad sign.",
            queries=(
                Query(
                    expr="time() - max by (source) (poller_last_event_timestamp_seconds{@})",
                    legend="{{source}}",
                ),
            ),
            unit="s",
        ),
        Graph(
            title="Pictures that never came, and those found",
            about="Missing by the audit, and found in the bucket, in 5 minutes.",
            queries=(
                Query(
                    expr="sum by (account) (increase(poller_gap_pictures_total{@}[5m]))",
                    legend="{{account}} missing",
                ),
                Query(
                    expr="sum by (account) (increase(poller_backfilled_pictures_total{@}[5m]))",
                    legend="{{account}} found",
                ),
            ),
        ),
        Graph(
            title="Notifications by outcome",
            about="What was pushed to a `callbacks` source. `unavailable` is lost after some minutes.",
            queries=(
                Query(
                    expr="sum by (source, outcome) (rate(poller_callbacks_total{@}[$__rate_interval]))",
                    legend="{{source}} {{outcome}}",
                ),
            ),
            unit="reqps",
        ),
        Graph(
            title="Events that were known already",
            about="The same picture by a second way, or again. No sink gets it twice.",
            queries=(
                Query(
                    expr="sum by (kind) (rate(poller_known_events_total{@}[$__rate_interval]))",
                    legend="{{kind}}",
                ),
            ),
            unit="eps",
        ),
    ),
)

WAY_OUT: Final = Row(
    title="The way out",
    panels=(
        Graph(
            title="Delivered",
            about="Events that a sink took.",
            queries=(
                Query(
                    expr='sum by (sink) (rate(poller_deliveries_total{@, outcome="done"}[$__rate_interval]))',
                    legend="{{sink}}",
                ),
            ),
            unit="eps",
        ),
        Graph(
            title="Not delivered",
            about="`retry`: failed, comes again. `postponed`: not uploaded yet, no failure. `dead`: given up.",
            queries=(
                Query(
                    expr='sum by (sink, outcome) (rate(poller_deliveries_total{@, outcome!="done"}[$__rate_interval]))',
                    legend="{{sink}} {{outcome}}",
                ),
            ),
            unit="eps",
        ),
        Graph(
            title="Length of an attempt",
            about="One attempt at one batch.",
            queries=quantiles("poller_delivery_seconds", "sink", "{{sink}}"),
            unit="s",
        ),
        Graph(
            title="Backlog",
            about="Pending events, and those that replays have yet to bring.",
            queries=(
                Query(expr=once("poller_backlog_events{@}", "sink"), legend="{{sink}}"),
                Query(expr=once("poller_replay_events{@}", "sink"), legend="{{sink}} replay"),
            ),
        ),
        Graph(
            title="Oldest pending event",
            about="900 seconds are an alarm.",
            queries=(Query(expr="max by (sink) (poller_oldest_undelivered_seconds{@})", legend="{{sink}}"),),
            unit="s",
        ),
        Graph(
            title="Sinks that are paused or not ready",
            about="1: paused by itself or by the operator, or disabled; or a reason of `/readyz`.",
            queries=(
                Query(expr="max by (sink) (poller_sink_paused{@})", legend="{{sink}} paused"),
                Query(expr="1 - min by (sink) (poller_sink_ready{@})", legend="{{sink}} not ready"),
            ),
        ),
        Graph(
            title="Dead letters",
            about="Those that are in the spool.",
            queries=(Query(expr=once("poller_dead_letters{@}", "sink"), legend="{{sink}}"),),
        ),
    ),
)

MACHINE: Final = Row(
    title="Storage, clock and log",
    panels=(
        Graph(
            title="Spool and journal",
            about="The spool's file never shrinks: free pages count as room.",
            queries=(
                Query(expr=once("poller_spool_bytes{@}"), legend="spool"),
                Query(expr="sum(poller_journal_bytes{@})", legend="journal"),
            ),
            unit="bytes",
        ),
        Graph(
            title="How near the limits are",
            about="At 100 % polling pauses.",
            queries=(Query(expr="max by (limit) (poller_spool_fill_ratio{@})", legend="{{limit}}"),),
            unit="percentunit",
        ),
        Graph(
            title="Daemons at the spool",
            about="How many share it; 0 if one daemon has it for itself. Fewer than usual are an alarm.",
            queries=(Query(expr="max(poller_spool_members{@})", legend="daemons"),),
        ),
        Graph(
            title="Clock",
            about="By how much the platform's clock is ahead of this machine's.",
            queries=(Query(expr="max by (account) (poller_clock_skew_seconds{@})", legend="{{account}}"),),
            unit="s",
            least=None,
        ),
        Graph(
            title="Things to look at",
            about="In an hour: what could not be read, what was deleted undelivered, and lines that the log lacks.",
            queries=(
                Query(expr="sum(increase(poller_quarantined_total{@}[1h]))", legend="quarantined"),
                Query(
                    expr="sum by (what) (increase(poller_expired_total{@}[1h]))", legend="expired {{what}}"
                ),
                Query(
                    expr="sum(increase(poller_log_lines_dropped_total{@}[1h]))", legend="log lines dropped"
                ),
                Query(expr="sum(poller_spool_files_aside{@})", legend="damaged files aside"),
            ),
        ),
    ),
)

ROWS: Final = (WELL, WAY_IN, WAY_OUT, MACHINE)
