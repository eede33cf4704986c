"""Files on disk: never outside, never half, durable in the right order, and a disk that says no."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from poller.core.errors import PartlyFailed, PlaceGone, StorageError
from poller.sinks.download.store import File, Store

from .names import HOSTILE_NAMES
from .shots import attempt, delivered, download, files, jpeg, needs_syncfs, ok, serving, shot

NAME = "cam1_1_1_1_320_176.jpg"


def stored(store: Store, *paths: str, content: bytes = b"picture") -> dict[str, str]:
    """Keep one file for each path; which failed, and why."""
    made = [
        File(event_id=path, folders=tuple(path.split("/")[:-1]), name=path.split("/")[-1], content=content)
        for path in paths
    ]
    return {path: str(error) for path, error in store.keep(made).items()}


@pytest.fixture(params=["file", "filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "filesystem":
        needs_syncfs(tmp_path)
    opened = Store(tmp_path / "pictures", request.param)
    opened.open()
    yield opened
    opened.close()


# ---------------------------------------------------------------- never outside


@pytest.mark.parametrize("template", ["{date}/{stream}/{name}", "{name}", "{stream}/{id}"])
def test_no_hostile_name_leaves_the_directory_or_meets_another(tmp_path: Path, template: str) -> None:
    pictures = tmp_path / "tree" / "pictures"
    outside = tmp_path / "tree" / "outside"
    pictures.mkdir(parents=True)
    outside.mkdir()
    (outside / "canary").write_bytes(b"alive")
    for name in ("link", "..%", "etc", "%2E%2E", "a"):
        (pictures / name).symlink_to(outside)
    for name in ("x.jpg", "canary", "b.jpg"):
        (pictures / name).symlink_to(outside / "canary")

    async def main() -> set[str]:
        refused = set()
        async with serving(lambda path: ok(jpeg())) as server, download(pictures, template=template) as sink:
            for first in range(0, len(HOSTILE_NAMES), 32):
                chunk = HOSTILE_NAMES[first : first + 32]
                events = [
                    shot(name, server.url(quote(name, errors="replace")), stream=name) for name in chunk
                ]
                error = await attempt(sink, *events)
                if error is not None:
                    assert isinstance(error, PartlyFailed)
                    refused |= set(error.failures)
        return refused

    refused = asyncio.run(main())
    # Streams named like a planted link may be refused, but nothing goes through it.
    assert len(refused) <= 5
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert {path for path in found if not path.startswith("tree/pictures/")} == {"tree/outside/canary"}
    assert (outside / "canary").read_bytes() == b"alive"
    assert len(files(pictures)) == len(HOSTILE_NAMES) - len(refused)


def test_a_planted_link_to_a_folder_is_not_followed_and_its_neighbours_are_stored(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "pictures" / "cam1").symlink_to(tmp_path / "outside")
    (tmp_path / "pictures" / "cam2").symlink_to("cam2")
    (tmp_path / "pictures" / "cam3").write_bytes(b"a file")
    failed = stored(store, "cam1/a.jpg", "cam2/a.jpg", "cam3/a.jpg", "cam4/a.jpg")
    assert set(failed) == {"cam1/a.jpg", "cam2/a.jpg", "cam3/a.jpg"}
    assert all("in the way" in reason for reason in failed.values())
    assert list((tmp_path / "outside").iterdir()) == []
    assert (tmp_path / "pictures" / "cam4" / "a.jpg").read_bytes() == b"picture"


def test_what_stands_in_a_files_place_is_replaced_and_not_written_through(
    store: Store, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"alive")
    pictures = tmp_path / "pictures"
    (pictures / "link.jpg").symlink_to(canary)
    (pictures / "same.jpg").symlink_to(tmp_path / "twin")
    (tmp_path / "twin").write_bytes(b"picture")
    (pictures / "hard.jpg").hardlink_to(canary)
    os.mkfifo(pictures / "fifo.jpg")
    (pictures / "folder.jpg").mkdir()
    failed = stored(store, *(f"{name}.jpg" for name in ("link", "same", "hard", "fifo", "folder")))
    assert set(failed) == {"folder.jpg"}
    assert canary.read_bytes() == b"alive"
    for name in ("link", "same", "hard", "fifo"):
        assert not (pictures / f"{name}.jpg").is_symlink()
        assert (pictures / f"{name}.jpg").read_bytes() == b"picture"


def test_a_sidecar_that_cannot_be_stored_keeps_its_picture_back(store: Store, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "a.jpg.json").mkdir()
    pair = [File(event_id="1", folders=(), name=name, content=b"x") for name in ("a.jpg.json", "a.jpg")]
    assert set(store.keep(pair)) == {"1"}
    assert not (tmp_path / "pictures" / "a.jpg").exists()


# ---------------------------------------------------------------- entering


def test_the_directory_and_its_parents_are_made(tmp_path: Path) -> None:
    assert delivered(tmp_path / "a" / "b" / "c", lambda path: ok(jpeg()), NAME) is None
    assert len(files(tmp_path / "a" / "b" / "c")) == 1


def test_a_directory_that_is_a_link_to_one_is_the_operators_choice(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "pictures").symlink_to("disk")
    assert delivered(tmp_path / "pictures", lambda path: ok(jpeg()), NAME) is None
    assert len(files(tmp_path / "disk")) == 1


def test_a_directory_that_cannot_be_used_is_refused_on_entering(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / ".incoming").symlink_to(tmp_path)
    for name in ("loop", "loop/below", "dangling", "file", "file/below", "planted"):
        with pytest.raises(StorageError, match="cannot store pictures in"):
            Store(tmp_path / name).open()
    with pytest.raises(StorageError):
        Store(Path("/proc/self/pictures")).open()
    assert len(os.listdir("/proc/self/fd")) < 100


def test_entering_and_leaving_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        for _ in range(20):
            async with download(tmp_path / "pictures"):
                pass

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) <= before
    assert files(tmp_path) == {}


# ---------------------------------------------------------------- crashes and cancellation

DIE = """
import os, signal, sys
from pathlib import Path
from poller.sinks.download import incoming, store
renames, real = 0, os.rename
def rename(*args, **kwargs):
    global renames
    renames += 1
    if renames == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*args, **kwargs)
os.rename = rename
pictures = store.Store(Path(sys.argv[1]))
pictures.open()
files = [store.File(event_id=str(n), folders=("cam",), name=f"{n}.jpg", content=b"whole") for n in range(9)]
pictures.keep(files)
"""


def test_what_a_crash_left_is_gone_at_the_next_start(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DIE, tmp_path], check=False).returncode == -signal.SIGKILL
    left = files(tmp_path)
    assert sum(path.endswith(".part") for path in left) == 6
    assert sum(path.startswith("cam/") for path in left) == 3  # the first rename was the proof's
    store = Store(tmp_path)
    store.open()
    store.close()
    assert files(tmp_path) == {f"cam/{number}.jpg": b"whole" for number in range(3)}


def test_the_files_of_another_sink_in_the_same_directory_are_not_taken_for_leftovers(tmp_path: Path) -> None:
    first, second, third = [Store(tmp_path) for _ in range(3)]
    first.open()
    draft = tmp_path / ".incoming" / "0.part"
    draft.write_bytes(b"")
    second.open()
    assert draft.exists()
    first.close()
    second.close()
    third.open()
    assert not draft.exists()
    third.close()


def test_a_cancelled_delivery_leaves_only_whole_pictures(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(lambda path: ok(jpeg())) as server, download(tmp_path) as sink:
            events = [shot(f"{number}.jpg", server.url(f"{number}.jpg")) for number in range(8)]
            for turns in range(0, 120, 2):
                task = asyncio.ensure_future(attempt(sink, *events))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert await attempt(sink, *events) is None

    asyncio.run(main())
    found = files(tmp_path)
    assert len(found) == 8
    assert set(found.values()) == {jpeg()}


# ---------------------------------------------------------------- durable, in this order

KEEP = """
import sys
from pathlib import Path
from poller.sinks.download.store import File, Store
store = Store(Path(sys.argv[1]))
store.open()
print("READY", file=sys.stderr, flush=True)
folders = [("day", "cam0"), ("day", "cam1")] * 2
files = [File(event_id=str(n), folders=folders[n], name=f"{n}.jpg", content=b"x") for n in range(4)]
store.keep(files)
print("RETURNED", file=sys.stderr, flush=True)
store.keep(files[:1])
print("AGAIN", file=sys.stderr, flush=True)
"""


def _traced(directory: Path) -> list[str]:
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,write,mkdirat"
    trace = directory.parent / "trace"
    command = [
        "strace",
        "-f",
        "-y",
        "-o",
        str(trace),
        "-e",
        calls,
        sys.executable,
        "-c",
        KEEP,
        str(directory),
    ]
    subprocess.run(command, check=True, capture_output=True)
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    begin = next(index for index, line in enumerate(lines) if "READY" in line)
    return [
        line
        for line in lines[begin + 1 :]
        if re.match(r"(fsync|fdatasync|rename|mkdir)", line) or "ED" in line or "AGAIN" in line
    ]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_files_are_synced_before_their_renames_and_folders_after_and_before_returning(tmp_path: Path) -> None:
    lines = _traced(tmp_path / "pictures")
    returned = next(index for index, line in enumerate(lines) if "RETURNED" in line)
    first, again = lines[:returned], lines[returned + 1 :]
    kinds = [line.partition("(")[0] for line in first]
    renames = [index for index, kind in enumerate(kinds) if kind.startswith("rename")]
    assert len(renames) == 4
    synced = [line for line in first[: renames[0]] if line.startswith("fsync")]
    assert len(synced) == 4
    for index in renames:
        draft = re.search(r'"([^"]+\.part)"', first[index])
        assert draft is not None
        assert any(draft[1] in line for line in synced)
    after = [line for line in first[renames[-1] + 1 :] if line.startswith("fsync")]
    for folder in ("pictures", "pictures/day", "pictures/day/cam0", "pictures/day/cam1"):
        assert sum(f"{folder}>" in line for line in after) == 1, f"{folder} once, after the renames"
    assert len(after) == 4
    # A file that is there already is not taken on trust: it and its folder are synced; the parents, once
    # known to be durable, are not.
    assert [line.partition("(")[0] for line in again if "AGAIN" not in line] == ["fsync", "fsync"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_file_whose_sync_failed_is_not_published(tmp_path: Path, error: str) -> None:
    # strace counts each thread's calls: in the first one that syncs files, the proof's comes before a picture's; the
    # main thread syncs the directory on entering, and then nothing before the pictures.
    (tmp_path / "pictures").mkdir()
    trace = tmp_path / "trace"
    inject = ["-e", "trace=fsync", "-e", f"inject=fsync:error={error}:when=2"]
    command = [
        "strace",
        "-f",
        "-o",
        str(trace),
        *inject,
        sys.executable,
        "-c",
        KEEP,
        str(tmp_path / "pictures"),
    ]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "INJECTED" in trace.read_text()
    assert "READY" in result.stderr
    assert "RETURNED" not in result.stderr
    assert "PlaceGone" in result.stderr
    assert files(tmp_path / "pictures") == {}


# ---------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("needs root to mount a small disk, and CI=true allows no skipping")
        pytest.skip("NEEDS ROOT: mounts a small disk")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mounted], check=True)
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=True)


@pytest.mark.root
async def test_a_full_disk_fails_the_batch_as_a_whole_and_heals(small_disk: Path) -> None:
    async with (
        serving(lambda path: ok(jpeg())) as server,
        download(small_disk, template="{name}") as sink,
    ):
        events = [shot(f"{number}.jpg", server.url(f"{number}.jpg")) for number in range(32)]
        filler = small_disk / "filler"
        filler.write_bytes(bytes(2 * 2**20 - 8 * len(jpeg())))
        for _ in range(3):
            error = await attempt(sink, *events)
            assert type(error) is PlaceGone
            assert str(error) == "the disk is full"
            assert list((small_disk / ".incoming").iterdir()) == []
            assert all(path.read_bytes() == jpeg() for path in small_disk.glob("*.jpg"))
        filler.unlink()
        assert await attempt(sink, *events) is None
        assert len(list(small_disk.glob("*.jpg"))) == 32


@pytest.mark.root
def test_a_disk_that_became_read_only_fails_the_batch_as_a_whole(small_disk: Path) -> None:
    async def main() -> None:
        async with serving(lambda path: ok(jpeg())) as server, download(small_disk) as sink:
            mount = await asyncio.create_subprocess_exec("mount", "-o", "remount,ro", small_disk)
            assert await mount.wait() == 0
            error = await attempt(sink, shot(NAME, server.url(NAME)))
            assert type(error) is PlaceGone
            assert "Read-only" in str(error)

    asyncio.run(main())
    with pytest.raises(StorageError, match="Read-only"):
        Store(small_disk).open()
