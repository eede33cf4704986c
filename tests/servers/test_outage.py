"""What operators see of a shared spool in a real PostgreSQL: an outage, the other daemons, and sinks that wait."""

import json
import re
from pathlib import Path
from typing import Any, Final

from tests import commands
from tests.scenario.environment import until
from tests.scenario.rig import Scenario
from tests.scenario.test_operate import poller, rows, sink
from tests.servers.databases import Database, database, started
from tests.servers.machines import POLLING, Machines, machines, no_bug, standing_by
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

SINCE: Final = r"the database is away since \d{4}-\d\d-\d\d.\d\d:\d\d:\d\dZ?: "
ASKS_THE_SPOOL: Final = (("events",), ("streams",), ("dead", "list"), ("audit",), ("pause", "hook"))


def status(machine: Scenario) -> dict[str, Any]:
    return dict(rows(machine, "status")[0])


def shown(machine: Scenario) -> str:
    """`poller status`, as a terminal of 80 columns gets it."""
    return commands.poller("status", "-c", str(machine.config), folder=machine.folder, COLUMNS="80").stdout


def test_while_the_database_is_away_status_answers_from_memory_and_other_commands_say_since_when(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 1) as shared:
        machine, process = shared[0], shared[0].run()
        shared.place.turn(503)
        shared.place.enqueue(10)
        shared.stored(10)
        until(lambda: sink(machine)["backlog"] == 10)
        database.kill()
        until(lambda: status(machine)["away"], what="for the outage")
        process.heard("lease_not_proven")
        found = status(machine)
        assert (found["running"], found["ready"], found["members"]) == (True, False, [])
        assert (found["sinks"][0]["backlog"], found["sources"][0]["taken"]) == (10, 10)
        assert found["journal"]["bytes"] >= 0
        assert found["away"]["known_at"] <= found["away"]["since"]
        assert [one for one in found["reasons"] if re.match(f"spool: {SINCE}", one)]
        spool_said = [line for line in process.get("/readyz")[1].splitlines() if "spool: " in line]
        assert re.search(SINCE, "".join(spool_said))
        text = shown(machine)
        assert re.search(f"not ready: spool: {SINCE}", text)
        assert re.search(r"note: counts are from \d{4}-", text)
        for words in ASKS_THE_SPOOL:
            (line,) = poller(machine, *words, code=1).stderr.splitlines()
            assert re.match(f"poller: {SINCE}", line), line
            assert "The daemon lives, and tries again until the database answers" in line
        database.start()
        until(lambda: not status(machine)["away"], what="for the database")
        shared.place.turn(200)
        shared.all_arrived(10)
        assert process.stop() == 0
        no_bug(process)


def test_a_machine_without_a_daemon_says_that_others_share_the_spool(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2) as shared:
        idle, busy = shared.all
        process = busy.run()
        until(lambda: shared.holder(POLLING))
        found = status(idle)
        polls = f"polled by daemon {found['members'][0]['number']} ({shared.holder(POLLING)})"
        assert (found["sources"][0]["state"], found["sources"][0]["polled_by"]) == ("elsewhere", polls)
        assert sink(idle)["state"] == "elsewhere"
        assert "daemon  not running on this machine; 1 other shares the spool" in shown(idle)
        for words in (("tap",), ("events", "--follow"), ("pages",), ("reload",)):
            said = poller(idle, *words, code=1).stderr
            assert "no daemon runs on this machine, and 1 other shares the spool" in said, words
        assert process.stop() == 0
        assert "not running, version" in shown(idle)
        assert sink(idle)["state"] == "stopped"
        assert "poller: no daemon runs, so no events come" in poller(idle, "tap", code=1).stderr


def lanes(machine: Scenario, count: int) -> None:
    """Give a machine's sink another number of lanes, and let its daemon reload."""
    settings = json.loads(machine.config.read_text())
    settings["sinks"]["hook"]["lanes"] = count
    machine.config.write_text(json.dumps(settings))
    poller(machine, "reload")


def test_a_sink_that_waits_until_other_daemons_have_its_lanes_says_so(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 2, sink={"order": "stream", "lanes": 2}) as shared:
        first, second = shared.polling(0), standing_by(shared[1].run())
        until(lambda: served(shared) == 2, what="for both daemons")
        lanes(shared[0], 4)
        until(lambda: sink(shared[0])["state"] == "waiting", what="for the wait")
        found = status(shared[0])
        (other,) = [one["number"] for one in found["members"] if not one["here"]]
        waits = f"waits until daemon {other} has lanes: 4"
        assert found["sinks"][0]["why"] == waits
        assert f"sink hook: {waits}" in found["notes"]
        (line,) = first.said("sink_waits")
        assert (line["sink"], line["reason"]) == ("hook", waits)
        lanes(shared[1], 4)
        for machine in shared.all:
            until(lambda: sink(machine)["state"] == "serving", what="for the new lanes")  # noqa: B023
        shared.place.enqueue(40)
        shared.all_arrived(40)
        assert len(first.said("sink_waits")) == 1, "it is said once"
        assert [first.stop(), second.stop()] == [0, 0]


def served(shared: Machines) -> int:
    """By how many daemons the sink is served."""
    found = shared.server.ask_now(f"SELECT count(*) FROM {shared.schema}.attached WHERE serves")
    return int(found[0][0])


def test_a_missing_standby_is_said_by_daemons_and_the_check_and_by_no_other_command(
    tmp_path: Path, database: Database
) -> None:
    with machines(database, tmp_path, 1) as shared:
        process = shared[0].run()
        assert process.stop() == 0
        assert len(process.said("standby_missing")) == 1
        for words in (("status",), ("dead", "list"), ("pause", "hook")):
            assert "standby_missing" not in poller(shared[0], *words).stderr
        checked = commands.poller(
            "check", "--connect", "-c", str(shared[0].config), folder=shared[0].folder
        ).stderr
        assert checked.count("standby_missing") == 1
