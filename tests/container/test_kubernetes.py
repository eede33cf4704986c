"""kubernetes/poller.yaml: held to Kubernetes' schemas, in step with the image, its probes asked of a real daemon."""

import copy
import http.client
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

import poller as program
from tests.commands import poller
from tests.ports import lasting_port
from tests.servers.databases import postgres
from tests.servers.postgres_spools import dsn_of

from ..service.running import Process, daemon, queue, until
from .files import DOCKERFILE, MANIFEST, STATE, guide_blocks, health_check, service, stages

OLDEST: Final = "1.27"
"""The oldest Kubernetes that the manifest says it is for."""
NEWEST: Final = kubernetes_validate.latest_version().rpartition(".")[0]
SECRETS: Final = "/run/secrets/poller"
PLACES: Final = {"state": STATE, "configuration": "/etc/poller", "secrets": SECRETS, "tmp": "/tmp"}

Object = dict[str, Any]


def objects() -> list[Object]:
    return [one for one in yaml.safe_load_all(MANIFEST.read_text()) if one is not None]


def only(kind: str, name: str = "poller") -> Object:
    (found,) = (one for one in objects() if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def members() -> Object:
    """The StatefulSet's specification."""
    found = only("StatefulSet")["spec"]
    assert isinstance(found, dict)
    return found


def pod() -> Object:
    found = members()["template"]["spec"]
    assert isinstance(found, dict)
    return found


def container() -> Object:
    (found,) = pod()["containers"]
    assert isinstance(found, dict)
    return found


def ports() -> dict[str, int]:
    """The container's ports by name."""
    return {port["name"]: port["containerPort"] for port in container()["ports"]}


def configuration() -> str:
    """The configuration that the manifest brings."""
    (found,) = only("ConfigMap")["data"].values()
    assert isinstance(found, str)
    return found


# ---------------------------------------------------------------- the lint


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_fits_the_schemas_of_kubernetes(version: str) -> None:
    assert f"Kubernetes {OLDEST} or later" in MANIFEST.read_text()
    for one in objects():
        assert kubernetes_validate.validate(one, version, strict=True) == version


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("StatefulSet", ("spec", "template", "spec", "containers", 0, "redinessProbe"), {}),
        ("StatefulSet", ("spec", "template", "spec", "securityContext", "readOnlyRootFilesystem"), True),
        ("StatefulSet", ("spec", "replicas"), "three"),
        ("StatefulSet", ("spec", "volumeClaimTemplates", 0, "spec", "accessMode"), "ReadWriteOnce"),
        ("PodDisruptionBudget", ("spec", "maxUnavailible"), 1),
        ("Service", ("spec", "ports", 0, "port"), "admin"),
        ("ConfigMap", ("data", "poller.yaml"), {"log": {}}),
    ],
)
def test_the_schemas_see_mistakes(kind: str, path: tuple[str | int, ...], value: Any) -> None:
    wrong: Any = copy.deepcopy(only(kind))
    *way, last = path
    place = wrong
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


# ---------------------------------------------------------------- what belongs together


def test_there_is_nothing_that_is_not_looked_at_here() -> None:
    assert sorted((one["kind"], one["metadata"]["name"]) for one in objects()) == [
        ("ConfigMap", "poller"),
        ("PodDisruptionBudget", "poller"),
        ("Service", "poller"),
        ("Service", "poller-pages"),
        ("Service", "poller-pushes"),
        ("StatefulSet", "poller"),
    ]
    assert "initContainers" not in pod()


def test_every_selector_finds_the_pods() -> None:
    labels = members()["template"]["metadata"]["labels"]
    chosen = [one["spec"]["selector"] for one in objects() if one["kind"] == "Service"]
    spread = [one["labelSelector"] for one in pod()["topologySpreadConstraints"]]
    selectors = [members()["selector"], only("PodDisruptionBudget")["spec"]["selector"], *spread]
    assert [*chosen, *(one["matchLabels"] for one in selectors)] == [labels] * (len(chosen) + len(selectors))


def test_the_pods_are_named_by_a_service_without_an_address_of_its_own() -> None:
    named = only("Service", members()["serviceName"])["spec"]
    assert named["clusterIP"] == "None"
    assert named["publishNotReadyAddresses"] is True


def test_each_service_leads_to_the_port_of_its_name() -> None:
    served = {}
    for name in ("poller", "poller-pages", "poller-pushes"):
        (port,) = only("Service", name)["spec"]["ports"]
        assert port["targetPort"] == port["name"]
        served[port["name"]] = port["port"]
    assert served == ports()


def test_the_ports_are_those_of_the_configuration_and_of_the_image() -> None:
    read = yaml.safe_load(configuration())
    listens = {
        "admin": read["admin"]["listen"],
        "pages": read["web"]["listen"],
        "pushes": read["sources"]["notifications"]["listen"],
    }
    assert listens == {name: f"0.0.0.0:{port}" for name, port in ports().items()}
    (said,) = re.findall(
        r"# Ports that a configuration may open: (.*)\.", DOCKERFILE.read_text().replace(". None", ".\n")
    )
    assert sorted(map(int, re.findall(r"[0-9]{4}", said))) == sorted(ports().values())


def test_only_pods_that_can_store_a_push_get_pushes() -> None:
    assert "publishNotReadyAddresses" not in only("Service", "poller-pushes")["spec"]
    assert "/readyz?for=pushes" in container()["readinessProbe"]["exec"]["command"][-1]


def test_a_client_of_the_pages_stays_with_the_daemon_of_its_login() -> None:
    assert only("Service", "poller-pages")["spec"]["sessionAffinity"] == "ClientIP"


# ---------------------------------------------------------------- closed


def test_the_pod_is_the_images_user_and_may_become_nobody_else() -> None:
    uid, _, gid = stages()[-1].only("USER").rest.partition(":")
    context = pod()["securityContext"]
    assert context["runAsNonRoot"] is True
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(uid), int(gid), int(gid))
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod())


def test_it_can_write_only_to_its_volume_and_a_small_tmp() -> None:
    mounts = container()["volumeMounts"]
    assert {mount["name"]: mount["mountPath"] for mount in mounts} == PLACES
    assert {mount["name"] for mount in mounts if not mount.get("readOnly")} == {"state", "tmp"}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert volumes["tmp"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Mi"}
    assert "size=16m" in service()["tmpfs"][0]
    assert volumes["configuration"]["configMap"] == {"name": "poller"}
    assert set(PLACES) - set(volumes) == {"state"}
    assert stages()[-1].only("CMD").words[-1] == f"/etc/poller/{next(iter(only('ConfigMap')['data']))}"


def test_each_daemon_keeps_its_journal_in_a_volume_of_its_own_which_nothing_deletes() -> None:
    (claim,) = members()["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "state"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert stages()[-1].only("VOLUME").rest == STATE
    assert yaml.safe_load(configuration())["journal"]["path"].startswith(f"{STATE}/")
    assert set(members()["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


def test_every_secret_is_made_by_the_guides_command_and_none_stands_in_the_manifest() -> None:
    (volume,) = (one["secret"] for one in pod()["volumes"] if "secret" in one)
    assert volume == {"secretName": "poller", "defaultMode": 0o440}
    used = set(re.findall(rf"{SECRETS}/([a-z_]+)", configuration()))
    for one in container()["env"]:
        assert set(one) == {"name", "valueFrom"}
        assert one["valueFrom"]["secretKeyRef"]["name"] == "poller"
        used.add(one["valueFrom"]["secretKeyRef"]["key"])
    assert re.findall(r"\$\{([A-Z_]+)\}", configuration()) == [one["name"] for one in container()["env"]]
    commands = "".join(guide_blocks("On Kubernetes", "sh"))
    assert "kubectl create secret generic poller " in commands
    assert set(re.findall(r"--from-(?:file|literal)=([a-z_]+)", commands)) == used
    assert not re.search(r"^\s*(?:key|token|secret|dsn|password):", configuration(), re.MULTILINE)


# ---------------------------------------------------------------- stopping, draining, upgrading


def test_a_pod_has_the_images_time_to_stop_after_pushes_have_ceased() -> None:
    *_, sleep = container()["lifecycle"]["preStop"]["exec"]["command"]
    whole = float(service()["stop_grace_period"].removesuffix("s"))
    assert pod()["terminationGracePeriodSeconds"] == whole + float(sleep)


def test_one_daemon_at_a_time_is_stopped() -> None:
    assert members()["replicas"] == 3
    assert only("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert members()["updateStrategy"] == {"type": "RollingUpdate"}
    lease = yaml.safe_load(configuration())["spool"]["lease"]
    assert members()["minReadySeconds"] > float(lease.removesuffix("s"))


def test_no_two_daemons_are_on_one_machine_if_there_are_others() -> None:
    nodes, _ = pod()["topologySpreadConstraints"]
    assert (nodes["topologyKey"], nodes["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")


def test_the_daemon_is_not_the_first_process() -> None:
    assert pod()["shareProcessNamespace"] is True
    assert "command" not in container()
    assert "args" not in container()


def test_the_images_version_is_this_one() -> None:
    assert container()["image"].rpartition(":")[2] == program.__version__


def test_a_daemon_that_hangs_is_restarted_as_the_image_would_have_it() -> None:
    probe = container()["livenessProbe"]
    assert probe["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert "'/healthz'" in health_check()[-1]
    options = stages()[-1].only("HEALTHCHECK").rest.partition("CMD")[0]
    said = {key: probe[key] for key in ("periodSeconds", "timeoutSeconds", "failureThreshold")}
    assert said == dict(
        zip(
            said,
            (
                int(re.findall(rf"--{name}=([0-9]+)", options)[0])
                for name in ("interval", "timeout", "retries")
            ),
            strict=True,
        )
    )
    start = container()["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 120


# ---------------------------------------------------------------- the configuration and the probes


class Member:
    """A pod's container in a folder, on free ports."""

    def __init__(self, folder: Path, dsn: str, endpoint: str | None = None) -> None:
        self.folder = folder
        self.ports = {name: lasting_port() for name in ports()}
        keys = set(re.findall(rf"{SECRETS}/([a-z_]+)", configuration()))
        secrets = {key: f"{number:x}" * 32 for number, key in enumerate(sorted(keys))}
        secrets |= {"spool_dsn": dsn, "hook_secret": "whsec_" + "A" * 32}
        self._mount("run/secrets/poller", secrets, 0o440)
        read = yaml.safe_load(self.placed(configuration()))
        if endpoint is not None:
            read["accounts"]["main"]["endpoint"] = endpoint
        self._mount("etc/poller", {"poller.yaml": yaml.safe_dump(read)}, 0o644)
        self.config = folder / "etc/poller/poller.yaml"
        self.environ = {one["name"]: "p" * 32 for one in container()["env"]}

    def _mount(self, name: str, files: dict[str, str], mode: int) -> None:
        """Files as the kubelet mounts them: links to a folder that a change replaces at once."""
        place = self.folder / name
        (place / "..first").mkdir(parents=True)
        (place / "..data").symlink_to("..first")
        for file, content in files.items():
            (place / "..first" / file).write_text(content)
            (place / "..first" / file).chmod(mode)
            (place / file).symlink_to(f"..data/{file}")

    def placed(self, text: str) -> str:
        """A text with the container's places and ports replaced by those here."""
        for name, port in ports().items():
            text = re.sub(rf"\b{port}\b", str(self.ports[name]), text).replace("0.0.0.0", "127.0.0.1")
        for place in (SECRETS, STATE):
            text = text.replace(f"{place}/", f"{self.folder}{place}/")
        return text

    def asks_http(self, probe: str) -> bool:
        """Whether a probe by HTTP is passed, as the kubelet judges."""
        get = container()[probe]["httpGet"]
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[get["port"]], timeout=10)
        try:
            connection.request("GET", get["path"])
            return 200 <= connection.getresponse().status < 400
        except OSError:
            return False
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether the probe that is a command is passed."""
        interpreter, *words = container()["readinessProbe"]["exec"]["command"]
        assert interpreter == health_check()[0]
        call = [sys.executable, *map(self.placed, words)]
        return subprocess.run(call, capture_output=True, timeout=60, check=False).returncode == 0

    def takes_connections(self, name: str) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.ports[name]), timeout=10):
                return True
        except OSError:
            return False


def test_the_configuration_is_accepted_as_it_is_mounted(tmp_path: Path) -> None:
    member = Member(tmp_path, "postgresql://poller:secret@db.example.com:5432/poller")
    checked = poller("check", "-c", str(member.config), folder=tmp_path, **member.environ)
    assert checked.returncode == 0, checked.stderr


@contextmanager
def running(member: Member) -> Iterator[Process]:
    with daemon(member.config, forked=True, **member.environ) as process:
        until(lambda: member.asks_http("startupProbe"))
        yield process


def test_the_probes_tell_a_daemon_that_takes_pushes_from_one_that_cannot(tmp_path: Path) -> None:
    with postgres() as server, queue() as platform:
        member = Member(tmp_path, dsn_of(server), platform.endpoint)
        assert not member.is_ready()
        with running(member) as process:
            until(member.is_ready)
            assert all(member.takes_connections(name) for name in ports())
            server.kill()
            until(lambda: not member.is_ready())
            assert member.asks_http("livenessProbe")
            server.start()
            until(member.is_ready)
            assert process.stop() == 0
        assert not member.asks_http("livenessProbe")
