"""Viewers share what is loaded for them: one load for a number, so many at once, so many waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from poller.web.picture_cache import NoPicture, Picture
from poller.web.picture_loader import AT_ONCE
from poller.web.pictures import BUSY, FAILED, MOST_WAITING, Found, Pictures


class Loads:
    """Loads that go on until they are let go."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.go = asyncio.Event()

    async def load(self, number: int) -> Found:
        self.begun.append(number)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        if number == 404:
            return NoPicture(status=404, text="none", lasts=60.0)
        if number == 500:
            raise LookupError
        return Picture(content=str(number).encode(), tag=f'"{number}"')


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Loads, Pictures]]:
    loads = Loads()
    async with Pictures(loads.load) as pictures:
        yield loads, pictures


def content(found: Found) -> bytes:
    assert isinstance(found, Picture), found
    return found.content


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_sixty_four_viewers_of_a_number_share_one_load() -> None:
    async with opened() as (loads, pictures):
        viewers = [asyncio.ensure_future(pictures.get(7)) for _ in range(64)]
        await turns()
        loads.go.set()
        assert {content(found) for found in await asyncio.gather(*viewers)} == {b"7"}
        assert content(await pictures.get(7)) == b"7"
        assert loads.begun == [7]


async def test_a_viewer_that_goes_away_does_not_cancel_what_others_wait_for() -> None:
    async with opened() as (loads, pictures):
        first, second = (asyncio.ensure_future(pictures.get(7)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        loads.go.set()
        assert content(await second) == b"7"
        assert first.cancelled()
        assert loads.cancelled == []


async def test_so_many_are_loaded_at_once_so_many_wait_and_the_next_is_told_to_come_again() -> None:
    async with opened() as (loads, pictures):
        allowed = AT_ONCE + MOST_WAITING
        viewers = [asyncio.ensure_future(pictures.get(number)) for number in range(allowed)]
        await turns()
        assert loads.begun == list(range(AT_ONCE))
        assert await pictures.get(allowed) == BUSY
        shared = asyncio.ensure_future(pictures.get(0))  # of a number that is on its way, one more may ask
        loads.go.set()
        assert [content(found) for found in await asyncio.gather(*viewers)] == [
            str(number).encode() for number in range(allowed)
        ]
        assert content(await shared) == b"0"
        assert content(await pictures.get(allowed)) == str(allowed).encode()


async def test_a_refusal_is_not_asked_for_again_at_once() -> None:
    async with opened() as (loads, pictures):
        loads.go.set()
        found = [await pictures.get(404) for _ in range(3)]
        assert {one.status for one in found if isinstance(one, NoPicture)} == {404}
        assert loads.begun == [404]


async def test_a_bug_in_a_load_is_an_answer_and_ends_nothing() -> None:
    async with opened() as (loads, pictures):
        loads.go.set()
        assert await pictures.get(500) == FAILED
        assert content(await pictures.get(1)) == b"1"


async def test_leaving_cancels_what_is_loaded_and_what_waits() -> None:
    async with opened() as (loads, pictures):
        viewers = [asyncio.ensure_future(pictures.get(number)) for number in range(AT_ONCE + 3)]
        await turns()
    assert sorted(loads.cancelled) == list(range(AT_ONCE))
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*viewers, return_exceptions=True)
    )
