"""The conversation: what pushers ask, what they are answered, under which name they come in."""

import asyncio
import itertools
import math
import struct

import pytest

from poller.sandbox.rtmp.amf import MAX_DEPTH, MAX_VALUES, decode
from poller.sandbox.rtmp.ingest import RtmpServer
from poller.sandbox.rtmp.messages import Malformed

from .rtmp_peer import Peer, Reply, Takes, Writer, amf, control, opening, pieces, play, scene, unamf, until


@scene()
async def test_calls_are_answered_with_their_own_transaction_numbers(
    ingest: RtmpServer, takes: Takes
) -> None:
    peer = await Peer.greet(ingest.url)
    connected = await peer.call("connect", 17.5, {"app": "live", "tcUrl": "rtmp://h/live"})
    assert connected.values[0] == "_result"
    assert connected.values[3]["code"] == "NetConnection.Connect.Success"
    for number, name in enumerate(("releaseStream", "FCPublish", "_checkbw"), start=100):
        assert (await peer.call(name, number, None, "a")).values == ["_result", number, None, None]
    assert (await peer.call("createStream", 4711, None)).values == ["_result", 4711, None, 1]
    assert (await peer.call("createStream", 4712, None)).values == ["_result", 4712, None, 2]
    failed = await peer.call("somethingOfTheirOwn", 5, None)
    assert failed.values[0] == "_error"
    assert ingest.connections == 1


@scene()
async def test_the_start_of_a_push_is_reported_with_a_full_header_on_its_message_stream(
    ingest: RtmpServer, takes: Takes
) -> None:
    peer = await Peer.greet(ingest.url)
    await peer.call("connect", 1, {"app": "live"})
    for number in (2, 3):
        await peer.call("createStream", number, None)
    peer.send(Writer().message(8, 20, 0, amf("publish", 0, None, "a", "live"), 2))
    told = await peer.status("NetStream.Publish.Start")
    assert (told.form, told.stream) == (0, 2)
    begin = await peer.reply(lambda reply: reply.kind == 4)
    assert begin.body == struct.pack(">HI", 0, 2)
    assert peer.replies.index(begin) < peer.replies.index(told)


@scene()
async def test_windows_bandwidth_and_chunk_size_are_told_on_connecting(
    ingest: RtmpServer, takes: Takes
) -> None:
    peer = await Peer.greet(ingest.url)
    await peer.call("connect", 1, {"app": "live"})
    assert [reply.kind for reply in peer.replies] == [1, 5, 6, 20]


@scene()
async def test_every_window_is_acknowledged(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a", chunk=4096)
    peer.send(control(5, struct.pack(">I", 50_000)))
    for piece in pieces(40):
        await peer.push([piece])
        await asyncio.sleep(0)  # so that it is read in small parts
    counts: list[int] = []

    def far(reply: Reply) -> bool:
        if reply.kind == 3:
            counts.append(int.from_bytes(reply.body, "big"))
        return bool(counts) and counts[-1] > 100_000

    await peer.reply(far)
    assert counts == sorted(set(counts))
    assert all(second - first >= 50_000 for first, second in itertools.pairwise(counts))


@scene()
async def test_a_window_of_nothing_changes_nothing(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a", chunk=4096)
    peer.send(control(5, bytes(4)))
    await peer.push(pieces(5))
    peer.send(control(4, b"\0\6abcd"))
    await peer.reply(lambda reply: reply.body == b"\0\7abcd")
    assert not [reply for reply in peer.replies if reply.kind == 3]


@scene()
async def test_a_ping_is_answered(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a")
    peer.send(control(4, b"\0\6abcd") + control(4, b"\0\3" + bytes(8)))
    answer = await peer.reply(lambda reply: reply.kind == 4 and reply.body[:2] == b"\0\7")
    assert answer.body == b"\0\7abcd"


@scene()
async def test_metadata_loses_what_was_meant_for_the_server(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a")
    about = amf("onMetaData", {"width": 640})
    for kind, body in (
        (18, amf("@setDataFrame") + about),
        (18, about),
        (15, b"\0" + amf("@setDataFrame") + about),
        (15, b"\x11\x03"),
        (18, amf("@clearDataFrame")),
        (8, b""),
    ):
        peer.send(peer.chunks.message(4, kind, 7, body))
    await peer.push([(9, 8, b"end")])
    await until(lambda: takes.of("a").pieces[-1:] == [(9, 8, b"end")])
    assert takes.of("a").pieces[:-1] == [(18, 7, about)] * 3


@scene()
async def test_commands_may_come_in_amf3_messages(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.greet(ingest.url)
    writer = Writer()
    peer.send(writer.message(3, 17, 0, b"\0" + amf("connect", 1, {"app": "live"}), 0))
    peer.send(writer.message(3, 17, 0, b"\0" + amf("createStream", 2, None), 0))
    peer.send(writer.message(3, 17, 0, b"\0" + amf("publish", 3, None, "a", "live"), 1))
    await peer.status("NetStream.Publish.Start")


@pytest.mark.parametrize(
    ("app", "url", "name", "expected"),
    [
        ("live", "rtmp://h/live", "s", ("h", "live", "s", {})),
        ("live", "rtmp://H.example:1935/live", "a_b-c@d#e", ("h.example", "live", "a_b-c@d#e", {})),
        ("live", "rtmp://[::1]:1935/live", "a%23b%40c%5F", ("::1", "live", "a#b@c_", {})),
        ("live", "rtmp://h/live", "a+b%2Bc", ("h", "live", "a+b+c", {})),
        ("live", "rtmp://h/live", "流", ("h", "live", "流", {})),
        ("live", "rtmp://h/live", "%e6%b5%81%ff", ("h", "live", "流\ufffd", {})),
        (
            "live",
            "rtmp://h/live",
            "s?txSecret=ab&txTime=5F",
            ("h", "live", "s", {"txSecret": "ab", "txTime": "5F"}),
        ),
        (
            "live",
            "rtmp://h/live",
            "s?a=1&a=2&b=%26+&&=c&d",
            ("h", "live", "s", {"a": "1", "b": "&+", "d": ""}),
        ),
        ("live?a=1", "rtmp://h/live?a=1", "s", ("h", "live", "s", {"a": "1"})),
        ("live?a=1", "rtmp://h/live", "s", ("h", "live", "s", {"a": "1"})),
        ("live?a=1", "rtmp://h/live?a=1", "s?b=2", ("h", "live", "s", {"b": "2"})),
        ("/live/", "rtmp://h/live?a=1", "s", ("h", "live", "s", {"a": "1"})),
        ("live/instance", "rtmp://[bad/live", "s", ("", "live/instance", "s", {})),
        ("", "", "", ("", "", "", {})),
    ],
)
def test_names_and_queries_are_read_wherever_the_pusher_put_them(
    app: str, url: str, name: str, expected: tuple[str, str, str, dict[str, str]]
) -> None:
    async def named(ingest: RtmpServer, takes: Takes) -> None:
        await Peer.publish(ingest.url, name, app=app, tc_url=url)
        request = takes.takes[0].request
        assert (request.host, request.app, request.stream, request.query) == expected
        assert request.peer.startswith("127.0.0.1:")
        assert "ab" not in repr(request)

    play(named)


@scene()
async def test_a_second_publisher_of_a_live_name_is_refused_and_the_first_unharmed(
    ingest: RtmpServer, takes: Takes
) -> None:
    stream = pieces(50)
    first = await Peer.publish(ingest.url, "a", chunk=4096)
    await first.push(stream[:40])
    second = await Peer.greet(ingest.url)
    # It does not wait to be let in, and its media lie unread when the refusal is sent.
    second.send(opening("a") + b"".join(Writer().message(6, 9, at, bytes(5000)) for at in range(200)))
    told = await second.status("NetStream.Publish.BadName")
    assert told.values[3]["level"] == "error"
    assert told.values[3]["description"] == "this stream is live already"
    assert told.stream == 1
    assert await second.ended()
    await first.push(stream[40:])
    await until(lambda: len(takes.of("a").pieces) == len(stream))
    assert takes.of("a").pieces == stream
    assert (len(takes.takes), ingest.refused) == (1, 1)


@pytest.mark.parametrize("verb", ["play", "play2", "pause", "seek"])
def test_who_wants_to_play_is_told_no_and_let_go(verb: str) -> None:
    async def refused(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.greet(ingest.url)
        await peer.call("connect", 1, {"app": "live"})
        await peer.call("createStream", 2, None)
        answer = await peer.call(verb, 3, None, "a", stream=1)
        assert answer.values[0] == "_error"
        told = await peer.status("NetStream.Failed")
        assert (told.stream, told.values[3]["level"]) == (1, "error")
        assert await peer.ended()
        assert ingest.refused == 1

    play(refused)


@scene()
async def test_publishing_without_a_message_stream_is_refused(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.greet(ingest.url)
    await peer.call("connect", 1, {"app": "live"})
    peer.send(Writer().message(3, 20, 0, amf("publish", 3, None, "a", "live"), 1))
    await peer.status("NetStream.Failed")
    assert await peer.ended()
    assert not takes.takes


@scene()
async def test_one_push_follows_another_on_the_same_connection(ingest: RtmpServer, takes: Takes) -> None:
    peer = await Peer.publish(ingest.url, "a")
    await peer.push([(9, 1, b"one")])
    again = Writer().message(4, 20, 0, amf("publish", 9, None, "b", "live"), 1)
    peer.send(again)  # one at a time
    await peer.status("NetStream.Publish.BadName")
    await peer.push([(9, 2, b"two")])
    assert (await peer.call("FCUnpublish", 6, None, "a")).values[0] == "_result"
    await peer.status("NetStream.Unpublish.Success")
    assert takes.of("a").why == ["unpublished"]
    await peer.push([(9, 3, b"late")])
    peer.replies.clear()
    peer.send(again)
    await peer.status("NetStream.Publish.Start")
    await peer.push([(9, 4, b"three")])
    await until(lambda: bool(takes.of("b").pieces))
    peer.send(peer.chunks.message(7, 9, 4, b"of another message stream", 5))
    peer.send(Writer().message(3, 20, 0, amf("deleteStream", 0, None, 5), 0))
    await peer.push([(9, 5, b"four")])
    await until(lambda: len(takes.of("b").pieces) == 2)
    assert takes.of("a").pieces == [(9, 1, b"one"), (9, 2, b"two")]
    assert takes.of("b").pieces == [(9, 4, b"three"), (9, 5, b"four")]


@scene()
async def test_several_pushes_run_at_once_each_with_its_own_tags(ingest: RtmpServer, takes: Takes) -> None:
    streams = {f"s{number}": pieces(30, frame=500 * number, start=number) for number in range(1, 8)}
    peers = {name: await Peer.publish(ingest.url, name, chunk=4096) for name in streams}
    for at in range(61):
        for name, peer in peers.items():
            await peer.push([streams[name][at]])
    await until(lambda: all(len(take.pieces) == 61 for take in takes.takes))
    assert {take.request.stream: take.pieces for take in takes.takes} == streams
    assert ingest.connections == 7


def test_every_type_of_amf0_is_read() -> None:
    data = (
        amf("text", 1.5, True, None, {"a": {"b": "c"}})
        + b"\x06\x0d\x07\0\1"
        + (b"\x08\xff\xff\xff\xff" + b"\0\1x" + amf(2) + b"\0\0\x09")
        + (b"\x0a\0\0\0\2" + amf("y", None))
        + (b"\x0b" + struct.pack(">d", 1000) + b"\0\0")
        + (b"\x0c\0\0\0\4long")
        + (b"\x0f\0\0\0\3xml")
        + (b"\x10\0\1T" + b"\0\1z" + amf(3) + b"\0\0\x09")
    )
    expected = ["text", 1.5, True, None, {"a": {"b": "c"}}, None, None, None, {"x": 2}, ["y", None]]
    assert decode(data) == [*expected, 1000, "long", "xml", {"z": 3}]
    assert math.isnan(float(str(decode(amf(math.nan))[0])))
    assert unamf(amf("a", {"b": 1})) == decode(amf("a", {"b": 1}))


@pytest.mark.parametrize(
    "data",
    [
        amf("whole")[:-1],
        amf(1.0)[:-1],
        b"\x03\0\1a",
        b"\x03\0\0",
        b"\x08\0",
        b"\x0a\xff\xff\xff\xff",
        b"\x0c\xff\xff\xff\xffabc",
        b"\x0a\0\0\0\1" * (MAX_DEPTH + 1) + b"\5",
        b"\5" * (MAX_VALUES + 1),
        b"\x0a\0\x0f\xff\xff" + b"\5" * 70000,
        b"\x11\1",
        b"\x63",
    ],
)
def test_amf_that_is_cut_short_or_too_deep_or_too_much_is_an_error(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x02\0\x05con",
        amf("connect"),
        amf(1, 2),
        amf("connect", "1"),
        b"\x0a\0\0\0\1" * 20,
        amf("publish", 1, None, "a"),
    ],
)
def test_a_malformed_command_breaks_its_connection(body: bytes) -> None:
    async def broken(ingest: RtmpServer, takes: Takes) -> None:
        peer = await Peer.greet(ingest.url)
        peer.send(Writer().message(3, 20, 0, body, 0))
        await peer.ended()
        await until(lambda: ingest.broken == 1)

    play(broken)
