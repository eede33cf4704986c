"""Notifications that go wrong on purpose, those that are made up, and the log of what was answered."""

import asyncio
import json
import time
from collections import Counter
from hashlib import md5
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.sandbox import CALLBACK_FAULTS, Notified, Sandbox, read_notified
from poller.sandbox.callbacks.notified import NotifiedLog

from .api_client import play, tell
from .on_air import on_air, over
from .receiver import KEY, Receiver, counts, no, receiving, run_scene, settled


async def judge(body: dict[str, Any]) -> int:
    """As a careful receiver does: 403 for what is unsigned, wrongly signed, or expired."""
    t = body.get("t", 0)
    good = body.get("sign") == md5(f"{KEY}{t}".encode()).hexdigest() and t >= time.time() - 3600
    return 200 if good else 403


def say(sandbox: Sandbox, *numbers: int, stream_id: str = "show") -> None:
    for number in numbers:
        sandbox.callbacks.send(1234, {"event_type": 332, "stream_id": stream_id, "number": number})


def numbers(receiver: Receiver) -> list[int]:
    return [one.body["number"] for one in receiver.got]


@pytest.mark.parametrize("flaw", ["stale", "unsigned", "wrong_sign"])
@pytest.mark.parametrize("fresh", [0.0, 1.0])
def test_what_cannot_be_trusted_becomes_good_only_with_a_fresh_signature(
    tmp_path: Path, flaw: str, fresh: float
) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.faults["callback"].order(flaw)
        said = time.time()
        say(sandbox, 1)
        await settled(sandbox)
        over = time.time()
        say(sandbox, 2)
        found = await settled(sandbox)
        assert sandbox.faults["callback"].fired == {flaw: 1}
        if fresh:
            assert [one.status for one in receiver.got] == [403, 200, 200]
            assert [(one.attempts, one.fault) for one in read_notified(tmp_path)] == [(2, flaw), (1, None)]
        else:
            assert [one.status for one in receiver.got] == [403] * 101 + [200]
            assert len({one.wire for one in receiver.got}) == 2
            assert (found["given_up"], found["answered"]) == (1, 1)
            assert [one.fault for one in read_notified(tmp_path)] == [None]
        bad = receiver.got[0]
        assert set(bad.about) == {"event_type", "stream_id", "number"}
        assert ("sign" in bad.body, bad.is_signed()) == (flaw != "unsigned", flaw == "stale")
        if flaw == "stale":
            assert said - 10 < bad.body["t"] + 7200 < over + 10
        if flaw == "wrong_sign":
            assert len(bad.body["sign"]) == 32

    run_scene(tmp_path, scene, answer=judge, callback_fresh=fresh)


def test_how_stale_it_is_can_be_ordered(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.faults["callback"].order("stale", seconds=100)
        said = time.time()
        say(sandbox, 1)
        (got,) = await receiver.until(1)
        assert said - 10 < got.body["t"] + 100 < time.time() + 10

    run_scene(tmp_path, scene)


@pytest.mark.parametrize(("flaw", "same"), [("replay", True), ("twice", False)])
def test_what_was_answered_may_come_once_more(tmp_path: Path, flaw: str, same: bool) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async def later(body: dict[str, Any]) -> int:
            sandbox.clock.offset += 100
            return 500 if len(receiver.got) == 0 else 200

        receiver.answer = later
        sandbox.faults["callback"].order(flaw)
        say(sandbox, 1)
        found = await settled(sandbox)
        assert [one.status for one in receiver.got] == [500, 200, 200]
        _, first, second = receiver.got
        assert (first.wire == second.wire) is same
        assert first.about == second.about
        assert second.is_signed()
        assert (found["answered"], found["repeated"]) == (1, 1)
        assert [(one.fault, one.attempts) for one in read_notified(tmp_path)] == [(flaw, 2)]

    run_scene(tmp_path, scene)


def test_what_comes_once_more_is_sent_once_whatever_the_answer(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async def first(body: dict[str, Any]) -> int:
            return 500 if receiver.got else 200

        receiver.answer = first
        sandbox.faults["callback"].order("replay")
        say(sandbox, 1)
        await settled(sandbox)
        assert [one.status for one in receiver.got] == [200, 500]

    run_scene(tmp_path, scene)


def test_what_is_lost_is_never_sent(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.faults["callback"].order("lost")
        say(sandbox, 1, 2)
        found = await settled(sandbox)
        assert numbers(receiver) == [2]
        assert (found["sent"], found["answered"]) == (1, 1)
        assert sandbox.faults["callback"].fired == {"lost": 1}

    run_scene(tmp_path, scene)


def test_what_is_late_is_overtaken_and_carries_a_fresh_signature(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.faults["callback"].order("late", seconds=5.0)  # longer than this process is ever held up
        said = time.time()
        say(sandbox, 1, 2, 3)
        await receiver.until(2)
        sandbox.clock.offset = 1000
        await receiver.until(3)
        assert numbers(receiver) == [2, 3, 1]
        late = receiver.got[-1]
        assert late.is_signed()
        assert said + 1600 - 10 < late.body["t"] < time.time() + 1600 + 10

    run_scene(tmp_path, scene)


def test_what_is_out_of_order_waits_for_the_next(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        for times, expected in ((1, [2, 1]), (2, [3, 2, 1])):
            sandbox.faults["callback"].order("out_of_order", times=times)
            say(sandbox, *range(1, times + 1))
            await asyncio.sleep(0)
            assert counts(sandbox)["waiting"] == times
            assert receiver.got == []
            say(sandbox, times + 1)
            await settled(sandbox)
            assert numbers(receiver) == expected
            receiver.got.clear()

    run_scene(tmp_path, scene)


def test_the_end_of_a_push_may_come_before_its_beginning(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.faults["callback"].order("out_of_order")
        async with on_air(sandbox, "show"):
            pass
        await over(sandbox, "show")
        await settled(sandbox)
        first, second = (one.body for one in receiver.got)
        assert (first["event_type"], second["event_type"]) == (0, 1)
        assert first["sequence"] == second["sequence"]

    run_scene(tmp_path, scene)


def test_faults_by_probability_lose_nothing_that_is_repeated(tmp_path: Path, soak: bool) -> None:
    """A careful receiver gets all in the end, but for what is lost, as often as the log says."""
    rates = {name: 0.08 for name in CALLBACK_FAULTS if name not in ("late", "out_of_order")}
    count = 3_000 if soak else 500

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        for number in range(count):
            say(sandbox, number, stream_id=f"live_{number % 10}")
        found = await settled(sandbox)
        fired = sandbox.faults["callback"].fired
        assert set(fired) == set(rates)
        assert found["answered"] == count - fired["lost"]
        assert found["given_up"] == found["dropped"] == 0
        taken = Counter(one.body["number"] for one in receiver.got if one.status == 200)
        assert len(taken) == found["answered"]
        assert sum(taken.values()) == found["answered"] + fired["replay"] + fired["twice"]
        lines = read_notified(tmp_path)
        assert len(lines) == found["answered"]
        spoilt = Counter(one.fault for one in lines if one.fault)
        assert spoilt == {name: number for name, number in fired.items() if name != "lost"}
        assert all(one.attempts > 1 for one in lines if one.fault in ("stale", "unsigned", "wrong_sign"))

    run_scene(tmp_path, scene, answer=judge, callback_faults=rates, callback_limit=count, seed=3)


def test_the_control_port_orders_faults_of_callbacks(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with aiohttp.ClientSession() as session:
            order = {"fault": "lost", "times": 2}
            said = await tell(
                sandbox, session, "faults", target="callback", next=[order], rates={"unsigned": 1.0}
            )
            assert said["ordered"] == 2
            say(sandbox, 1, 2, 3)
            (got,) = await receiver.until(1)
            assert got.about == got.body, "unsigned"
            state = sandbox.state()
        assert state["faults"]["callback"] == {"lost": 2, "unsigned": 1}  # type: ignore[index]

    run_scene(tmp_path, scene)


BODIES: list[dict[str, Any]] = [
    {"event_type": 332, "stream_id": "s", "record_event": "record_start_succeeded"},
    {"event_type": 341, "stream_id": "s"},
    {"event_type": 321, "stream_id": "s", "report_interval": 5},
    {"event_type": 314, "task_id": "x"},
    {"event_type": 315, "streamId": "s", "channelId": "s"},
    {"event_type": 317, "streamId": "s", "img": "http://host/x.jpg", "tid": 20001},
    {"streamId": "s", "ocrMsg": "no event type at all", "score": 1.5},
    {"event_type": 99999, "event": [{"deep": [None, True]}]},
    {"event_type": "200", "pic_url": 7, "stream_id": None},
    {"event_type": 200, "pic_url": "/a/b.jpg", "stream_id": "\ud800 名 \x00", "big": 10**30},
    {},
]


def test_any_body_can_be_sent_by_the_control_port(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with aiohttp.ClientSession() as session:
            for number, body in enumerate(BODIES, 1):
                await tell(sandbox, session, "callbacks", send=body)
                got = (await receiver.until(number))[-1]
                assert got.about == body
                assert got.is_signed()
            await settled(sandbox)
            said = await tell(sandbox, session, "callbacks")
            assert said == {
                "sent": len(BODIES),
                "answered": len(BODIES),
                "repeated": 0,
                "given_up": 0,
                "dropped": 0,
                "waiting": 0,
            }
        lines = read_notified(tmp_path)
        assert [one.event_type for one in lines] == [body.get("event_type") for body in BODIES]
        assert (lines[-2].path, lines[-2].stream_id) == ("a/b.jpg", "\ud800 名 \x00")

    run_scene(tmp_path, scene)


def test_a_proof_that_the_body_has_already_is_left(tmp_path: Path) -> None:
    proofs: list[dict[str, Any]] = [{"t": "soon"}, {"sign": None}, {"t": 5, "sign": "x"}]

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with aiohttp.ClientSession() as session:
            for number, mine in enumerate(proofs, 1):
                await tell(sandbox, session, "callbacks", send={"event_type": 1, **mine})
                body = (await receiver.until(number))[-1].body
                assert {"t", "sign"} <= body.keys()
                assert body.items() >= mine.items()

    run_scene(tmp_path, scene)


def test_the_control_port_moves_a_customers_receiver_and_sets_the_pace(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with receiving() as other, aiohttp.ClientSession() as session:
            await tell(sandbox, session, "callbacks", customer=1234, url=other.url, send={"event_type": 5})
            await other.until(1)
            assert receiver.got == []
            other.answer = no
            await tell(sandbox, session, "callbacks", pace=0, send={"event_type": 6})
            await other.until(1 + 101)

    run_scene(tmp_path, scene, callback_pace=1000.0)


@pytest.mark.parametrize(
    "wish",
    [
        {"send": []},
        {"send": "text"},
        {"send": None},
        {"url": "nowhere/secret"},
        {"url": None},
        {"pace": -1},
        {"pace": "fast"},
        {"customer": 9, "send": {}},
    ],
)
def test_a_senseless_wish_is_refused_and_sends_nothing(tmp_path: Path, wish: dict[str, Any]) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{sandbox.endpoints['control']}/callbacks", json=wish) as response:
                assert response.status == 400
                said = await response.text()
            assert "secret" not in said
            say(sandbox, 1)
            await settled(sandbox)
        assert numbers(receiver) == [1]

    run_scene(tmp_path, scene)


def test_nothing_can_be_sent_to_a_customer_without_a_url(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with session.post(f"{sandbox.endpoints['control']}/callbacks", json={"send": {}}) as response:
            assert response.status == 400
            assert "no callback_url" in await response.text()

    play(tmp_path, scene)


def line(number: int, at: float = 0.0) -> Notified:
    return Notified(
        customer=1,
        event_type=number,
        stream_id="s",
        path=None,
        vid=None,
        sequence=None,
        attempts=1,
        fault=None,
        at=at,
    )


def test_a_line_that_a_kill_cut_short_spoils_no_other(tmp_path: Path) -> None:
    for number, cut in enumerate((1, 20, 10_000), 1):
        with NotifiedLog(tmp_path) as log:
            log.note(line(number))
        file = tmp_path / "notified.ndjson"
        whole = file.read_bytes()
        file.write_bytes(whole + whole.splitlines(keepends=True)[-1][:-1][:cut])
    with NotifiedLog(tmp_path) as log:
        log.note(line(4))
        log.note(line(5))
    found = [one.event_type for one in read_notified(tmp_path)]
    assert list(dict.fromkeys(found)) == [1, 2, 3, 4, 5]
    assert found == [1, 2, 3, 3, 4, 5], "a line that lacks nothing but its end counts"


def test_the_log_is_moved_aside_when_it_is_old(tmp_path: Path) -> None:
    with NotifiedLog(tmp_path) as log:
        log.forget(100)
        log.note(line(1, at=50))
        log.note(line(2, at=150))
        log.forget(40)
        assert not (tmp_path / "notified.ndjson.old").exists()
        log.forget(100)
        log.note(line(3, at=200))
        assert [one.event_type for one in read_notified(tmp_path)] == [1, 2, 3]
        log.forget(300)
        assert [one.event_type for one in read_notified(tmp_path)] == [3]
    assert read_notified(tmp_path, customer=2) == []
    assert json.loads((tmp_path / "notified.ndjson.old").read_text())["event_type"] == 3
