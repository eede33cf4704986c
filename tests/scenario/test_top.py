"""`poller top` on a real terminal, beside a running daemon."""

import os
import signal
from pathlib import Path

import pytest

from tests import commands
from tests.terminal import Terminal, terminal

from .environment import environment, until
from .rig import scenario, webhook

TICK = os.sysconf("SC_CLK_TCK")


def cpu(process: int) -> float:
    """The seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def names(top: Terminal, heading: str) -> list[str]:
    """The first words of the lines below a heading."""
    lines = top.picture.lines
    place = next(
        number
        for number, line in enumerate(lines)
        if line.split()[:1] == [heading] and "state" in line.split()
    )
    below = lines[place + 1 :]
    end = next((number for number, line in enumerate(below) if not line), len(below))
    return [line.split()[0] for line in below[:end]]


def test_top_shows_sources_spool_and_sinks_and_obeys_keys(tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        sinks = {name: webhook(place) for name in ("archive", "hook", "zebra")}
        with scenario(place, tmp_path, sinks=sinks) as daemon:
            process = daemon.run()
            commands.poller("pause", "hook", "-c", str(daemon.config), folder=tmp_path)
            place.enqueue(300)
            until(lambda: place.hook.files.total() == 600, what="for the deliveries to two sinks")
            with terminal("top", "-c", str(daemon.config)) as top:
                top.until_shown("source", "shots", "screenshot_queue", "sink", "archive", "by the operator")
                top.until_shown("300", "events/s in", "q quit  s sort: name  / filter  ? help")
                assert len(top.picture.lines) == 24
                assert names(top, "sink") == ["archive", "hook", "zebra"]
                top.press("s")
                top.until_shown("s sort: backlog")
                assert names(top, "sink") == ["hook", "archive", "zebra"]
                top.press("/zeb")
                top.until(lambda picture: "/zeb" in picture.text and "archive" not in picture.text)
                assert names(top, "sink") == ["zebra"]
                top.press("\r")
                top.until_shown("filter: zeb")
                top.press("\x1b")
                top.until_shown("archive")
                top.press("?")
                top.until_shown("over the last ten seconds")
                top.press("x")
                top.until_shown("shots")
                top.press("q")
                assert top.wait() == 0
                assert top.given_back
            assert process.stop() == 0


def test_top_fits_a_window_of_any_size(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        with terminal("top", "-c", str(daemon.config)) as top:
            top.until_shown("hook")
            top.resize(120, 40)
            top.until(lambda picture: picture.lines[39].startswith("q quit"))
            top.until_shown("hook", "console")
            top.resize(30, 6)
            top.until(lambda picture: picture.lines[5].startswith("q quit"))
            top.until_shown("more lines")
            top.resize(80, 24)
            top.until_shown("hook", "console")
            assert top.picture.lines[23].startswith("q quit")
        assert process.stop() == 0


def test_top_says_that_the_daemon_is_gone_and_comes_back_with_it(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        with terminal("top", "-c", str(daemon.config)) as top:
            top.until_shown("ready", "hook")
            assert process.stop() == 0
            top.until_shown("not live: no daemon listens", "hook")
            again = daemon.run()
            top.until(
                lambda picture: "not live" not in picture.text and f"pid {again.child.pid}" in picture.text
            )
            top.press("q")
            assert top.wait() == 0
            assert top.given_back
        assert again.stop() == 0


@pytest.mark.parametrize("end", ["\x03", signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_any_end_leaves_the_terminal_as_it_was(tmp_path: Path, end: str | signal.Signals) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        with terminal("top", "-c", str(daemon.config)) as top:
            top.until_shown("hook")
            assert not top.given_back
            if isinstance(end, str):
                top.press(end)
            else:
                top.child.send_signal(end)
            assert top.wait() == -(signal.SIGINT if isinstance(end, str) else end)
            assert top.given_back
        assert process.stop() == 0


def test_ctrl_z_gives_the_terminal_back_until_top_goes_on(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        with terminal("top", "-c", str(daemon.config)) as top:
            top.until_shown("hook")
            top.press("\x1a")
            until(
                lambda: Path(f"/proc/{top.child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
            )
            top.read(0.2)
            assert top.given_back
            top.child.send_signal(signal.SIGCONT)
            top.until_shown("hook")
            assert not top.given_back
        assert process.stop() == 0


def test_top_costs_little_and_writes_only_what_changes(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        with terminal("top", "-c", str(daemon.config)) as top:
            top.until_shown("hook")
            top.read(3.0)
            spent, written = cpu(top.child.pid), top.picture.written
            top.read(10.0)
            assert cpu(top.child.pid) - spent < 0.3
            assert top.picture.written - written < 10 * 400
        assert process.stop() == 0


def test_without_a_daemon_or_a_terminal_top_says_so(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        with terminal("top", "-c", str(daemon.config)) as top:
            assert top.wait() == 1
            assert "no daemon listens" in top.picture.text.replace("\n", "")
            assert top.given_back
        done = commands.poller("top", "-c", str(daemon.config), folder=tmp_path)
        assert done.returncode == 2
        assert "needs a terminal" in done.stderr
