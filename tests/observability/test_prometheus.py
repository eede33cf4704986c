"""A real Prometheus scrapes a real daemon, and every panel and every rule gets an answer."""

import json
import math
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from poller.cli.demo import CONFIGURATION, KEY
from poller.sandbox import Customer
from tests.scenario.environment import PATIENCE, Environment, environment, until
from tests.scenario.rig import Process, scenario, webhook

from .expressions import filled_in, queries, rules, selectors
from .server import Prometheus, prometheus, scrape_configuration

STREAMS: Final = ("live_1", "live_2")
PATH: Final = "q7Zt0mWn4vXkE2cLsB9dYr"
TOKEN: Final = "a-token-of-the-test"
FIRING: Final = {"PollerMayHaveLost", "PollerPicturesMissing", "PollerDeadLetters", "PollerQuarantine"}
PENDING: Final = {"PollerSinkPaused", "PollerNotReady"}
"""The alarms for which the test makes the reason; the pending ones want it to last for minutes."""


def order(place: Environment, verb: str, wish: dict[str, Any]) -> None:
    """Tell the sandbox's control port."""
    url = f"{place.sandbox.endpoints['control']}/{verb}"
    request = urllib.request.Request(url, json.dumps(wish).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=PATIENCE).close()


def configured() -> dict[str, Any]:
    """The configuration of `poller demo`; the places that its sources and sinks do not name stay empty."""
    found = yaml.safe_load(CONFIGURATION.format_map(defaultdict(str, port=0, path=PATH, key=KEY)))
    assert isinstance(found, dict)
    return found


@contextmanager
def demo(folder: Path) -> Iterator[tuple[Environment, Process]]:
    """The sources and sinks of `poller demo` beside live streams, and a webhook; the metrics need a token."""
    customer = Customer(callback_url="http://127.0.0.1:9/", callback_key=KEY)
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with environment(folder, customers=(customer,), interval=1.0, silence=1.0, callback_pace=0.01) as place:
        parts = configured()
        with scenario(
            place,
            folder / "daemon",
            account={"audit": {"enabled": True, "settle": "3s"}, "vod": {"biz_id": customer.biz_id}},
            sources={name: {**one, "account": "main"} for name, one in parts["sources"].items()},
            sinks={**parts["sinks"], "hook": webhook(place, only={"kinds": ["screenshot"]})},
            admin={"listen": "127.0.0.1:0", "token_file": str(token)},
        ) as daemon:
            process = daemon.run()
            address = process.heard("receiving")[0]["at"]
            order(place, "callbacks", {"url": f"http://{address}/{PATH}"})
            order(place, "streams", {"start": list(STREAMS)})
            yield place, process


def make_trouble(place: Environment, server: Prometheus) -> None:
    """Lost answers, a message that cannot be read, a receiver that refuses pictures and then fails altogether."""
    order(place, "enqueue", {"poison": ["no_url"]})
    until(lambda: sum(server.values("poller_quarantined_total")) > 0, what="for a message in quarantine")
    place.turn(422)

    broken = time.monotonic()

    def missed() -> bool:
        """Now and then an answer with a picture breaks, until the audit has found one that is missing."""
        nonlocal broken
        if time.monotonic() - broken > 2.5 and place.depth:
            place.order("close")
            broken = time.monotonic()
        return sum(server.values("poller_gap_pictures_total")) > 0

    order(place, "callbacks", {"url": "http://127.0.0.1:9/"})
    until(missed, 2 * PATIENCE, "for a missing picture")
    place.ask(place.sandbox.faults["api"].clear)
    until(lambda: sum(server.values("poller_dead_letters")) > 0, what="for a dead letter")
    place.turn(500)


# ---------------------------------------------------------------- the panels and the rules


def unanswered(server: Prometheus) -> list[tuple[str, str]]:
    """The panels' expressions that give nothing, or nothing but NaN."""
    return [
        (title, expr)
        for title, expr in queries()
        if not any(not math.isnan(value) for value in server.values(filled_in(expr)))
    ]


def missing(server: Prometheus) -> set[str]:
    """What the rules select and is not there. A rule that does not fire gives nothing itself, which is right."""
    asked = {one.text for rule in rules() for one in selectors(rule["expr"]) if one.name != "ALERTS"}
    return {text for text in asked if not server.values(text)}


def alerts(server: Prometheus) -> dict[str, list[str]]:
    """The states of all pending and firing alerts, by name."""
    found: dict[str, list[str]] = {}
    for one in server.ask("alerts")["alerts"]:
        found.setdefault(one["labels"]["alertname"], []).append(one["state"])
    return found


def texts(server: Prometheus) -> list[str]:
    """What the alerts say, as Prometheus has filled it in."""
    return [text for one in server.ask("alerts")["alerts"] for text in one["annotations"].values()]


def test_every_panel_and_every_rule_has_data_and_troubles_become_alerts(tmp_path: Path) -> None:
    with demo(tmp_path) as (place, process):
        target = f"127.0.0.1:{process.heard('admin_listens')[0]['port']}"
        configuration = scrape_configuration(target, token_file=tmp_path / "token")
        with prometheus(tmp_path / "prometheus", configuration) as server:
            until(lambda: server.values('up{job="poller"}') == [1.0], what="for a scrape")
            until(lambda: unanswered(server) == [], what="for every panel to have data")
            assert missing(server) == set()
            assert [rule["health"] for group in server.ask("rules")["groups"] for rule in group["rules"]] == [
                "ok" for _ in rules()
            ]
            until(lambda: alerts(server) == {}, what="for a daemon without alerts")
            make_trouble(place, server)
            until(
                lambda: {name for name, states in alerts(server).items() if "firing" in states} >= FIRING,
                what="for alerts that fire",
            )
            until(lambda: alerts(server).keys() >= PENDING, what="for alerts that wait")
            assert sum(server.values('count(ALERTS{alertname=~"Poller.+", alertstate="firing"})')) >= len(
                FIRING
            )
            assert [
                text for text in texts(server) if "<error" in text or "<no value>" in text or TOKEN in text
            ] == []
            assert unanswered(server) == []


def test_a_daemon_that_ends_is_down(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path / "daemon") as daemon:
        process = daemon.run()
        target = f"127.0.0.1:{process.heard('admin_listens')[0]['port']}"
        with prometheus(tmp_path / "prometheus", scrape_configuration(target)) as server:
            until(lambda: server.values('up{job="poller"}') == [1.0], what="for a scrape")
            assert process.stop() == 0
            until(lambda: "PollerDown" in alerts(server), what="for the alert")
