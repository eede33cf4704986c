"""What `Dockerfile`, `.dockerignore`, the compose files and the manifest for Kubernetes say, for tests to look at."""

import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = ROOT / "Dockerfile"
COMPOSE: Final = ROOT / "compose.yaml"
SCALE: Final = ROOT / "compose.scale.yaml"
MANIFEST: Final = ROOT / "kubernetes" / "poller.yaml"
GUIDE: Final = ROOT / "docs" / "guide" / "several-daemons-deployed.md"
IGNORED: Final = ROOT / ".dockerignore"
STATE: Final = "/var/lib/poller"
"""The folder of what a daemon keeps, in the image and in every container."""
BASE: Final = re.compile(r"docker\.io/library/python:3\.[0-9]+\.[0-9]+-slim-[a-z]+@sha256:[0-9a-f]{64}")
"""A base image by a tag that names one release of Python and one of Debian, and by its digest."""


class Instruction(NamedTuple):
    """One instruction of a Dockerfile: its word, and the rest with its lines joined."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest in exec form; fails when it is in any other."""
        found = json.loads(self.rest)
        assert isinstance(found, list)
        assert all(isinstance(word, str) for word in found)
        return found


class Stage(list[Instruction]):
    """One stage, from its FROM on."""

    def all(self, word: str) -> list[Instruction]:
        """All instructions of one word."""
        return [instruction for instruction in self if instruction.word == word]

    def only(self, word: str) -> Instruction:
        """The only instruction of a word."""
        (found,) = self.all(word)
        return found


def stages() -> list[Stage]:
    """The Dockerfile's stages."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[Stage] = []
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append(Stage())
        found[-1].append(Instruction(word, rest))
    return found


def assigned(rest: str) -> dict[str, str]:
    """The names and values of a LABEL or an ENV."""
    return {name: quoted or bare for name, quoted, bare in re.findall(r'(\S+?)=(?:"([^"]*)"|(\S+))', rest)}


def health_check() -> list[str]:
    """The health check's command."""
    options, _, command = stages()[-1].only("HEALTHCHECK").rest.partition("CMD ")
    assert "--interval=" in options
    return Instruction("CMD", command).words


def compose(file: Path = COMPOSE) -> dict[str, Any]:
    """The whole compose file."""
    found = yaml.safe_load(file.read_text())
    assert isinstance(found, dict)
    return found


def service() -> dict[str, Any]:
    """The compose file's only service."""
    (found,) = compose()["services"].values()
    assert isinstance(found, dict)
    return found


def guide_blocks(section: str, language: str) -> list[str]:
    """The fenced blocks of one language below a heading of the guide to several daemons in containers."""
    (text,) = re.findall(
        rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
