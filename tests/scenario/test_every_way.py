"""Every way in at once: two live streams, seen by the queue, the callbacks, the lists and the states, with faults."""

import json
import sqlite3
import urllib.request
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest

from poller.sandbox import Answers, Customer, read_notified
from poller.sandbox.media.recordings import Recording
from poller.sandbox.options import Year

from .environment import PATIENCE, Environment, environment, until
from .rig import scenario

CALLBACK_KEY = "0cc175b9c0f1b6a831c399e269772661"
PATH = "/platform/q7Zt0mWn4vXkE2cLsB9dYr"
STREAMS = ("live_1", "live_2")
FAULTS = ("out_of_order", "stale", "unsigned", "wrong_sign", "replay", "twice")
"""All that the platform makes good by itself; `late` only takes longer, and `lost` is ordered: other ways tell it."""
LOST = 3
VOD = {"vod": {"biz_id": Customer().biz_id}}
"""So that a segment of which a list names only the `vid` has a URL."""
SOURCES = {
    "shots": {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "50ms"},
    "pushed": {
        "type": "callbacks",
        "account": "main",
        "listen": "127.0.0.1:0",
        "path": PATH,
        "key": CALLBACK_KEY,
    },
    "states": {"type": "channel_status", "account": "main", "follow": "seen", "interval": "200ms"},
    "tapes": {
        "type": "recordings",
        "account": "main",
        "follow": "seen",
        "after_end": ["100ms", "200ms", "400ms", "1s"],
        "while_live": "1s",
        "rate": "100/s",
    },
}


def spooled(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The events in the spool's file, oldest first, by kind."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as spool:
        for (events,) in spool.execute("SELECT events FROM page ORDER BY first"):
            for line in events.split(b"\n"):
                event = json.loads(line)
                found[event["type"].rpartition(".")[2]].append(event)
    return found


def order(place: Environment, verb: str, wish: dict[str, Any]) -> None:
    url = f"{place.sandbox.endpoints['control']}/{verb}"
    request = urllib.request.Request(url, json.dumps(wish).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=PATIENCE).close()


def waiting(place: Environment) -> int:
    """Notifications not answered yet."""
    line = place.sandbox.callbacks.line(Customer().app_id)
    return line.state()["waiting"]


def segments(place: Environment, stream: str) -> list[Recording]:
    """What was recorded of a stream."""
    page = place.sandbox.recordings.page
    return place.ask(lambda: page(Customer().app_id, stream, offset=0, limit=100)[1])


@pytest.mark.parametrize("era", ["2016", "today"])
def test_what_happens_on_the_platform_is_reported_once_whichever_way_it_came(
    tmp_path: Path, era: Year, soak: bool
) -> None:
    """Lists of 2016 name a segment by its `vid` alone, notifications by its `file_id` too."""
    if era == "today" and not soak:
        pytest.skip("the other era runs with --soak")
    rows: Literal["spec", "later"] = "spec" if era == "2016" else "later"
    customer = Customer(callback_url="http://127.0.0.1:9/", callback_key=CALLBACK_KEY)
    with (
        environment(
            tmp_path,
            customers=(customer,),
            interval=1.0,
            segment=4.0,
            answers=Answers(fields="create_time", rows=rows, callbacks=era),
            callback_faults=dict.fromkeys(FAULTS, 0.08),
            callback_pace=0.002,
            seed=4,
        ) as place,
        scenario(
            place, tmp_path, account=VOD, sources=SOURCES, sinks={"console": {"type": "stdout"}}
        ) as daemon,
    ):
        process = daemon.run()
        until(lambda: process.said("receiving"))
        order(place, "callbacks", {"url": f"http://{process.said('receiving')[0]['at']}{PATH}"})
        place.ask(lambda: place.sandbox.faults["callback"].order("lost", LOST))
        order(place, "streams", {"start": list(STREAMS)})
        until(lambda: place.depth == 0 and len(spooled(daemon.spool_file)["screenshot"]) >= 16)
        until(lambda: all(len(segments(place, name)) >= 2 for name in STREAMS))
        # The starts were lost: the states tell them, from the next look at the catalogue on.
        until(lambda: {one["subject"] for one in spooled(daemon.spool_file)["channel"]} == set(STREAMS))
        # What is out of order waits for a next one.
        order(place, "faults", {"target": "callback", "rates": {}})
        order(place, "streams", {"stop": list(STREAMS)})
        until(lambda: waiting(place) == 0, what="for every notification to be answered")
        recorded = {one.vid for name in STREAMS for one in segments(place, name)}
        until(lambda: {one["data"]["vid"] for one in spooled(daemon.spool_file)["recording"]} == recorded)
        until(lambda: place.depth == 0 and process.metric("backlog_events") == 0)
        fired = place.sandbox.faults["callback"].fired
        refused = process.metric("callbacks_total", outcome="refused_signature")
        assert process.stop() == 0, process.stderr
        events = spooled(daemon.spool_file)

        answered = read_notified(tmp_path / "platform")
        pictures = {one.path for one in answered if one.event_type == 200}
        removed = {one.path for one in place.oracle.removed()}
        names = [event["data"]["file_name"] for event in events["screenshot"]]
        assert len(set(names)) == len(names) >= 16
        assert set(names) == removed >= pictures
        assert fired.total() > 5
        assert fired["lost"] == LOST, "what they told came by the queue, the lists and the states"
        assert refused > 0

        tapes = [event["data"]["vid"] for event in events["recording"]]
        assert len(set(tapes)) == len(tapes) >= 4
        assert set(tapes) == recorded
        assert all(event["data"]["url"] for event in events["recording"])

        for name in STREAMS:
            states = [
                event["data"]["state"] for event in sorted(events["channel"], key=lambda event: event["time"])
                if event["subject"] == name
            ]  # fmt: skip
            assert states == ["live", "interrupted"], events["channel"]
        assert not events["other"]
        ids = Counter(event["id"] for kind in events.values() for event in kind)
        assert set(ids.values()) == {1}
