"""The guide's five minutes with two daemons: its configuration and its commands, beside a real PostgreSQL."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.ports import lasting_port
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import dsn_of, owed_by, schema_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

GUIDE: Final = Path(__file__).parents[2] / "docs" / "guide" / "several-daemons.md"
CONFIGURATION: Final = re.compile(r"^<!-- configuration -->\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS: Final = re.compile(r"^<!-- beside a database -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT: Final = 120.0
WAITS: Final = {
    10: "[ -s one/events ]",
    15: "grep -q source_stands_by two/log && [ -s two/events ]",
    8: "grep -q source_taken_over two/log",
    5: "grep -q source_stands_by one/log",
}
"""What has come about when the guide has slept for so many seconds: the test waits for it, on a crowded machine too."""
SLEEP: Final = "sleep() { while true; do case $1 in %s esac && return; command sleep 0.5; done; }\n"


def moved(text: str, ports: dict[str, str]) -> str:
    """The text with other ports: the guide's own may be in use here."""
    return re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[found[1]]}", text)


def events(folder: Path) -> list[str]:
    """The ids of the events that a daemon printed. What a kill cut is left out."""
    lines = (folder / "events").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines if line.endswith("}")]


def log(folder: Path) -> list[dict[str, Any]]:
    """What a daemon wrote to its log."""
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_two_daemons_share_a_spool_as_the_guide_has_it(tmp_path: Path, database: Database) -> None:
    text = GUIDE.read_text()
    (configuration,), commands = CONFIGURATION.findall(text), COMMANDS.findall(text)
    ports = {port: str(lasting_port()) for port in ("8080", "8081")}
    spool = f'dsn: "{dsn_of(database)}", schema: {schema_of(tmp_path)}'
    found, count = re.subn(r'dsn: "[^"]*"', spool, moved(configuration, {**ports, "5432": "5432"}))
    assert count == 1
    (tmp_path / "shared.yaml").write_text(found)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    assert len(commands) == 2
    assert [
        int(found) for part in commands for found in re.findall(r"^sleep (\d+) ", part, re.MULTILINE)
    ] == [*WAITS]
    sleep = SLEEP % " ".join(f"{seconds}) {condition} ;;" for seconds, condition in WAITS.items())
    done = subprocess.run(
        ["bash", "-uc", sleep + "".join(moved(part, ports) for part in commands)],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    both, alone = done.stdout.split("one/events")
    assert len(re.findall(r"^\d+: .*source:screenshots", both, re.MULTILINE)) == 1, said
    assert len(re.findall(r"^\d+ (?:\(here\) )? +\S+, process \d+", both, re.MULTILINE)) == 2, said
    assert len(re.findall(r"^\d+ (?:\(here\) )? +\S+, process \d+", alone, re.MULTILINE)) == 1, said
    one, two = (tmp_path / name for name in ("one", "two"))
    assert [line["event"] for line in log(two) if line["event"] in ("source_taken_over", "stopped")] == [
        "source_taken_over",
        "stopped",
    ]
    assert [line["event"] for line in log(one)].count("running") == 2
    printed = Counter(events(one) + events(two))
    assert events(one)
    assert events(two)
    stored = database.ask_now(f"SELECT sum(last - first + 1)::bigint FROM {schema_of(tmp_path)}.page")
    assert len(printed) + owed_by(database, tmp_path) == stored[0][0]  # the last poll may come amid the stop
