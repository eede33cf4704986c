"""One sink down while others run at full speed; and pictures that survive `kill -9`."""

import random
import signal
import time
from pathlib import Path

import pytest

from poller.pipeline.courier import FAILURES_TO_PAUSE

from .environment import environment, until
from .rig import scenario, webhook
from .test_operate import rows


def test_a_sink_that_is_down_holds_no_other_back_and_gets_everything_later(tmp_path: Path) -> None:
    with environment(tmp_path, ("good", "bad")) as place:
        sinks = {
            "console": {"type": "stdout"},
            "good": webhook(place, "good"),
            "bad": webhook(place, "bad", timeout="500ms"),
        }
        with scenario(place, tmp_path, sinks=sinks) as daemon:
            process, total, seconds = daemon.run(), 0, {}
            for mode in (200, "refuse", "hang", 500):
                place.turn(mode, "bad")
                total += 2000
                begun, had = time.monotonic(), place.receivers["bad"].files.total()
                place.enqueue(2000)
                until(lambda t=total: len(daemon.printed(torn=True)[0]) >= t, 60, f"for stdout, {mode}")  # type: ignore[misc]
                until(lambda t=total: place.receivers["good"].files.total() >= t, 60, f"for good, {mode}")  # type: ignore[misc]
                seconds[mode] = round(time.monotonic() - begun, 2)
                if mode != 200:
                    assert place.receivers["bad"].files.total() == had
                    until(lambda: process.metric("backlog_events", sink="bad") == 2000)
                    assert process.metric("backlog_events", sink="good") == 0
                    assert process.metric("deliveries_total", sink="bad", outcome="dead") == 0
                place.turn(200, "bad")
                until(lambda t=total: place.receivers["bad"].files.total() >= t, 90, f"for bad after {mode}")  # type: ignore[misc]
            until(lambda: process.metric("backlog_events") == 0)
            assert process.stop() == 0
            books = daemon.books()
            assert len(books.spooled) == total == len(books.removed)
            assert place.receivers["good"].files == dict.fromkeys(books.spooled, 1)
            assert set(place.receivers["bad"].files) == set(books.spooled)
            assert sorted(daemon.printed()[0]) == sorted(books.spooled)
            print(f"\nseconds for the others with one sink in each mode: {seconds}")


def test_pictures_survive_kill_9_whole(tmp_path: Path, soak: bool) -> None:
    rng, directory = random.Random("pictures"), tmp_path / "pictures"
    with environment(tmp_path) as place:
        keep = {
            "type": "download",
            "directory": str(directory),
            "template": "{name}",
            "allow_cidr": ["127.0.0.0/8"],
        }
        with scenario(place, tmp_path, sinks={"archive": keep}) as daemon:
            kills, caught = 50 if soak else 2, 0
            for _ in range(kills):
                place.enqueue(600, pictures=True)
                process, stored = daemon.start(), _stored(directory)
                target = stored + rng.randrange(1, 400)
                until(lambda p=process, t=target: _stored(directory) >= t or not p.alive)  # type: ignore[misc]
                assert process.alive, process.stderr
                caught += _stored(directory) < place.counts.removed
                assert process.kill() == -signal.SIGKILL
            assert daemon.drain() == 0, daemon.processes[-1].stderr[-3000:]
            books = daemon.books()
            names = {path.name: path for path in directory.iterdir() if path.is_file()}
            assert set(names) == set(books.spooled)
            bucket = next(iter(place.sandbox.platform.queues.values())).customer.host_label
            whole = place.ask(lambda: place.sandbox.pictures.content(bucket, books.spooled[0]))
            assert whole
            assert all(path.read_bytes() == whole for path in names.values())
            assert len(books.lost_polls()) <= 4 * kills
            print(f"\npictures: {len(names)} whole after {kills} kills, lost={len(books.lost())}")
            assert len(books.removed) >= 1000
            assert caught


def _stored(directory: Path) -> int:
    return len(list(directory.glob("*.jpg")))


@pytest.mark.parametrize("answer", [401, 403, 404])
def test_a_burst_of_refusals_pauses_the_sink_and_drops_nothing(tmp_path: Path, answer: int) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        place.turn(answer)
        place.enqueue(1000)
        process = daemon.run()
        until(lambda: process.said("sink_paused"))
        assert f"HTTP {answer}" in process.said("sink_paused")[0]["reason"]
        assert place.hook.attempts >= FAILURES_TO_PAUSE
        assert place.hook.files.total() == 0
        place.turn(200)
        rows(daemon, "resume", "hook")
        until(lambda: place.hook.files.total() == 1000)
        assert process.stop() == 0
        books = daemon.books()
        assert books.dead == {}
        assert set(place.hook.files) == set(books.spooled)


@pytest.mark.soak
@pytest.mark.parametrize("answer", [401, 503])
def test_a_sink_that_refuses_for_a_while_gets_everything_when_it_wants_again(
    tmp_path: Path, answer: int
) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        place.turn(answer)
        place.enqueue(1000)
        process = daemon.run()
        until(lambda: process.said("sink_paused"))
        assert process.metric("sink_paused", sink="hook") == 1
        place.turn(200)
        until(lambda: place.hook.files.total() == 1000)
        until(lambda: process.metric("sink_paused", sink="hook") == 0)
        assert process.heard("sink_resumed")
        assert process.stop() == 0
        assert daemon.books().dead == {}
