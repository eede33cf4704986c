"""The journal: what was kept comes back, what was released does not, and nothing on the disk can fool it."""

import asyncio
import errno
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from poller.core.errors import StorageError, StorageLocked
from poller.core.model import RawPage
from poller.pipeline.journal import LARGEST_PAGE, Journal
from poller.pipeline.journal_file import BLOCK, encode_frame
from tests.patience import PATIENCE

SIZE = 16 * 1024 * 1024
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def page(body: bytes, source: str = "shots") -> RawPage:
    return RawPage(source=source, received_at=WHEN, status=200, encoding="", whole=True, body=body)


async def kept(journal: Journal, body: bytes) -> int:
    await journal.room()
    return await journal.keep(page(body))


def left_over(path: Path, size: int = SIZE) -> list[bytes]:
    async def read() -> list[bytes]:
        async with Journal(path, size) as journal:
            return [found.body for _, found in journal.take_leftovers()]

    return asyncio.run(read())


def test_pages_that_were_not_released_come_back_in_order(tmp_path: Path) -> None:
    async def write() -> None:
        async with Journal(tmp_path / "journal", SIZE) as journal:
            numbers = [await kept(journal, b"%d" % n * 5000) for n in range(9)]
            for number in (numbers[0], numbers[1], numbers[4]):
                journal.release(number)

    asyncio.run(write())
    # the fifth was released out of order, behind pages that are still needed: it may come again
    assert left_over(tmp_path / "journal") == [b"%d" % n * 5000 for n in range(2, 9)]


def test_a_page_comes_back_whole_with_everything_around_it(tmp_path: Path) -> None:
    full = RawPage(
        source="other", received_at=WHEN, status=502, encoding="gzip", whole=False, body=bytes(range(256))
    )

    async def write() -> None:
        async with Journal(tmp_path / "journal", SIZE) as journal:
            await journal.room()
            await journal.keep(full)

    async def read() -> list[RawPage]:
        async with Journal(tmp_path / "journal", SIZE) as journal:
            return [found for _, found in journal.take_leftovers()]

    asyncio.run(write())
    assert asyncio.run(read()) == [full]


def test_a_released_journal_is_empty_after_a_restart(tmp_path: Path) -> None:
    async def write() -> None:
        async with Journal(tmp_path / "journal", SIZE) as journal:
            for number in [await kept(journal, b"x" * 9000) for _ in range(5)]:
                journal.release(number)
            assert journal.bytes_held == 0

    asyncio.run(write())
    assert left_over(tmp_path / "journal") == []


def test_the_ring_goes_round_many_times_and_never_mixes_pages(tmp_path: Path) -> None:
    async def write() -> None:
        async with Journal(tmp_path / "journal", SIZE) as journal:
            held: list[int] = []
            for n in range(400):
                held.append(await kept(journal, b"%06d" % n * 20_000))
                if len(held) > 7:
                    journal.release(held.pop(0))

    asyncio.run(write())
    assert left_over(tmp_path / "journal") == [b"%06d" % n * 20_000 for n in range(393, 400)]


async def test_its_space_is_all_there_from_the_start(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", SIZE) as journal:
        before = os.stat(journal.path)
        assert before.st_blocks * 512 >= SIZE
        for _ in range(3):
            await kept(journal, b"y" * 100_000)
        assert os.stat(journal.path).st_size == before.st_size


async def test_room_is_waited_for_until_a_page_is_released(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", SIZE) as journal:
        numbers = []
        while True:
            try:
                async with asyncio.timeout(0.05):
                    await journal.room()
            except TimeoutError:
                break
            numbers.append(await journal.keep(page(b"z" * 3_000_000)))
        assert len(numbers) >= 2
        waiting = asyncio.ensure_future(journal.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        for number in numbers:
            journal.release(number)
        await waiting


async def test_as_many_polls_as_got_room_can_be_kept_at_their_largest(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", 2 * SIZE) as journal:
        for turn in range(4):
            granted = 0
            while True:
                try:
                    async with asyncio.timeout(0.02):
                        await journal.room()
                        granted += 1
                except TimeoutError:
                    break
            assert granted >= 5
            largest = b"q" * (LARGEST_PAGE - 1024)
            pages = [page(largest if n else b"small" * (turn + 1)) for n in range(granted)]
            for number in await asyncio.gather(*map(journal.keep, pages)):
                journal.release(number)


@pytest.mark.parametrize("damage", ["cut", "flipped", "zeroed", "renumbered"])
def test_a_damaged_frame_is_left_out_and_hurts_no_neighbour(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal"

    async def write() -> None:
        async with Journal(path, SIZE) as journal:
            for n in range(3):
                await kept(journal, b"%d" % n * 6000)

    asyncio.run(write())
    with path.open("r+b") as file:
        place = 16 if damage == "renumbered" else 100
        file.seek(BLOCK + 2 * BLOCK + place)  # inside the second frame: each takes two blocks
        if damage in ("flipped", "renumbered"):
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        else:
            file.write(bytes(50 if damage == "zeroed" else 4000))
    assert left_over(path) == [b"0" * 6000, b"2" * 6000]


def test_what_is_kept_after_a_restart_leaves_alone_what_was_left_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async def keep(body: bytes) -> None:
        async with Journal(path, SIZE) as journal:
            await kept(journal, body)

    for n in range(4):
        asyncio.run(keep(b"%d" % n * 6000))
    assert left_over(path) == [b"%d" % n * 6000 for n in range(4)]


def test_a_page_of_any_length_keeps_clear_of_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    bodies = [
        b"%03d" % n * 3 + bytes(2 * BLOCK - 140 + n) for n in range(150)
    ]  # up to a block's end and beyond

    async def write() -> None:
        async with Journal(path, SIZE) as journal:
            for body in bodies:
                await kept(journal, body)

    asyncio.run(write())
    assert left_over(path) == bodies


async def test_the_smallest_journal_takes_one_page_after_another(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", 1) as journal:
        for n in range(3):
            async with asyncio.timeout(PATIENCE):
                await journal.room()
            number = await journal.keep(page(b"%d" % n))
            journal.release(number)
        assert journal.bytes_held == 0


def test_a_page_cannot_forge_a_frame(tmp_path: Path) -> None:
    path, other = tmp_path / "journal", tmp_path / "other"
    assert left_over(other) == []
    blank = b"#" * 3 * BLOCK

    async def write() -> None:
        async with Journal(path, SIZE) as journal:
            await kept(journal, b"first")
            await kept(journal, blank)
            frame, begin = block(1), path.read_bytes().index(blank[:BLOCK])
            # what a stranger could know: everything but this file's random mark
            length = int.from_bytes(frame[24:28], "little")
            for number, mark in ((40, bytes(16)), (41, other.read_bytes()[8:24])):
                forged = b"#" * (-begin % BLOCK) + encode_frame(mark, number, frame[32:][:length])
                await kept(journal, forged.ljust(len(blank), b"#"))

    def block(number: int) -> bytes:
        return path.read_bytes()[number * BLOCK :][:BLOCK]

    asyncio.run(write())
    ours = path.read_bytes()[8:24]
    with path.open("r+b") as file:  # the frames around them are overwritten, their insides are not
        for number in (6, 10):
            assert block(number)[:16] == ours
            assert block(number + 1)[32:96] == block(1)[32:96], "the forged frame lies where frames begin"
            file.seek(number * BLOCK)
            file.write(bytes(BLOCK))
            file.flush()
    assert left_over(path) == [b"first", blank]


def test_an_unreadable_journal_is_moved_aside_and_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"this is no journal" * 1000)
    assert left_over(path) == []
    path.write_bytes(b"nor is this" * 1000)
    assert left_over(path) == []
    aside = [file.read_bytes()[:12] for file in tmp_path.glob("journal.unreadable-*")]
    assert sorted(aside) == [b"nor is thisn", b"this is no j"]


@pytest.mark.parametrize("first", [(b"\xff", 32), (b"\0" * BLOCK, 0), (b"\xff", 2048), (bytes(512), 0)])
def test_a_damaged_first_block_is_said_and_costs_no_page(tmp_path: Path, first: tuple[bytes, int]) -> None:
    """It says what is released: a number too high would pass for pages that were handed on."""
    path = tmp_path / "journal"

    async def write() -> None:
        async with Journal(path, SIZE) as journal:
            for n in range(3):
                await kept(journal, b"%d" % n * 6000)

    async def read() -> Journal:
        async with Journal(path, SIZE) as journal:
            assert [found.body[:1] for _, found in journal.take_leftovers()] == [b"0", b"1", b"2"]
            return journal

    asyncio.run(write())
    with path.open("r+b") as file:
        file.seek(first[1])
        file.write(first[0])
    damage = asyncio.run(read()).damage
    assert damage is not None
    assert "first block" in damage.detail
    assert asyncio.run(read()).damage is None, "said once"


def test_a_first_start_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(bytes(SIZE // 2))
    assert left_over(path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["journal"]
    assert path.stat().st_size == SIZE


def test_another_size_takes_effect_once_the_journal_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async def write(release: bool) -> None:
        async with Journal(path, SIZE) as journal:
            number = await kept(journal, b"keep me")
            if release:
                for old, _ in journal.take_leftovers():
                    journal.release(old)
                journal.release(number)

    asyncio.run(write(False))
    assert left_over(path, 2 * SIZE) == [b"keep me"]
    assert path.stat().st_size == SIZE
    asyncio.run(write(True))
    assert left_over(path, 2 * SIZE) == []
    assert path.stat().st_size == 2 * SIZE


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", SIZE):
        with pytest.raises(StorageLocked):
            async with Journal(tmp_path / "journal", SIZE):
                pass


def test_a_failed_write_is_reported_and_never_believed_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path / "journal", SIZE) as journal:
            number = await kept(journal, b"good")
            good, journal._fd = journal._fd, os.open(journal.path, os.O_RDONLY)  # every write now fails
            await journal.room()
            with pytest.raises(StorageError):
                await journal.keep(page(b"bad"))
            os.close(journal._fd)
            journal._fd = good
            with pytest.raises(StorageError):
                await journal.room()
            assert number == 1

    asyncio.run(scenario())
    assert left_over(tmp_path / "journal") == [b"good"]


def test_a_kept_page_survives_kill_9(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, os, signal, sys
        from pathlib import Path
        from datetime import datetime, UTC
        from poller.pipeline.journal import Journal
        from poller.core.model import RawPage
        async def main():
            journal = await Journal(Path(sys.argv[1]), 16 << 20).__aenter__()
            for n in range(20):
                await journal.room()
                page = RawPage(source="s", received_at=datetime.now(UTC), status=200, encoding="", whole=True,
                            body=b"%d" % n * 3000)
                number = await journal.keep(page)
                if n < 5:
                    journal.release(number)
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """)
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "journal")], check=False)
    assert killed.returncode == -9
    assert left_over(tmp_path / "journal")[-15:] == [b"%d" % n * 3000 for n in range(5, 20)]


def test_a_folder_that_cannot_be_made_is_an_error_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("not a folder")
    with pytest.raises(StorageError) as raised:
        left_over(folder / "journal")
    assert os.strerror(errno.EEXIST) in str(raised.value)


def test_a_number_with_a_flipped_high_bit_is_damage_and_not_the_next_number(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async def write() -> None:
        async with Journal(path, SIZE) as journal:
            for n in range(3):
                await kept(journal, b"%d" % n * 6000)

    async def read() -> tuple[int, list[bytes]]:
        async with Journal(path, SIZE) as journal:
            found = [page.body[:1] for _, page in journal.take_leftovers()]
            assert journal.last_number == 3
            return len(found) if journal.damage is None else journal.damage.pages, found

    asyncio.run(write())
    with path.open("r+b") as file:
        file.seek(BLOCK + 2 * BLOCK + 23)
        file.write(b"\x40")
    assert asyncio.run(read()) == (1, [b"0", b"2"])
    assert asyncio.run(read()) == (1, [b"0", b"2"]), "said until what is left of it is in quarantine"
