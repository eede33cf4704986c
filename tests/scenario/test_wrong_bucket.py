"""A mistake in `cos` is never final: once it is corrected, a retry of the dead letters brings every picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poller.sandbox import Customer

from .environment import Environment, environment, until
from .rig import Process, Scenario, scenario, webhook
from .test_operate import rows
from .test_reload import changed, hang_up

WRONG = "http://wrong-1.file.myqcloud.com/"
COUNT = 40


def archive(folder: Path, **more: Any) -> dict[str, Any]:
    """A download sink that may fetch from the town's store."""
    return {
        "type": "download",
        "directory": str(folder / "pictures"),
        "allow_cidr": ["127.0.0.0/8"],
        "allow_hosts": ["127.0.0.1"],
        **more,
    }


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "pictures").rglob("*.jpg")}


def right(place: Environment) -> Callable[[dict[str, Any]], object]:
    return lambda new: new["accounts"]["main"].update(cos={"base_url": place.pictures})


def dead_pictures(daemon: Scenario, place: Environment) -> Process:
    """A daemon to which every picture became a dead letter."""
    process = daemon.run()
    place.enqueue(COUNT, pictures=True)
    until(lambda: process.metric("dead_letters", sink="archive") == COUNT, what="for dead letters")
    (reason,) = {row["reason"] for row in rows(daemon, "dead", "list", "--sink", "archive")}
    assert "not among the hosts" in reason
    assert "retry this dead letter" in reason
    return process


@pytest.mark.parametrize("spool", ["sqlite", "memory"])
@pytest.mark.parametrize("order", ["none", "stream"])
def test_pictures_of_a_wrongly_named_bucket_are_stored_after_a_reload_and_a_retry(
    tmp_path: Path, spool: str, order: str
) -> None:
    kept = {"type": spool, "path": str(tmp_path / "spool.db")}
    with environment(tmp_path) as place:
        sinks = {"archive": archive(tmp_path, order=order)}
        account = {"cos": {"base_url": WRONG}}
        with scenario(place, tmp_path, sinks=sinks, account=account, spool=kept) as daemon:
            if spool == "memory":
                changed(daemon, lambda new: new["spool"].pop("path"))
            process = dead_pictures(daemon, place)
            changed(daemon, right(place))
            hang_up(process)
            assert rows(daemon, "dead", "retry", "--all")[0]["retried"] == COUNT
            until(lambda: len(names(tmp_path)) == COUNT, what="for the pictures")
            until(lambda: process.metric("backlog_events", sink="archive") == 0)
            assert process.metric("dead_letters", sink="archive") == 0
            assert process.stop() == 0


def test_pictures_of_a_wrongly_named_bucket_are_stored_after_a_retry_on_the_file_of_a_stopped_daemon(
    tmp_path: Path,
) -> None:
    with environment(tmp_path) as place:
        sinks = {"archive": archive(tmp_path)}
        with scenario(place, tmp_path, sinks=sinks, account={"cos": {"base_url": WRONG}}) as daemon:
            assert dead_pictures(daemon, place).stop() == 0
            changed(daemon, right(place))
            assert rows(daemon, "dead", "retry", "--all")[0]["retried"] == COUNT
            process = daemon.run()
            until(lambda: len(names(tmp_path)) == COUNT, what="for the pictures")
            assert process.stop() == 0


def test_a_webhook_gets_the_right_url_of_an_event_that_had_none(tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        sinks = {"hook": webhook(place)}
        with scenario(place, tmp_path, sinks=sinks, account={"cos": None}) as daemon:
            place.turn(422)
            process = daemon.run()
            place.enqueue(COUNT, pictures=True)
            until(lambda: process.metric("dead_letters", sink="hook") == COUNT, what="for dead letters")
            (shown,) = rows(daemon, "dead", "show", rows(daemon, "dead", "list", "--limit", "1")[0]["id"])
            assert shown["event"]["data"]["url"] is None
            changed(daemon, right(place))
            hang_up(process)
            place.turn(503)
            assert rows(daemon, "dead", "retry", "--all")[0]["retried"] == COUNT
            place.turn(200)
            until(lambda: place.hook.files.total() == COUNT)
            urls = place.hook.urls
            assert {urls[name] for name in urls} == {f"{place.pictures}/{name}" for name in urls}
            assert process.stop() == 0


@pytest.mark.soak
def test_pictures_that_a_bucket_does_not_hold_are_fetched_from_the_right_one(tmp_path: Path) -> None:
    """The bucket is there and answers 404: after 45 s each picture is a dead letter."""
    bucket = Customer().host_label
    with environment(tmp_path) as place:
        wrong = place.pictures.replace(bucket, "wrong-1250000000")
        sinks = {"archive": archive(tmp_path)}
        with scenario(place, tmp_path, sinks=sinks, account={"cos": {"base_url": wrong}}) as daemon:
            process = daemon.run()
            place.enqueue(COUNT, pictures=True)
            until(lambda: process.metric("dead_letters", sink="archive") == COUNT, 90, "for dead letters")
            changed(daemon, right(place))
            hang_up(process)
            assert rows(daemon, "dead", "retry", "--all")[0]["retried"] == COUNT
            until(lambda: len(names(tmp_path)) == COUNT, what="for the pictures")
            assert process.stop() == 0
