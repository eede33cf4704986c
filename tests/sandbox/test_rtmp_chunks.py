"""The chunk layer: however a pusher cuts and interleaves its messages, the same ones arrive."""

import random
import struct

import pytest

from poller.sandbox.rtmp.chunks import MAX_STREAMS, ChunkReader
from poller.sandbox.rtmp.contents import MAX_PARTS
from poller.sandbox.rtmp.ingest import RtmpServer
from poller.sandbox.rtmp.messages import Malformed

from .rtmp_peer import (
    Peer,
    Piece,
    Takes,
    Writer,
    amf,
    control,
    handshake,
    opening,
    pieces,
    play,
    resize,
    scene,
    tag,
    until,
)

LIMIT = 1 << 20


def read(data: bytes, at_once: int = 1 << 20, limit: int = LIMIT) -> list[Piece]:
    """What a reader makes of the bytes, fed in parts of that size."""
    reader = ChunkReader(limit)
    parts = (data[at : at + at_once] for at in range(0, len(data), at_once))
    found = [(one.kind, one.timestamp, one.body) for part in parts for one in reader.feed(part)]
    assert reader.held == 0
    return found


def written(stream: list[Piece], writer: Writer) -> bytes:
    return resize(writer.size) + b"".join(writer.message(kind, kind, at, body) for kind, at, body in stream)


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("size", [1, 128, 4096, 60000, 0xFFFFFF])
def test_every_chunk_size_and_header_form_gives_the_same_messages(size: int, short: bool) -> None:
    stream = pieces(20)
    assert read(written(stream, Writer(size, short=short))) == stream


@pytest.mark.parametrize("at_once", [1, 7, 128, 1000, 5000])
@pytest.mark.parametrize("size", [128, 4096])
def test_it_does_not_matter_how_the_bytes_come_in(size: int, at_once: int) -> None:
    stream = pieces(10)
    assert read(written(stream, Writer(size)), at_once) == stream


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("size", [64, 128, 60000])
@pytest.mark.parametrize("start", [0xFFFFFF - 100, 0xFFFFFF, 0x1000000, 0xFFFFFFFF - 100])
def test_extended_timestamps_are_repeated_or_not_and_wrap(
    start: int, size: int, repeat: bool, at_once: int
) -> None:
    stream = pieces(10, frame=1000, start=start)
    full = Writer(size, short=False, repeat=repeat)
    assert read(written(stream, full), at_once) == stream
    assert read(written(stream, Writer(size, repeat=repeat)), at_once) == stream


@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_a_payload_that_looks_like_the_timestamp_at_first_is_told_from_it(at_once: int) -> None:
    stream: list[Piece] = [
        (9, 0x01020304, bytes(128) + end) for end in (b"\1", b"\1\2", b"\1\2\3", b"\1\2\3\5", b"")
    ]
    assert read(written(stream, Writer(128, short=False, repeat=False)), at_once) == stream
    reader = ChunkReader(LIMIT)
    [early] = reader.feed(Writer(128, repeat=False).message(5, 9, 0x01020304, bytes(128) + b"\2"))
    assert early.timestamp == 0x01020304


def test_a_jump_of_hours_takes_an_extended_delta() -> None:
    stream: list[Piece] = [(9, 0, b"a" * 300), (9, 0x2000000, b"b" * 300), (9, 0x2000028, b"c" * 300)]
    for repeat in (True, False):
        assert read(written(stream, Writer(128, repeat=repeat))) == stream


def test_timestamps_may_run_backwards() -> None:
    stream: list[Piece] = [(9, 5000, b"a"), (9, 4960, b"b"), (9, 5040, b"c")]
    assert read(written(stream, Writer())) == stream


def test_chunk_streams_are_interleaved() -> None:
    writer = Writer(128)
    video = writer.chunks(6, 9, 40, b"v" * 1000)
    audio = writer.chunks(300, 8, 41, b"a" * 500)
    more = writer.chunks(70, 8, 42, b"b" * 400)
    mixed = [chunk for three in zip(video, audio, more, strict=False) for chunk in three]
    rest = video[4:] + audio[4:]
    # The run of video chunks in the end is taken at once; those before are not.
    assert sorted(read(b"".join(mixed + rest))) == [
        (8, 41, b"a" * 500),
        (8, 42, b"b" * 400),
        (9, 40, b"v" * 1000),
    ]


def test_any_order_of_chunks_of_several_streams_is_understood() -> None:
    choose = random.Random(7)
    for _ in range(50):
        writer = Writer(choose.choice([16, 100, 128, 500]))
        lanes = {
            channel: [
                (8, at * 23, choose.randbytes(choose.randrange(1, 3000)))
                for at in range(choose.randrange(1, 6))
            ]
            for channel in choose.sample([3, 4, 6, 63, 64, 319, 320, 65599], 4)
        }
        queues = {
            channel: [chunk for kind, at, body in lane for chunk in writer.chunks(channel, kind, at, body)]
            for channel, lane in lanes.items()
        }
        data = resize(writer.size)
        while queues:
            channel = choose.choice(list(queues))
            for _ in range(choose.choice([1, 1, 20])):
                if queues[channel]:
                    data += queues[channel].pop(0)
            if not queues[channel]:
                del queues[channel]
        assert sorted(read(data, choose.choice([1, 50, 1000, 1 << 20]))) == sorted(
            piece for lane in lanes.values() for piece in lane
        )


@pytest.mark.parametrize("channel", [6, 64, 319, 320, 65599])
def test_a_payload_may_be_full_of_what_looks_like_chunk_headers(channel: int) -> None:
    for look in (0xC0, 0xC1, 0xC6):
        body = bytes([look]) * 5000
        assert read(Writer(128).message(channel, 9, 40, body)) == [(9, 40, body)]


def test_an_aborted_message_is_forgotten_and_the_next_one_is_whole() -> None:
    writer = Writer(128)
    begun = writer.chunks(6, 9, 40, b"x" * 1000)[:3]
    data = b"".join(begun) + control(2, struct.pack(">I", 6)) + control(2, struct.pack(">I", 99))
    data += writer.message(6, 9, 80, b"y" * 1000)
    assert read(data) == [(9, 80, b"y" * 1000)]


def test_a_chunk_size_set_between_two_chunks_of_a_message_holds_from_there_on() -> None:
    body = bytes(range(256)) * 4
    first = Writer(128).chunks(6, 9, 40, body)[0]
    rest = bytes([0xC6]) + body[128:]
    assert read(first + resize(5000) + rest) == [(9, 40, body)]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (resize(0), "chunk size"),
        (resize(1 << 31), "chunk size"),
        (control(1, b"\0\1"), "chunk size"),
        (control(2, b"\0"), "abort"),
        (b"\xc4", "without a first header"),
        (b"\x84\0\0\0", "without a first header"),
        (Writer().message(4, 9, 0, bytes(LIMIT + 1))[:200], "a message of"),
        (Writer().chunks(4, 9, 0, bytes(200))[0] + Writer().message(4, 9, 0, b"x"), "inside a message"),
        (b"".join(Writer().message(4 + one, 9, 0, b"x") for one in range(MAX_STREAMS + 1)), "chunk streams"),
    ],
)
def test_what_no_pusher_may_send_is_an_error(data: bytes, what: str) -> None:
    reader = ChunkReader(LIMIT)
    with pytest.raises(Malformed, match=what):
        list(reader.feed(data))


def test_all_unfinished_messages_together_are_bounded() -> None:
    reader = ChunkReader(LIMIT)
    half = LIMIT // 2
    begun = [Writer(half).chunks(channel, 9, 0, bytes(LIMIT))[0] for channel in range(10, 15)]
    for data in (resize(half), *begun[:4]):
        assert list(reader.feed(data)) == []
    assert reader.held == 2 * LIMIT
    with pytest.raises(Malformed, match="unfinished"):
        list(reader.feed(begun[4]))


@scene()
async def test_an_aggregate_is_taken_apart_and_moved_to_its_moment(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a")
    inner = (
        tag(9, 1000, b"v1")
        + tag(8, 1010, b"a1")
        + tag(99, 1010, b"?")
        + tag(18, 1020, amf("@setDataFrame", "x"))
    )
    peer.send(peer.chunks.message(4, 22, 0xFFFFFFF8, inner + tag(9, 0x1000000, b"v2")))
    await peer.push([(9, 5, b"later")])
    await until(lambda: takes.of("a").pieces[-1:] == [(9, 5, b"later")])
    late = (0x1000000 - 1000 - 8) % (1 << 32)
    assert takes.of("a").pieces[:-1] == [
        (9, 0xFFFFFFF8, b"v1"),
        (8, 2, b"a1"),
        (18, 12, amf("x")),
        (9, late, b"v2"),
    ]


@pytest.mark.parametrize(
    "inner", [tag(9, 0, b"abc")[:-1], tag(9, 0, b"")[:5], tag(8, 0, b"") * (MAX_PARTS + 1)]
)
def test_a_bad_aggregate_breaks_its_connection(inner: bytes) -> None:
    async def bad(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.publish(ingest.url, "a")
        peer.send(peer.chunks.message(4, 22, 0, inner))
        assert await takes.end_of("a") == "broken"

    play(bad)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("size", [128, 4096, 60000])
def test_over_a_socket_all_chunk_sizes_give_the_same_tags(size: int, loop: str) -> None:
    stream = pieces(100, frame=13000)

    async def pushed(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.publish(ingest.url, "a", chunk=size)
        await peer.push(stream)
        await peer.close()
        assert await takes.end_of("a") == "closed"
        assert takes.of("a").pieces == stream

    play(pushed, loop=loop)


@scene()
async def test_a_session_that_comes_byte_by_byte_is_understood(ingest: RtmpServer, takes: Takes) -> None:
    stream = pieces(3, frame=200)
    peer = await Peer.connect(ingest.url)
    writer = Writer(64)
    for byte in (
        handshake() + opening("a", chunk=64) + b"".join(writer.message(k, k, t, b) for k, t, b in stream)
    ):
        peer.send(bytes([byte]))
        if byte % 64 == 0:
            await peer.socket.drain()
    await peer.close()
    await until(lambda: bool(takes.takes))
    assert await takes.end_of("a") == "closed"
    assert takes.of("a").pieces == stream
