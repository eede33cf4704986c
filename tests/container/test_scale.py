"""compose.scale.yaml: held to Compose's own schema, as closed as compose.yaml, in step with guide and program."""

import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.commands import poller

from ..scenario.environment import needs_root
from .files import COMPOSE, SCALE, STATE, assigned, compose, guide_blocks, service, stages

SECTION = "With Docker Compose"
DAEMONS = ("poller-1", "poller-2", "poller-3")
CONFIG = "/etc/poller/poller.yaml"
SAME = {
    "image",
    "user",
    "init",
    "restart",
    "stop_grace_period",
    "read_only",
    "cap_drop",
    "security_opt",
    "tmpfs",
    "logging",
}
"""What each daemon has as in compose.yaml."""
OWN = {"hostname", "environment", "volumes", "ports"}


def services() -> dict[str, dict[str, Any]]:
    found = compose(SCALE)["services"]
    assert isinstance(found, dict)
    return found


def database() -> dict[str, Any]:
    return services()["postgres"]


def schema_says(file: Path) -> tuple[int, str]:
    """What the schema of the Compose specification says of a file."""
    program = str(Path(sysconfig.get_path("scripts")) / "check-jsonschema")
    call = [program, "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


# ---------------------------------------------------------------- the lint


@pytest.mark.parametrize("file", [COMPOSE, SCALE], ids=lambda file: file.name)
def test_a_compose_file_fits_the_specification(file: Path) -> None:
    code, said = schema_says(file)
    assert code == 0, said


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("restart: unless-stopped", "restrat: unless-stopped", "restrat"),
        ("condition: service_healthy", "condition: healthy", "depends_on"),
        ("read_only: true", "read_only: [true]", "read_only"),
        ("      start_period: 1m", "      start_perod: 1m", "start_perod"),
        ("file: ./secrets/spool_dsn", "files: ./secrets/spool_dsn", "spool_dsn"),
    ],
)
def test_the_specification_sees_mistakes(tmp_path: Path, right: str, wrong: str, named: str) -> None:
    text = SCALE.read_text()
    assert right in text
    (tmp_path / "compose.yaml").write_text(text.replace(right, wrong))
    code, said = schema_says(tmp_path / "compose.yaml")
    assert code == 1
    assert named in said


# ---------------------------------------------------------------- the daemons


def test_there_is_nothing_that_is_not_looked_at_here() -> None:
    assert set(compose(SCALE)) == {"name", "x-poller", "services", "volumes", "secrets"}
    assert set(services()) == {*DAEMONS, "postgres"}
    for name in DAEMONS:
        assert set(services()[name]) == SAME | OWN | {"build", "secrets", "depends_on"}


@pytest.mark.parametrize("name", DAEMONS)
def test_each_daemon_is_as_closed_as_the_only_one_of_compose_yaml(name: str) -> None:
    assert {key: services()[name][key] for key in SAME} == {key: service()[key] for key in SAME}
    assert services()[name]["build"] == {"context": ".", "args": {"EXTRAS": "postgres"}}


def test_the_daemons_differ_only_in_what_has_to_be_their_own() -> None:
    first, *others = ({k: v for k, v in services()[name].items() if k not in OWN} for name in DAEMONS)
    assert all(other == first for other in others)
    assert [services()[name]["hostname"] for name in DAEMONS] == list(DAEMONS)


def test_each_daemon_keeps_its_journal_in_a_volume_of_its_own() -> None:
    volumes = []
    for name in DAEMONS:
        state, config = services()[name]["volumes"]
        volume, _, place = state.partition(":")
        volumes.append(volume)
        assert place == STATE == stages()[-1].only("VOLUME").rest
        assert config == f"./poller.yaml:{CONFIG}:ro"
    assert len(set(volumes)) == len(DAEMONS)
    assert {*volumes, "database"} == set(compose(SCALE)["volumes"])


def test_the_pages_of_each_daemon_have_a_port_of_their_own_on_this_machine_alone() -> None:
    ports = [services()[name]["environment"]["PAGES_PORT"] for name in DAEMONS]
    assert len(set(ports)) == len(DAEMONS)
    for name, port in zip(DAEMONS, ports, strict=True):
        assert services()[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_daemons_wait_for_a_database_that_answers() -> None:
    for name in DAEMONS:
        assert services()[name]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


# ---------------------------------------------------------------- the database


def test_the_database_is_as_closed_as_the_daemons_are() -> None:
    found, daemon = database(), service()
    for key in ("cap_drop", "security_opt", "read_only", "logging", "restart"):
        assert found[key] == daemon[key]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", found["user"])
    assert "ports" not in found
    assert found["volumes"] == ["database:/var/lib/postgresql/data"]
    for scratch in found["tmpfs"]:
        assert {"noexec", "nosuid", "nodev"} <= set(scratch.partition(":")[2].split(","))
    assert [scratch.partition(":")[0] for scratch in found["tmpfs"]] == ["/tmp", "/run/postgresql"]


def test_neither_the_major_version_nor_debians_release_changes_by_itself() -> None:
    assert re.fullmatch(r"docker\.io/library/postgres:[0-9]+-[a-z]+", database()["image"])


def test_its_health_is_asked_by_tcp_for_the_database_of_the_spool() -> None:
    environ = database()["environment"]
    assert set(database()["healthcheck"]["test"]) == {
        "CMD",
        "pg_isready",
        "--quiet",
        "--host=127.0.0.1",
        f"--username={environ['POSTGRES_USER']}",
        f"--dbname={environ['POSTGRES_DB']}",
    }


def test_no_secret_stands_in_the_file() -> None:
    secrets = compose(SCALE)["secrets"]
    assert secrets == {name: {"file": f"./secrets/{name}"} for name in secrets}
    used = {secret for one in services().values() for secret in one["secrets"]}
    assert used == set(secrets)
    environ = {name: value for one in services().values() for name, value in one["environment"].items()}
    hidden = {name: value for name, value in environ.items() if "PASSWORD" in name}
    assert hidden == {"POSTGRES_PASSWORD_FILE": "/run/secrets/spool_password"}
    assert "://" not in SCALE.read_text().replace("docker.io/", "")


# ---------------------------------------------------------------- the guide


def configuration(folder: Path, secrets: list[str]) -> str:
    """The guide's configuration, with the places of the container in a folder."""
    (text,) = guide_blocks(SECTION, "yaml")
    for number, name in enumerate(secrets):
        (folder / name).write_text(f"{number}" * 16)
    (folder / "spool_dsn").write_text("postgresql://poller:secret@postgres:5432/poller")
    return text.replace("/run/secrets/", f"{folder}/").replace(f"{STATE}/", f"{folder}/")


@pytest.mark.parametrize("name", DAEMONS)
def test_the_guides_configuration_is_one_for_each_daemon(tmp_path: Path, name: str) -> None:
    found = services()[name]
    (tmp_path / "poller.yaml").write_text(configuration(tmp_path, found["secrets"]))
    checked = poller("check", "-c", "poller.yaml", folder=tmp_path, **found["environment"])
    assert checked.returncode == 0, checked.stderr


def test_the_guides_configuration_names_what_the_file_hands_over() -> None:
    (text,) = guide_blocks(SECTION, "yaml")
    read = yaml.safe_load(text)
    for name in DAEMONS:
        assert sorted(re.findall(r"/run/secrets/([a-z_]+)", text)) == sorted(services()[name]["secrets"])
        assert re.findall(r"\$\{([A-Z_]+)\}", text) == list(services()[name]["environment"])
    assert read["spool"]["type"] == "postgres"
    assert read["journal"]["path"].startswith(f"{STATE}/")
    assert read["admin"]["listen"] == assigned(stages()[-1].only("ENV").rest)["POLLER_ADMIN"]
    assert read["web"]["listen"].partition(":")[0] == "0.0.0.0"


@pytest.mark.root
def test_the_guides_commands_make_the_secrets_for_those_who_read_them(tmp_path: Path) -> None:
    needs_root("gives files to the users of the containers")
    commands, *_ = guide_blocks(SECTION, "sh")
    (tmp_path / "live_key").write_text("k" * 32)
    call = ["bash", "-euo", "pipefail", "-c", commands]
    subprocess.run(call, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, timeout=60, check=True)
    folder, readers = tmp_path / "secrets", dict[str, str]()
    for one in services().values():
        for name in one["secrets"]:
            assert readers.setdefault(name, one["user"].partition(":")[0]) == one["user"].partition(":")[0]
    there = {file.name: file.stat() for file in folder.iterdir()}
    assert {name: str(found.st_uid) for name, found in there.items()} == readers
    assert {found.st_mode & 0o777 for found in there.values()} == {0o400}
    dsn, environ = urlsplit((folder / "spool_dsn").read_text().strip()), database()["environment"]
    assert (dsn.username, dsn.path) == (environ["POSTGRES_USER"], f"/{environ['POSTGRES_DB']}")
    assert dsn.password == (folder / "spool_password").read_text().strip()
    assert (dsn.hostname, dsn.port) == ("postgres", 5432)
