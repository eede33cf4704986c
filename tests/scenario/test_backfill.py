"""Answers of the queue are lost on their way, and the daemon finds their pictures in the bucket."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from poller.sandbox import Customer
from poller.sandbox.names import Shot, path_of
from poller.sandbox.options import Naming
from poller.sandbox.query.messages import Said
from tests.commands import poller

from .environment import Environment, environment, until
from .rig import Process, Scenario, scenario, webhook

SECRET = "zQ7mWn4vXkE2cLsB9dYrT0hUaJfGpO6i"
OWNER = Customer(secret_id="AKIDz8Kfw3", secret_key=SECRET)
LOST = {"cut": 0.08, "cut_chunked": 0.06, "reset_after": 0.06, "reset_headers": 0.06, "close": 0.06}
"""Ways in which an answer is lost whose messages are gone from the queue, and how often."""
LOOKS_WITHIN = 200.0
"""Seconds: a look begins a minute after the poll."""


def account(place: Environment, backfill: str = "auto", **cos: Any) -> Mapping[str, Any]:
    where = {"base_url": f"{place.pictures}/", "endpoint": f"{place.pictures}/"}
    return {
        "cos": {**where, "secret_id": OWNER.secret_id, "secret_key": SECRET, **cos},
        "audit": {"backfill": backfill},
    }


def pictures(place: Environment) -> dict[str, Any]:
    """A webhook that gets pictures only, and no gaps."""
    return webhook(place, only={"kinds": ["screenshot"]})


@contextmanager
def standing(folder: Path, backfill: str = "auto") -> Iterator[tuple[Environment, Scenario]]:
    """The platform and a daemon with keys for the bucket."""
    with (
        environment(folder, customers=(OWNER,)) as place,
        scenario(place, folder, account=account(place, backfill), sinks={"hook": pictures(place)}) as daemon,
    ):
        yield place, daemon


class Camera:
    """Takes pictures of streams as the platform does: each is uploaded, and its message is in the queue."""

    def __init__(self, place: Environment, streams: Sequence[str], *, naming: Naming | None = None) -> None:
        self._place = place
        self._naming = naming or Naming()
        self._pushes = {stream: int(time.time()) for stream in streams}
        self._taken_at = 0

    def push_again(self, stream: str, at: int) -> None:
        self._pushes[stream] = at

    def take(self, at: int, *, told: bool = True) -> list[str]:
        """One picture of each stream; without `told`, no message says so."""
        self._taken_at = at
        shots = [
            Shot(stream_id=stream, push=push, task=push, at=at, width=300, height=169)
            for stream, push in self._pushes.items()
        ]
        paths = [path_of(shot, self._naming) for shot in shots]

        def publish() -> None:
            self._place.sandbox.pictures.put_many(OWNER.host_label, paths, b"\xff\xd8\xff\xd9")
            if told:
                queue = self._place.sandbox.platform.queue()
                said = zip(self._pushes, paths, strict=True)
                queue.enqueue([Said(stream_id=stream, path=path, create_time=at) for stream, path in said])

        self._place.ask(publish)
        return paths

    def take_for(self, seconds: float) -> None:
        """A picture of each stream every second, and none that was taken before."""
        begun = time.time()
        while (at := int(time.time())) < begun + seconds:
            if at > self._taken_at:
                self.take(at)
            time.sleep(max(0.0, at + 1 - time.time()))


def lose(place: Environment, **rates: float) -> None:
    place.ask(lambda: place.sandbox.faults["api"].set_rates(rates))


def missing(place: Environment) -> set[str]:
    return set(place.oracle.paths()) - set(place.hook.files)


def check_once(place: Environment) -> None:
    """Every picture that left the queue was delivered, and once."""
    assert not missing(place)
    assert set(place.hook.files.values()) == {1}
    assert set(place.hook.files) == set(place.oracle.paths())


def pending(daemon: Scenario) -> list[float]:
    """When answers were lost that are still to be looked for, as the spool has it."""
    with closing(sqlite3.connect(f"{daemon.spool_file.as_uri()}?mode=ro", uri=True)) as spool:
        row = spool.execute("SELECT memory FROM source WHERE name = 'backfill main'").fetchone()
    found: list[float] = json.loads(row[0])["pending"] if row else []
    return found


def until_settled(daemon: Scenario) -> None:
    """Wait until it is on disk that the hook has all that is in the spool, so that none of it comes again."""

    def settled() -> bool:
        with closing(sqlite3.connect(f"{daemon.spool_file.as_uri()}?mode=ro", uri=True)) as spool:
            ((last,),) = spool.execute("SELECT max(last) FROM page").fetchall()
            ((position,),) = spool.execute("SELECT position FROM sink WHERE name = 'hook'").fetchall()
        return last is not None and bool(position > last)

    until(settled, what="for the settlements")


def check_no_secret(process: Process) -> None:
    for secret in (SECRET, OWNER.secret_id, "q-signature", "q-sign-time"):
        assert secret not in process.stderr
        assert secret not in process.get("/metrics")[1]


@pytest.mark.timeout(1800)
def test_every_picture_of_a_lost_answer_is_delivered_once_even_after_a_kill(
    tmp_path: Path, soak: bool
) -> None:
    # 360 pictures of each stream are an hour's, taken ten times as fast
    streams, seconds = (50, 360.0) if soak else (20, 10.0)
    with standing(tmp_path) as (place, daemon):
        process = daemon.run()
        camera = Camera(place, [f"live_{n}" for n in range(streams)])
        camera.take_for(2)
        lose(place, **LOST)
        camera.take_for(seconds)
        lose(place)
        camera.take_for(2)
        until(lambda: place.depth == 0 and process.metric("backlog_events") == 0)
        failed = len(process.said("poll_failed"))
        assert failed > 0
        now = int(time.time())
        camera.push_again("live_0", now)
        camera.push_again("new", now)
        place.order("reset_after")
        last = camera.take(now)
        until(lambda: len(process.said("poll_failed")) > failed)
        until(lambda: pending(daemon), what="for the note")
        until_settled(daemon)
        assert set(last) <= missing(place), "without the bucket these are lost"
        process.kill()

        process = daemon.run()
        camera.take_for(2)  # of a new push and a new stream these tell where the first pictures lie
        until(lambda: not missing(place), LOOKS_WITHIN, what="for the pictures of the lost answers")
        until(lambda: not pending(daemon), what="for the end of the look")
        check_once(place)
        assert not place.hook.twice_in_a_life()
        assert process.metric("backfilled_pictures_total", account="main") >= len(last)
        check_no_secret(process)
        assert process.stop() == 0, process.stderr


def test_the_answers_on_their_way_when_the_daemon_is_killed_are_made_good(tmp_path: Path) -> None:
    with (
        environment(tmp_path, customers=(OWNER,)) as place,
        scenario(
            place,
            tmp_path,
            endpoint=place.wire.endpoint,
            account=account(place),
            sinks={"hook": pictures(place)},
        ) as daemon,
    ):
        process = daemon.run()
        camera = Camera(place, [f"live_{n}" for n in range(10)])
        camera.take_for(3)
        until(lambda: place.depth == 0 and not missing(place) and process.metric("backlog_events") == 0)
        until_settled(daemon)
        place.wire.delay = 30.0
        lost = camera.take(int(time.time()))
        until(lambda: place.depth == 0)
        process.kill()
        assert set(lost) <= missing(place)
        place.wire.delay = 0.0
        process = daemon.run()
        until(lambda: not missing(place), LOOKS_WITHIN, what="for the pictures of the answer on its way")
        check_once(place)
        assert process.stop() == 0, process.stderr


def told(shown: str) -> int:
    """How many pictures the command put in."""
    return int(json.loads(shown.splitlines()[-1])["pictures"])


@pytest.mark.parametrize("grammar", ["A", "B"])
def test_an_operator_can_look_with_a_running_daemon_and_without(tmp_path: Path, grammar: Any) -> None:
    naming = Naming(grammar=grammar, folder="{date}" if grammar == "B" else "")
    with standing(tmp_path, backfill="off") as (place, daemon):
        process = daemon.run()
        camera = Camera(place, ["live_1", "live_2"], naming=naming)
        now = int(time.time())
        for stream in ("live_1", "live_2"):
            camera.push_again(stream, now - 900)
        camera.take(now - 800)
        until(lambda: len(place.hook.files) == 2)
        never = camera.take(now - 700, told=False)
        word = ["audit", "--backfill", "-c", str(daemon.config), "--since", "1h"]
        ended = poller(*word, "--json", folder=tmp_path)
        assert (ended.returncode, told(ended.stdout)) == (0, 2), ended.stderr
        until(lambda: set(never) <= set(place.hook.files))
        assert told(poller(*word, "--json", folder=tmp_path).stdout) == 0
        assert process.stop() == 0
        check_no_secret_in(process.stderr)

        later = camera.take(now - 600, told=False)
        ended = poller(*word, "--stream", "live_2", folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert "1 pictures put in" in ended.stdout
        check_no_secret_in(ended.stdout + ended.stderr)
        process = daemon.run()
        until(lambda: len(place.hook.files) == 5)
        assert len(set(later) & set(place.hook.files)) == 1
        assert set(place.hook.files.values()) == {1}
        assert process.stop() == 0


def check_no_secret_in(text: str) -> None:
    for secret in (SECRET, OWNER.secret_id, "q-signature"):
        assert secret not in text


def test_without_keys_the_command_says_what_is_missing(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        daemon.run().stop()
        ended = poller("audit", "--backfill", "-c", str(daemon.config), folder=tmp_path)
        assert ended.returncode == 1
        assert "its bucket cannot be listed without keys: set secret_id" in ended.stderr
        ended = poller(
            "audit", "--backfill", "-c", str(daemon.config), "--account", "nobody", folder=tmp_path
        )
        assert (ended.returncode, "no account nobody" in ended.stderr) == (1, True)


@pytest.mark.parametrize("since", ["30d", "1990-01-01T00:00:00Z"])
def test_what_may_have_been_forgotten_is_not_looked_for(tmp_path: Path, since: str) -> None:
    with standing(tmp_path, backfill="off") as (_, daemon):
        daemon.run().stop()
        ended = poller("audit", "--backfill", "-c", str(daemon.config), "--since", since, folder=tmp_path)
        assert ended.returncode == 1
        assert "could come twice" in ended.stderr


def test_a_bucket_that_refuses_is_reported_and_polling_goes_on(tmp_path: Path) -> None:
    with (
        environment(tmp_path, customers=(OWNER,)) as place,
        scenario(
            place,
            tmp_path,
            account=account(place, "off", secret_key="another"),
            sinks={"hook": pictures(place)},
        ) as daemon,
    ):
        process = daemon.run()
        place.enqueue(10)
        until(lambda: len(place.hook.files) == 10)
        ended = poller("audit", "--backfill", "-c", str(daemon.config), folder=tmp_path)
        assert ended.returncode == 1
        assert "HTTP 403 SignatureDoesNotMatch: secret_key does not belong to secret_id" in ended.stderr
        check_no_secret_in(ended.stderr)
        place.enqueue(10)
        until(lambda: len(place.hook.files) == 20)
        assert process.stop() == 0


def test_a_reload_switches_the_automatic_look_off_and_on_and_keeps_what_is_pending(tmp_path: Path) -> None:
    def reload(backfill: str) -> None:
        settings = json.loads(daemon.config.read_text())
        settings["accounts"]["main"]["audit"]["backfill"] = backfill
        daemon.config.write_text(json.dumps(settings))
        assert poller("reload", "-c", str(daemon.config), folder=tmp_path).returncode == 0

    def lose_one() -> None:
        failed = len(process.said("poll_failed"))
        place.order("reset_after")
        camera.take(int(time.time()))
        until(lambda: len(process.said("poll_failed")) > failed)

    with standing(tmp_path) as (place, daemon):
        process = daemon.run()
        camera = Camera(place, ["live_1"])
        camera.take_for(2)
        until(lambda: place.depth == 0 and not missing(place))
        lose_one()
        until(lambda: len(pending(daemon)) == 1)
        reload("off")
        time.sleep(1)
        lose_one()
        assert len(pending(daemon)) == 1, "off"
        reload("auto")
        time.sleep(1)
        lose_one()
        until(lambda: len(pending(daemon)) == 2)
        assert process.stop() == 0, process.stderr
        assert len(pending(daemon)) == 2
