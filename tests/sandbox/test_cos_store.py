"""The object store's durability: what it was given is there at its time, whatever happens in between."""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from poller.sandbox.cos.store import Pictures
from poller.sandbox.database import Database
from poller.sandbox.faults import UPLOAD_FAULTS, Faults
from poller.sandbox.wakeup import Wakeup
from tests.patience import PATIENCE

BUCKET = "shots-1250000000"
OTHER = "oth.ers-1250000001"
NAME = "live_1_1471850187_1471850187_10_300_169.jpg"
OLD, NEW = b"\xff\xd8old\xff\xd9", b"\xff\xd8newer\xff\xd9"


@contextlib.asynccontextmanager
async def opened(directory: Path, low: float = 0.0, high: float | None = None) -> AsyncIterator[Pictures]:
    """A store, with its database."""
    directory.mkdir(exist_ok=True)
    rng = random.Random(1)
    pictures_at = directory / "cos"
    delay = (low, low if high is None else high)
    with (
        Database(directory) as database,
        Pictures(
            database,
            pictures_at,
            delay=delay,
            faults=Faults(UPLOAD_FAULTS, {}, rng),
            rng=rng,
            wakeup=Wakeup(),
        ) as pictures,
    ):
        yield pictures


def run(scene: Callable[[], Any]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await scene()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


async def arrival(pictures: Pictures, number: int = 1) -> None:
    """Returns when so many objects have arrived since the store was opened."""
    await pictures._wakeup.until(lambda: pictures.stored >= number)


def files(directory: Path) -> set[str]:
    """All files of a store, below its directory."""
    found = directory / "cos"
    return {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()}


def test_an_upload_under_way_is_fetched_only_when_it_is_ready(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path, 0.2) as pictures:
            began = time.time()
            pictures.upload(BUCKET, NAME, NEW)
            assert (pictures.on_the_way, pictures.stored) == (1, 0)
            assert pictures.find(BUCKET, NAME) is None
            assert list(pictures.since(BUCKET, "")) == []
            assert pictures.content(BUCKET, NAME) is None
            await arrival(pictures)
            stored = pictures.find(BUCKET, NAME)
            assert stored is not None
            assert began + 0.2 <= stored.ready_at <= time.time()
            assert pictures.content(BUCKET, NAME) == NEW
            assert [one.key for one in pictures.since(BUCKET, "")] == [NAME]
            assert (pictures.on_the_way, pictures.stored) == (0, 1)

    run(scene)
    assert files(tmp_path) == {f"{BUCKET}/{NAME}"}, "someone who looks into the folder finds it by its name"


def test_time_that_is_spent_already_shortens_the_upload(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path, 3600) as pictures:
            pictures.upload(BUCKET, NAME, NEW, spent=3601)
            assert pictures.content(BUCKET, NAME) == NEW

    run(scene)


def test_what_is_under_way_stays_under_way_through_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path, 3600) as pictures:
            pictures.upload(BUCKET, NAME, NEW)
            pictures.upload(OTHER, "a/b/c.jpg", OLD)
        for _ in range(2):
            async with opened(tmp_path) as pictures:
                assert (pictures.on_the_way, pictures.stored) == (2, 0)
                assert pictures.content(BUCKET, NAME) is None
        # As if an hour had passed.
        with Database(tmp_path) as database:
            database.execute("UPDATE object SET ready_at = ready_at - 3601")
        async with opened(tmp_path) as pictures:
            assert (pictures.on_the_way, pictures.stored) == (0, 2)
            assert pictures.content(BUCKET, NAME) == NEW
            assert pictures.content(OTHER, "a/b/c.jpg") == OLD

    run(scene)
    assert files(tmp_path) == {f"{BUCKET}/{NAME}", "oth%2Eers-1250000001/a%2Fb%2Fc.jpg"}


def test_an_upload_becomes_ready_at_its_time_after_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path, 0.5) as pictures:
            pictures.upload(BUCKET, NAME, NEW)
            due = time.time() + 0.5
        async with opened(tmp_path) as pictures:
            await arrival(pictures)
            assert time.time() >= due - 0.1
            assert pictures.content(BUCKET, NAME) == NEW

    run(scene)


def test_an_object_is_served_until_the_one_that_replaces_it_is_ready(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path, 3600) as pictures:
            pictures.put(BUCKET, NAME, OLD)
            pictures.upload(BUCKET, NAME, NEW)
        async with opened(tmp_path, 0.1) as pictures:
            assert pictures.content(BUCKET, NAME) == OLD
            pictures.upload(BUCKET, NAME, b"newest")
            assert pictures.content(BUCKET, NAME) == OLD
            await arrival(pictures)
            assert pictures.content(BUCKET, NAME) == b"newest"
            stored = pictures.find(BUCKET, NAME)
            assert stored is not None
            assert stored.size == len(b"newest")
            assert pictures.on_the_way == 1

    run(scene)


def test_of_two_uploads_of_a_key_the_one_that_ends_last_stays(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path) as pictures:
            for delay, content in ((0.3, NEW), (0.1, OLD)):
                pictures.delay = (delay, delay)
                pictures.upload(BUCKET, NAME, content)
            await arrival(pictures)
            assert pictures.content(BUCKET, NAME) == OLD
            await arrival(pictures, 2)
            assert pictures.content(BUCKET, NAME) == NEW

    run(scene)


def test_a_kill_between_file_and_row_is_repaired_at_the_next_start(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path, 3600) as pictures:
            pictures.put(BUCKET, NAME, OLD)
            pictures.upload(BUCKET, NAME, NEW)
        # The state in which a kill in the middle of an arrival leaves the folder, and one in the middle of a write.
        (coming,) = (tmp_path / "cos" / ".coming").iterdir()
        coming.rename(tmp_path / "cos" / BUCKET / NAME)
        (tmp_path / "cos" / ".coming" / "0000000000000099-half.jpg").write_bytes(b"\xff")
        with Database(tmp_path) as database:
            database.execute("UPDATE object SET ready_at = ready_at - 3601")
        async with opened(tmp_path) as pictures:
            stored = pictures.find(BUCKET, NAME)
            assert stored is not None
            assert (stored.size, pictures.content(BUCKET, NAME)) == (len(NEW), NEW)

    run(scene)
    assert files(tmp_path) == {f"{BUCKET}/{NAME}"}


def test_a_deleted_object_is_gone_and_an_upload_under_way_still_arrives(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path, 0.1) as pictures:
            pictures.put(BUCKET, NAME, OLD)
            pictures.upload(BUCKET, NAME, NEW)
            pictures.delete(BUCKET, NAME)
            pictures.delete(BUCKET, "never was there")
            assert pictures.content(BUCKET, NAME) is None
            await arrival(pictures, 2)
            assert pictures.content(BUCKET, NAME) == NEW

    run(scene)


def test_many_paths_share_a_picture_and_are_objects_of_their_own(tmp_path: Path) -> None:
    async def scene() -> None:
        paths = [f"load_{number}.jpg" for number in range(12_000)]
        async with opened(tmp_path) as pictures:
            pictures.put(BUCKET, paths[7], NEW)
            pictures.put_many(BUCKET, paths, OLD)
            assert pictures.stored == 12_001
            pictures.put(BUCKET, paths[8], NEW)
            pictures.delete(BUCKET, paths[9])
        async with opened(tmp_path) as pictures:
            assert len(list(pictures.since(BUCKET, ""))) == 11_999
            found = [pictures.content(BUCKET, path) for path in (paths[0], *paths[7:11], paths[-1])]
            assert found == [OLD, OLD, NEW, None, OLD, OLD]
            stored = pictures.find(BUCKET, paths[-1])
            assert stored is not None
            assert stored.key == paths[-1]

    run(scene)
    assert len({file.stat().st_ino for file in (tmp_path / "cos" / BUCKET).iterdir()}) <= 4
    assert len(files(tmp_path)) == 11_999


def test_old_objects_are_forgotten_and_nothing_else(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path, 3600) as pictures:
            pictures.put(BUCKET, "old.jpg", OLD)
            pictures.put_many(BUCKET, ["old2.jpg", "again.jpg"], OLD)
            pictures.upload(BUCKET, "coming.jpg", NEW)
            moment = time.time()
            while time.time() <= moment:
                await asyncio.sleep(0)
            pictures.put(BUCKET, "again.jpg", NEW)
            pictures.file(BUCKET, "old2.jpg").unlink()  # by someone's hand
            assert pictures.forget(moment) == 2
            assert pictures.forget(moment) == 0
            assert [one.key for one in pictures.since(BUCKET, "")] == ["again.jpg"]
            assert pictures.content(BUCKET, "again.jpg") == NEW
            assert files(tmp_path) - {f"{BUCKET}/again.jpg"} == {".coming/0000000000000002-coming.jpg"}
            assert pictures.forget(time.time() + 7200) == 1
        async with opened(tmp_path) as pictures:
            assert pictures.on_the_way == 1, "what is under way is not old"

    run(scene)


def test_an_object_whose_file_was_taken_away_is_not_there(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path) as pictures:
            pictures.put(BUCKET, NAME, OLD)
            pictures.file(BUCKET, NAME).unlink()
            assert pictures.content(BUCKET, NAME) is None

    run(scene)


# ---------------------------------------------------------------- kill -9

UPLOADER = """
import asyncio, random, sys
from pathlib import Path
from poller.sandbox import Options, Sandbox

async def main():
    rng = random.Random(sys.argv[2])
    options = Options(directory=Path(sys.argv[1]), upload_delay=(0.0, 10.0), seed=int(sys.argv[2]))
    async with Sandbox(options) as sandbox:
        for number in range(100_000):
            # Some keys again and again, as a cover is; the content tells its own number.
            key = f"cover_{number % 5}.jpg" if number % 3 == 0 else f"{sys.argv[2]}_{number}.jpg"
            sandbox.pictures.upload("shots-1250000000", key, b"%s %d " % (key.encode(), number) + bytes(20_000))
            print(key, flush=True)
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


def killed(directory: Path, turn: int, after: int) -> list[str]:
    """The keys that an uploading sandbox had begun to upload before it was killed."""
    command = [sys.executable, "-c", UPLOADER, str(directory), str(turn)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        begun = [process.stdout.readline().strip() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        begun += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    assert begun[0]
    return begun


def test_no_upload_is_lost_by_kill_9(tmp_path: Path, soak: bool) -> None:
    rng, begun = random.Random("kill"), set[str]()
    for turn in range(200 if soak else 2):
        begun |= set(killed(tmp_path, turn, rng.randint(1, 150)))

    async def scene() -> None:
        async with opened(tmp_path) as pictures:
            assert pictures.on_the_way > 0, "the last ones are still under way"
            while pictures.on_the_way:
                await arrival(pictures, pictures.stored + 1)
            there = {one.key: one for one in pictures.since(BUCKET, "")}
            assert set(there) >= begun
            assert len(set(there) - begun) <= (200 if soak else 2), "at most the one that was not told of"
            for key, stored in there.items():
                content = pictures.content(BUCKET, key)
                assert content is not None
                assert content.startswith(key.encode() + b" ")
                assert len(content) == stored.size

    run(scene)
    assert not list((tmp_path / "cos" / ".coming").iterdir())


def test_a_sandbox_that_was_killed_comes_back_with_its_uploads(tmp_path: Path) -> None:
    """The program itself: live streams, a kill, and every picture of a message that is out arrives at its time."""
    command = [sys.executable, "-m", "poller", "sandbox", "--directory", str(tmp_path), "--streams", "2"]
    command += ["--interval", "0.5", "--upload-delay", "2-3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["cos"]
        coming = tmp_path / "cos" / ".coming"
        deadline = time.monotonic() + PATIENCE
        while len(list(coming.iterdir())) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    with Database(tmp_path) as database:
        rows = database.execute("SELECT key FROM object WHERE bucket = ''").fetchall()
    names = {key.split("/", 2)[2] for (key,) in rows}
    assert len(names) >= 3, "all that lie there, but perhaps the one that was just being written"

    async def scene() -> None:
        async with opened(tmp_path) as pictures:
            while pictures.on_the_way:
                await arrival(pictures, pictures.stored + 1)
            for name in names:
                content = pictures.content(BUCKET, name)
                assert content is not None
                assert (content[:2], content[-2:]) == (b"\xff\xd8", b"\xff\xd9")

    run(scene)


@pytest.mark.parametrize(
    "key", [".coming", ".coming/x", "..", "/", "//", "-" + "0" * 32, "a/../../b", "x" * 800]
)
def test_no_key_leads_out_of_its_bucket(tmp_path: Path, key: str) -> None:
    async def scene() -> None:
        async with opened(tmp_path) as pictures:
            for bucket in (BUCKET, OTHER, "..", ".coming"):
                pictures.put(bucket, key, OLD)
                assert pictures.content(bucket, key) == OLD
                assert pictures.file(bucket, key).parent.parent == tmp_path / "cos"
            assert not list((tmp_path / "cos" / ".coming").iterdir())

    run(scene)
    assert len(files(tmp_path)) == 4
