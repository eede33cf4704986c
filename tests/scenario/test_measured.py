"""What a running daemon's metrics say of its streams, of its pictures' age, of its polls and of its spool."""

import json
import platform
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poller import __version__
from poller.operations.stream_states import STATES
from poller.sandbox import Customer
from tests.commands import poller

from .environment import Environment, environment, until
from .rig import Process, scenario
from .test_audit import set_interval
from .test_reload import changed, reload

SOURCES = {
    "shots": {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "250ms"},
    "states": {"type": "channel_status", "account": "main", "follow": "seen", "interval": "200ms"},
}


def streams(process: Process) -> dict[str, float]:
    """The states that streams are in, with how many are in each."""
    samples = process.samples("streams")
    return {labels["state"]: count for labels, count in samples if labels["account"] == "main" and count}


def test_each_stream_states_in_the_state_that_it_is_in(tmp_path: Path) -> None:
    with (
        environment(tmp_path, streams=3, interval=1.0, silence=1.0) as place,
        scenario(place, tmp_path, sources=SOURCES, sinks={"console": {"type": "stdout"}}) as daemon,
    ):
        process = daemon.run()
        assert set(STATES) == {
            line.partition('state="')[2].partition('"')[0]
            for line in process.get("/metrics")[1].splitlines()
            if line.startswith("poller_streams{")
        }
        until(lambda: streams(process) == {"live": 3}, what="for three live streams")
        place.do(place.sandbox.pushers.stop("live_3", Customer()))
        until(lambda: streams(process) == {"live": 2, "interrupted": 1}, what="for one that was interrupted")
        set_interval(place, 3600)
        until(
            lambda: streams(process) == {"no pictures": 2, "interrupted": 1},
            what="for streams without pictures",
        )
        assert process.stop() == 0


def test_pictures_polls_and_deliveries_are_measured(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        assert process.metric("picture_lag_seconds_count", account="main") == 0
        begun = time.time()
        place.enqueue(250, streams=5)
        until(lambda: len(place.hook.files) == 250, what="for deliveries")
        assert process.metric("events_total", kind="screenshot") == 250
        assert process.metric("picture_lag_seconds_count", account="main") == 250
        assert process.metric("picture_lag_seconds_bucket", account="main", le="+Inf") == 250
        assert begun - 1 <= process.metric("last_event_timestamp_seconds", source="shots") <= time.time()
        assert process.metric("build_info", version=__version__, python=platform.python_version()) == 1
        assert process.metric("delivery_seconds_count", sink="hook") >= 3
        assert process.metric("delivery_seconds_sum", sink="hook") > 0
        assert 0 < process.metric("spool_fill_ratio", limit="max_bytes") < 0.1
        assert process.metric("spool_fill_ratio", limit="min_free") > 0
        assert "_created" not in process.get("/metrics")[1]
        assert process.stop() == 0


def test_the_age_of_a_picture_counts_up_to_its_commit(tmp_path: Path) -> None:
    """Pictures whose messages waited while no daemon ran are old when they come."""
    with environment(tmp_path, streams=1, interval=1.0) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        until(lambda: process.metric("picture_lag_seconds_count") >= 3, what="for pictures")
        mean = process.metric("picture_lag_seconds_sum") / process.metric("picture_lag_seconds_count")
        assert 0 <= mean < 30
        assert process.stop() == 0
        time.sleep(3.0)
        process = daemon.run()
        until(lambda: process.metric("picture_lag_seconds_count") >= 2, what="for those that waited")
        waited = process.metric("picture_lag_seconds_count") - process.metric(
            "picture_lag_seconds_bucket", le="1.0"
        )
        assert waited >= 1
        assert process.stop() == 0


def beats_of(process: Process) -> dict[str, str]:
    """What the metrics say of each source's beat."""
    found = re.findall(
        r'^poller_beat_known\{account="main",source="(\w+)"\} (.*)$', process.get("/metrics")[1], re.M
    )
    return dict(found)


def test_only_a_source_that_has_a_beat_now_is_in_the_metric(tmp_path: Path) -> None:
    sources = {
        name: {"type": "screenshot_queue", "account": "main", "beat": "60s"} for name in ("shots", "more")
    }
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, sources=sources, sinks={"console": {"type": "stdout"}}) as daemon,
    ):
        process = daemon.run()
        assert beats_of(process) == {"shots": "0.0", "more": "0.0"}
        for beat, expected in (("off", {"more": "0.0"}), ("1s", {"shots": "0.0", "more": "0.0"})):
            changed(daemon, lambda new, beat=beat: new["sources"]["shots"].update(beat=beat))  # type: ignore[misc]
            assert reload(daemon).returncode == 0
            assert beats_of(process) == expected
        changed(daemon, lambda new: new["sources"].pop("more"))
        assert reload(daemon).returncode == 0
        assert beats_of(process) == {"shots": "0.0"}
        assert process.stop() == 0


@contextmanager
def beating(place: Environment, period: float) -> Iterator[None]:
    """Messages come in a beat, whatever else the test does."""
    over = threading.Event()

    def beat() -> None:
        begun, beats = time.monotonic(), 0
        while not over.wait(max(0.0, begun + period * beats - time.monotonic())):
            place.enqueue(20, streams=5)
            beats += 1

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_whether_a_beat_is_known_is_measured_and_shown(tmp_path: Path) -> None:
    shots = {"type": "screenshot_queue", "account": "main", "beat": "2s"}
    sources = {"shots": shots, "states": SOURCES["states"]}
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, sources=sources, sinks={"console": {"type": "stdout"}}) as daemon,
    ):
        process = daemon.run()
        assert beats_of(process) == {"shots": "0.0"}, "states have no beat"
        rows: dict[str, Any] = {}

        def is_shown() -> bool:
            said = poller("status", "--json", "-c", str(daemon.config), folder=daemon.folder)
            rows.update({row["name"]: row for row in json.loads(said.stdout)["sources"]})
            return bool(rows["shots"]["beat_known"])

        with beating(place, 2.0):
            until(lambda: process.metric("beat_known", source="shots"), what="for the beat to be learned")
            until(is_shown, what="for the beat to be shown")
        assert 0.0 <= rows["shots"]["next_poll"] <= 5.0
        assert rows["states"]["beat_known"] is None
        assert process.stop() == 0
