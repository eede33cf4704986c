"""Bounds: tries to log in, and open event streams."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from poller.web.callers import SESSION
from poller.web.errors import WebError
from poller.web.limits import (
    MOST_TRIES,
    MOST_TRIES_EACH,
    EventStreams,
    Tries,
)
from poller.web.sessions import LOOK, Session

from .test_sessions import Now


def test_the_sixth_try_of_a_minute_waits_until_the_first_is_a_minute_old() -> None:
    now = Now()
    tries = Tries(now)
    for _ in range(5):
        assert tries.wait("a") == 0
        tries.fail("a")
        now.time += 4
    assert tries.wait("a") == 40
    now.time += 39.5
    assert tries.wait("a") == 1
    now.time += 0.5
    assert tries.wait("a") == 0


def test_nobody_waits_for_the_tries_of_another_address() -> None:
    tries = Tries(Now())
    for _ in range(MOST_TRIES_EACH):
        tries.fail("a")
    assert tries.wait("a") == 60
    assert tries.wait("b") == 0


def test_many_addresses_together_have_a_bound_too_and_memory_has_one() -> None:
    now = Now()
    tries = Tries(now)
    for number in range(1000):
        if not tries.wait(f"a{number}"):
            tries.fail(f"a{number}")
    assert tries.wait("somebody else") == 60
    assert len(tries._failed) == MOST_TRIES
    now.time += 60
    assert tries.wait("somebody else") == 0


# ---------------------------------------------------------------- event streams


def asking(session: str | None = None, lasting: float = 3600.0) -> web.Request:
    request = make_mocked_request("GET", "/api/live")
    if session is not None:
        until = asyncio.get_running_loop().time() + lasting
        request[SESSION] = Session(key=session, role=LOOK, until=until)
    return request


async def opened(streams: EventStreams, request: web.Request, group: asyncio.TaskGroup) -> asyncio.Task[str]:
    there = asyncio.Event()

    async def serve() -> str:
        async with streams.place(request):
            there.set()
            await asyncio.Event().wait()
        return "ended"

    task = group.create_task(serve())
    waiting = group.create_task(there.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    return task


async def refused(streams: EventStreams, request: web.Request) -> WebError:
    with pytest.raises(WebError) as found:
        async with streams.place(request):
            pytest.fail("there was a place")
    return found.value


async def test_event_streams_are_bounded_in_all_and_a_place_that_ends_is_free_again() -> None:
    streams = EventStreams(most=3)
    async with asyncio.TaskGroup() as group:
        tasks = [await opened(streams, asking(), group) for _ in range(3)]
        error = await refused(streams, asking())
        assert (error.status, error.headers) == (503, {"Retry-After": "10"})
        tasks[0].cancel()
        await asyncio.wait({tasks[0]})
        tasks.append(await opened(streams, asking(), group))
        await streams.close(web.Application())
    assert [task.result() for task in tasks[1:]] == ["ended"] * 3


async def test_a_session_has_eight_and_others_are_not_hurt() -> None:
    streams = EventStreams()
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            await opened(streams, asking("a"), group)
        assert (await refused(streams, asking("a"))).status == 503
        others = await opened(streams, asking("b"), group)
        streams.end_session("a")
        await opened(streams, asking("a"), group)
        assert not others.done()
        await streams.close(web.Application())


async def test_a_stream_ends_with_its_session() -> None:
    streams = EventStreams()
    async with asyncio.TaskGroup() as group:
        task = await opened(streams, asking("a", lasting=0.05), group)
    assert task.result() == "ended"


async def test_an_error_inside_goes_out_as_it_is() -> None:
    streams = EventStreams(most=1)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="mine"):
            async with streams.place(asking()):
                raise TimeoutError("mine")


def test_the_places_are_sixty_four() -> None:
    found: Any = EventStreams()
    assert (found._most, found._each) == (64, 8)
