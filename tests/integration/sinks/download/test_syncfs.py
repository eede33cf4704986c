"""`sync: filesystem`: the order of calls, errors that the disk reports once or not at all, and where it is refused."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.core.errors import PlaceGone, StorageError
from poller.sinks.download.store import File, Store
from tests.power.image import Image, unseen

from .shots import files, needs_syncfs

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
OPENING = 2
"""The calls of `syncfs` while the directory is opened: a proof of each step."""

KEEP = """
import sys
from pathlib import Path
from poller.core.errors import PlaceGone
from poller.sinks.download.store import File, Store
store = Store(Path(sys.argv[1]), "filesystem")
store.open()
files = [File(event_id=str(n), folders=("day", f"cam{n % 2}"), name=f"{n}.jpg", content=b"x") for n in range(4)]
for word in ("FIRST", "AGAIN"):
    print(word, file=sys.stderr, flush=True)
    try:
        print("KEPT" if store.keep(files) == {} else "FAILED", file=sys.stderr, flush=True)
    except PlaceGone as error:
        print(f"GONE {error}", file=sys.stderr, flush=True)
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    needs_syncfs(tmp_path)
    return tmp_path / "pictures"


def traced(
    trace: Path, directory: Path, calls: str, *inject: str, script: str = KEEP
) -> tuple[list[str], list[str]]:
    """What a script said on stderr, and the calls that it made after it said FIRST."""
    wanted = [word for fault in inject for word in ("-e", f"inject={fault}")]
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", f"trace=write,{calls}", *wanted]
    ran = subprocess.run(
        [*command, sys.executable, "-c", script, str(directory)], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    begun = next(index for index, line in enumerate(lines) if "FIRST" in line)
    return ran.stderr.splitlines(), lines[begun + 1 :]


def index_of(lines: list[str], pattern: str) -> list[int]:
    return [index for index, line in enumerate(lines) if re.match(pattern, line)]


# ---------------------------------------------------------------- durable, in this order


def test_all_files_are_synced_before_the_first_rename_and_all_renames_before_returning(
    pictures: Path,
) -> None:
    said, lines = traced(
        pictures.with_name("trace"), pictures, "openat,syncfs,fsync,rename,renameat,renameat2"
    )
    assert said == ["FIRST", "KEPT", "AGAIN", "KEPT"]
    first, second = index_of(lines, r"write.*KEPT")
    calls = lines[:first]
    written = index_of(calls, r"write\(\d+<[^>]*\.part>")
    renamed, synced = index_of(calls, "rename"), index_of(calls, r"syncfs\(.* = 0")
    opened = index_of(calls, r'openat\(\d+<[^>]*/\.incoming>, "\."')
    assert len(written) == len(renamed) == 4
    assert len(synced) == 2
    assert index_of(calls, "fsync") == []
    # Linux reports an error once to each open descriptor: this one is the batch's own, and older than its writes
    assert len(opened) == 1
    descriptor = calls[opened[0]].rpartition("= ")[2]
    assert all(f"syncfs({descriptor}" in calls[index] for index in synced)
    assert opened[0] < written[0] < written[-1] < synced[0] < renamed[0] < renamed[-1] < synced[1]
    # files that are there already are not taken on trust: they are synced with their folders
    again = lines[first + 1 : second]
    assert len(index_of(again, r"syncfs\(.* = 0")) == 1
    assert index_of(again, "rename") == []


# ---------------------------------------------------------------- a sync that fails


@pytest.mark.parametrize(
    ("error", "reason"),
    [("EIO", "GONE disk: Input/output error"), ("ENOSPC", "GONE the disk is full")],
    ids=["EIO", "ENOSPC"],
)
def test_pictures_whose_sync_failed_are_not_published_and_come_again(
    pictures: Path, error: str, reason: str
) -> None:
    said, lines = traced(
        pictures.with_name("trace"), pictures, "syncfs,renameat", f"syncfs:error={error}:when={OPENING + 1}"
    )
    assert sum("INJECTED" in line for line in lines) == 1
    assert said == ["FIRST", reason, "AGAIN", "KEPT"]
    failed = next(index for index, line in enumerate(lines) if "GONE" in line)
    assert index_of(lines[:failed], "rename") == []
    assert len(index_of(lines[failed:], "rename")) == 4
    assert sorted(files(pictures)) == ["day/cam0/0.jpg", "day/cam0/2.jpg", "day/cam1/1.jpg", "day/cam1/3.jpg"]


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_pictures_whose_names_were_not_synced_do_not_count(pictures: Path, error: str) -> None:
    said, lines = traced(
        pictures.with_name("trace"), pictures, "syncfs,renameat", f"syncfs:error={error}:when={OPENING + 2}"
    )
    assert sum("INJECTED" in line for line in lines) == 1
    assert said[1].startswith("GONE")
    assert said[2:] == ["AGAIN", "KEPT"]


@pytest.mark.root
def test_a_failure_of_the_journal_that_syncfs_hides_is_noticed(tmp_path: Path, root: None) -> None:
    """As before Linux 5.17: the file system stops after the renames, and `syncfs` says that all is well."""
    on_a_disk(tmp_path / "image", lambda image: _is_noticed(image, tmp_path))


def _is_noticed(image: Image, tmp_path: Path) -> None:
    said, lines = traced(
        tmp_path / "trace",
        image.root / "pictures",
        "syncfs,renameat",
        f"syncfs:retval=0:when={OPENING + 2}+",
        script=CUT + KEEP,
    )
    image.unmount()
    image.mount()
    assert sum("INJECTED" in line for line in lines) >= 1
    assert len(index_of(lines, "renameat")) == 4
    assert list((image.root / "pictures").rglob("*.jpg")) == [], "void: nothing was lost"
    assert said[0] == "FIRST"
    assert said[1].startswith("GONE disk: "), said


CUT = """
import fcntl, os, struct, sys
from poller.sinks.download import store
def reached(name):
    if name == "picture.renamed":
        root = os.open(sys.argv[1], os.O_RDONLY)
        fcntl.ioctl(root, 0x8004587D, struct.pack("I", 2))
        os.close(root)
store.reached = reached
"""


@pytest.mark.root
def test_a_disk_that_loses_writes_keeps_its_pictures_from_being_delivered(tmp_path: Path, root: None) -> None:
    """The real thing: a loop device whose own file cannot grow any more. What was delivered is whole afterwards."""
    backing, disk = tmp_path / "backing", tmp_path / "disk"
    backing.mkdir()
    disk.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", backing)
    try:
        _run("truncate", "-s", "256M", backing / "image")
        _run("mkfs.ext4", "-q", "-F", "-J", "size=4", "-N", "4000", backing / "image")
        _run("mount", "-o", "loop,noauto_da_alloc", backing / "image", disk)
        try:
            delivered = _deliver_until_refused(disk)
        finally:
            _run("umount", disk)
        _run("mount", "-o", "remount,size=400m", backing)
        _run("mount", "-o", "loop", backing / "image", disk)
        try:
            stored = files(disk / "pictures")
        finally:
            _run("umount", disk)
    finally:
        _run("umount", "-l", backing)
    assert len(delivered) >= 20, "void"
    assert {name: stored.get(name) == content for name, content in delivered.items()} == dict.fromkeys(
        delivered, True
    )


def _deliver_until_refused(disk: Path) -> dict[str, bytes]:
    delivered: dict[str, bytes] = {}
    store = Store(disk / "pictures", "filesystem")
    store.open()
    try:
        for number in range(100):
            some = {f"cam/{number}-{each}.jpg": os.urandom(100_000) for each in range(10)}
            made = [
                File(event_id=path, folders=("cam",), name=path.partition("/")[2], content=content)
                for path, content in some.items()
            ]
            try:
                assert store.keep(made) == {}
            except PlaceGone:
                return delivered
            delivered |= some
    finally:
        store.close()
    raise AssertionError("the disk took everything")


def _run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)


# ---------------------------------------------------------------- where it is refused


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("needs root to mount disks, and CI=true allows no skipping")
        pytest.skip("NEEDS ROOT: mounts disks")


def on_a_disk(folder: Path, work: Callable[[Image], None]) -> None:
    """Work with a disk that no other process sees."""

    def alone() -> None:
        with Image(folder) as image:
            work(image)

    unseen(alone)


@pytest.mark.root
def test_a_start_on_another_file_system_is_refused_and_leaves_nothing(tmp_path: Path, root: None) -> None:
    _run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path)
    try:
        with pytest.raises(
            StorageError, match=r"sync: filesystem needs a folder on ext4 or xfs, and this one is tmpfs"
        ):
            Store(tmp_path / "pictures", "filesystem").open()
        assert files(tmp_path) == {}
        Store(tmp_path / "pictures", "file").open()
    finally:
        _run("umount", "-l", tmp_path)


@pytest.mark.root
def test_another_file_system_that_is_mounted_while_the_sink_runs_is_refused_and_heals(
    tmp_path: Path, root: None
) -> None:
    on_a_disk(tmp_path / "image", _is_refused_and_heals)


def _is_refused_and_heals(image: Image) -> None:
    store = Store(image.root, "filesystem")
    store.open()
    one = [File(event_id="1", folders=("cam",), name="1.jpg", content=b"whole")]
    _run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", image.root)
    for _ in range(2):
        with pytest.raises(PlaceGone, match="and this one is tmpfs: use sync: file"):
            store.keep(one)
        assert files(image.root) == {}
    _run("umount", image.root)
    assert store.keep(one) == {}
    assert (image.root / "cam/1.jpg").read_bytes() == b"whole"
    store.close()


@pytest.mark.skipif(shutil.which("setarch") is None, reason="needs setarch")
def test_a_kernel_that_does_not_report_failed_writes_is_refused(pictures: Path) -> None:
    start = "from pathlib import Path; from poller.sinks.download.store import Store; import sys\n"
    start += "Store(Path(sys.argv[1]), 'filesystem').open()"
    command = ["setarch", platform.machine(), "--uname-2.6", sys.executable, "-c", start, str(pictures)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(
        r"StorageError: .*sync: filesystem needs Linux 5\.8 or later, and this is 2\.6\.", ran.stderr
    )
    assert files(pictures) == {}


# ---------------------------------------------------------------- what is left behind, and what lies elsewhere


def test_a_crash_between_two_calls_leaves_no_file_behind(pictures: Path) -> None:
    """Killed when it deletes the file that proves the journal alive. The next start deletes it."""
    script = KEEP.replace("store.open()", "store.open()\nimport os\nunlink = os.unlink\n" + KILL)
    ran = subprocess.run(
        [sys.executable, "-c", script, str(pictures)], check=False, capture_output=True, text=True
    )
    assert ran.returncode == -9, ran.stderr
    assert len(list((pictures / ".incoming").iterdir())) == 1, "void: nothing was left"
    store = Store(pictures, "filesystem")
    store.open()
    store.close()
    assert list((pictures / ".incoming").iterdir()) == []


KILL = """
def killed(name, **where):
    if "alive" in name:
        os.kill(os.getpid(), 9)
    unlink(name, **where)
os.unlink = killed
"""


@pytest.mark.root
def test_a_picture_found_on_another_file_system_is_synced_by_itself(tmp_path: Path, root: None) -> None:
    """A folder may be a mount point: `syncfs` for the directory does nothing for what is below."""
    on_a_disk(tmp_path / "image", lambda image: _is_synced_by_itself(image, tmp_path))


def _is_synced_by_itself(image: Image, tmp_path: Path) -> None:
    day = image.root / "pictures" / "day"
    day.mkdir(parents=True)
    _run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", day)
    for number in range(4):
        folder = day / f"cam{number % 2}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(b"x")
    try:
        said, lines = traced(tmp_path / "trace", day.parent, "syncfs,fsync")
    finally:
        _run("umount", "-l", day)
    assert said == ["FIRST", "KEPT", "AGAIN", "KEPT"]
    first = lines[: index_of(lines, "write.*KEPT")[0]]
    assert len(index_of(first, r"fsync\(\d+<.*/day/cam[01]/\d\.jpg>\) += 0")) == 4
    assert len(index_of(first, r"fsync\(\d+<.*/day/cam[01]>\) += 0")) == 2
    assert len(index_of(first, r"fsync\(\d+<.*/day>\) += 0")) == 1
