"""The extras of the package: a missing one is a finding with its command, and none is imported without need."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Final

import pytest
from packaging.utils import canonicalize_name

from tests.service.running import daemon, queue, until, write_config

from .extras import SINKS, SPOOLS, configuration

ROOT = Path(__file__).resolve().parents[2]
EXTRAS: Final = (*SPOOLS, *SINKS)
"""The spool comes first: the extra `sql` brings its library too."""


# ---------------------------------------------------------------- not installed


def findings(program: Path, config: Path) -> dict[str, str]:
    """What `check` finds, by place; fails if a place is named twice."""
    words = [str(program), "check", "--config", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    found = re.findall(rf"^{re.escape(str(config))}:([0-9]+:[0-9]+): (.+)$", done.stderr, re.MULTILINE)
    assert len(found) == len(dict(found)), done.stderr
    assert done.returncode == (78 if found else 0), done.stderr
    return dict(found)


def copy_to(folder: Path, names: Iterable[str]) -> None:
    """Put distributions that are installed here into another virtual environment, compiled as they are.

    To install these from the index takes more time than all the rest of a test.
    """
    (site,) = folder.glob("lib/python*/site-packages")
    for name in names:
        with suppress(PackageNotFoundError):  # not for this Python
            for file in distribution(name).files or ():
                if ".." not in file.parts and (source := Path(str(file.locate()))).exists():
                    (site / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, site / file)


def place(config: Path, extra: str) -> str:
    """Line and column of the type of the sink or spool that needs an extra."""
    (found,) = (
        f"{number}:{text.index(': ') + 3}"
        for number, text in enumerate(config.read_text().splitlines(), 1)
        if f'"type": "{extra}"' in text
    )
    return found


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("minutes")
def test_each_missing_extra_is_one_finding_whose_command_installs_it(tmp_path: Path, soak: bool) -> None:
    """Ordinarily the spool's command alone, whose library an extra of the sinks has too, and the sinks' together."""
    folder = tmp_path / "v"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=300)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON"))}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    environ |= {"PIP_PYTHON": str(folder / "bin/python"), "PIP_NO_COMPILE": "1"}

    def install(command: str) -> None:
        words = ["bash", "-euc", command]
        done = subprocess.run(
            words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr

    copy_to(folder, named("requirements.txt"))
    install(f"{sys.executable} -m build --wheel --no-isolation -o {tmp_path} {ROOT}")
    install("pip install -q --no-deps ./*.whl")
    program, config = folder / "bin/poller", configuration(tmp_path, EXTRAS)
    missing = findings(program, config)
    assert set(missing) == {place(config, extra) for extra in EXTRAS}
    for extras in [(extra,) for extra in EXTRAS] if soak else (tuple(SPOOLS), tuple(SINKS)):
        wanted = []
        for extra in extras:
            (command,) = re.findall(r": (pip install .+)$", missing.pop(place(config, extra)))
            assert command == f"pip install 'live-screenshot-poller[{extra}]'"
            wanted.append(command.removeprefix("pip install "))
        install(f"pip install -q {' '.join(wanted)}")
        assert set(findings(program, config)) == set(missing), extras
    install("pip check")


# ---------------------------------------------------------------- not imported


def named(file: str) -> set[str]:
    """The distributions in a lock file."""
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / file).read_text(), re.MULTILINE))


@cache
def modules() -> Mapping[str, frozenset[str]]:
    """What can be imported because of each extra: the top modules of distributions that the program does not need."""
    program = named("requirements.txt")
    extras = {
        file.stem: named(f"requirements/{file.name}") - program for file in ROOT.glob("requirements/*.txt")
    }
    tops = packages_distributions()
    return {
        extra: frozenset(
            top for top, owners in tops.items() if {canonicalize_name(owner) for owner in owners} <= wanted
        )
        for extra, wanted in extras.items()
    }


AT_THE_START: Final = {"s3"}
"""Extras whose library is imported when the sink starts: COS's own signature does without it."""
BESIDE: Final = {"redis": {"otel"}, "postgres": {"sql"}, "sql": {"postgres"}}
"""Extras that a library of another one imports, where they are installed, or that share a library with it."""


def imported(stderr: str) -> set[str]:
    """The extras of which something was imported, as `-X importtime` tells."""
    found = set(re.findall(r"^import time: +[0-9]+ \| +[0-9]+ \| *([^.\s]+)", stderr, re.MULTILINE))
    assert "poller" in found
    return {extra for extra, tops in modules().items() if tops & found}


def imports_of_check(config: Path) -> set[str]:
    words = [sys.executable, "-X", "importtime", "-m", "poller", "check", "--config", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return imported(done.stderr)


def test_every_extra_is_installed_here_and_has_modules_of_its_own() -> None:
    assert {*EXTRAS, "otel", "sandbox"} == set(modules())
    assert all(modules().values()), modules()


@pytest.mark.parametrize("extras", [(), *((extra,) for extra in EXTRAS), EXTRAS], ids=",".join)
def test_check_imports_the_libraries_of_the_configured_parts_alone(
    tmp_path: Path, extras: Iterable[str]
) -> None:
    beside = set[str]().union(*(BESIDE.get(extra, set()) for extra in extras))
    assert imports_of_check(configuration(tmp_path, extras)) == {*extras, *beside} - AT_THE_START


def test_a_daemon_imports_no_library_of_an_extra_that_nothing_in_its_configuration_needs(
    tmp_path: Path,
) -> None:
    with queue() as platform:
        platform.give = 3
        config = write_config(tmp_path, platform.endpoint)
        content = json.loads(config.read_text())
        content["admin"] = {"listen": "127.0.0.1:0"}
        content["web"] = {"listen": "127.0.0.1:0"}
        config.write_text(json.dumps(content))
        with daemon(config, forked=False, PYTHONPROFILEIMPORTTIME="1") as process:
            until(lambda: process.stdout.count("\n") >= 6)
            assert process.stop(signal.SIGTERM) == 0, process.stderr[-2000:]
        assert imported(process.stderr) == set()
