"""Every way a push ends, each noticed for what it is; and every limit that a connection may hit."""

import asyncio
import contextlib
import resource
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from poller.sandbox.rtmp.connection import OWN, SHARED
from poller.sandbox.rtmp.ingest import RtmpServer, serve_rtmp
from poller.sandbox.rtmp.publish_handler import PublishRequest
from poller.sandbox.rtmp.session import MAX_IDLE, MAX_MESSAGE

from .rtmp_peer import (
    Peer,
    Take,
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
    stage,
    until,
)

SILENCE = 1.0


@pytest.mark.parametrize(
    ("call", "stream"),
    [
        (amf("FCUnpublish", 6, None, "a"), 0),
        (amf("deleteStream", 7, None, 1), 0),
        (amf("closeStream", 0, None), 1),
    ],
)
def test_a_push_ends_when_its_pusher_says_so(call: bytes, stream: int) -> None:
    async def unpublished(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.publish(ingest.url, "a")
        await peer.push(pieces(2))
        peer.send(Writer().message(8, 20, 0, call, stream))
        assert await takes.end_of("a") == "unpublished"
        assert takes.of("a").pieces == pieces(2)
        assert ingest.connections == 1
        await peer.close()
        await until(lambda: not ingest.connections)

    play(unpublished)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_push_ends_with_its_connection(loop: str) -> None:
    async def closed(ingest: RtmpServer, takes: Takes) -> None:
        orderly = await Peer.publish(ingest.url, "a")
        abrupt = await Peer.publish(ingest.url, "b")
        await orderly.push(pieces(2))
        await abrupt.push(pieces(2))
        await until(lambda: len(takes.of("b").pieces) == len(pieces(2)))
        await orderly.close()
        abrupt.reset()
        assert await takes.end_of("a") == "closed"
        assert takes.of("a").pieces == pieces(2)
        assert await takes.end_of("b") == "reset"
        assert ingest.broken == 0

    play(closed, loop=loop)


def test_what_was_sent_before_the_end_in_the_middle_of_a_message_arrives() -> None:
    async def cut(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.publish(ingest.url, "a")
        await peer.push(pieces(2))
        peer.send(peer.chunks.chunks(9, 9, 200, bytes(500))[0])
        await peer.close()
        assert await takes.end_of("a") == "closed"
        assert takes.of("a").pieces == pieces(2)

    play(cut)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_silent_pusher_is_dropped(loop: str) -> None:
    async def silent(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.publish(ingest.url, "a")
        await peer.push(pieces(2))
        peer.send(peer.chunks.chunks(9, 9, 200, bytes(500))[0])
        assert await takes.end_of("a") == "silent"
        await peer.ended()
        assert takes.of("a").pieces == pieces(2)
        assert ingest.broken == 0

    play(silent, silence=SILENCE, loop=loop)


@scene(silence=SILENCE)
async def test_a_pusher_that_drips_single_bytes_is_silent(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a", chunk=4096)
    body = peer.chunks.message(9, 9, 0, bytes(4000))
    for at in range(0, len(body), 10):
        if takes.of("a").why:
            break
        peer.send(body[at : at + 10])
        await asyncio.sleep(0.02)
    assert takes.of("a").why == ["silent"]


@scene(silence=SILENCE)
async def test_a_pusher_with_one_message_longer_than_the_deadline_is_not_silent(
    ingest: RtmpServer, takes: Takes
) -> None:
    peer = await Peer.publish(ingest.url, "a", chunk=60000)
    body = bytes(50_000)
    message = peer.chunks.message(9, 9, 0, body)
    for at in range(0, len(message), 10_000):
        peer.send(message[at : at + 10_000])
        await asyncio.sleep(SILENCE / 4)
    await until(lambda: bool(takes.of("a").pieces))
    assert takes.of("a").pieces == [(9, 0, body)]


@scene(silence=SILENCE)
async def test_a_pusher_that_is_heard_of_now_and_then_stays(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a")
    for number in range(4):
        await peer.push([(8, number, b"\xaf\x01x")])
        await asyncio.sleep(SILENCE / 2)
    assert len(takes.of("a").pieces) == 4
    assert not takes.of("a").why


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_pusher_is_not_silent_because_our_own_loop_stood_still(loop: str) -> None:
    async def still(ingest: RtmpServer, takes: Takes) -> None:
        parts = urlsplit(ingest.url)
        assert parts.hostname
        with socket.create_connection((parts.hostname, parts.port or 0)) as pusher:
            pusher.sendall(handshake() + opening("a"))
            await until(lambda: len(takes.takes) == 1)

            def tag(kind: int, timestamp: int, body: bytes) -> None:
                time.sleep(1.2 * SILENCE)
                pusher.sendall(Writer().message(9, 9, 0, b"frame"))

            other = await Peer.publish(ingest.url, "slow to take")
            vars(takes.of("slow to take"))["tag"] = tag
            await other.push([(9, 0, b"frame")])
            await until(lambda: bool(takes.of("a").pieces or takes.of("a").why))
            assert not takes.of("a").why

    play(still, silence=SILENCE, loop=loop)


@scene(silence=SILENCE)
async def test_who_does_not_come_to_publish_is_dropped(ingest: RtmpServer, takes: Takes) -> None:
    connecting = Writer().message(3, 20, 0, amf("connect", 1, {}), 0)
    begun = (
        b"",
        b"\x03",
        handshake()[:1000],
        handshake()[:2000],
        handshake(),
        handshake() + opening("a")[:100],
        handshake() + connecting,
    )
    peers = [await Peer.connect(ingest.url) for _ in begun]
    for peer, data in zip(peers, begun, strict=True):
        peer.send(data)
    await until(lambda: ingest.connections == len(peers))
    for peer in peers:
        await peer.ended()
    await until(lambda: not ingest.connections)
    assert not takes.takes
    assert (ingest.broken, ingest.refused) == (0, 0)


@scene(silence=SILENCE)
async def test_asking_for_everything_but_a_push_does_not_keep_a_connection(
    ingest: RtmpServer, takes: Takes
) -> None:
    peer = await Peer.greet(ingest.url)
    await peer.call("connect", 1, {"app": "live"})

    async def ask_on() -> None:
        for number in range(2, 500):
            await peer.call("_checkbw", number, None)
            await asyncio.sleep(0.02)

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask_on()
    await until(lambda: not ingest.connections)


@scene()
async def test_a_refused_pusher_that_does_not_go_is_dropped(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.greet(ingest.url)
    peer.send(opening("forbidden"))
    told = await peer.status("NetStream.Publish.BadName")
    assert told.values[3]["description"] == "this name is not for you"
    while ingest.connections:
        peer.send(Writer().message(9, 9, 0, b"frame"))
        await asyncio.sleep(0.05)


@scene(silence=SILENCE)
async def test_after_a_push_another_one_must_follow_in_time(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a")
    await peer.call("FCUnpublish", 6, None, "a")
    await peer.ended()
    assert not ingest.connections
    assert takes.of("a").why == ["unpublished"]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_handler_can_end_a_push(loop: str) -> None:
    async def kicked(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.publish(ingest.url, "a")
        await peer.push(pieces(2))
        await until(lambda: len(takes.of("a").pieces) == len(pieces(2)))
        takes.of("a").close()
        takes.of("a").close()
        assert await takes.end_of("a") == "kicked"
        await peer.ended()
        takes.of("a").close()

    play(kicked, loop=loop)


class Hasty(Takes):
    """Ends each push at its second tag, or at once."""

    def publish(self, request: PublishRequest, close: object) -> Take:
        take = super().publish(request, close)  # type: ignore[arg-type]
        if request.stream == "at once":
            take.close()
        return _Hasty(take.request, take.close, take.pieces, take.why)


class _Hasty(Take):
    def tag(self, kind: int, timestamp: int, body: bytes) -> None:
        super().tag(kind, timestamp, body)
        if len(self.pieces) == 2:
            self.close()


@pytest.mark.parametrize("name", ["at once", "soon"])
def test_the_stage_may_end_a_push_from_inside_its_calls(name: str) -> None:
    async def kicked() -> None:
        takes = Hasty()
        async with serve_rtmp("127.0.0.1:0", takes, silence=5) as ingest:
            peer = await Peer.greet(ingest.url)
            peer.send(opening(name, chunk=4096))
            with contextlib.suppress(ConnectionError):
                peer.chunks = Writer(4096)
                await peer.push(pieces(10))
            assert await takes.end_of(name) == "kicked"
            assert takes.of(name).pieces == pieces(10)[: 0 if name == "at once" else 2]

    asyncio.run(kicked())


@scene()
async def test_closing_a_push_that_is_over_leaves_the_next_one_alone(
    ingest: RtmpServer, takes: Takes
) -> None:
    peer = await Peer.publish(ingest.url, "a")
    await peer.call("FCUnpublish", 6, None, "a")
    takes.of("a").close()
    peer.send(Writer(128).message(4, 20, 0, amf("publish", 9, None, "b", "live"), 1))
    await until(lambda: len(takes.takes) == 2)
    takes.of("a").close()
    await peer.push(pieces(2))
    await until(lambda: len(takes.of("b").pieces) == len(pieces(2)))
    assert takes.of("a").why == ["unpublished"]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_all_pushes_end_when_the_server_stops(loop: str) -> None:
    ended: list[list[str]] = []
    peers: list[Peer] = []

    async def stopped(ingest: RtmpServer, takes: Takes) -> None:
        peers.extend([await Peer.publish(ingest.url, name) for name in ("a", "b", "c")])
        peers.append(await Peer.connect(ingest.url))
        ended.extend(take.why for take in takes.takes)
        assert ended == [[], [], []]

    play(stopped, loop=loop)
    assert ended == [["stopped"]] * 3


def test_a_stopped_server_is_gone_and_its_port_free() -> None:
    async def twice() -> None:
        async with stage(5.0) as (ingest, _):
            url = ingest.url
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect(url)
        async with serve_rtmp(url.removeprefix("rtmp://").removesuffix("/live"), Takes(), silence=5) as again:
            assert again.url == url

    asyncio.run(twice())


def test_an_address_of_ip_version_6_is_written_in_brackets() -> None:
    async def six() -> None:
        takes = Takes()
        async with serve_rtmp("[::1]:0", takes, silence=5) as ingest:
            assert ingest.url.startswith("rtmp://[::1]:")
            await Peer.publish(ingest.url, "a")
            assert takes.of("a").request.peer.startswith("::1:")

    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    asyncio.run(six())


# --- limits ---


@scene(max_connections=3)
async def test_a_connection_beyond_the_limit_is_turned_away_and_the_others_stay(
    ingest: RtmpServer, takes: Takes
) -> None:
    peers = [await Peer.publish(ingest.url, name) for name in "abc"]
    extra = await Peer.connect(ingest.url)
    await extra.ended()
    assert (ingest.connections, ingest.refused) == (3, 1)
    await peers[0].close()
    await until(lambda: ingest.connections == 2)
    await Peer.publish(ingest.url, "d")


TOO_MUCH = {
    "a message too long before a push": Writer().message(6, 9, 0, bytes(70_000), 0),
    "too many chunk streams": b"".join(Writer().message(4 + one, 9, 0, b"x", 0) for one in range(70)),
    "too many messages without a push": b"".join(
        Writer().message(6, 9, 0, b"x", 0) for _ in range(MAX_IDLE + 1)
    ),
    "AMF too deep": Writer().message(3, 20, 0, b"\x0a\0\0\0\1" * 30, 0),
    "AMF of too many values": Writer().message(3, 20, 0, b"\5" * 2000, 0),
    "a chunk size of nothing": resize(0),
    "a chunk size with the top bit": resize(1 << 31),
    "a call before connect": Writer().message(3, 20, 0, amf("createStream", 1, None), 0),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much_breaks_a_connection(what: str) -> None:
    async def broken(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.greet(ingest.url)
        peer.send(TOO_MUCH[what])
        await until(lambda: ingest.broken == 1)
        await peer.ended()
        assert not ingest.connections

    play(broken)


@pytest.mark.parametrize(
    "bad",
    [
        Writer(1 << 24, short=False).message(6, 9, 0, bytes(MAX_MESSAGE + 1))[:1000],
        resize(0),
        Writer().message(3, 20, 0, b"\x0a\0\0\0\1" * 30, 0),
        Writer().message(3, 20, 0, amf("connect", 1, "x" * 65_000) + amf("y" * 1000), 0),
    ],
)
def test_a_push_ends_broken_when_its_pusher_breaks_the_rules(bad: bytes) -> None:
    async def broken(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.publish(ingest.url, "a", chunk=128)
        await peer.push(pieces(1))
        peer.send(bad)
        assert await takes.end_of("a") == "broken"
        assert takes.of("a").pieces == pieces(1)
        assert ingest.broken == 1

    play(broken)


@scene()
async def test_the_longest_message_that_is_allowed_arrives(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a", chunk=60000)
    body = bytes(MAX_MESSAGE)
    await peer.push([(9, 0, body)])
    await until(lambda: bool(takes.of("a").pieces))
    assert takes.of("a").pieces == [(9, 0, body)]


@pytest.mark.parametrize("hello", [b"\x06" + bytes(3000), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\0"])
def test_another_protocol_is_broken_off_at_once(hello: bytes) -> None:
    async def broken(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.connect(ingest.url)
        peer.send(hello)
        await peer.ended()
        assert ingest.broken == 1

    play(broken)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_peer_that_reads_no_replies_is_dropped(loop: str) -> None:
    async def unread(ingest: RtmpServer, takes: Takes) -> None:
        running, parts = asyncio.get_running_loop(), urlsplit(ingest.url)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await running.sock_connect(deaf, (parts.hostname, parts.port))
            await running.sock_sendall(deaf, handshake() + opening("a"))
            with contextlib.suppress(ConnectionError):
                while not ingest.broken:
                    await running.sock_sendall(deaf, control(4, b"\0\6abcd") * 2000)
            assert await takes.end_of("a") == "broken"

    play(unread, loop=loop)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@scene(deadline=60.0)
async def test_memory_is_bounded_however_many_announce_large_messages(
    ingest: RtmpServer, takes: Takes
) -> None:
    good = await Peer.publish(ingest.url, "good", chunk=60000)
    before = _resident()
    peers = []
    part = Writer(1 << 24).message(6, 9, 0, bytes(MAX_MESSAGE))[: MAX_MESSAGE - 1]
    for number in range(40):
        peer = await Peer.publish(ingest.url, f"s{number}", chunk=0xFFFFFF)
        peers.append(peer)
        with contextlib.suppress(ConnectionError):
            peer.send(part)
            await peer.socket.drain()
    stream = pieces(50, frame=OWN // 4)
    await good.push(stream)
    await until(lambda: len(takes.of("good").pieces) == len(stream))
    assert takes.of("good").pieces == stream
    assert 25 < ingest.broken < 40
    assert _resident() - before < SHARED + 150 * 1024 * 1024


@scene()
async def test_memory_is_free_for_others_once_its_connection_is_gone(
    ingest: RtmpServer, takes: Takes
) -> None:
    part = Writer(1 << 24).message(6, 9, 0, bytes(MAX_MESSAGE))[: MAX_MESSAGE - 1]
    for turn in range(3):
        peers = [await Peer.publish(ingest.url, f"s{turn} {at}", chunk=0xFFFFFF) for at in range(6)]
        for peer in peers:
            peer.send(part)
            await peer.socket.drain()
            await peer.close()
    assert ingest.broken == 0
