"""The lock files: every package that is declared is in them, at a version that fits, with its hashes."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = canonicalize_name(PROJECT["project"]["name"])
EXTRAS = sorted(PROJECT["project"]["optional-dependencies"].keys() - {"dev", "mutation"})
"""What an operator may install besides the program."""
LOCKS = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("requirements*/*.txt"))


def declared(extra: str | None = None) -> Iterator[Requirement]:
    """What the project, or one of its extras with those that it names, asks for."""
    project = PROJECT["project"]
    for line in project["dependencies"] if extra is None else project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) != NAME:
            yield requirement
            continue
        for name in requirement.extras:
            yield from declared(name)


def locked(file: str) -> dict[str, tuple[str, int]]:
    """Each package's version, and how many hashes it has."""
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", (ROOT / file).read_text()):
        head = re.match(r"([a-z0-9._-]+)==([^ ;\\]+)", entry)
        assert head, entry
        found[head[1]] = (head[2], entry.count("--hash=sha256:"))
    return found


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("requirements.txt", [*declared()]),
        ("requirements-dev.txt", [*declared(), *declared("dev")]),
        ("requirements-build.txt", [Requirement(line) for line in PROJECT["build-system"]["requires"]]),
        *((f"requirements/{extra}.txt", [*declared(extra)]) for extra in EXTRAS),
    ],
)
def test_what_is_declared_is_locked_with_hashes(file: str, wanted: list[Requirement]) -> None:
    found = locked(file)
    assert all(hashes > 0 for _, hashes in found.values())
    assert wanted
    for requirement in wanted:
        version, _ = found[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, requirement


def test_each_extra_has_a_file_and_no_file_is_of_an_extra_that_is_gone() -> None:
    assert [f"requirements/{extra}.txt" for extra in EXTRAS] == LOCKS


def test_the_files_agree() -> None:
    everything = locked("requirements-dev.txt")
    for file in ("requirements.txt", "requirements-build.txt", *LOCKS):
        assert {name: everything.get(name) for name in locked(file)} == locked(file), file


def test_no_file_names_where_packages_come_from() -> None:
    files = [*ROOT.glob("requirements*.txt"), *(ROOT / file for file in LOCKS)]
    assert len(files) == 3 + len(EXTRAS)
    for file in files:
        assert not re.search(r"https?://|--(extra-)?index-url", file.read_text()), file.name


def test_the_source_distribution_holds_every_file() -> None:
    packed = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {*(file.name for file in ROOT.glob("requirements*.txt")), "requirements"} <= {*packed}


def test_the_documented_commands_make_every_file() -> None:
    text = (ROOT / "docs/decisions/dependencies.md").read_text()
    (extras,) = re.findall(r"^for extra in ([a-z0-9 ]+); do$", text, re.MULTILINE)
    assert extras.split() == EXTRAS
    made = set(re.findall(r" -o (\S+)", text))
    assert made == {*(file.name for file in ROOT.glob("requirements*.txt")), "requirements/$extra.txt"}


def test_the_gate_and_the_image_install_only_what_is_locked() -> None:
    for file in (".ci/setup", "Dockerfile"):
        text = (ROOT / file).read_text().replace("\\\n", " ")
        installs = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) [^&\n]+", text)
        assert len(installs) >= 2
        for command in installs:
            assert "--require-hashes -r requirements" in command or "--no-deps" in command, command
