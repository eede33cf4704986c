"""A daemon that is told to heed its changed configuration: only what changed restarts, and nothing is lost by it."""

import json
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poller.sandbox import Customer
from tests.commands import Ended, poller

from .environment import Environment, environment, until
from .rig import Process, Scenario, scenario, webhook

PATH = "/platform/q7Zt0mWn4vXkE2cLsB9dYr"
KEY = "0cc175b9c0f1b6a831c399e269772661"


def changed(daemon: Scenario, change: Callable[[dict[str, Any]], object]) -> None:
    """Write another configuration."""
    settings = json.loads(daemon.config.read_text())
    change(settings)
    daemon.config.write_text(json.dumps(settings))


def reload(daemon: Scenario, *words: str) -> Ended:
    return poller("reload", "-c", str(daemon.config), *words, folder=daemon.config.parent)


def hang_up(process: Process, times: int = 1) -> None:
    """SIGHUP, and wait until it is heeded or refused."""
    process.signal(signal.SIGHUP)
    until(lambda: len(process.said("reloaded") + process.said("reload_refused")) == times)


def flowing(place: Environment, count: int) -> None:
    """More messages, and wait until the daemon has taken them."""
    place.enqueue(count)
    until(lambda: place.depth == 0)


def test_only_what_changed_restarts_and_every_event_arrives_once(tmp_path: Path) -> None:
    with environment(tmp_path, ("hook", "other", "third")) as place:
        sinks = {name: webhook(place, name) for name in ("hook", "other")}
        with scenario(place, tmp_path, sinks=sinks) as daemon:
            process = daemon.run()
            for turn in range(1, 6):
                place.enqueue(400)
                changed(daemon, lambda new, turn=turn: new["sinks"]["hook"].update(concurrency=turn + 1))  # type: ignore[misc]
                hang_up(process, turn)
                assert process.said("reloading")[-1]["plan"] == ["sink hook: restart"]
            flowing(place, 100)
            until(
                lambda: place.hook.files.total() == 2100
            )  # else the new sink gets what is still in the queue
            changed(daemon, lambda new: new["sinks"].update(third=webhook(place, "third")))
            shown = reload(daemon, "--json")
            assert shown.returncode == 0, shown.stderr
            assert json.loads(shown.stdout) == {"changes": ["sink third: start"], "done": True}
            flowing(place, 300)
            changed(daemon, lambda new: new["sinks"].pop("other"))
            until(lambda: place.receivers["other"].files.total() == 2400)
            hang_up(process, 7)
            flowing(place, 200)
            until(lambda: place.hook.files.total() == 2600 and process.metric("backlog_events") == 0)
            assert 'sink="other"' not in process.get("/metrics")[1].partition("backlog_events")[2][:500]
            assert process.stop() == 0, process.stderr
            assert len(process.said("running")) == 1
            spooled = daemon.books().spooled
            assert len(spooled) == 5 * 400 + 100 + 300 + 200
            assert place.hook.files == Counter(spooled)
            assert place.receivers["other"].files == Counter(spooled[:-200])
            assert place.receivers["third"].files == Counter(spooled[-500:])


def test_a_bad_file_changes_nothing_and_says_why(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        good = daemon.config.read_text()
        changed(daemon, lambda new: new["sinks"]["hook"].update(url="nonsense", concurency=3))
        hang_up(process)
        (refused,) = process.said("reload_refused")
        assert "sinks.hook.url" in refused["reason"]
        assert "did you mean concurrency" in refused["reason"]
        assert process.said("reloading") == []
        shown = reload(daemon)
        assert shown.returncode == 78
        assert "did you mean concurrency" in shown.stderr
        flowing(place, 50)
        until(lambda: place.hook.files.total() == 50)
        daemon.config.write_text(good)
        assert json.loads(reload(daemon, "--json").stdout) == {"changes": [], "done": True}
        assert process.stop() == 0


def test_a_dry_run_only_says_what_would_change(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()

        def change(new: dict[str, Any]) -> None:
            new["sinks"]["hook"]["timeout"] = "5s"
            new["spool"]["retain"] = "2d"

        changed(daemon, change)
        shown = reload(daemon, "--dry-run")
        assert shown.returncode == 0, shown.stderr
        assert "sink hook: restart" in shown.stdout
        assert "spool: changed, needs a restart of the daemon" in shown.stdout
        assert process.said("reloading") == []
        assert process.stop() == 0
        assert reload(daemon).returncode == 1, "no daemon runs"


def test_sources_come_go_and_take_their_accounts_change(tmp_path: Path) -> None:
    other = Customer(app_id=5678, key="7d793037a0760186574b0282f2f435e7", bucket="other", biz_id=8888)
    key_file = tmp_path / "key"
    key_file.write_text("wrong" * 8)
    pushed = {"type": "callbacks", "account": "main", "listen": "127.0.0.1:0", "path": PATH, "key": KEY}
    with environment(tmp_path, customers=(Customer(), other)) as place:
        account = {"app_id": other.app_id, "key_file": str(key_file), "cos": {"base_url": place.pictures}}
        with scenario(place, tmp_path) as daemon:
            process = daemon.run()
            changed(
                daemon,
                lambda new: (
                    new["accounts"].update(second={**account, "endpoint": place.endpoint, "rate": "100/s"}),
                    new["sources"].update(
                        more={**new["sources"]["shots"], "account": "second"}, pushed=pushed
                    ),
                ),
            )
            hang_up(process)
            until(lambda: process.said("receiving"))
            port = int(process.said("receiving")[0]["at"].rpartition(":")[2])
            until(lambda: process.metric("polls_total", source="more", outcome="refused") > 0)
            place.ask(lambda: place.sandbox.platform.queue(other.app_id).enqueue_raw(b'{"pic_url": "a.jpg"}'))
            key_file.write_text(other.key)
            assert "account second: changed" in reload(daemon).stdout
            until(lambda: "a.jpg" in place.hook.files)
            changed(daemon, lambda new: new["sources"].pop("pushed"))
            hang_up(process, 3)
            with socket.socket() as gone:
                assert gone.connect_ex(("127.0.0.1", port)) != 0
            assert process.get("/readyz")[0] == 200, process.get("/readyz")
            assert process.stop() == 0, process.stderr


def test_a_part_that_cannot_be_opened_goes_on_as_it_was(tmp_path: Path) -> None:
    pushed = {"type": "callbacks", "account": "main", "path": PATH, "key": KEY, "listen": "127.0.0.1:0"}
    with environment(tmp_path) as place, socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = f"127.0.0.1:{taken.getsockname()[1]}"
        shots = {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "50ms"}
        with scenario(place, tmp_path, sources={"shots": shots, "pushed": pushed}) as daemon:
            process = daemon.run()
            until(lambda: process.said("receiving"))

            def change(new: dict[str, Any]) -> None:
                new["sources"]["pushed"]["listen"] = in_use
                new["sinks"]["hook"]["timeout"] = "7s"

            changed(daemon, change)
            hang_up(process)
            (failed,) = process.said("reload_failed")
            assert (failed["part"], failed["outcome"]) == ("source pushed", "goes on as it was")
            until(lambda: len(process.said("receiving")) == 2)
            assert not process.said("receiving")[1]["at"].endswith(in_use.rpartition(":")[2])
            flowing(place, 20)
            until(lambda: place.hook.files.total() == 20)
            assert reload(daemon, "--dry-run").stdout == "source pushed: restart\n", "it is still wanted"
            taken.close()
            changed(daemon, lambda new: new["sources"].update(also={**new["sources"].pop("pushed")}))
            hang_up(process, 2)
            until(lambda: len(process.said("receiving")) == 3)
            assert process.said("receiving")[2]["at"] == in_use
            assert process.stop() == 0, process.stderr


def test_a_stop_in_the_midst_of_a_reload_loses_nothing(tmp_path: Path) -> None:
    """A receiver that hangs is given up soon: two signals at once may be heard as one."""
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=_both(place)) as daemon:
        for turn in range(6):
            place.turn("hang" if turn % 2 else 200)
            process = daemon.run()
            place.enqueue(300)
            changed(daemon, lambda new, turn=turn: new["sources"]["shots"].update(count=10 + turn))  # type: ignore[misc]
            changed(daemon, lambda new, turn=turn: new["sinks"]["hook"].update(concurrency=1 + turn))  # type: ignore[misc]
            process.signal(signal.SIGHUP)
            if turn % 3:
                until(lambda process=process: process.said("reloading"))  # type: ignore[misc]
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGTERM)
            assert process.wait() == 0, process.stderr
        place.turn(200)
        assert daemon.drain() == 0
        books = daemon.books()
        assert len(books.removed) == 1800
        assert books.lost() == []
        assert set(place.hook.files) == set(books.spooled)


def _both(place: Environment) -> dict[str, Any]:
    return {"console": {"type": "stdout"}, "hook": webhook(place, timeout="2s")}
