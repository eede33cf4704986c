"""Buckets that refuse, are full, are gone for a while, or lie behind a bad network."""

import asyncio
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poller.core.errors import TryLater
from poller.testing import some_batch
from tests.patience import PATIENCE
from tests.scenario.environment import environment, until
from tests.scenario.rig import scenario

from .middle_box import EACH_STORY, Story, middle_box, with_a_cut
from .object_stores import JPEG, SECRET, Moto, pictures, running, sink_to

WAITS = 60
"""Seconds that a stop may take: the grace of deliveries and of the sink's threads, on a busy machine."""


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    yield from started(Moto(tmp_path / "store"))


@pytest.fixture
def moto_with_files(tmp_path: Path) -> Iterator[Moto]:
    """A store whose objects are files from their first byte on."""
    yield from started(Moto(tmp_path / "store", MOTO_S3_DEFAULT_KEY_BUFFER_SIZE="1"))


@pytest.fixture
def moto_with_rights(tmp_path: Path) -> Iterator[Moto]:
    """A store that looks at keys and rights once its user and the key are made, after four requests."""
    yield from started(Moto(tmp_path / "store", INITIAL_NO_AUTH_ACTION_COUNT="3"))


def started(store: Moto) -> Iterator[Moto]:
    try:
        store.start()
        yield store
    finally:
        store.stop()


@EACH_STORY
@pytest.mark.parametrize("kind", ["moto", "cos"])
async def test_a_middle_box_that_cuts_loses_or_is_silent_costs_no_event(
    kind: str, story: Story, tmp_path: Path
) -> None:
    with running(kind, tmp_path / "store") as store:
        async with pictures() as host, middle_box(store.port) as box:
            there, timeout = f"http://127.0.0.1:{box.port}", PATIENCE if story is with_a_cut else 3.0
            async with sink_to(store, host, endpoint=there, timeout=timeout) as sink:
                events = await story(sink, box, host.event)
        assert len(await asyncio.to_thread(store.list_keys)) == len(events)


async def test_a_bucket_that_is_removed_and_made_again_is_used_at_once(moto: Moto) -> None:
    async with pictures() as host, sink_to(moto, host) as sink:
        assert await sink.check() == []
        moto.remove_bucket()
        with pytest.raises(TryLater, match="there is no such bucket"):
            await sink.deliver(some_batch(host.event(1), host.event(2)))
        moto.make_bucket()
        await sink.deliver(some_batch(host.event(1), host.event(2)))
    assert len(await asyncio.to_thread(moto.list_keys)) == 2


async def test_a_full_store_is_tried_again_later(moto_with_files: Moto) -> None:
    store = moto_with_files
    async with pictures() as host, sink_to(store, host) as sink:
        store.process.limit_files(len(JPEG) // 2)
        with pytest.raises(TryLater, match=r"^HTTP 500\b|^127.0.0.1: connection lost$"):
            await sink.deliver(some_batch(host.event(1), host.event(2)))
        store.process.limit_files(-1)
        await sink.deliver(some_batch(host.event(1), host.event(2)))
    assert len(await asyncio.to_thread(store.list_keys)) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"HTTP/1.1 507 Insufficient Storage\r\nConnection: close\r\nContent-Length: 47\r\n\r\n"
            b"<Error><Code>XMinioStorageFull</Code></Error>\r\n",
            "HTTP 507 XMinioStorageFull",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "HTTP 502"),
        (
            b"HTTP/1.1 301 Moved\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "127.0.0.1: the store redirects: check region and endpoint",
        ),
        (b"", "127.0.0.1: connection lost"),
        (None, "127.0.0.1: no answer in time"),
    ],
)
async def test_the_reason_says_what_the_store_answered_or_that_it_did_not(
    answer: bytes | None, reason: str, moto: Moto
) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        if answer is None:
            await reader.read()
        writer.write(answer or b"")
        writer.close()

    server = await asyncio.start_server(answers, "127.0.0.1", 0)
    there = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, sink_to(moto, None, endpoint=there, timeout="2s") as sink:
        assert await sink.check() == [reason]


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("http", "127.0.0.1: cannot connect: no server answers"),
        ("https", "127.0.0.1: TLS fails: the server does not speak it"),
    ],
)
async def test_the_reason_says_why_there_is_no_connection(scheme: str, reason: str, moto: Moto) -> None:
    there = f"{scheme}://127.0.0.1:{moto.port}"
    if scheme == "http":
        moto.stop()
    async with sink_to(moto, None, endpoint=there, timeout="5s") as sink:
        assert await sink.check() == [reason]


async def test_a_key_that_is_unknown_or_may_not_write_is_told_and_a_right_given_later_is_used(
    moto_with_rights: Moto,
) -> None:
    store = moto_with_rights
    people = store.client("iam")
    people.create_user(UserName="poller")
    key = people.create_access_key(UserName="poller")["AccessKey"]
    given = {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}
    async with pictures() as host, sink_to(store, host, **given) as sink:
        for wrong in ({}, given | {"secret_key": SECRET}):
            async with sink_to(store, host, **wrong) as refused:
                with pytest.raises(TryLater) as raised:
                    await refused.deliver(some_batch(host.event(1)))
                assert raised.value.reason == "the store does not accept the key"
                assert raised.value.said == b""
        with pytest.raises(TryLater, match="the store refuses: the key may not write here"):
            await sink.deliver(some_batch(host.event(1)))
        allow(store, people)
        await sink.deliver(some_batch(host.event(1)))


def allow(store: Moto, people: Any) -> None:
    """Let the user do everything. The server looks at no right for one request."""
    ask = urllib.request.Request(f"{store.url}/moto-api/reset-auth", b"1", {"Content-Type": "text/plain"})
    urllib.request.urlopen(ask).close()
    rule = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    people.put_user_policy(UserName="poller", PolicyName="all", PolicyDocument=policy)


@pytest.mark.parametrize("kind", ["moto", "cos"])
def test_a_store_that_hangs_does_not_hold_up_a_stop(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path / "store") as store, environment(tmp_path / "way") as place:
        settings = store.settings(timeout="10m", start="earliest")
        with scenario(place, tmp_path / "way", sinks={"bucket": settings}) as daemon:
            process = daemon.run()
            place.enqueue(20, pictures=True)
            until(lambda: len(store.list_keys()) == 20, what="for the pictures")
            with store.frozen():
                place.enqueue(40, pictures=True)
                until(lambda: place.depth == 0, what="for the queue to be empty")
                time.sleep(1)  # until requests have been sent
                began = time.monotonic()
                assert process.stop() == 0
                assert time.monotonic() - began < WAITS
            assert daemon.drain() == 0
            assert not daemon.books().dead
        assert len(store.list_keys()) == 60
