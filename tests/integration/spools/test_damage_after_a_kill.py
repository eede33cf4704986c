"""Damage to journal or WAL after a kill: what lost a page or a push is said, and a kill alone is not."""

import asyncio
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.spools import flips
from tests.patience import patiently

ROOT = Path(__file__).parents[3]
CASES = [("journal", name) for name in flips.JOURNAL] + [("spool.db-wal", name) for name in flips.WAL]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.spools.flips", str(folder)],
        cwd=ROOT,
        check=False,
        timeout=120,
    )
    assert ended.returncode == -9
    return folder


def copied(killed: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("spool.db", "spool.db-wal", "spool.db.head", "journal"):
        shutil.copyfile(killed / name, folder / name)
    return folder


def looked(folder: Path) -> tuple[bool, set[str], int]:
    return asyncio.run(patiently(flips.look(folder)))


def test_a_kill_by_itself_loses_nothing_and_raises_no_alarm(killed: Path, tmp_path: Path) -> None:
    said, there, rejects = looked(copied(killed, tmp_path / "copy"))
    assert not said
    assert there == flips.everything()
    assert rejects == 0


@pytest.mark.parametrize(("file", "name"), CASES)
def test_damage_that_lost_a_page_or_a_push_is_said(
    killed: Path, tmp_path: Path, soak: bool, file: str, name: str
) -> None:
    damage = flips.JOURNAL.get(name) or flips.WAL[name]
    silent, lost, said_so, kept = [], 0, 0, 0
    times = 12 if soak else 2
    for seed in range(times):
        folder = copied(killed, tmp_path / "copy")
        content = bytearray((folder / file).read_bytes())
        damage(content, random.Random(f"{name} {seed}"))
        (folder / file).write_bytes(content)
        said, there, rejects = looked(folder)
        missing = flips.everything() - there
        lost, said_so, kept = lost + bool(missing), said_so + said, kept + rejects
        if missing and not said:
            silent.append(seed)
        again, still, _ = looked(folder)
        assert still >= there, "what was read in stays"
        assert not (again and not missing), "said once"
    print(
        f"\n{name}: {times} times, lost something {lost}, said {said_so}, rejects {kept}, silent {len(silent)}"
    )
    assert not silent


@pytest.mark.parametrize("content", [b"", b"\xff" * 80, b"poller-head 0 0 0\n", None, "changed"])
def test_a_damaged_head_file_is_harmless(killed: Path, tmp_path: Path, content: bytes | str | None) -> None:
    folder = copied(killed, tmp_path / "copy")
    head = folder / "spool.db.head"
    if content is None:
        head.unlink()
    elif isinstance(content, bytes):
        head.write_bytes(content)
    else:
        written = bytearray(head.read_bytes())
        written[30] ^= 1
        head.write_bytes(written)
    said, there, _ = looked(folder)
    assert not said
    assert there == flips.everything()
    assert not looked(folder)[0]


def test_a_released_page_is_overwritten_in_the_journal(killed: Path) -> None:
    """It held raw bytes."""
    raw = (killed / "journal").read_bytes()
    bodies = [flips.page(n).body for n in range(flips.COMMITTED + flips.KEPT)]
    assert [n for n, body in enumerate(bodies) if body in raw] == list(
        range(flips.COMMITTED, flips.COMMITTED + flips.KEPT)
    )
