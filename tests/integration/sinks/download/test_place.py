"""The folder of pictures is replaced, removed, unmounted or closed while the sink runs: pictures lie at its path."""

import asyncio
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from poller.core.errors import PartlyFailed, PlaceGone, TryLater
from poller.sinks.download.folders import MOST_OPEN
from poller.sinks.download.store import File, Store
from poller.sinks.download.syncing import AT_ONCE

from .shots import attempt, delivered, download, files, jpeg, needs_syncfs, ok, serving, shot

SHOT = datetime(2026, 11, 22, 10, 3, 10, 123456, tzinfo=UTC)


def file(path: str, content: bytes = b"whole", at: datetime | None = None) -> File:
    """A file to be stored for an event of its own."""
    *folders, name = path.split("/")
    return File(event_id=path, folders=tuple(folders), name=name, content=content, at=at)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


@pytest.fixture(params=["file", "filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path, pictures: Path) -> Iterator[Store]:
    if request.param == "filesystem":
        needs_syncfs(tmp_path)
    opened = Store(pictures, request.param)
    opened.open()
    assert opened.keep([file("day/cam/before.jpg")]) == {}
    yield opened
    opened.close()


def moved_away(pictures: Path) -> None:
    pictures.rename(pictures.with_name("pictures.old"))


def moved_and_made_anew(pictures: Path) -> None:
    moved_away(pictures)
    pictures.mkdir()


def moved_behind_a_link(pictures: Path) -> None:
    moved_away(pictures)
    pictures.symlink_to("pictures.old")


def another_behind_a_link(pictures: Path) -> None:
    moved_away(pictures)
    (pictures.parent / "disk").mkdir()
    pictures.symlink_to("disk")


def removed_and_made_anew(pictures: Path) -> None:
    shutil.rmtree(pictures)
    pictures.mkdir()


def without_incoming(pictures: Path) -> None:
    (pictures / ".incoming").rmdir()


def another_incoming(pictures: Path) -> None:
    (pictures / ".incoming").rmdir()
    (pictures / ".incoming").mkdir()


def incoming_moved_away(pictures: Path) -> None:
    (pictures / ".incoming").rename(pictures / "away")


def without_its_day(pictures: Path) -> None:
    shutil.rmtree(pictures / "day", ignore_errors=True)


def its_day_moved_away(pictures: Path) -> None:
    (pictures / "day").rename(pictures.with_name("day.old"))


def another_stream_folder(pictures: Path) -> None:
    (pictures / "day" / "cam").rename(pictures.with_name("cam.old"))
    (pictures / "day" / "cam").mkdir()


def empty_folders_cleaned(pictures: Path) -> None:
    subprocess.run(["find", pictures, "-mindepth", "1", "-type", "d", "-empty", "-delete"], check=True)


REPLACED = [
    moved_and_made_anew,
    moved_behind_a_link,
    another_behind_a_link,
    removed_and_made_anew,
    without_incoming,
    another_incoming,
    incoming_moved_away,
    without_its_day,
    its_day_moved_away,
    another_stream_folder,
    empty_folders_cleaned,
]


@pytest.mark.parametrize("replace", REPLACED)
def test_after_a_folder_was_replaced_pictures_lie_at_the_path(
    store: Store, pictures: Path, replace: Callable[[Path], None]
) -> None:
    replace(pictures)
    assert store.keep([file("day/cam/after.jpg"), file("day/other/after.jpg")]) == {}
    assert (pictures / "day/cam/after.jpg").read_bytes() == b"whole"
    assert (pictures / "day/other/after.jpg").read_bytes() == b"whole"
    assert list((pictures / ".incoming").iterdir()) == []


MOMENTS = ["picture.written", "picture.synced", "picture.renamed"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("replace", REPLACED)
def test_a_folder_that_is_replaced_under_a_batch_gets_all_of_its_pictures(
    store: Store,
    pictures: Path,
    replace: Callable[[Path], None],
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture counts as stored only if it lies at the path afterwards."""
    if moment != "picture.renamed" and replace in (without_incoming, another_incoming):
        replace = incoming_moved_away  # it cannot be removed while pictures lie in it
    met: list[str] = []

    def reached(name: str) -> None:
        if name == moment and not met:
            met.append(name)
            replace(pictures)

    monkeypatch.setattr("poller.sinks.download.store.reached", reached)
    assert store.keep([file("day/cam/1.jpg"), file("day/cam/2.jpg"), file("day/hall/1.jpg")]) == {}
    assert met
    for name in ("cam/1.jpg", "cam/2.jpg", "hall/1.jpg"):
        assert (pictures / "day" / name).read_bytes() == b"whole"
    assert list((pictures / ".incoming").iterdir()) == []


def test_a_folder_removed_between_two_pictures_of_a_batch_is_made_again(
    store: Store, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the pictures before were in it or not."""
    removals = 0

    def reached(name: str) -> None:
        nonlocal removals
        if name == "picture.renamed" and removals < 1:
            removals += 1
            shutil.rmtree(pictures / "day")

    monkeypatch.setattr("poller.sinks.download.store.reached", reached)
    many = [file(f"day/cam/{number}.jpg") for number in range(2 * AT_ONCE)]
    assert store.keep(many) == {}
    assert len(list((pictures / "day/cam").iterdir())) == 2 * AT_ONCE


def test_a_folder_that_never_stays_is_said_and_not_believed(
    store: Store, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def reached(name: str) -> None:
        nonlocal count
        if name == "picture.renamed":
            count += 1
            pictures.rename(pictures.with_name(f"old{count}"))
            pictures.mkdir()

    monkeypatch.setattr("poller.sinks.download.store.reached", reached)
    with pytest.raises(PlaceGone, match="changes while pictures are stored"):
        store.keep([file("day/cam/1.jpg")])


def test_descriptors_of_a_folder_that_was_replaced_are_given_back(store: Store, pictures: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        pictures.rename(pictures.with_name(f"old{number}"))
        pictures.mkdir()
        assert store.keep([file("day/cam/1.jpg")]) == {}
    assert len(os.listdir("/proc/self/fd")) <= before


# ---------------------------------------------------------------- a folder that cannot be used


def a_file(pictures: Path) -> None:
    moved_away(pictures)
    pictures.write_bytes(b"")


def a_link_to_nowhere(pictures: Path) -> None:
    moved_away(pictures)
    pictures.symlink_to("nowhere")


def incoming_is_a_file(pictures: Path) -> None:
    (pictures / ".incoming").rmdir()
    (pictures / ".incoming").write_bytes(b"")


def incoming_is_a_link(pictures: Path) -> None:
    (pictures / ".incoming").rename(pictures.with_name("outside"))
    (pictures / ".incoming").symlink_to(pictures.with_name("outside"))


UNUSABLE = [
    (moved_away, "pictures is gone: make it again, or mount it"),
    (a_link_to_nowhere, "pictures is gone: make it again, or mount it"),
    (a_file, "pictures is not a folder: move it away"),
    (incoming_is_a_file, r"pictures/\.incoming is not a folder: move it away"),
    (incoming_is_a_link, r"pictures/\.incoming is not a folder: move it away"),
]


@pytest.mark.parametrize(("spoil", "reason"), UNUSABLE)
async def test_a_folder_that_cannot_be_used_is_said_at_once_and_heals_by_itself(
    pictures: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    async with (
        serving(lambda path: ok(jpeg())) as server,
        download(pictures, template="{name}") as sink,
    ):
        spoil(pictures)
        event = shot("a.jpg", server.url("a.jpg"))
        for _ in range(2):
            error = await attempt(sink, event)
            assert type(error) is PlaceGone
            assert re.search(reason, str(error))
        assert server.heads == [], "nothing is fetched that could not be stored"
        for path in (pictures, pictures / ".incoming"):
            if path.is_symlink() or path.is_file():
                path.unlink()
        pictures.mkdir(exist_ok=True)
        assert await attempt(sink, event) is None
        assert (pictures / "a.jpg").read_bytes() == jpeg()


def test_a_stream_folder_replaced_by_a_link_is_refused_and_its_neighbours_are_stored(
    store: Store, pictures: Path
) -> None:
    (pictures / "day/cam").rename(pictures.with_name("outside"))
    (pictures / "day/cam").symlink_to(pictures.with_name("outside"))
    failed = store.keep([file("day/cam/1.jpg"), file("day/hall/1.jpg")])
    assert set(failed) == {"day/cam/1.jpg"}
    assert "in the way" in str(failed["day/cam/1.jpg"])
    assert (pictures / "day/hall/1.jpg").exists()
    assert not (pictures.with_name("outside") / "1.jpg").exists()


CLOSED = """
import os, sys
from pathlib import Path
from poller.core.errors import PlaceGone
from poller.sinks.download.store import File, Store
pictures = Path(sys.argv[1])
store = Store(pictures)
store.open()
def keep(name):
    return store.keep([File(event_id=name, folders=("day", "cam"), name=name, content=b"whole")])
assert keep("1.jpg") == {}
for closed, said in ((pictures, "folder"), (pictures / ".incoming", "folder"), (pictures / "day" / "cam", None)):
    folders = "new" if closed == pictures else "day"
    mode = closed.stat().st_mode
    closed.chmod(0o500)
    try:
        name = f"{closed.name}.jpg"
        file = File(event_id=name, folders=(folders, "cam"), name=name, content=b"whole")
        failed = store.keep([file])
    except PlaceGone as error:
        assert said and str(error) == f"the folder {pictures} cannot be written: Permission denied", error
    else:
        assert said is None and "in the way" in str(failed[name]), (closed, failed)
    closed.chmod(mode)
    assert store.keep([file]) == {}
print("HEALED")
"""


@pytest.mark.root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_a_folder_whose_permissions_were_taken_is_said_and_heals(pictures: Path) -> None:
    command = [sys.executable, "-c", CLOSED, str(pictures)]
    if os.geteuid() == 0:  # root passes every permission by these
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "HEALED\n", ran.stderr


# ---------------------------------------------------------------- mounts


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("needs root to mount disks, and CI=true allows no skipping")
        pytest.skip("NEEDS ROOT: mounts disks")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", mounted)
    yield mounted
    while mounted.is_mount():
        subprocess.run(["umount", "-l", mounted], check=True)


@pytest.mark.root
@pytest.mark.parametrize("below", ["", "pictures"])
def test_after_an_unmount_nothing_is_stored_below_the_mount_point_and_a_new_disk_gets_the_pictures(
    disk: Path, below: str
) -> None:
    """Pictures below an empty mount point would be hidden as soon as a disk is mounted there."""
    pictures = disk / below
    store = Store(pictures)
    store.open()
    assert store.keep([file("cam/1.jpg")]) == {}
    subprocess.run(["umount", "-l", disk], check=True)
    (disk / below).mkdir(exist_ok=True)
    for _ in range(2):
        with pytest.raises(PlaceGone, match="disk is not mounted any more: mount it again"):
            store.keep([file("cam/2.jpg")])
    assert files(disk) == {}
    mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", disk)
    (disk / below).mkdir(exist_ok=True)
    assert store.keep([file("cam/2.jpg")]) == {}
    assert (pictures / "cam/2.jpg").read_bytes() == b"whole"
    store.close()


@pytest.mark.root
def test_a_disk_that_is_mounted_over_the_folder_gets_the_pictures(disk: Path) -> None:
    store = Store(disk)
    store.open()
    mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", disk)
    assert store.keep([file("cam/1.jpg")]) == {}
    assert (disk / "cam/1.jpg").read_bytes() == b"whole"
    store.close()


# ---------------------------------------------------------------- as a process finds it


MANY = """
import os, resource, sys
from pathlib import Path
from poller.sinks.download.store import File, Store
store = Store(Path(sys.argv[1]), *sys.argv[2:])
store.open()
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
files = [File(event_id=str(n), folders=("day", f"cam{n}"), name="1.jpg", content=b"x") for n in range(1000)]
assert store.keep(files) == {}
assert store.keep(files) == {}
print("KEPT", len(os.listdir("/proc/self/fd")) < 20)
"""


@pytest.mark.parametrize("sync", ["file", "filesystem"])
def test_a_thousand_pictures_of_a_thousand_streams_need_few_descriptors(
    tmp_path: Path, pictures: Path, sync: str
) -> None:
    if sync == "filesystem":
        needs_syncfs(tmp_path)
    command = [sys.executable, "-c", MANY, str(pictures), sync]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout == "KEPT True\n", ran.stderr
    assert len(files(pictures)) == 1000
    assert MOST_OPEN + AT_ONCE < 110


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_each_of_many_folders_is_synced_once_before_its_pictures_count(tmp_path: Path) -> None:
    """Also those that were closed again in the midst of the batch."""
    script = MANY.replace("range(1000)", "range(150)").replace(
        "assert store.keep(files) == {}\nprint", "print"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=fsync"]
    subprocess.run(
        [*command, sys.executable, "-c", script, str(tmp_path / "pictures")], check=True, capture_output=True
    )
    synced = [line for line in trace.read_text().splitlines() if "fsync(" in line]
    for number in range(150):
        assert sum(f"/pictures/day/cam{number}>" in line for line in synced) == 1
    assert sum("/pictures/day>" in line for line in synced) == 1


def test_no_free_descriptors_is_not_the_folders_fault(store: Store) -> None:
    held = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(TryLater, match="Too many open files") as caught:
            store.keep([file("day/cam/1.jpg")])
        assert not isinstance(caught.value, PlaceGone)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.keep([file("day/cam/1.jpg")]) == {}


# ---------------------------------------------------------------- their time


def test_a_picture_shows_the_time_of_its_shot_and_so_does_its_sidecar(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(lambda path: ok(jpeg())) as server, download(tmp_path, sidecar=True) as sink:
            assert await attempt(sink, shot("a.jpg", server.url("a.jpg"), at=SHOT)) is None

    asyncio.run(main())
    for path in tmp_path.rglob("a.jpg*"):
        assert datetime.fromtimestamp(path.stat().st_mtime, UTC) - SHOT < timedelta(milliseconds=1)
        assert path.stat().st_mtime_ns == int(SHOT.timestamp()) * 10**9 + 123_456_000
    assert len(list(tmp_path.rglob("a.jpg*"))) == 2


@pytest.mark.parametrize("year", [1, 1969, 1970, 2038, 2106, 9999])
def test_a_time_far_away_keeps_no_picture_from_being_stored(store: Store, pictures: Path, year: int) -> None:
    at = datetime(year, 1, 1, tzinfo=UTC)
    assert store.keep([file("day/cam/far.jpg", at=at)]) == {}
    assert (pictures / "day/cam/far.jpg").read_bytes() == b"whole"


def test_a_picture_stored_before_gets_its_time_when_it_comes_again(store: Store, pictures: Path) -> None:
    assert store.keep([file("day/cam/before.jpg", at=SHOT)]) == {}
    assert (pictures / "day/cam/before.jpg").stat().st_mtime == pytest.approx(SHOT.timestamp(), abs=0.001)


def test_pictures_named_by_time_sort_by_time(tmp_path: Path) -> None:
    moments = [SHOT + timedelta(seconds=step) for step in (0, 1, 59, 3600, 50_000, 86_400, 10**8)]

    async def main() -> None:
        async with (
            serving(lambda path: ok(jpeg())) as server,
            download(tmp_path, template="{stream}/{time}-{name}") as sink,
        ):
            for number, at in enumerate(moments):
                name = f"{9 - number}.jpg"
                assert await attempt(sink, shot(name, server.url(name), at=at)) is None

    asyncio.run(main())
    found = sorted((tmp_path / "cam1").iterdir())
    assert found[0].name == "20261122T100310-9.jpg"
    assert [path.name.split("-")[1] for path in found] == [
        f"{9 - number}.jpg" for number in range(len(moments))
    ]
    assert sorted(found, key=lambda path: path.stat().st_mtime) == found


def test_a_batch_whose_pictures_all_fail_for_themselves_does_not_blame_the_folder(pictures: Path) -> None:
    error = delivered(pictures, lambda path: ok(b"no picture"), "a.jpg")
    assert isinstance(error, PartlyFailed)
