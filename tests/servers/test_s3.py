"""The s3 sink against moto's server and the sandbox's store, by both signatures: stores are killed, hang and refuse."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from poller.core.errors import PartlyFailed, Rejected, TryLater
from poller.core.model import Batch
from poller.sinks.s3 import S3
from poller.testing import SinkContract, SinkWorld, some_batch

from .object_stores import JPEG, KINDS, SECRET, Found, Store, pictures, running, sink_to

ODD_STREAMS = (
    "直播间 1", "a b", "a+b", "100%", "a%2Fb", "a#b?c=d&e", "..", ".", "a/../b", "a\\b", "~", '"<>\'', "", "é\t\n",
)  # fmt: skip
NORMAL_NAME = "room_1700000000_1700000000_10_300_169.jpg"


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with running(request.param, tmp_path / "store") as one:
        yield one


class TestS3(SinkContract):
    kind = "moto"

    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        with running(self.kind, folder / "store") as store:

            def arrived() -> Sequence[str]:
                return [store.get(key).metadata["id"] for key in store.list_keys()]

            async with pictures() as host, sink_to(store, host) as sink:
                assert isinstance(sink, S3)
                yield SinkWorld(
                    sink=sink, arrived=arrived, breaks=store.kill, mends=store.start, event=host.event
                )


class TestS3OfCos(TestS3):
    kind = "cos_by_s3"


class TestS3SignedForCos(TestS3):
    kind = "cos"


async def found(store: Store) -> dict[str, Found]:
    """Every object, by its key."""
    return {key: await asyncio.to_thread(store.get, key) for key in await asyncio.to_thread(store.list_keys)}


# ---------------------------------------------------------------- what is stored


async def test_an_object_is_the_picture_with_its_type_and_what_it_is_of(store: Store) -> None:
    async with pictures() as host, sink_to(store, host, template="{stream}/{time}-{name}") as sink:
        event = host.event(1, stream="Raum 1/ä")
        await sink.deliver(some_batch(event))
    metadata = {
        "id": event.id,
        "account": "main",
        "stream": "Raum%201/%C3%A4",
        "time": event.occurred_at.isoformat(),
    }
    key = f"Raum%201%2F%C3%A4/20260102T030405-{NORMAL_NAME}"
    assert await found(store) == {key: (JPEG, "image/jpeg", metadata)}


async def test_keys_and_metadata_of_odd_names_come_back_as_they_are(store: Store) -> None:
    async with pictures() as host, sink_to(store, host, template="{stream}/{name}") as sink:
        events = [
            host.event(number, stream=stream, name=f"{number}{quote(stream, safe='')}.jpg")
            for number, stream in enumerate(ODD_STREAMS)
        ]
        await sink.deliver(some_batch(*events))
        await sink.deliver(some_batch(*events))
    objects = {
        key: await asyncio.to_thread(store.get, key) for key in await asyncio.to_thread(store.list_keys)
    }
    assert len(objects) == len(events)
    streams = {one.metadata["id"]: (key.partition("/")[0], one) for key, one in objects.items()}
    for event in events:
        folder, one = streams[event.id]
        assert unquote(folder.removeprefix("%empty")) == event.stream_id
        assert unquote(one.metadata["stream"]) == event.stream_id
        assert one.content == JPEG


async def test_a_name_of_a_stream_that_is_longer_than_metadata_may_be_is_cut_there(store: Store) -> None:
    async with pictures() as host, sink_to(store, host) as sink:
        event = host.event(1, stream="直播" * 500)
        await sink.deliver(some_batch(event))
    ((_, one),) = (await found(store)).items()
    stream = unquote(one.metadata["stream"], errors="strict")
    assert 10 < len(stream) < 1000
    assert event.stream_id.startswith(stream)


async def test_a_sidecar_is_the_event(store: Store) -> None:
    async with pictures() as host, sink_to(store, host, sidecar=True) as sink:
        event = host.event(1)
        await sink.deliver(some_batch(event))
    picture, sidecar = sorted(await asyncio.to_thread(store.list_keys), key=len)
    assert sidecar == f"{picture}.json"
    one = await asyncio.to_thread(store.get, sidecar)
    assert one == (event.encoded + b"\n", "application/cloudevents+json", {})


async def test_an_object_that_is_there_already_is_replaced(store: Store) -> None:
    other = JPEG[:2] + b"\xff\xfe\x00\x05abc" + JPEG[2:]
    async with pictures() as host, sink_to(store, host) as sink:
        await sink.deliver(some_batch(host.event(1)))
        host.bodies[NORMAL_NAME] = other
        await sink.deliver(some_batch(host.event(1)))
    (one,) = (await found(store)).values()
    assert one.content == other


BAD_SOURCES: dict[str, tuple[bytes, dict[str, str], bool]] = {
    "cut": (JPEG, {}, True),
    "another page": (b"<html>no</html>", {}, False),
    "half a picture": (JPEG[: len(JPEG) // 2], {}, False),
    "another checksum": (JPEG, {"x-cos-hash-crc64ecma": "1"}, False),
    "too large": (JPEG[:2] + b"\xff\xfe\xff\xff" + bytes(65533) + JPEG[2:], {}, False),
    "nothing": (b"", {}, False),
}


@pytest.mark.parametrize("kind", ["moto", "cos"])
async def test_a_source_that_is_cut_or_no_whole_picture_leaves_no_object(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path / "store") as store:
        async with pictures() as host, sink_to(store, host, max_bytes="32KiB") as sink:
            good, bad = host.event(1), [host.event(number) for number in range(2, 2 + len(BAD_SOURCES))]
            for event, (body, headers, cut) in zip(bad, BAD_SOURCES.values(), strict=True):
                name = (event.url or "").rpartition("/")[2]
                host.bodies[name], host.headers[name] = body, headers
                host.cut |= {name} if cut else set()
            with pytest.raises(PartlyFailed) as raised:
                await sink.deliver(some_batch(good, *bad))
        assert set(raised.value.failures) == {event.id for event in bad}
        assert isinstance(raised.value.failures[bad[4].id], Rejected)
        assert len(await asyncio.to_thread(store.list_keys)) == 1


# ---------------------------------------------------------------- what fails


async def refused(store: Store, **more: object) -> TryLater:
    """The error of a batch of two, and of the check, which is the same."""
    async with pictures() as host, sink_to(store, host, **more) as sink:
        with pytest.raises(TryLater) as raised:
            await sink.deliver(some_batch(host.event(1), host.event(2)))
        assert await sink.check() == [str(raised.value)]
    assert await asyncio.to_thread(store.list_keys) == []
    return raised.value


async def test_a_missing_bucket_is_one_clear_error(store: Store) -> None:
    assert str(await refused(store, bucket="nobody-1250000000")) == "there is no such bucket"


@pytest.mark.parametrize("kind", ["cos_by_s3", "cos"])  # moto compares no signature
@pytest.mark.parametrize("wrong", [{"secret_key": "another"}, {"access_key": "AKIDnobody"}])
async def test_a_wrong_key_is_one_clear_error(kind: str, wrong: dict[str, str], tmp_path: Path) -> None:
    with running(kind, tmp_path / "store") as store:
        error = await refused(store, **wrong)
    assert str(error) == "the store does not accept the key"
    assert error.said == b""


async def test_a_key_for_another_bucket_may_not_write(tmp_path: Path) -> None:
    customers = tmp_path / "customers.yaml"
    customers.write_text(
        '[{app_id: 1234}, {app_id: 77, bucket: others, cos_app_id: 77777777, secret_id: AKIDothers, secret_key: "1"}]'
    )
    for kind in ("cos_by_s3", "cos"):
        with running(kind, tmp_path / kind, "--customers", str(customers)) as store:
            error = await refused(store, bucket="others-77777777")
        assert str(error) == "the store refuses: the key may not write here"


async def test_check_leaves_nothing(store: Store) -> None:
    async with pictures() as host, sink_to(store, host) as sink:
        assert await sink.check() == []
    assert await asyncio.to_thread(store.list_keys) == []


async def test_a_store_that_is_down_is_an_error_of_the_whole_batch(store: Store) -> None:
    async with pictures() as host, sink_to(store, host) as sink:
        store.kill()
        with pytest.raises(TryLater):
            await sink.deliver(some_batch(host.event(1), host.event(2)))
        store.start()
        await sink.deliver(some_batch(host.event(1), host.event(2)))
    assert len(await asyncio.to_thread(store.list_keys)) == 2


async def test_a_store_that_hangs_does_not_hold_a_cancelled_delivery(store: Store) -> None:
    async with pictures() as host, sink_to(store, host, timeout="3s") as sink:
        with store.frozen(), pytest.raises((TimeoutError, TryLater)):
            async with asyncio.timeout(1):
                await sink.deliver(some_batch(host.event(1)))
        await sink.deliver(some_batch(host.event(1)))
    assert len(await asyncio.to_thread(store.list_keys)) == 1


@pytest.mark.parametrize("kind", ["cos_by_s3", "cos"])
async def test_a_killed_store_keeps_what_a_delivery_confirmed(kind: str, tmp_path: Path) -> None:
    confirmed: set[str] = set()
    with running(kind, tmp_path / "store") as store:
        async with pictures() as host, sink_to(store, host) as sink:

            async def deliver(batch: Batch) -> None:
                while True:
                    try:
                        await sink.deliver(batch)
                    except (TryLater, PartlyFailed):
                        await asyncio.sleep(0.01)
                    else:
                        break
                confirmed.update(event.id for event in batch.events)

            for turn in range(6):
                some = asyncio.gather(
                    *(deliver(some_batch(*map(host.event, range(n, n + 20)))) for n in (40 * turn, 40 * turn + 20))
                )  # fmt: skip
                await asyncio.sleep(0.01 * turn)
                store.kill()
                store.start()
                await some
        kept = [one.metadata["id"] for one in (await found(store)).values()]
    assert set(kept) == confirmed
    assert len(kept) == 240


@pytest.mark.parametrize("kind", ["moto", "cos"])
async def test_memory_is_flat_for_large_pictures(kind: str, tmp_path: Path) -> None:
    filler = b"\xff\xfe" + (65_000).to_bytes(2, "big") + b"x" * 64_998  # a comment of a JPEG
    large = JPEG[:2] + filler * 50 + JPEG[2:]
    with running(kind, tmp_path / "store") as store:
        async with pictures() as host, sink_to(store, host, batch={"max_events": 4}) as sink:
            events = [*map(host.event, range(4))]
            host.bodies |= {(event.url or "").rpartition("/")[2]: large for event in events}
            for _ in range(3):
                await sink.deliver(some_batch(*events))
            before = _resident()
            for _ in range(12):  # 156 MB
                await sink.deliver(some_batch(*events))
            assert _resident() - before < 64 * 2**20
        assert {one.content for one in (await found(store)).values()} == {large}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_an_address_that_is_not_public_needs_permission(store: Store) -> None:
    async with pictures() as host, sink_to(store, host, allow_cidr=[]) as sink:
        with pytest.raises(TryLater, match=r"127\.0\.0\.1 is not a public address"):
            await sink.deliver(some_batch(host.event(1)))


async def test_no_secret_is_in_what_a_failure_says(store: Store) -> None:
    async with pictures() as host, sink_to(store, host, secret_key=SECRET + "-wrong") as sink:
        store.kill()
        with pytest.raises(TryLater) as raised:
            await sink.deliver(some_batch(host.event(1)))
    said = str(raised.value) + raised.value.said.decode()
    assert SECRET + "-wrong" not in said
    assert "ignature" not in said
