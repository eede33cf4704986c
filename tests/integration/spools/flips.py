"""A process that is killed with pages in spool and journal, and ways in which its files are damaged afterwards."""

import asyncio
import os
import random
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from poller.core.model import ParsedPage, RawPage
from poller.pipeline import recovery
from poller.pipeline.journal import Journal
from poller.spools.sqlite import SqliteSpool
from poller.testing import START, some_event, some_reading
from poller.testing.history import newest_events
from tests.fakes import sqlite_spool

SIZE = 16 * 1024 * 1024
COMMITTED = 60
"""Pages that the spool has; event n is of page n. Those after them are in the journal alone."""
KEPT = 20
PUSHED = range(1000, 1010)
BLOCK = 4096
FRAME = struct.Struct("<16sQII")


def page(n: int) -> RawPage:
    body = b"%04d " % n + b"x" * (5000 if n % 2 else 300)
    return RawPage(source="shots", received_at=START, status=200, encoding="", whole=True, body=body)


async def live_and_die(folder: Path) -> None:
    """Commit and keep, settle a second, and be killed."""
    async with sqlite_spool(folder) as spool, Journal(folder / "journal", SIZE) as journal:
        for n in range(COMMITTED + KEPT):
            await journal.room()
            number = await journal.keep(page(n))
            if n < COMMITTED:
                await spool.append("shots", [_reading(n, number)])
                journal.release(number, committed=True)
        for n in PUSHED:
            await spool.append("callbacks", [some_reading(n)])
        await asyncio.sleep(1.2)
        os.kill(os.getpid(), signal.SIGKILL)


def _reading(n: int, number: int) -> ParsedPage:
    return msgspec.structs.replace(some_reading(n), kept_as=number)


async def look(folder: Path) -> tuple[bool, set[str], int]:
    """As a daemon begins: whether something was said; what spool and journal then hold; how many rejects."""
    async with sqlite_spool(folder) as spool, Journal(folder / "journal", SIZE) as journal:
        said = spool.damage is not None or spool.lost is not None
        said |= recovery.describe_damage(journal, spool.kept_as) is not None
        journal.begin_after(spool.kept_as)
        for number, left in journal.take_leftovers("shots"):
            n = int(left.body.split()[0])
            await spool.append("shots", [_reading(n, number)])
            journal.release(number, committed=True)
        await recovery.Orphans(spool, journal).step({"shots"}, [])
        assert not journal.has_damaged
        there = await _ids(spool)
        return said, there, await spool.quarantine_size()


async def _ids(spool: SqliteSpool) -> set[str]:
    return {event.id for event in await newest_events(spool, 10_000)}


def everything() -> set[str]:
    return {some_event(n).id for n in (*range(COMMITTED + KEPT), *PUSHED)}


# ---------------------------------------------------------------- damage

Damage = Callable[[bytearray, random.Random], None]


def flip(place: Callable[[bytearray, random.Random], int]) -> Damage:
    def damage(content: bytearray, rng: random.Random) -> None:
        content[place(content, rng)] ^= 1 << rng.randrange(8)

    return damage


def zero(place: Callable[[bytearray, random.Random], int], length: int) -> Damage:
    def damage(content: bytearray, rng: random.Random) -> None:
        at = place(content, rng) // length * length
        content[at : at + length] = bytes(len(content[at : at + length]))

    return damage


def cut(place: Callable[[bytearray, random.Random], int]) -> Damage:
    def damage(content: bytearray, rng: random.Random) -> None:
        del content[place(content, rng) :]

    return damage


def _frames(content: bytearray) -> list[int]:
    mark = content[8:24]
    return [at for at in range(BLOCK, len(content), BLOCK) if content[at : at + 16] == mark]


def in_frame(first: int, last: int) -> Callable[[bytearray, random.Random], int]:
    return lambda content, rng: rng.choice(_frames(content)) + rng.randrange(first, last)


def in_payload(content: bytearray, rng: random.Random) -> int:
    at = rng.choice(_frames(content))
    _, _, length, _ = FRAME.unpack_from(content, at)
    return at + FRAME.size + rng.randrange(length)


def between(first: int, last: int) -> Callable[[bytearray, random.Random], int]:
    return lambda content, rng: rng.randrange(first, min(last, len(content)))


def anywhere(content: bytearray, rng: random.Random) -> int:
    return rng.randrange(len(content))


def in_wal_frame(first: int, last: int) -> Callable[[bytearray, random.Random], int]:
    def place(content: bytearray, rng: random.Random) -> int:
        frames = (len(content) - 32) // (24 + 8192)
        return 32 + rng.randrange(frames) * (24 + 8192) + rng.randrange(first, last)

    return place


JOURNAL: dict[str, Damage] = {
    "header": flip(between(0, 44)),
    "second record": flip(between(2048, 2108)),
    "mark": flip(in_frame(0, 16)),
    "number": flip(in_frame(16, 24)),
    "length": flip(in_frame(24, 28)),
    "bit 31 of a length": lambda content, rng: content.__setitem__(rng.choice(_frames(content)) + 27, 0x80),
    "crc": flip(in_frame(28, 32)),
    "payload": flip(in_payload),
    "zeroed sector of the first block": zero(between(0, 2560), 512),
    "zeroed first block": lambda content, rng: content.__setitem__(slice(0, BLOCK), bytes(BLOCK)),
    "zeroed sector": zero(in_payload, 512),
    "zeroed block": zero(in_payload, BLOCK),
    "cut in the header": cut(between(0, BLOCK)),
    "cut in the frames": cut(in_payload),
    "cut to nothing": lambda content, rng: content.clear(),
    "all zeros": lambda content, rng: content.__setitem__(slice(None), bytes(len(content))),
}
WAL: dict[str, Damage] = {
    "WAL-header": flip(between(0, 32)),
    "WAL frame's page number": flip(in_wal_frame(0, 8)),
    "WAL frame's salt": flip(in_wal_frame(8, 16)),
    "WAL frame's checksum": flip(in_wal_frame(16, 24)),
    "WAL page": flip(in_wal_frame(24, 24 + 8192)),
    "WAL zeroed sector": zero(anywhere, 512),
    "WAL zeroed block": zero(anywhere, BLOCK),
    "WAL zeroed header": lambda content, rng: content.__setitem__(slice(0, 32), bytes(32)),
    "WAL cut": cut(anywhere),
    "WAL cut to nothing": lambda content, rng: content.clear(),
}


if __name__ == "__main__":
    asyncio.run(live_and_die(Path(sys.argv[1])))
