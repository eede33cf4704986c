"""Who may push, whose push it is, what is said of the channel, and what is left of it after a restart."""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.sandbox import Customer, Options, Sandbox
from poller.sandbox.live import TAKEN_OVER_AFTER, check_secret
from poller.sandbox.rtmp.publish_handler import PublishRefused
from tests.patience import PATIENCE

from .api_client import ask, asking_status, listing, play, tell
from .films import film
from .on_air import CUSTOMER, fetched, messages, on_air, over, refused, secret, until
from .pushes import frames, tags_of
from .receiver import KEY, Receiver, receiving
from .rtmp_peer import Peer

SHOW = film(range(10))
KEYED = Customer(push_key="a push key")


async def status(sandbox: Sandbox, session: aiohttp.ClientSession, customer: Customer = CUSTOMER) -> Any:
    """What Live_Channel_GetStatus says of the channel `show`; None: it is unknown."""
    answer = await ask(sandbox, session, asking_status(customer))
    return answer["output"][0]["status"] if answer["ret"] == 0 else None


def query(text: str) -> dict[str, str]:
    return dict(part.split("=") for part in text.removeprefix("?").split("&"))


NOW = 1471850187.0
GOOD = query(secret("key", "show", NOW + 60))


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (GOOD, None),
        (query(secret("key", "show", NOW)), None),
        (GOOD | {"bizid": "1", "txTime": GOOD["txTime"]}, None),
        ({}, "txTime"),
        ({"txTime": GOOD["txTime"]}, "txSecret"),
        ({"txSecret": GOOD["txSecret"]}, "txTime"),
        (GOOD | {"txSecret": "0" * 32}, "txSecret"),
        (GOOD | {"txSecret": GOOD["txSecret"] + "\ud800é"}, "txSecret"),
        (GOOD | {"txTime": f"{int(NOW + 600):X}"}, "txSecret"),
        (GOOD | {"txTime": "\ud800"}, "txTime"),
        (GOOD | {"txTime": "F" * 1000}, "txTime"),
        (query(secret("key", "other", NOW + 60)), "txSecret"),
        (query(secret("other", "show", NOW + 60)), "txSecret"),
        (query(secret("key", "show", NOW - 1)), "passed"),
    ],
)
def test_a_push_secret_fits_its_key_its_stream_and_its_time(wish: Mapping[str, str], why: str | None) -> None:
    if why is None:
        check_secret("key", "show", wish, NOW)
    else:
        with pytest.raises(PublishRefused, match=why):
            check_secret("key", "show", wish, NOW)


def test_a_secret_is_the_md5_of_key_stream_and_time() -> None:
    """The right one by `printf keyshow57BAAE4B | md5sum`."""
    wish = {"txTime": "57BAAE4B", "txSecret": "6d5e42b769a8c2ce1c53b6288fd50326"}
    check_secret("key", "show", wish, int("57BAAE4B", 16))
    with pytest.raises(PublishRefused, match="passed"):
        check_secret("key", "show", wish, int("57BAAE4B", 16) + 1)


def test_a_push_needs_its_customers_secret(tmp_path: Path) -> None:
    assert KEYED.push_key is not None
    good = secret(KEYED.push_key, "show", time.time() + 60)

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert "txTime" in await refused(sandbox, "show")
        assert "txSecret" in await refused(sandbox, "show2", query=good)
        assert "passed" in await refused(
            sandbox, "show", query=secret("a push key", "show", time.time() - 60)
        )
        assert await status(sandbox, session) is None, "a refused push leaves no channel"
        async with on_air(sandbox, "show", query=good):
            assert await status(sandbox, session) == 1

    play(tmp_path, scene, customers=(KEYED,))


def test_no_secret_is_ever_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = secret("a push key", "show", time.time() + 60)
    late = secret("a push key", "show", time.time() - 60)

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await refused(sandbox, "show", query=late)
        async with on_air(sandbox, "show", SHOW, query=good):
            await refused(sandbox, "show", query=good)
        await over(sandbox, "show")

    with caplog.at_level(logging.DEBUG):
        play(tmp_path, scene, customers=(KEYED,))
    assert "push began: show" in caplog.text
    assert "push ended: show" in caplog.text
    for text in (good, late):
        assert query(text)["txSecret"] not in caplog.text
    assert "a push key" not in caplog.text


def test_the_customer_is_named_by_biz_id_or_host_and_else_is_the_first(tmp_path: Path) -> None:
    one, two = Customer(app_id=1, bucket="one"), Customer(app_id=2, bucket="two")
    host = f"rtmp://{two.biz_id}.livepush.myqcloud.com/live"

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        url = str(sandbox.endpoints["rtmp"])
        peers = [
            await Peer.publish(url, "first"),
            await Peer.publish(url, f"by_query?bizid={two.biz_id}"),
            await Peer.publish(url, "by_host", tc_url=host),
            await Peer.publish(url, f"query_wins?bizid={one.biz_id}", tc_url=host),
            await Peer.publish(url, "unknown?bizid=999"),
        ]
        owners = {push.stream_id: push.customer.app_id for push in sandbox.live.pushes}
        assert owners == {"first": 1, "by_query": 2, "by_host": 2, "query_wins": 1, "unknown": 1}
        for peer in peers:
            peer.socket.close()

    play(tmp_path, scene, customers=(one, two))


def test_two_customers_may_have_live_streams_of_the_same_name(tmp_path: Path) -> None:
    one, two = Customer(app_id=1, bucket="one"), Customer(app_id=2, bucket="two", push_key="secret")
    named = secret("secret", "show", time.time() + 60) + f"&bizid={two.biz_id}"

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert "txTime" in await refused(sandbox, "show", query=f"?bizid={two.biz_id}")
        async with on_air(sandbox, "show", SHOW):
            assert (await status(sandbox, session, one), await status(sandbox, session, two)) == (1, None)
            async with on_air(sandbox, "show", SHOW, query=named):
                assert (await status(sandbox, session, one), await status(sandbox, session, two)) == (1, 1)
                assert "live already" in await refused(sandbox, "show", query=named)
            await over(sandbox, "show", two)
            assert (await status(sandbox, session, one), await status(sandbox, session, two)) == (1, 0)
        await over(sandbox, "show", one)
        for customer in (one, two):
            rows = (await ask(sandbox, session, listing(customer)))["output"]["file_list"]
            assert [row["vid"].partition("_")[0] for row in rows] == [str(customer.biz_id)]

    play(tmp_path, scene, customers=(one, two))


@pytest.mark.parametrize("name", ["a", "3891_user_a-b", "a@b#c", "_", "-", "#", "@", "X" * 128])
def test_a_stream_id_may_hold_what_was_seen(tmp_path: Path, name: str) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, name, SHOW):
            (push,) = sandbox.live.pushes
            assert push.stream_id == name
        await over(sandbox, name)
        (row,) = (await ask(sandbox, session, listing(Param__s__channel_id=name)))["output"]["file_list"]
        assert row["vid"]

    play(tmp_path, scene)


def test_a_stream_id_of_other_characters_is_refused(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        for name in ("", "a b", "../a", "a/b", "a.b", "é", "名", "a\n", "a\0", "%41", "X" * 129):
            assert "stream id" in await refused(sandbox, name)
        assert sandbox.live.pushes == []
        assert sandbox.ingest.refused == 11

    play(tmp_path, scene)


def test_a_second_publisher_of_a_live_name_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW[:5]) as peer:
            (push,) = sandbox.live.pushes
            for _ in range(3):
                assert await refused(sandbox, "show") == "this stream is live already"
            await peer.push(SHOW[5:])
            await peer.call("FCUnpublish", 9, None, "show")
            assert sandbox.live.pushes == []
            async with on_air(sandbox, "show"):
                assert sandbox.live.pushes != [push], "free again"
        await over(sandbox, "show")
        (file,) = (tmp_path / "vod").glob("*.flv")
        assert len(frames(tags_of(file))) == 10

    play(tmp_path, scene)


def lost(sandbox: Sandbox) -> bool:
    """Whether the one push has been silent long enough to give way."""
    (push,) = sandbox.live.pushes
    return push.request.quiet() >= TAKEN_OVER_AFTER


@pytest.mark.parametrize("keyed", [False, True])
def test_a_pusher_that_lost_its_network_comes_back_at_once_and_nothing_is_mixed_up(
    tmp_path: Path, keyed: bool
) -> None:
    customer = replace(KEYED if keyed else CUSTOMER, callback_key=KEY)
    query = secret("a push key", "show", time.time() + 60) if keyed else ""

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession, receiver: Receiver) -> None:
        async with on_air(sandbox, "show", SHOW, query=query):
            (first,) = sandbox.live.pushes
            await until(lambda: lost(sandbox))
            async with on_air(sandbox, "show", SHOW[:6], query=query) as back:
                (second,) = sandbox.live.pushes
                assert second is not first
                assert await status(sandbox, session, customer) == 1
                (row,) = (await ask(sandbox, session, listing(customer)))["output"]["file_list"]
                assert len(frames(tags_of(tmp_path / "vod" / f"{row['vid']}.flv"))) == 10, (
                    "its segment is whole"
                )
                await back.call("FCUnpublish", 9, None, "show")
        await over(sandbox, "show")
        assert await status(sandbox, session, customer) == 0
        told = [got.body for got in await receiver.until(6)]
        assert [(one["event_type"], one.get("sequence")) for one in told] == [
            (1, first.sequence),
            (100, None),
            (0, first.sequence),
            (1, second.sequence),
            (100, None),
            (0, second.sequence),
        ]
        first.tag(9, 5000, SHOW[1].body)
        first.end("closed")
        assert len(list((tmp_path / "vod").iterdir())) == 2, "an end comes once"

    _with_receiver(tmp_path, scene, customer)


def _with_receiver(directory: Path, scene: Any, customer: Customer) -> None:
    async def whole() -> None:
        async with receiving() as receiver:
            told = replace(customer, callback_url=receiver.url)
            options = Options(directory=directory, customers=(told,), silence=60.0, interval=1e6)
            async with (
                asyncio.timeout(PATIENCE),
                Sandbox(options) as sandbox,
                aiohttp.ClientSession() as session,
            ):
                await scene(sandbox, session, receiver)

    asyncio.run(whole())


@pytest.mark.parametrize(
    "what", ["not silent yet", "a wrong secret", "no secret", "disabled", "another address"]
)
def test_a_stranger_takes_no_push_over(tmp_path: Path, what: str) -> None:
    good = secret("a push key", "show", time.time() + 60)
    tries = {
        "not silent yet": (good, "live already"),
        "a wrong secret": (secret("another key", "show", time.time() + 60), "txSecret"),
        "no secret": ("", "txTime"),
        "disabled": (good, "disabled"),
        "another address": ("", "live already"),
    }
    query, why = tries[what]
    keyed = what != "another address"

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW, query=good if keyed else "") as peer:
            (push,) = sandbox.live.pushes
            if what != "not silent yet":
                await until(lambda: lost(sandbox))
            if what == "disabled":
                sandbox.channels.disable(CUSTOMER.app_id, "show")
            if what == "another address":
                object.__setattr__(push.request, "peer", "192.0.2.7:5000")
            assert why in await refused(sandbox, "show", query=query)
            await peer.push(SHOW)
            assert sandbox.live.pushes == [push]

    play(tmp_path, scene, customers=(KEYED if keyed else CUSTOMER,), silence=60.0)


def test_who_pushes_one_large_frame_slowly_is_not_silent(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW) as peer:
            message = peer.chunks.message(9, 9, 400, b"\x27\x01\0\0\0" + bytes(60_000))
            for at in range(0, len(message), 5000):
                peer.send(message[at : at + 5000])
                await asyncio.sleep(0.15)
                assert await refused(sandbox, "show") == "this stream is live already"

    play(tmp_path, scene, silence=60.0)


def test_a_push_is_not_silent_because_the_platforms_own_loop_stood_still(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW[:5]) as peer:
            (push,) = sandbox.live.pushes
            own = peer.socket.get_extra_info("socket")
            time.sleep(1.2 * TAKEN_OVER_AFTER)  # noqa: ASYNC251 - the loop stands still
            os.write(own.fileno(), peer.chunks.message(9, 9, SHOW[5].timestamp, SHOW[5].body))
            assert push.request.quiet() == 0

    play(tmp_path, scene, silence=60.0)


def test_a_channel_is_live_while_it_is_pushed_and_interrupted_afterwards(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert await status(sandbox, session) is None
        for _ in range(2):
            async with on_air(sandbox, "show"):
                assert await status(sandbox, session) == 1
            await over(sandbox, "show")
            assert await status(sandbox, session) == 0

    play(tmp_path, scene)


def test_a_disabled_stream_is_dropped_and_refused_until_it_is_enabled(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW) as peer, on_air(sandbox, "other", SHOW):
            await tell(sandbox, session, "streams", disable=["show"])
            await peer.ended()
            await over(sandbox, "show")
            assert await status(sandbox, session) == 3
            assert await refused(sandbox, "show") == "this stream is disabled"
            await tell(sandbox, session, "streams", enable=["show"])
            assert await status(sandbox, session) == 0
            async with on_air(sandbox, "show"):
                assert await status(sandbox, session) == 1
            await over(sandbox, "show")
            assert [push.stream_id for push in sandbox.live.pushes] == ["other"]

    play(tmp_path, scene)


def test_a_kicked_push_is_dropped_and_may_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW) as peer:
            await until(lambda: sandbox.live.pushes[0].latest.footage() is not None)
            await tell(sandbox, session, "streams", kick=["show", "nobody"])
            await peer.ended()
            await over(sandbox, "show")
        async with on_air(sandbox, "show", SHOW):
            await until(lambda: sandbox.live.pushes[0].latest.footage() is not None)
        await over(sandbox, "show")
        answer = await ask(sandbox, session, listing())
        assert answer["output"]["all_count"] == 2

    with caplog.at_level(logging.INFO):
        play(tmp_path, scene)
    assert "push ended: show of 1234, kicked" in caplog.text


def test_the_state_tells_who_is_live(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW):
            await sandbox.until(lambda: sandbox.pictures.stored == 2)
            async with session.get(f"{sandbox.endpoints['control']}/state") as response:
                (said,) = (await response.json())["streams"]
        assert said["stream_id"] == "show"
        assert said["customer"] == 1234
        assert said["pictures"] == 2
        assert abs(said["push"] - time.time()) < 10

    play(tmp_path, scene, interval=0.5)


def test_the_next_sandbox_of_a_directory_serves_what_the_first_recorded_and_photographed(
    tmp_path: Path,
) -> None:
    names: list[str] = []
    peers: list[Peer] = []

    async def first(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        peers.append(await Peer.publish(str(sandbox.endpoints["rtmp"]), "show", chunk=65536))
        await peers[0].push(SHOW)
        await sandbox.until(lambda: sandbox.pictures.stored == 2)
        names.extend(one.name for one in await messages(sandbox, session))
        await sandbox.until(lambda: sandbox.platform.queue().depth == 1)

    async def second(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert await status(sandbox, session) == 0
        found = await messages(sandbox, session)
        assert found, "what was not taken waits"
        for name in (*names, *(one.name for one in found)):
            code, body = await fetched(sandbox, session, name)
            assert (code, body[:2]) == (200, b"\xff\xd8")
        (row,) = (await ask(sandbox, session, listing()))["output"]["file_list"]
        async with session.get(f"{sandbox.endpoints['vod']}/{row['vid']}.f0.flv") as response:
            assert response.status == 200
            assert (await response.read())[:3] == b"FLV"
        async with on_air(sandbox, "show", SHOW):
            assert await status(sandbox, session) == 1

    play(tmp_path, first, interval=0.5)
    play(tmp_path, second, interval=1e6)


def test_a_disabled_stream_is_disabled_after_a_restart_too(tmp_path: Path) -> None:
    async def first(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await tell(sandbox, session, "streams", disable=["show"])

    async def second(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert await status(sandbox, session) == 3
        assert "disabled" in await refused(sandbox, "show")

    play(tmp_path, first)
    play(tmp_path, second)


def test_a_database_that_takes_nothing_refuses_pushes_and_ends_them_all_the_same(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW):
            sandbox.database.execute("PRAGMA query_only=ON")
            with pytest.raises(sqlite3.OperationalError):
                sandbox.database.execute("DELETE FROM channel")
            assert await refused(sandbox, "other") == "the platform is out of order"
        await over(sandbox, "show")
        assert "out of order" in await refused(sandbox, "show")
        sandbox.database.execute("PRAGMA query_only=OFF")
        for name in ("show", "other"):
            async with on_air(sandbox, name):
                pass

    play(tmp_path, scene)


def test_an_exception_inside_leaves_the_sandbox_as_it_is(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show", SHOW):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        play(tmp_path, scene)


def test_a_sandbox_ends_while_streams_are_live(tmp_path: Path) -> None:
    peers = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        url = str(sandbox.endpoints["rtmp"])
        for number in range(5):
            peers.append(await Peer.publish(url, f"live_{number}", chunk=65536))
            await peers[-1].push(SHOW)
        await asyncio.sleep(0)

    play(tmp_path, scene)
    assert len(peers) == 5
