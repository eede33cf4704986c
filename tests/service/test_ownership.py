"""Root runs a command in the state folder of the service's user."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import commands
from tests.commands import Ended
from tests.scenario.environment import needs_root

from .running import tool, write_config

SERVICE = 64321
"""The service's user and group."""


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder of the service's; below none of root's own."""
    needs_root("a second user")
    with tempfile.TemporaryDirectory(prefix="poller-") as name:
        folder = Path(name)
        os.chown(folder, SERVICE, SERVICE)
        folder.chmod(0o755)
        yield folder


def poller(*words: str, user: int = 0) -> Ended:
    """Root is this process's user."""
    if user == 0:
        return commands.poller(*words)
    command = [*as_user(user), sys.executable, "-m", "poller", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def as_user(user: int) -> list[str]:
    """Run as this user, who may read what root may read (the program is below root's home), and not write it."""
    may_read = "+dac_read_search"
    ids = ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
    return [tool("setpriv"), *ids, "--inh-caps", may_read, "--ambient-caps", may_read]


def owners(folder: Path) -> set[tuple[str, int]]:
    return {(path.name, path.stat().st_uid) for path in folder.rglob("*")}


def config_in(folder: Path, spool: str) -> Path:
    file = write_config(folder, "http://127.0.0.1:9/common_access")
    file.write_text(file.read_text().replace("spool.db", spool))
    file.chmod(0o644)
    return file


@pytest.mark.root
def test_a_check_by_a_user_who_may_not_look_into_the_state_folder_is_no_traceback(state: Path) -> None:
    config = config_in(state, "closed/spool.db")
    (state / "closed").mkdir(mode=0o700)
    may_not_look = [tool("setpriv"), "--reuid", str(SERVICE), "--regid", str(SERVICE), "--clear-groups"]
    code = "import sys; from poller.settings import load; load(sys.argv[1]); print('good')"
    command = [*may_not_look, sys.executable, "-c", code, str(config)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (shown.stdout, shown.returncode) == ("good\n", 0), shown.stderr


@pytest.mark.root
def test_a_check_by_root_before_the_first_start_leaves_nothing_in_the_services_folder(state: Path) -> None:
    config = config_in(state, "data/spool.db")
    shown = poller("check", "--connect", "-c", str(config))
    assert "account main: not reachable" in shown.stderr
    assert owners(state) == {("poller.yaml", 0)}


@pytest.mark.root
@pytest.mark.parametrize("first", ["root", "service"])
def test_what_commands_of_root_make_belongs_to_the_services_user(state: Path, first: str) -> None:
    config = config_in(state, "data/spool.db")
    begun = poller("drain", "--timeout", "1s", "-c", str(config), user=0 if first == "root" else SERVICE)
    assert begun.returncode == 1, begun.stderr
    assert ("spool.db", SERVICE) in owners(state)
    (state / "data" / "spool.db.lock").unlink()
    for words in (
        ("status",),
        ("dead", "list"),
        ("pause", "console"),
        ("resume", "console"),
        ("spool", "check"),
        ("spool", "export"),
        ("check", "--connect"),
    ):
        poller(*words, "-c", str(config))
        assert {owner for name, owner in owners(state) if name != "poller.yaml"} == {SERVICE}, words
    as_service = poller("drain", "--timeout", "1s", "-c", str(config), user=SERVICE)
    assert "Permission denied" not in as_service.stderr


@pytest.mark.root
def test_the_pictures_folders_that_a_drain_of_roots_makes_belong_to_the_services_user(state: Path) -> None:
    config = config_in(state, "data/spool.db")
    settings = yaml.safe_load(config.read_text())
    settings["accounts"]["main"]["cos"] = {"bucket": "shots", "app_id": 1250000000}
    settings["sinks"]["archive"] = {"type": "download", "directory": str(state / "pictures" / "new")}
    config.write_text(yaml.safe_dump(settings))
    poller("drain", "--timeout", "1s", "-c", str(config))
    found = owners(state)
    assert {("pictures", SERVICE), ("new", SERVICE), (".incoming", SERVICE)} <= found, found
    as_service = poller("drain", "--timeout", "1s", "-c", str(config), user=SERVICE)
    assert "Permission denied" not in as_service.stderr


@pytest.mark.root
def test_a_damaged_spool_that_root_meets_is_moved_aside_for_the_services_user(state: Path) -> None:
    config = config_in(state, "spool.db")
    (state / "spool.db").write_bytes(b"no database" * 1000)
    os.chown(state / "spool.db", SERVICE, SERVICE)
    assert poller("status", "-c", str(config)).returncode == 0
    assert {owner for name, owner in owners(state) if name != "poller.yaml"} == {SERVICE}
