"""What an operator sees of sinks that cannot deliver: the log, `status`, the dead letters, and `check --connect`.

The daemon runs with several sinks, each wrong in another way, at a terminal of 80 columns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.commands import poller
from tests.scenario.environment import environment, until
from tests.scenario.rig import scenario

SECRET: Final = "canary-sink-5e1b9c"
"""The password of the settings, which is given by `${CANARY_SINK}`. No server accepts it."""
WIDTH: Final = 80
SIGNS: Final = ("Traceback", "Error(", "0x7f")
"""What no text for operators holds."""


class Case(NamedTuple):
    """A sink that cannot deliver, the reason that is to be read everywhere, and what `check --connect` says of it."""

    settings: Mapping[str, Any]
    reason: str
    checked: str


CLOSED: Final = "cannot connect: no server answers"
REFUSED: Final = "cannot connect: the server refuses the login: check user and password"


def cases(
    right: Mapping[str, Any],
    nobody: Mapping[str, Any],
    login: Mapping[str, Any],
    missing: tuple[Mapping[str, Any], str, str],
) -> dict[str, Case]:
    """The three faults that every server has, by the sink's name: a closed port, a wrong password, no destination."""
    settings, reason, checked = missing
    return {
        "unheard": Case({**right, **nobody}, CLOSED, CLOSED),
        "stranger": Case({**right, **login, "password": "${CANARY_SINK}"}, REFUSED, REFUSED),
        "homeless": Case({**right, **settings}, reason, checked),
    }


def check_report(folder: Path, cases: Mapping[str, Case]) -> None:
    """Run the daemon with these sinks until each has a dead letter, and read what an operator reads.

    Asserts that each sink is named everywhere with its reason, that no secret is found anywhere, also not in the
    daemon's files, and that no text is one for developers.
    """
    found = _report(folder, {name: case.settings for name, case in cases.items()})
    for name, case in cases.items():
        for place in ("log", "status", "dead"):
            lines = [line for line in found[place].splitlines() if name in line]
            assert any(case.reason in line for line in lines), (place, name, found[place][-3000:])
        assert f"sink {name}: {case.checked}" in found["check"]
    assert [place for place, text in found.items() if SECRET in text] == []
    read = "".join(found[place] for place in ("log", "status", "dead", "check"))
    assert [sign for sign in SIGNS if sign in read] == []
    assert '"library_error"' not in found["log"]


def _report(folder: Path, sinks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What is read, by its place, and the daemon's files by their paths."""
    terms = {"start": "earliest", "give_up_after": "500ms", "concurrency": 1, "timeout": "15s"}
    given = {name: {**sink, **terms} for name, sink in sinks.items()}
    with (
        environment(folder) as place,
        scenario(place, folder / "daemon", sinks=given, log={"level": "debug", "format": "json"}) as daemon,
    ):
        place.enqueue(3)
        process = daemon.start(CANARY_SINK=SECRET)
        process.until_running()
        until(
            lambda: {str(one["sink"]) for one in process.said("dead_letter")} == set(sinks),
            what="for a dead letter of each sink",
        )

        def asked(*words: str) -> str:
            ended = poller(*words, "-c", str(daemon.config), COLUMNS=str(WIDTH), CANARY_SINK=SECRET)
            return ended.stdout + ended.stderr

        found = {"status": asked("status"), "dead": asked("dead", "list")}
        assert process.stop() == 0, process.stderr[-3000:]
        found |= {"check": asked("check", "--connect"), "log": process.stderr}
        files = [file for file in (folder / "daemon").rglob("*") if file.is_file()]
        return found | {
            str(file): file.read_bytes().replace(b"\0", b"").decode(errors="replace") for file in files
        }
