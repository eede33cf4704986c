"""The container's files: linted, closed, in step with each other and with the program."""

import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from poller.cli.common import Exit
from poller.daemon.components import GRACE
from poller.qcloud.wire.client import Deadlines

from ..service.running import daemon, queue, until, write_config
from .files import (
    BASE,
    COMPOSE,
    DOCKERFILE,
    IGNORED,
    ROOT,
    STATE,
    assigned,
    compose,
    health_check,
    service,
    stages,
)

USER = "10001:10001"

# ---------------------------------------------------------------- the lint


def hadolint(*words: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which(
        "hadolint", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    )
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("hadolint is not installed")
    if found is None:
        pytest.skip("hadolint is not installed")
    command = [found, "--no-color", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_hadolint_has_nothing_to_say() -> None:
    done = hadolint("--failure-threshold", "style", str(DOCKERFILE))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert "hadolint ignore" not in DOCKERFILE.read_text()


@pytest.mark.parametrize(
    ("line", "rule"),
    [("CMD poller run", "DL3025"), ("RUN cd /tmp", "DL3003"), ("FROM docker.io/library/python", "DL3006")],
)
def test_the_lint_sees_mistakes(tmp_path: Path, line: str, rule: str) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(f"{DOCKERFILE.read_text()}{line}\n")
    done = hadolint("--failure-threshold", "style", str(file))
    assert done.returncode != 0
    assert rule in done.stdout


# ---------------------------------------------------------------- the image


def test_both_stages_begin_with_the_same_pinned_base() -> None:
    build, final = stages()
    base, _, name = build[0].rest.partition(" AS ")
    assert BASE.fullmatch(base)
    assert final[0].rest == base
    assert name == "build"


def test_only_the_program_comes_out_of_the_build() -> None:
    build, final = stages()
    (copy,) = final.all("COPY")
    assert copy.rest == "--from=build /opt/poller /opt/poller"
    assert final.all("ADD") == build.all("ADD") == []
    assert "venv --without-pip /opt/poller" in build.all("RUN")[0].rest


def test_the_final_stage_installs_nothing_and_sheds_what_could() -> None:
    (run,) = stages()[-1].all("RUN")
    uninstall, _, directory = run.rest.partition(" && ")
    assert uninstall.startswith("python -m pip uninstall ")
    assert {"pip", "setuptools", "wheel"} <= set(uninstall.split()[4:])
    uid, _, gid = USER.partition(":")
    assert directory == f"install -d -o {uid} -g {gid} -m 0750 {STATE}"


def test_a_package_mirrors_configuration_is_mounted_never_copied() -> None:
    installs = [run.rest for run in stages()[0].all("RUN") if " install " in run.rest]
    (fetches,) = (words for words in installs if "--require-hashes" in words)
    assert fetches.startswith("--mount=type=secret,id=pip,target=/etc/pip.conf ")
    (builds,) = (words for words in installs if words != fetches)
    assert builds.count("--no-deps") == 2  # it fetches nothing
    assert "--no-build-isolation" in builds
    assert [i.rest for stage in stages() for i in stage if i.word == "ARG"] == ['EXTRAS=""']


def test_it_runs_as_a_numeric_user_who_is_not_root() -> None:
    final = stages()[-1]
    assert final.only("USER").rest == USER
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", USER)
    words = [instruction.word for instruction in final]
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])


def test_what_it_keeps_is_in_the_volume() -> None:
    final = stages()[-1]
    assert final.only("VOLUME").rest == final.only("WORKDIR").rest == STATE


def test_signals_reach_the_daemon_itself() -> None:
    final = stages()[-1]
    assert final.only("ENTRYPOINT").words == ["/opt/poller/bin/poller"]
    assert final.only("CMD").words
    assert final.only("STOPSIGNAL").rest == "SIGTERM"
    assert final.all("SHELL") == []


def test_its_command_is_one_that_the_program_knows(tmp_path: Path) -> None:
    *words, config = stages()[-1].only("CMD").words
    assert config == "/etc/poller/poller.yaml"
    call = [sys.executable, "-m", "poller", *words, str(tmp_path / "nowhere.yaml")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == Exit.BAD_CONFIGURATION, done.stderr


def test_its_labels_say_what_the_package_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert assigned(stages()[-1].only("LABEL").rest) == {
        "org.opencontainers.image.title": "poller",
        "org.opencontainers.image.description": project["description"],
        "org.opencontainers.image.licenses": project["license"],
    }


def test_the_builder_is_sent_only_what_it_copies() -> None:
    lines = [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]
    copied = {word.removeprefix("./") for copy in stages()[0].all("COPY") for word in copy.rest.split()[:-1]}
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
    assert "**/__pycache__" in lines


# ---------------------------------------------------------------- the health check


def checked(address: str) -> int:
    program, *words = health_check()
    assert program == "/opt/poller/bin/python"
    environ = {**os.environ, "POLLER_ADMIN": address}
    call = [sys.executable, *words]
    return subprocess.run(call, env=environ, capture_output=True, timeout=60, check=False).returncode


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that gives every path one status."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_the_health_check_asks_a_running_daemon(tmp_path: Path) -> None:
    with queue() as platform:
        config = write_config(tmp_path, platform.endpoint)
        content = json.loads(config.read_text())
        content |= {"admin": {"listen": "127.0.0.1:0"}, "log": {"format": "json"}}
        config.write_text(json.dumps(content))
        with daemon(config) as process:
            until(lambda: '"running"' in process.stderr)
            (port,) = re.findall(r'"port": ([0-9]+)', process.stderr)
            assert checked(f"127.0.0.1:{port}") == 0
            assert process.stop() == 0
        assert checked(f"127.0.0.1:{port}") == 1


def test_the_health_check_believes_only_a_200() -> None:
    with answering(200) as address:
        assert checked(address) == 0
    with answering(503) as address:
        assert checked(address) == 1


def test_the_health_check_gives_up_on_who_does_not_answer() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as silent:
        assert checked(f"127.0.0.1:{silent.server_address[1]}") == 1


def test_the_health_check_asks_where_the_example_listens() -> None:
    address = assigned(stages()[-1].only("ENV").rest)["POLLER_ADMIN"]
    assert f"  listen: {address} " in (ROOT / "config.example.yaml").read_text().partition("\nadmin:")[2]
    assert "POLLER_ADMIN" in health_check()[-1]
    assert "'/healthz'" in health_check()[-1]


# ---------------------------------------------------------------- compose.yaml


def test_compose_says_nothing_that_is_not_looked_at_here() -> None:
    assert set(compose()) == {"services", "volumes", "secrets"}
    assert set(service()) == {
        "image",
        "build",
        "user",
        "init",
        "restart",
        "stop_grace_period",
        "read_only",
        "cap_drop",
        "security_opt",
        "tmpfs",
        "volumes",
        "secrets",
        "logging",
    }


def test_it_builds_the_image_that_it_runs() -> None:
    assert service()["image"] == "poller"
    assert service()["build"] == {"context": ".", "args": {"EXTRAS": ""}}


def test_it_may_do_nothing_and_become_nobody_else() -> None:
    found = service()
    assert found["user"] == stages()[-1].only("USER").rest
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]


def test_it_can_write_only_to_its_named_volume_and_a_small_tmp() -> None:
    found = service()
    assert found["read_only"] is True
    state, config = found["volumes"]
    assert state == f"data:{STATE}"
    assert "data" in compose()["volumes"]
    assert config == "./poller.yaml:/etc/poller/poller.yaml:ro"
    assert config.split(":")[1] == stages()[-1].only("CMD").words[-1]
    (scratch,) = found["tmpfs"]
    path, _, options = scratch.partition(":")
    assert path == "/tmp"
    assert {"size=16m", "noexec", "nosuid", "nodev"} <= set(options.split(","))


def test_a_poll_and_the_sinks_grace_both_end_well_before_it_is_killed() -> None:
    grace = service()["stop_grace_period"]
    assert grace == "90s"
    assert max(GRACE, Deadlines().whole) + 20 <= float(grace.removesuffix("s"))


def test_a_stop_is_heard_from_the_first_moment() -> None:
    assert service()["init"] is True


def test_it_comes_back_after_a_crash_and_after_the_machines_restart() -> None:
    assert service()["restart"] == "unless-stopped"


def test_its_secrets_are_files() -> None:
    assert service()["secrets"] == list(compose()["secrets"])
    for name, secret in compose()["secrets"].items():
        assert set(secret) == {"file"}
        assert f"_file: /run/secrets/{name}" in COMPOSE.read_text()


def test_the_secrets_of_the_sinks_are_named_as_the_example_names_them() -> None:
    (named,) = re.findall(r"For sinks:\n# ([a-z_, ]+)\.\n", COMPOSE.read_text())
    credentials = r"(?:password|token|access_key|secret_key)_file: /run/credentials/poller\.service/([a-z_]+)"
    sinks = (ROOT / "config.example.yaml").read_text().partition("\nsinks:\n")[2].partition("\nadmin:\n")[0]
    assert named.split(", ") == sorted(set(re.findall(credentials, sinks)))


def test_its_logs_cannot_fill_the_disk() -> None:
    assert service()["logging"] == {"driver": "local", "options": {"max-size": "20m", "max-file": "5"}}
