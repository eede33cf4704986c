"""Traces by OpenTelemetry: a real daemon, a real collector, and the receiver of a webhook that continues the trace."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.commands import poller
from tests.integration.sources.pushes import post, shot, signed
from tests.patience import in_best_turn

from .collector import Collector, attributes, collector, endless
from .environment import PATIENCE, environment, until
from .rig import Process, Scenario, scenario, webhook
from .test_callbacks import OK, address_of, receiving

SOON: Final = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
SECRET: Final = "token-that-nobody-may-see"


def spans(given: list[Span]) -> dict[bytes, Span]:
    return {span.span_id: span for span in given}


def total(given: list[Span], name: str = "poller.events") -> int:
    return sum(attributes(span.attributes)[name] for span in given)


def identity(traceparent: str) -> tuple[str, str]:
    """Trace and span of a header. Its last flag says whether the trace is sampled."""
    version, trace, span, flags = traceparent.split("-")
    assert (version, int(flags, 16) & 1) == ("00", 1)
    return trace, span


def with_tracing(kept: Collector) -> dict[str, Any]:
    return {"tracing": {"otlp": kept.url}}


def test_each_page_and_each_batch_is_a_span_and_a_batch_is_linked_to_its_pages(tmp_path: Path) -> None:
    with (
        collector() as kept,
        environment(tmp_path) as place,
        scenario(place, tmp_path, **with_tracing(kept)) as daemon,
    ):
        place.enqueue(950)
        assert daemon.start("drain").wait() == 0, daemon.processes[-1].stderr
        pages, batches = kept.named("take shots"), kept.named("deliver hook")
        assert total(pages) == total(batches) == total(kept.named("deliver console")) == 950
        assert len(kept.spans) == len(spans(kept.spans)), "no span comes twice"
        by_id = spans(pages)
        for batch in batches:
            linked = [by_id[link.span_id] for link in batch.links]
            assert [link.trace_id for link in batch.links] == [page.trace_id for page in linked]
            assert len(linked) >= 1
            assert attributes(batch.attributes)["poller.events"] <= total(linked)
            assert all(page.start_time_unix_nano < page.end_time_unix_nano for page in linked)
            assert max(page.start_time_unix_nano for page in linked) < batch.end_time_unix_nano
        page = attributes(pages[0].attributes)
        assert (page["poller.source"], page["poller.account"]) == ("shots", "main")
        assert page["poller.outcome"] in {"full", "partial"}
        first = attributes(batches[0].attributes)
        assert (first["poller.sink"], first["poller.account"]) == ("hook", "main")
        assert (first["poller.attempt"], first["poller.outcome"]) == (1, "done")
        assert kept.resource["service.name"] == "poller"
        assert kept.paths == {"/v1/traces"}


def test_the_receiver_of_a_webhook_gets_the_span_of_its_batch_as_the_parent(tmp_path: Path) -> None:
    with (
        collector() as kept,
        environment(tmp_path) as place,
        scenario(place, tmp_path, **with_tracing(kept)) as daemon,
    ):
        place.enqueue(300)
        assert daemon.start("drain").wait() == 0
        parents = {identity(headers["traceparent"]) for headers in place.hook.headers}
        assert parents == {(span.trace_id.hex(), span.span_id.hex()) for span in kept.named("deliver hook")}
        assert len(parents) == len(place.hook.headers)


def test_a_failed_attempt_is_a_span_with_its_outcome_and_without_any_text(tmp_path: Path) -> None:
    with collector() as kept, environment(tmp_path) as place:
        sinks = {"hook": webhook(place)}
        with scenario(place, tmp_path, sinks=sinks, **with_tracing(kept)) as daemon:
            process = daemon.start(**SOON)
            process.until_running()
            place.turn(503)
            place.enqueue(10)
            until(lambda: kept.named("deliver hook"), what="for a failed attempt")
            failed = attributes(kept.named("deliver hook")[0].attributes)
            assert (failed["poller.outcome"], failed["error.type"]) == ("retry", "TryLater")
            status = kept.named("deliver hook")[0].status
            assert (status.code, status.message) == (Status.STATUS_CODE_ERROR, "")
            place.turn(200)
            until(lambda: place.hook.files.total() == 10, what="for the next attempt")
            assert process.stop() == 0
            every = [attributes(span.attributes) for span in kept.named("deliver hook")]
            assert sum(one["poller.events"] for one in every if one["poller.outcome"] == "done") == 10
            assert len(every) > len([one for one in every if one["poller.outcome"] == "done"])


def test_a_push_is_a_page_like_a_poll(tmp_path: Path) -> None:
    with (
        collector() as kept,
        environment(tmp_path) as place,
        receiving(place, tmp_path, **with_tracing(kept)) as daemon,
    ):
        process = daemon.start(**SOON)
        assert post(address_of(process), signed(shot(1))) == OK
        until(lambda: kept.named("deliver hook") and kept.named("take pushed"), what="for the spans")
        (page,), (batch,) = kept.named("take pushed"), kept.named("deliver hook")
        assert [link.span_id for link in batch.links] == [page.span_id]
        assert process.stop() == 0


def test_no_url_and_no_secret_goes_to_the_collector_but_in_its_own_headers(tmp_path: Path) -> None:
    with (
        collector() as kept,
        environment(tmp_path) as place,
        scenario(place, tmp_path, **with_tracing(kept)) as daemon,
    ):
        place.enqueue(100)
        process = daemon.start("drain", OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer {SECRET}")
        assert process.wait() == 0
        assert kept.headers[0]["authorization"] == f"Bearer {SECRET}"
        assert b"http" not in kept.bodies.replace(b"opentelemetry", b"")
        assert SECRET.encode() not in kept.bodies
        assert SECRET not in process.stderr


def test_a_stop_does_not_wait_for_a_collector_that_hangs(tmp_path: Path) -> None:
    def seconds() -> float:
        return seconds_to_stop_beside_a_hanging_one(Path(mkdtemp(dir=tmp_path)))

    assert in_best_turn(seconds, 10, good=2) < 10


def seconds_to_stop_beside_a_hanging_one(folder: Path) -> float:
    with (
        collector() as kept,
        environment(folder) as place,
        scenario(place, folder, **with_tracing(kept)) as daemon,
    ):
        kept.hang = True
        process = daemon.start(**SOON, OTEL_EXPORTER_OTLP_TIMEOUT="1000")
        process.until_running()
        place.enqueue(5_000)
        until(lambda: place.hook.files.total() == 5_000 and kept.asked, what="for the deliveries")
        begun = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait(20) == 0, "no turn takes so long"
        took = time.monotonic() - begun
        (line,) = process.said("tracing_failed")
        assert line["level"] == "warning"
        assert process.said("library_error") == []
        return took


def test_a_collector_that_is_away_is_one_quiet_warning_and_its_return_is_reported(tmp_path: Path) -> None:
    with (
        collector() as kept,
        environment(tmp_path) as place,
        scenario(place, tmp_path, **with_tracing(kept)) as daemon,
    ):
        kept.status = 400
        process = daemon.start(**SOON)
        process.until_running()
        for _ in range(3):
            place.enqueue(100)
            asked = kept.asked
            until(lambda: kept.asked > asked, what="for an export")  # noqa: B023 - called in the same turn
        (line,) = process.heard("tracing_failed")
        assert line["collector"] == kept.url.removeprefix("http://")
        kept.status = 200
        place.enqueue(100)
        process.heard("tracing_resumed")
        until(lambda: place.hook.files.total() >= 400, what="for the last delivery")
        assert place.hook.files.total() == 400
        assert process.stop() == 0
        assert len(process.said("tracing_failed")) == 1
        assert process.said("library_error") == []


def test_a_collector_that_redirects_or_answers_without_end_is_a_warning_and_takes_no_memory(
    tmp_path: Path,
) -> None:
    with (
        endless() as url,
        environment(tmp_path) as place,
        scenario(place, tmp_path, tracing={"otlp": url}) as daemon,
    ):
        process = daemon.start(**SOON)
        process.until_running()
        before = _resident(process)
        place.enqueue(100)
        process.heard("tracing_failed")
        time.sleep(2)
        assert _resident(process) - before < 64 * 2**20
        assert process.stop() == 0
    with (
        collector() as kept,
        environment(tmp_path) as place,
        scenario(place, tmp_path, **with_tracing(kept)) as daemon,
    ):
        kept.status = 307
        process = daemon.start(**SOON)
        process.until_running()
        place.enqueue(100)
        process.heard("tracing_failed")


def _resident(process: Process) -> int:
    lines = Path(f"/proc/{process.child.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def test_without_the_section_nothing_of_it_is_imported_and_no_header_is_sent(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        place.enqueue(10)
        process = daemon.start(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_TRACES_EXPORTER="otlp")
        process.until_running()
        until(lambda: place.hook.files.total() == 10)
        maps = Path(f"/proc/{process.child.pid}/maps").read_text()
        assert "protobuf" not in maps, "its extension module would be mapped"
        assert all("traceparent" not in headers for headers in place.hook.headers)
        assert process.stop() == 0


def test_without_the_extra_a_check_says_how_to_install_it_and_the_daemon_runs_untraced(
    tmp_path: Path,
) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, tracing={}) as daemon:
        place.enqueue(10)
        said = without_the_extra(daemon, "check")
        assert said.returncode == 78
        assert "pip install 'live-screenshot-poller[otel]'" in said.stderr
        assert ": tracing: " in said.stderr
        said = without_the_extra(daemon, "drain")
        assert said.returncode == 0, said.stderr
        assert '"configuration_doubtful"' in said.stderr
        assert place.hook.files.total() == 10
    with environment(tmp_path) as place, scenario(place, tmp_path, tracing={}) as daemon:
        assert poller("check", "-c", str(daemon.config)).returncode == 0


def without_the_extra(daemon: Scenario, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command in a process that cannot import the SDK."""
    code = "import sys; sys.modules['opentelemetry.sdk'] = None; from poller.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words, "-c", str(daemon.config)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_variables_alone_say_where_the_collector_is_and_what_is_sampled(tmp_path: Path) -> None:
    with collector() as kept, environment(tmp_path) as place, scenario(place, tmp_path, tracing={}) as daemon:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": kept.url, "OTEL_SERVICE_NAME": "shots-of-tests"}
        place.enqueue(100)
        assert daemon.start("drain", **variables).wait() == 0
        assert kept.resource["service.name"] == "shots-of-tests"
        came = len(kept.spans)
        place.enqueue(100)
        assert daemon.start("drain", **variables, OTEL_TRACES_SAMPLER="always_off").wait() == 0
        assert len(kept.spans) == came > 0
        process = daemon.start("drain", **variables, OTEL_BSP_MAX_QUEUE_SIZE="1")
        assert process.wait() == 1
        assert "an OTEL_* variable is wrong" in process.stderr
