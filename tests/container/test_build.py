"""The Dockerfile's build stage without a container: its own commands, in its own shell, in folders of the test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import poller
from tests.install.extras import configuration

from .files import ROOT, assigned, stages

VENV: Final = "/opt/poller"
WHEELS: Final = "/wheels"
EXTRAS: Final = sorted(file.stem for file in (ROOT / "requirements").iterdir())


class Builder:
    """Runs the build stage: `/opt/poller`, `/wheels` and the working directory are below one folder."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.venv = folder / "opt"
        self._source = folder / "src"
        self._source.mkdir(parents=True)
        self._python = python
        self._environ: dict[str, str] = {}

    def build(self, **arguments: str) -> subprocess.CompletedProcess[str]:
        """Follow the instructions up to the first command that fails, and return the last command's end."""
        for instruction in stages()[0]:
            match instruction.word:
                case "COPY":
                    self._copy(instruction.rest)
                case "ENV":
                    self._environ |= assigned(instruction.rest)
                case "ARG":
                    self._environ |= {
                        name: arguments.get(name, default)
                        for name, default in declared(instruction.rest).items()
                    }
                case "RUN":
                    done = self._run(instruction.rest)
                    if done.returncode:
                        return done
                case word:
                    assert word in {"FROM", "WORKDIR"}, f"{word}: nothing here follows it"
        return done

    def _copy(self, rest: str) -> None:
        *names, target = rest.split()
        for name in names:
            if (ROOT / name).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, self._source / target, ignore=ignore, dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / name, self._source / target)

    def _run(self, rest: str) -> subprocess.CompletedProcess[str]:
        options, command = [], rest
        while command.startswith("--"):
            option, _, command = command.partition(" ")
            options.append(option)
        assert all(option.startswith("--mount=type=secret,") for option in options)
        for there, here in ((VENV, self.venv), (WHEELS, self.folder / "wheels")):
            command = command.replace(there, str(here))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON"))}
        return subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self._source,
            env={
                **kept,
                "PATH": f"{self._python.parent}:{os.defpath}",
                "PIP_NO_COMPILE": "1",  # most is never imported
                **self._environ,
            },
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )


def declared(rest: str) -> Mapping[str, str]:
    """Names and defaults of an ARG."""
    name, _, default = rest.partition("=")
    return {name: default.strip('"')}


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """A builder whose `python` has no pip, for what ends before anything is installed."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "base"], check=True, timeout=300
    )
    return Builder(tmp_path / "build", tmp_path / "base/bin/python")


@pytest.fixture
def complete(tmp_path: Path, minutes: None) -> Builder:
    """A builder whose `python` has a pip of its own, as the base image's has."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "base"], check=True, timeout=300)
    return Builder(tmp_path / "build", tmp_path / "base/bin/python")


@pytest.mark.parametrize(
    ("extras", "named"),
    [
        ("rabbit", "rabbit"),
        ("kafka,rabbit", "rabbit"),
        ("../requirements", "../requirements"),
        ("*", "*"),
        ("kafka,,s3", ""),
        ("kafka;true", "kafka;true"),
        ("dev", "dev"),
    ],
)
def test_an_extra_that_does_not_exist_fails_the_build_with_the_names_of_those_that_do(
    builder: Builder, extras: str, named: str
) -> None:
    done = builder.build(EXTRAS=extras)
    assert done.returncode == 1
    assert done.stderr == f"EXTRAS: there is no extra '{named}', only: {' '.join(EXTRAS)}\n"
    assert not list((builder.venv / "lib").glob("python3*/site-packages/*"))


INSTALLED: Final = """
from importlib.metadata import distributions
print(*(found.name + "==" + found.version for found in distributions()))
"""


def installed(builder: Builder) -> set[str]:
    """Names and versions of what is in /opt/poller."""
    asked = [str(builder.venv / "bin/python"), "-I", "-c", INSTALLED]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    pairs = (found.split("==") for found in done.stdout.split())
    return {f"{canonicalize_name(name)}=={version}" for name, version in pairs}


def locked(*files: str) -> set[str]:
    """Names and versions of what the files name for this Python."""
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines() if "==" in line[:80]]
    wanted = [Requirement(line.removesuffix("\\")) for line in lines if not line.startswith(" ")]
    return {
        f"{canonicalize_name(one.name)}{one.specifier}"
        for one in wanted
        if one.marker is None or one.marker.evaluate()
    }


@pytest.mark.timeout(1200)
def test_what_is_built_holds_the_program_and_the_chosen_extras_alone(
    complete: Builder, tmp_path: Path
) -> None:
    own = {f"live-screenshot-poller=={poller.__version__}"}
    done = complete.build()
    assert done.returncode == 0, done.stderr
    assert installed(complete) == own | locked("requirements.txt")
    done = complete.build(EXTRAS="nats, redis")
    assert done.returncode == 0, done.stderr
    assert installed(complete) == own | locked(
        "requirements.txt", "requirements/nats.txt", "requirements/redis.txt"
    )
    program = complete.venv / "bin/poller"
    for extras, code in ((("nats", "redis"), 0), (("nats", "kafka"), 78)):
        config = configuration(tmp_path, extras)
        asked = [str(program), "check", "--config", str(config)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
