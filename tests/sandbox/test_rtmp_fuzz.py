"""Garbage on the port: nothing escapes, and whoever behaves well notices nothing."""

import asyncio
import contextlib
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.sandbox.rtmp.amf import decode, encode
from poller.sandbox.rtmp.chunks import ChunkReader
from poller.sandbox.rtmp.handshake import Handshake
from poller.sandbox.rtmp.ingest import RtmpServer
from poller.sandbox.rtmp.messages import Malformed, Message

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
    tag,
    unamf,
    until,
)  # fmt: skip

GOOD = "well-behaved"


def whole_session(choose: random.Random) -> bytes:
    """All that a real pusher says, in one of many ways."""
    name = choose.choice([GOOD, "forbidden", *(f"s{number}" for number in range(8))])
    size = choose.choice([16, 128, 4096, 60000])
    writer = Writer(size, short=choose.random() < 0.7, repeat=choose.random() < 0.5)
    stream = pieces(choose.randrange(1, 8), start=choose.choice([0, 0xFFFFFE, 0xFFFFFFFF - 50]))
    lanes = [writer.chunks(kind, kind, at, body) for kind, at, body in stream]
    lanes.append([writer.message(4, 22, 9, tag(9, 5, b"v") + tag(8, 6, b"a"))])
    lanes.append([control(2, b"\0\0\0\x09"), control(5, b"\0\0\x10\0"), control(4, b"\0\6abcd")])
    lanes.append([writer.message(3, 20, 0, amf("FCUnpublish", 9, None, name), 0)])
    return handshake() + opening(name, chunk=size) + b"".join(chunk for lane in lanes for chunk in lane)


def mutated(session: bytes, choose: random.Random) -> bytes:
    """With a few bytes changed, put in, taken out, doubled, or the end of another session grafted on."""
    made = bytearray(session)
    first = choose.choice([0, 3073, 3073, 3073, 3500])
    for _ in range(choose.randrange(1, 6)):
        at = choose.randrange(min(first, len(made) - 1), len(made))
        span = choose.choice([1, 2, 4, 16, 200])
        match choose.randrange(7):
            case 0:
                made[at] ^= 1 << choose.randrange(8)
            case 1:
                made[at] = choose.choice([0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0xC4])
            case 2:
                made[at:at] = choose.randbytes(span)
            case 3:
                del made[at : at + span]
            case 4:
                made[at:at] = made[at : at + span]
            case 5:
                made[at : at + span] = choose.randbytes(span)
            case 6:
                other = whole_session(choose)
                made[at:] = other[choose.randrange(3073, len(other)) :]
        if not made:
            made += b"\x03"
    return bytes(made[: choose.randrange(len(made)) + 1] if choose.random() < 0.2 else made)


def garbage(choose: random.Random) -> bytes:
    """Random bytes, from the first on, behind a handshake, or in place of media or of a command."""
    noise = choose.randbytes(choose.choice([1, 20, 3000, 30_000]))
    match choose.randrange(4):
        case 0:
            return noise
        case 1:
            return handshake() + noise
        case 2:
            return handshake() + opening("s0") + noise
    return handshake() + Writer().message(3, 20, 0, noise[:5000], 0)


async def attack(url: str, choose: random.Random) -> None:
    """One connection's worth of it."""
    data = garbage(choose) if choose.random() < 0.4 else mutated(whole_session(choose), choose)
    with contextlib.suppress(ConnectionError):
        peer = await Peer.connect(url)
        step = choose.choice([1 << 20, 5000, 700])
        for at in range(0, len(data), step):
            peer.send(data[at : at + step])
            await peer.socket.drain()
        if choose.random() < 0.5:
            await peer.close()
        elif choose.random() < 0.5:
            peer.reset()
        else:
            peer.socket.close()


@pytest.mark.timeout(200)
def test_garbage_and_mutated_sessions_harm_nobody_else(soak: bool) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if soak else 20160822
    print("seed", seed)

    async def storm(ingest: RtmpServer, takes: Takes) -> None:
        end, attacks = time.monotonic() + (60 if soak else 2), 0
        good = await Peer.publish(ingest.url, GOOD, chunk=4096)
        sent: list[Piece] = []

        async def behave() -> None:
            while time.monotonic() < end:
                more = pieces(1, start=len(sent))
                await good.push(more)
                sent.extend(more)
                await asyncio.sleep(0.005)

        async def misbehave(choose: random.Random) -> None:
            nonlocal attacks
            while time.monotonic() < end:
                await attack(ingest.url, choose)
                attacks += 1
                takes.takes[:] = [take for take in takes.takes if not take.why]

        async with asyncio.TaskGroup() as group:
            group.create_task(behave())
            for number in range(8):
                group.create_task(misbehave(random.Random(seed + number)))
        await until(lambda: len(takes.of(GOOD).pieces) == len(sent))
        assert takes.of(GOOD).pieces == sent
        assert not takes.of(GOOD).why
        assert attacks > 100
        assert ingest.broken > 10
        assert ingest.refused > 0

    play(storm, deadline=150, silence=10)


def _messages(reader: ChunkReader, parts: list[bytes]) -> tuple[list[Message], str]:
    """What came before an error counts; then that error."""
    found: list[Message] = []
    try:
        for part in parts:
            for message in reader.feed(part):
                found.append(message)
    except Malformed as error:
        return found, str(error)
    return found, ""


@settings(max_examples=300)
@given(
    st.binary(max_size=600),
    st.integers(min_value=1, max_value=50),
    st.sampled_from([b"", resize(3), resize(40)]),
)
def test_any_bytes_mean_the_same_however_they_are_cut(data: bytes, step: int, before: bytes) -> None:
    """Whatever is not RTMP is Malformed, nothing else."""
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    assert _messages(ChunkReader(500), [before, data]) == _messages(ChunkReader(500), [before, *parts])


@pytest.mark.parametrize("step", [1, 13, 500])
def test_mutated_sessions_mean_the_same_however_they_are_cut(step: int, soak: bool) -> None:
    choose = random.Random(step)
    for _ in range(2000 if soak else 60):
        data = mutated(whole_session(choose), choose)[3073:]
        parts = [data[at : at + step] for at in range(0, len(data), step)]
        assert _messages(ChunkReader(1 << 16), [data]) == _messages(ChunkReader(1 << 16), parts)


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_are_amf_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=20,
)


@settings(max_examples=200)
@given(st.lists(VALUES, max_size=5))
def test_what_is_encoded_is_decoded_by_both_codecs(values: list[object]) -> None:
    assert decode(encode(*values)) == values == decode(amf(*values)) == unamf(encode(*values))


@settings(max_examples=100)
@given(st.lists(st.integers(min_value=1, max_value=4000), max_size=20))
def test_a_handshake_may_come_in_any_parts(cuts: list[int]) -> None:
    data, shaking, answered = handshake() + b"rest", Handshake(), b""
    for cut in [*cuts, len(data)]:
        if data[:cut] and shaking.rest is None:
            answered += shaking.feed(data[:cut])
            data = data[cut:]
    assert len(answered) == 1 + 2 * 1536
    assert answered[1 + 1536 :] == bytes(1536)
    assert shaking.rest is not None
    assert (shaking.rest + data) == b"rest"
