"""The image, built from the Dockerfile and run as compose.yaml says, against a platform on this machine."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from poller.cli.common import Exit
from poller.sandbox import Customer
from tests.install.extras import configuration
from tests.ports import lasting_port

from ..scenario.environment import Environment, environment, needs_root, until
from ..scenario.rig import Books, webhook
from .files import health_check, service
from .workshop import CANARY, EXTRAS, IMAGE, LIMITS, WITH_EXTRAS, Workshop, facts, workshop

pytestmark = [pytest.mark.soak, pytest.mark.root, pytest.mark.timeout(1200)]

WRITABLE = """
import os, stat
found = set()
for folder, names, _ in os.walk("/"):
    names[:] = [n for n in names if os.path.join(folder, n) not in ("/proc", "/sys", "/var/lib/poller/pictures")]
    if os.access(folder, os.W_OK):
        found.add(folder)
print(*sorted(found))
"""
TOOLS = """
import importlib.util, os, shutil
tools = [n for n in ("pip", "pip3", "gcc", "cc", "make", "git", "curl", "wget") if shutil.which(n)]
print(tools, [n for n in ("pip", "setuptools", "wheel", "hatchling") if importlib.util.find_spec(n)],
      [n for n in ("/etc/pip.conf", "/src", "/opt/poller/bin/pip") if os.path.exists(n)])
"""
SEARCH = """
import os, sys
for folder, names, files in os.walk("/"):
    names[:] = [n for n in names if os.path.join(folder, n) not in ("/proc", "/sys")]
    for file in (os.path.join(folder, name) for name in files):
        if os.path.isfile(file) and os.access(file, os.R_OK) and os.path.getsize(file) < 100_000:
            with open(file, "rb") as opened:
                if sys.argv[1].encode() in opened.read():
                    print(file)
"""
PYTHON = "/opt/poller/bin/python"


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    needs_root("builds and runs containers")
    with workshop() as built:
        yield built


@pytest.fixture
def empty(shop: Workshop) -> Iterator[Workshop]:
    """The workshop, without containers and volumes of other tests."""
    shop.remove()
    yield shop
    shop.remove()


class House:
    """A configuration and its secret, as an operator mounts them."""

    def __init__(self, folder: Path, place: Environment, **more: Any) -> None:
        self.config, key = folder / "poller.yaml", folder / "live_key"
        self.admin = f"127.0.0.1:{lasting_port()}"
        (secret,) = service()["secrets"]
        account = {
            "endpoint": place.wire.endpoint,
            "app_id": Customer().app_id,
            "key_file": f"/run/secrets/{secret}",
            "rate": "1000/s",
            "cos": {"base_url": place.pictures},
        }
        shots = {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "50ms"}
        pictures = {
            "directory": "/var/lib/poller/pictures",
            "template": "{name}",
            "allow_cidr": ["127.0.0.0/8"],
        }
        settings = {
            "accounts": {"main": account},
            "sources": {"shots": shots},
            "spool": {"type": "sqlite", "path": "/var/lib/poller/spool.db"},
            "journal": {"size": "32MiB"},
            "sinks": {"hook": webhook(place), "archive": {"type": "download", **pictures}},
            "admin": {"listen": "${POLLER_ADMIN}"},
            **more,
        }
        self.config.write_text(json.dumps(settings))
        self.config.chmod(0o644)
        key.write_text(Customer().key)
        key.chmod(0o400)
        os.chown(key, *map(int, service()["user"].split(":")))
        self.secrets: Mapping[str, Path] = {secret: key}

    def run(self, shop: Workshop, name: str, *words: str, first: bool = False) -> None:
        shop.run(name, self.config, self.secrets, self.admin, *words, first=first)


def healthy(shop: Workshop, name: str) -> bool:
    """What the image's own health check says."""
    return shop.tried("healthcheck", "run", name).returncode == 0


def until_running(shop: Workshop, name: str) -> None:
    until(lambda: '"running"' in shop.log(name) or shop.inspect(name, ".State.Status") == "exited")
    assert '"running"' in shop.log(name), shop.log(name)


def pictures(shop: Workshop) -> set[str]:
    return {path.name for path in (shop.volume() / "pictures").rglob("*.jpg")}


# ---------------------------------------------------------------- what is in it


def test_the_image_holds_the_program_and_nothing_to_build_with(empty: Workshop) -> None:
    run = ("run", "--rm", "--network=none", "--no-healthcheck", *LIMITS, f"--entrypoint={PYTHON}", IMAGE)
    assert empty.podman(*run, "-c", TOOLS).split() == ["[]", "[]", "[]"]
    found = empty.podman(*run, "-c", "import poller, sys; print(poller.__file__, sys.version_info[:2])")
    assert found.startswith("/opt/poller/lib/python3.")
    history = empty.podman("history", "--no-trunc", IMAGE)
    assert "HEALTHCHECK" in history
    assert CANARY not in history
    assert empty.podman(*run, "-c", SEARCH, CANARY).split() == []
    assert empty.podman(*run, "-c", SEARCH, "com.qcloud.live").split() != []
    assert empty.inspect(IMAGE, ".Config.User") == service()["user"]
    assert empty.inspect(IMAGE, ".Config.StopSignal") == "SIGTERM"
    assert json.loads(empty.inspect(IMAGE, "json .HealthCheck.Test"))[1:] == health_check()


def checked(shop: Workshop, folder: Path, image: str, *extras: str) -> tuple[int, str]:
    """What an image's `check` says of sinks that need these extras."""
    spool = {"type": "sqlite", "path": "/var/lib/poller/spool.db"}
    config = configuration(folder, extras, spool=spool)
    done = shop.check(image, config, dict.fromkeys(service()["secrets"], config))
    return done.returncode, done.stdout + done.stderr


def test_an_image_with_extras_has_the_sinks_of_these_and_no_others(empty: Workshop, tmp_path: Path) -> None:
    code, text = checked(empty, tmp_path, WITH_EXTRAS, *EXTRAS)
    assert code == Exit.DONE, text
    for image, extra in ((IMAGE, "kafka"), (IMAGE, "s3"), (WITH_EXTRAS, "redis")):
        code, text = checked(empty, tmp_path, image, extra)
        assert code == Exit.BAD_CONFIGURATION, text
        assert f"pip install 'live-screenshot-poller[{extra}]'" in text
    run = (
        "run",
        "--rm",
        "--network=none",
        "--no-healthcheck",
        *LIMITS,
        f"--entrypoint={PYTHON}",
        WITH_EXTRAS,
    )
    assert empty.podman(*run, "-c", TOOLS).split() == ["[]", "[]", "[]"]


def test_an_extra_that_does_not_exist_fails_the_build(empty: Workshop) -> None:
    done = empty.built("localhost/poller:never", "kafka,rabbit")
    assert done.returncode != 0
    assert "EXTRAS: there is no extra 'rabbit', only: amqp kafka " in done.stderr
    assert empty.tried("image", "exists", "localhost/poller:never").returncode == 1


# ---------------------------------------------------------------- how it runs


def test_it_runs_read_only_and_a_stop_in_the_midst_of_it_loses_nothing(
    empty: Workshop, tmp_path: Path
) -> None:
    with environment(tmp_path) as place:
        house = House(tmp_path, place)
        place.wire.delay = 0.03
        place.enqueue(1500, pictures=True)
        house.run(empty, "one")
        until(lambda: place.hook.files.total() >= 1500 and len(pictures(empty)) >= 1500)
        check_closed(empty, "one")
        assert healthy(empty, "one")
        with place.feeding(pictures=True):
            before = place.counts.removed
            until(lambda: place.counts.removed > before + 1000 and place.wire.in_flight)
            assert empty.stop("one") == Exit.DONE, empty.log("one")[-3000:]
        removed = place.oracle.removed()
        books = Books.read(removed, empty.volume() / "spool.db")
        assert books.lost() == []
        books.check_once()
        assert '"stopped"' in empty.log("one")
        check_nothing_outside(empty, "one", house)
        house.run(empty, "two", "drain", "--config", "/etc/poller/poller.yaml")
        assert empty.wait("two") == Exit.DONE, empty.log("two")[-3000:]
        books = Books.read(place.oracle.removed(), empty.volume() / "spool.db")
        assert books.lost() == []
        assert set(books.spooled) == set(place.hook.files) == pictures(empty)
        print(f"\n{len(books.removed)} messages, {len(pictures(empty))} pictures, none lost over a stop")
        assert len(books.removed) >= 2500


def check_closed(shop: Workshop, name: str) -> None:
    """Nobody's numbers, no capability, none to be gained, and only the volume and /tmp can be written."""
    pid = shop.pid(name)
    status = facts(Path(f"/proc/{pid}/status").read_text())
    uid, _, gid = service()["user"].partition(":")
    assert (status["Uid"].split(), status["Gid"].split()) == ([uid] * 4, [gid] * 4)
    assert {int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert status["NoNewPrivs"] == "1"
    where = shop.podman("exec", name, PYTHON, "-c", WRITABLE).split()
    assert set(where) - {"/dev/shm", "/dev/mqueue"} == {"/tmp", "/var/lib/poller"}
    written = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        flags = int(facts(Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text())["flags"], 8)
        if flags & os.O_ACCMODE and fd.is_file():
            written.add(str(fd.readlink()))
    assert written
    assert all(path.startswith("/var/lib/poller/spool.db") for path in written), written
    assert (
        shop.podman("exec", name, PYTHON, "-c", "import os; print(*map(os.listdir, ('/tmp', '/dev/shm')))")
        == "[] []\n"
    )


def check_nothing_outside(shop: Workshop, name: str, house: House) -> None:
    """The container's own layer holds nothing but the places that something is mounted on."""
    mounts = ["/etc/poller/poller.yaml", *(f"/run/secrets/{secret}" for secret in house.secrets)]
    mounts += ["/run/podman-init", "/dev/init"]
    places = {str(path) for mount in mounts for path in (Path(mount), *Path(mount).parents)}
    changed = {line.split(" ", 1)[1] for line in shop.podman("diff", name).splitlines()}
    assert changed <= places, changed - places


def test_the_health_check_fails_while_the_daemon_hangs(empty: Workshop, tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        house = House(tmp_path, place)
        house.run(empty, "hanging")
        until_running(empty, "hanging")
        assert healthy(empty, "hanging")
        pid = empty.pid("hanging")
        os.kill(pid, signal.SIGSTOP)
        try:
            assert not healthy(empty, "hanging")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert healthy(empty, "hanging")
        assert empty.stop("hanging") == Exit.DONE


def test_the_daemon_hears_a_stop_as_the_containers_first_process_too(empty: Workshop, tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        House(tmp_path, place).run(empty, "first", first=True)
        until_running(empty, "first")
        status = facts(Path(f"/proc/{empty.pid('first')}/status").read_text())
        assert status["NSpid"].split()[-1] == "1"
        assert empty.stop("first") == Exit.DONE
        assert '"stopped"' in empty.log("first")


# ---------------------------------------------------------------- how it does not run


def test_a_spool_outside_the_volume_is_refused_and_nothing_is_polled(empty: Workshop, tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        spool = {"type": "sqlite", "path": "/opt/spool.db"}
        House(tmp_path, place, spool=spool).run(empty, "outside")
        assert empty.wait("outside") == Exit.FAILED
        assert "Read-only file system" in empty.log("outside")
        assert place.wire.requests == 0


def test_a_bad_configuration_ends_at_once_with_its_own_exit_code(empty: Workshop, tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        House(tmp_path, place, spool={"type": "nothing"}).run(empty, "bad")
        assert empty.wait("bad") == Exit.BAD_CONFIGURATION
        assert "/etc/poller/poller.yaml:1:" in empty.log("bad")
        assert place.wire.requests == 0
