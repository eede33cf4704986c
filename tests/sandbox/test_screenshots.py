"""Screenshots: on the tick, of what is live, named, announced in order, there when they have arrived."""

import asyncio
import logging
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from poller.sandbox import BadOption, Customer, Naming, Options, Sandbox, era
from poller.sandbox.names import Shot, path_of
from poller.sandbox.screenshots import Rules, Screenshots

from .api_client import ask, play
from .films import decoded, film, read
from .on_air import fetched, messages, on_air, over, until

SHOW = film([0x5A5A5A5A5A5A], size=(320, 180))
TALL = film([0x0F0F0F0F0F0F], size=(180, 320))
NEVER = 1e6
SECOND = Rules(interval=1.0, width=300, naming=Naming())


def test_ticks_are_multiples_of_the_absolute_clock() -> None:
    rules = Rules(interval=10, width=300, naming=Naming())
    last = 1471850187 // 10
    looks = [rules.look(now, last) for now in (1471850189.9, 1471850190.0, 1471850199.9, 1471850200.0)]
    assert [(rules.tick(number), due) for number, due in looks] == [
        (1471850180, False),
        (1471850190, True),
        (1471850190, True),
        (1471850200, True),
    ]


def test_no_tick_is_taken_twice_and_missed_ones_are_gone() -> None:
    assert SECOND.look(107.3, 107) == (107, False)
    assert SECOND.look(150.3, 107) == (150, True)


def test_a_clock_that_is_set_back_is_followed() -> None:
    assert SECOND.look(106.9, 107) == (107, False), "a little: no tick is taken twice"
    assert SECOND.look(50.5, 107) == (50, False), "much: the next tick is the clock's own"
    assert SECOND.look(51.0, 50) == (51, True)


@pytest.mark.parametrize("interval", [0.1, 0.25, 0.3, 0.5, 1.0, 1.5, 10.0])
def test_no_two_pictures_of_a_push_have_the_same_name(interval: float) -> None:
    rules = Rules(interval=interval, width=300, naming=Naming())
    first = int(1471850187 / interval)
    ticks = [rules.tick(number) for number in range(first, first + 200)]
    shots = [rules.shot("s", 1471850000, tick, 169) for tick in ticks]
    assert len({path_of(shot, Naming()) for shot in shots}) == 200
    assert all(-0.001 <= tick - shot.at < 1 for tick, shot in zip(ticks, shots, strict=True))


def test_names_follow_the_two_grammars() -> None:
    shot = Shot(stream_id="3891_a-b", push=1473645700, task=1473645701, at=1473645788, width=300, height=169)
    assert path_of(shot, Naming()) == "3891_a-b_1473645700_1473645701_88_300_169.jpg"
    assert path_of(shot, Naming(grammar="B")) == "3891_a-b-screenshot-10-03-08-300x169.jpg"
    by_date = Naming(grammar="B", folder="{date}")
    assert path_of(shot, by_date) == "2016-09-12/3891_a-b-screenshot-10-03-08-300x169.jpg"


def test_grammar_b_below_a_second_is_refused() -> None:
    with pytest.raises(BadOption):
        Options(directory=Path("x"), interval=0.5, naming=Naming(grammar="B"))


def test_every_live_stream_is_photographed_at_every_multiple_of_the_interval(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        before = int(time.time())
        async with on_air(sandbox, "wide", SHOW), on_air(sandbox, "a_b@c#d-1", TALL):
            await sandbox.until(lambda: sandbox.pictures.stored >= 4)
        found = await messages(sandbox, session)
        assert len(found) >= 4
        for stream_id, height in (("wide", 169), ("a_b@c#d-1", 533)):
            own = [one for one in found if one.stream_id == stream_id]
            ticks = [one.at for one in own]
            assert ticks == list(range(ticks[0], ticks[-1] + 1, 2))
            assert all(tick % 2 == 0 for tick in ticks)
            assert {(one.width, one.height) for one in own} == {(300, height)}
            assert {one.push for one in own} <= set(range(before, ticks[0] + 1))
        assert [one.at for one in found] == sorted(one.at for one in found)
        for one in found:
            status, body = await fetched(sandbox, session, one.name)
            assert status == 200
            picture = decoded(body)
            assert (picture.width, picture.height) == (one.width, one.height)
            assert read(picture) == (0x5A5A5A5A5A5A if one.stream_id == "wide" else 0x0F0F0F0F0F0F)

    play(tmp_path, scene, interval=2)


def test_a_picture_can_be_fetched_only_after_its_upload(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW):
            await sandbox.until(lambda: sandbox.platform.queue().depth == 1)
        (one,) = await messages(sandbox, session)
        assert one.at <= time.time() < one.at + 7.8, "the message does not wait for the upload"
        assert (await fetched(sandbox, session, one.name))[0] == 404
        await sandbox.until(lambda: sandbox.pictures.stored == 1)
        assert one.at + 8 <= time.time()
        assert (await fetched(sandbox, session, one.name))[0] == 200

    play(tmp_path, scene, interval=1, upload_delay=(8.0, 8.0))


def test_after_the_end_of_a_push_no_more_pictures_are_taken(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "clock", SHOW):
            async with on_air(sandbox, "short", SHOW):
                await sandbox.until(lambda: sandbox.live.pushes[1].pictures == 1)
            await over(sandbox, "short")
            ended = time.time()
            (clock,) = sandbox.live.pushes
            seen = clock.pictures
            await sandbox.until(lambda: clock.pictures >= seen + 3)
        found = await messages(sandbox, session)
        assert max(one.at for one in found if one.stream_id == "short") <= ended
        assert max(one.at for one in found if one.stream_id == "clock") > ended

    play(tmp_path, scene, interval=0.5)


def test_a_push_without_a_keyframe_yet_gets_no_picture(tmp_path: Path) -> None:
    sound = SHOW[0]._replace(kind=8, body=b"\xaf\x01" + bytes(50))
    between = SHOW[1]._replace(body=b"\x27" + SHOW[1].body[1:])

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with (
            on_air(sandbox, "clock", SHOW),
            on_air(sandbox, "blind", [SHOW[0], sound, between]) as peer,
        ):
            clock, blind = sandbox.live.pushes
            await sandbox.until(lambda: clock.pictures == 3)
            assert blind.pictures == sandbox.screenshots.failed == 0
            await peer.push([SHOW[1]])
            await sandbox.until(lambda: blind.pictures > 0)

    play(tmp_path, scene, interval=0.5)


def test_customers_have_their_own_pictures_and_queues(tmp_path: Path) -> None:
    one, two = Customer(app_id=1, bucket="one"), Customer(app_id=2, bucket="two", key="f" * 32)

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with AsyncExitStack() as stack:
            for customer, tags in ((one, SHOW), (two, TALL)):
                await stack.enter_async_context(
                    on_air(sandbox, "same", tags, query=f"?bizid={customer.biz_id}")
                )
            await sandbox.until(lambda: sandbox.pictures.stored >= 4)
        for customer, other, height in ((one, two, 169), (two, one, 533)):
            found = await messages(sandbox, session, customer)
            assert found
            for picture in found:
                assert picture.height == height
                assert (await fetched(sandbox, session, picture.name, customer))[0] == 200
                assert (await fetched(sandbox, session, picture.name, other))[0] == 404

    play(tmp_path, scene, interval=0.5, customers=(one, two))


def test_the_platform_of_2018_names_and_tells_otherwise(tmp_path: Path) -> None:
    answers, naming = era("2018")

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW):
            await sandbox.until(lambda: sandbox.pictures.stored == 1)
        (one,) = (await ask(sandbox, session))["output"]["data"]
        at = one["create_time"]
        shot = Shot(stream_id="show", push=0, task=0, at=at, width=300, height=169)
        assert one["pic_full_url"].endswith(path_of(shot, naming))
        assert "pic_url" not in one
        assert (await fetched(sandbox, session, path_of(shot, naming)))[0] == 200

    play(tmp_path, scene, interval=1, answers=answers, naming=naming)


def test_a_change_of_resolution_changes_the_pictures(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW) as peer:
            await sandbox.until(lambda: sandbox.pictures.stored >= 1)
            await peer.push([tag._replace(timestamp=1000) for tag in TALL])
            before = sandbox.pictures.stored
            await sandbox.until(lambda: sandbox.pictures.stored >= before + 2)
        found = await messages(sandbox, session)
        assert (found[0].height, found[-1].height) == (169, 533)

    play(tmp_path, scene, interval=0.5)


def test_video_that_cannot_be_decoded_is_counted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = SHOW[1]._replace(body=SHOW[1].body[:5] + os.urandom(500))
    strange = SHOW[1]._replace(body=b"\x12" + bytes(500))

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with AsyncExitStack() as stack:
            peers = [
                await stack.enter_async_context(on_air(sandbox, name, tags))
                for name, tags in (("good", SHOW), ("broken", [SHOW[0], broken]), ("old", [strange]))
            ]
            good, bad, old = sandbox.live.pushes
            await sandbox.until(lambda: good.pictures == 3)
            await until(lambda: sandbox.screenshots.failed >= 5)
            assert bad.pictures == old.pictures == 0
            said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
            assert len([line for line in said if line.startswith("no picture of broken: h264")]) == 1
            assert len([line for line in said if line.startswith("no picture of old: no pictures")]) == 1
            await peers[1].push(SHOW)
            await sandbox.until(lambda: bad.pictures > 0)

    with caplog.at_level(logging.INFO, "poller.sandbox"):
        play(tmp_path, scene, interval=0.5)


def test_a_disk_that_takes_no_pictures_costs_pictures_and_nothing_else(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        place = tmp_path / "cos" / ".coming"
        shutil.rmtree(place)
        async with on_air(sandbox, "show", SHOW):
            await until(lambda: sandbox.screenshots.failed >= 2)
            assert await messages(sandbox, session) == [], "no message without its picture"
            place.mkdir()
            await sandbox.until(lambda: sandbox.pictures.stored >= 1)
        assert await messages(sandbox, session)

    play(tmp_path, scene, interval=0.5)


@asynccontextmanager
async def slow_photographer(sandbox: Sandbox) -> AsyncIterator[tuple[Screenshots, threading.Event]]:
    """Pictures of the sandbox's pushes every 0.1 s, but none is cut before the event."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as worker:
        worker.submit(gate.wait)
        try:
            async with asyncio.TaskGroup() as group:
                yield (
                    Screenshots(
                        sandbox.platform,
                        sandbox.pictures,
                        Rules(interval=0.1, width=300, naming=Naming()),
                        lambda: sandbox.live.pushes,
                        group=group,
                        worker=worker,
                    ),
                    gate,
                )
        finally:
            gate.set()


async def a_tick(screenshots: Screenshots) -> None:
    """Steps until the pictures of one tick are begun."""
    await screenshots.step()
    await screenshots.step()
    await asyncio.sleep(0)


def test_a_picture_that_is_being_cut_comes_though_its_push_has_ended(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with slow_photographer(sandbox) as (screenshots, gate):
            async with on_air(sandbox, "show", SHOW):
                await until(lambda: sandbox.live.pushes[0].latest.footage() is not None)
                await a_tick(screenshots)
            await over(sandbox, "show")
            assert sandbox.pictures.stored == 0
            gate.set()
            await sandbox.until(lambda: sandbox.pictures.stored == 1)
        assert len(await messages(sandbox, session)) == 1

    play(tmp_path, scene, interval=NEVER)


def test_a_machine_that_is_too_slow_skips_pictures_and_counts_them(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with (
            slow_photographer(sandbox) as (screenshots, gate),
            on_air(sandbox, "show", SHOW),
            on_air(sandbox, "other", SHOW),
        ):
            await until(lambda: all(push.latest.footage() for push in sandbox.live.pushes))
            await a_tick(screenshots)
            await a_tick(screenshots)
            assert screenshots.skipped == 2
            gate.set()
            await sandbox.until(lambda: sandbox.pictures.stored == 2)
        found = await messages(sandbox, session)
        assert [one.stream_id for one in found] == ["show", "other"]

    play(tmp_path, scene, interval=NEVER)
