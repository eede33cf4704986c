"""Where the image is built and run without a registry: the base image is made of Debian's packages, the rest of wheels.

All of it lies in one folder, which is removed at the end, and nothing is fetched while the Dockerfile is built.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..service.running import tool
from .files import DOCKERFILE, ROOT, compose, service, stages

IMAGE: Final = "localhost/poller:tried"
WITH_EXTRAS: Final = "localhost/poller:extras"
EXTRAS: Final = ("kafka", "s3")
"""What that image is built with: both bring libraries that are not written in Python."""
CANARY: Final = "a6d1f2f0c9"
"""Stands in the package mirror's configuration, and nowhere else."""
DEBIAN: Final = "python3,python3-venv,ca-certificates"
LIMITS: Final = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
"""No more than any machine lets be set."""
BASE: Final = """\
FROM scratch
ADD base.tar /
RUN rm -rf /etc/apt/sources.list* /usr/lib/python3*/EXTERNALLY-MANAGED \\
 && ln -s ../../bin/python3 /usr/local/bin/python \\
 && python "$(echo /usr/share/python-wheels/pip-*.whl)/pip" install --no-index --root-user-action=ignore \\
    --find-links=/usr/share/python-wheels pip setuptools
"""
"""What the official image is to us: `python` and a pip below /usr/local."""


class Workshop:
    """Builds with buildah and runs with podman, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base, _, self._digest = stages()[0][0].rest.split()[0].partition("@")
        store = ("--root", str(folder / "store"), "--runroot", str(folder / "run"))
        self._buildah = (tool("buildah"), *store)
        self._podman = (
            tool("podman"),
            *store,
            "--cgroup-manager=cgroupfs",
            f"--runtime={tool('runc')}",
            f"--tmpdir={folder / 'tmp'}",
            "--events-backend=file",
        )

    # ------------------------------------------------------------ building

    def build(self) -> None:
        """Make the base image, and the Dockerfile's on top of it, without extras and with some."""
        self._make_base()
        self._download()
        (self.folder / "pip.conf").write_text(f"# {CANARY}\n[global]\nno-index = true\nfind-links = /mnt\n")
        # The base made here has a digest of its own, so that it is named by its tag alone.
        dockerfile = self.folder / "Dockerfile"
        dockerfile.write_text(DOCKERFILE.read_text().replace(f"@{self._digest}", ""))
        for name, extras in ((IMAGE, ""), (WITH_EXTRAS, ",".join(EXTRAS))):
            done = self.built(name, extras)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    def built(self, name: str, extras: str) -> subprocess.CompletedProcess[str]:
        """Build the Dockerfile with extras; it may fail."""
        options = [f"--build-arg=EXTRAS={extras}"] if extras else []
        return self._build(
            name,
            self.folder / "Dockerfile",
            ROOT,
            *options,
            f"--secret=id=pip,src={self.folder / 'pip.conf'}",
            f"--volume={self.folder / 'wheels'}:/mnt:ro",
            "--no-cache",
            check=False,
        )

    def _make_base(self) -> None:
        context = self.folder / "base"
        context.mkdir()
        debian = self.base.rpartition("-")[2]
        tarball = str(context / "base.tar")
        call(tool("mmdebstrap"), "--variant=minbase", f"--include={DEBIAN}", debian, tarball)
        (context / "Dockerfile").write_text(BASE)
        self._build(self.base, context / "Dockerfile", context)
        shutil.rmtree(context)

    def _download(self) -> None:
        """Fetch what the builds need of other people's packages."""
        files = [
            "requirements.txt",
            "requirements-build.txt",
            *(f"requirements/{extra}.txt" for extra in EXTRAS),
        ]
        version = ".".join(self.base.rpartition(":")[2].split(".")[:2])
        pip = (sys.executable, "-m", "pip", "download", "--quiet", f"--dest={self.folder / 'wheels'}")
        needed = [f"-r{ROOT / name}" for name in files]
        call(*pip, "--require-hashes", "--only-binary=:all:", f"--python-version={version}", *needed)

    def _build(
        self, name: str, file: Path, context: Path, *options: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        # OCI's own format has no health checks.
        words = ("build", "--pull=never", "--format=docker", *options, f"--tag={name}")
        return call(*self._buildah, *words, f"--file={file}", str(context), check=check)

    # ------------------------------------------------------------ running

    def podman(self, *words: str) -> str:
        """What podman prints; fails when it fails."""
        return call(*self._podman, *words).stdout

    def tried(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same for what may fail."""
        return call(*self._podman, *words, check=False)

    def run(
        self,
        name: str,
        config: Path,
        secrets: Mapping[str, Path],
        admin: str,
        *words: str,
        first: bool = False,
    ) -> None:
        """Start a container as compose.yaml says; with `first`, the daemon is its first process."""
        options = [word for word in as_compose_says(config, secrets) if not (first and word == "--init")]
        environ = f"--env=POLLER_ADMIN={admin}"
        self.podman("run", "--detach", "--name", name, *LIMITS, environ, *options, IMAGE, *words)

    def check(
        self, image: str, config: Path, secrets: Mapping[str, Path]
    ) -> subprocess.CompletedProcess[str]:
        """Run `check` in a container of an image, which is removed again."""
        words = ("check", "--config", "/etc/poller/poller.yaml")
        return self.tried("run", "--rm", *LIMITS, *as_compose_says(config, secrets), image, *words)

    def wait(self, name: str) -> int:
        """The exit code of a container, when it has ended."""
        return int(self.podman("wait", name))

    def stop(self, name: str) -> int:
        """Stop it with the grace that compose.yaml gives, and return its exit code."""
        self.podman("stop", f"--time={service()['stop_grace_period'].removesuffix('s')}", name)
        return self.wait(name)

    def log(self, name: str) -> str:
        """What it printed, stdout and stderr."""
        done = self.tried("logs", name)
        return done.stdout + done.stderr

    def inspect(self, name: str, what: str) -> str:
        """One thing of a container's or an image's description."""
        return self.podman("inspect", name, f"--format={{{{{what}}}}}").strip()

    def pid(self, name: str) -> int:
        """The daemon's process, seen from here."""
        first = int(self.inspect(name, ".State.Pid"))
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return int(children[0]) if children else first

    def volume(self) -> Path:
        """Where the named volume lies."""
        (name,) = compose()["volumes"]
        return Path(self.podman("volume", "inspect", name, "--format={{.Mountpoint}}").strip())

    def remove(self) -> None:
        """Take away containers and volumes."""
        self.tried("rm", "--all", "--force", "--time=0")
        self.tried("volume", "rm", "--all", "--force")


def as_compose_says(config: Path, secrets: Mapping[str, Path]) -> Sequence[str]:
    """compose.yaml's service in podman's words, on the host's network, because the platform is here."""
    said = service()
    state, mounted = said["volumes"]
    words = ["--network=host", f"--user={said['user']}", f"--volume={state}"]
    words.append(f"--volume={mounted.replace('./poller.yaml', str(config), 1)}")
    words += [f"--cap-drop={one}" for one in said["cap_drop"]]
    words += [f"--security-opt={one.removesuffix(':true')}" for one in said["security_opt"]]
    words += [f"--tmpfs={one}" for one in said["tmpfs"]]
    words += [f"--volume={secrets[name]}:/run/secrets/{name}:ro" for name in said["secrets"]]
    if said["read_only"]:
        words += ["--read-only", "--read-only-tmpfs=false"]
    if said["init"]:
        words.append("--init")
    return words


def call(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0 or not check, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done


@contextmanager
def workshop() -> Iterator[Workshop]:
    """A workshop with the image built; all of it is gone afterwards."""
    tool("catatonit")  # what podman runs for `init: true`
    folder = Path(tempfile.mkdtemp(prefix="poller-images-"))
    shop = Workshop(folder)
    try:
        shop.build()
        yield shop
    finally:
        shop.remove()
        shutil.rmtree(folder)


def facts(text: str) -> dict[str, Any]:
    """A process's status as the kernel tells it, by name."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
