"""The page of promises, from the registry that the fault matrix and the deliberate bugs share with it."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from docs.generate.markdown import codes, page, plain

REGISTRY: Final = Path(__file__).parents[2] / "tests" / "promises.yaml"

NOT_CLAIMED: Final = (
    "a disk that lies about its flushes",
    "SQLite files on network file systems, and a real case-folding file system",
    "the unit under a running systemd: only what `systemd-analyze verify` and `security` say of it, its system calls, and its walls one by one",
    "the image on its real base, which no test can pull: the tests make one of the same name from Debian's packages",
    "Docker and Compose themselves: podman runs what `compose.yaml` says, word by word; `compose.scale.yaml` is held to Compose's schema, and nobody runs it",
    "a Kubernetes cluster: the manifest is held to Kubernetes' schemas, and its configuration and probes are tried with a daemon",
    "the dashboard in a Grafana: its model is compared with the metrics, and its expressions are asked of a Prometheus",
    "the platform itself",
)


def promises() -> str:
    """Each promise with the tests that show it, the faults that they make happen, and the bugs that they see."""
    return page(
        "Promises",
        "What the program guarantees. For each promise there are tests. A **fault** is something that the tests make happen, and that they assert "
        "has come. A **bug** is a mistake that somebody might make in good faith: put into the code, it turns these tests red (`pytest --soak tests/mutation`).",
        f"There are {len(registry())} promises, {_count('faults')} faults and {_count('bugs')} bugs.",
        *(part for promise in registry() for part in _section(promise)),
        "## Not claimed",
        "Not tested, and therefore not promised:",
        "\n".join(f"- {one}" for one in NOT_CLAIMED),
    )


@cache
def registry() -> list[Mapping[str, Any]]:
    """All promises, as the registry has them."""
    found = yaml.safe_load(REGISTRY.read_text())
    assert isinstance(found, list)
    return found


def _count(what: str) -> int:
    return sum(len(promise.get(what, ())) for promise in registry())


def _section(promise: Mapping[str, Any]) -> Iterator[str]:
    yield f"(promise-{promise['id']})=\n## Promise {promise['id']}"
    yield f"{promise['promise']}."
    lines = [f"- Shown by {codes(promise['tests'])}." + (f" {promise['note']}" if "note" in promise else "")]
    if faults := promise.get("faults"):
        lines.append(f"- Faults: {_listed(faults)}.")
    if bugs := promise.get("bugs"):
        lines.append(f"- Bugs: {_listed(bugs)}.")
    yield "\n".join(lines)


def _listed(names: list[str]) -> str:
    return "; ".join(name if "`" in name else plain(name) for name in names)
