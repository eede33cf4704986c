"""How notifications are delivered: in order, repeated as in their year, holding up nobody, within limits, on record."""

import asyncio
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from poller.sandbox import Customer, Sandbox, read_notified
from poller.sandbox.callbacks.rules import Rule, rule
from poller.sandbox.options import Year

from .films import film
from .on_air import on_air, over, until
from .receiver import Receiver, counts, in_year, never, no, receiving, run_scene, settled, yes

SHOW = film(range(10))


def test_what_a_stream_says_comes_in_order_however_slow_the_receiver_is(tmp_path: Path) -> None:
    async def slowly(body: dict[str, Any]) -> int:
        await asyncio.sleep(int(body["sequence"][-2:]) / 2000 if body["event_type"] == 1 else 0)
        return 200

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        names = [f"live_{number}" for number in range(20)]

        async def push(name: str) -> None:
            for _ in range(3):
                async with on_air(sandbox, name):
                    pass
                await over(sandbox, name)

        await asyncio.gather(*map(push, names))
        assert (await settled(sandbox))["answered"] == 120
        for name in names:
            own = [one.body for one in receiver.got if one.body["stream_id"] == name]
            assert [one["event_type"] for one in own] == [1, 0] * 3
            sequences = [one["sequence"] for one in own]
            assert sequences[::2] == sequences[1::2]
            assert len(set(sequences)) == 3

    run_scene(tmp_path, scene, answer=slowly)


def test_a_receiver_that_hangs_holds_up_nobody_else(tmp_path: Path) -> None:
    one, two = Customer(app_id=1, bucket="one"), Customer(app_id=2, bucket="two")

    async def scene(sandbox: Sandbox, hanging: Receiver, other: Receiver) -> None:
        hanging.answer, other.answer = never, yes
        async with on_air(sandbox, "hung", SHOW), on_air(sandbox, "hung_2", SHOW):
            await until(lambda: hanging.begun == 2)
            for number in range(5):
                async with on_air(sandbox, f"live_{number}", SHOW, query=f"?bizid={two.biz_id}"):
                    await other.until(number + 1, 1)
                await other.until(number + 1, 0)
            assert len(sandbox.live.pushes) == 2
        for name in ("hung", "hung_2"):
            await over(sandbox, name, one)
        assert sandbox.recordings.page(1, "hung", offset=0, limit=1)[0] == 1
        assert hanging.begun == 2, "what a stream says next waits"
        assert counts(sandbox)["waiting"] == 6

    run_scene(tmp_path, scene, one, two)


def test_what_is_not_answered_in_time_is_repeated(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.callbacks.send(1234, {"event_type": 332})
        assert await settled(sandbox) == {
            "sent": 1,
            "answered": 0,
            "repeated": 3,
            "given_up": 1,
            "dropped": 0,
            "waiting": 0,
        }
        assert receiver.begun == 4
        assert read_notified(tmp_path) == []

    run_scene(tmp_path, scene, answer=never, callback_timeout=0.2, **in_year("2018"))


def test_a_receiver_that_is_away_is_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with receiving() as away:
            sandbox.callbacks.line(1234).url = away.url
        sandbox.callbacks.send(1234, {"event_type": 332})
        await sandbox.until(lambda: counts(sandbox)["given_up"] == 1)
        sandbox.callbacks.line(1234).url = receiver.url
        sandbox.callbacks.send(1234, {"event_type": 332})
        await receiver.until(1)
        await settled(sandbox)

    with caplog.at_level(logging.INFO, "poller.sandbox"):
        run_scene(tmp_path, scene, **in_year("2018"))
    said = [one.getMessage() for one in caplog.records]
    assert said == ["callbacks of 1234 are not answered: status 0", "callbacks of 1234 are answered again"]


@pytest.mark.parametrize(
    ("year", "event_type", "expected"),
    [
        ("2016", 1, Rule(repeats=100, pause=3)),
        ("2016", 200, Rule(repeats=100, pause=3)),
        ("2017", 200, Rule(repeats=3, pause=3)),
        ("2018", 100, Rule(repeats=3, pause=60)),
        ("2018", 200, Rule(repeats=3, pause=60)),
        ("today", 200, Rule(repeats=5, pause=120)),
        ("today", 0, Rule(repeats=12, pause=60)),
        ("today", None, Rule(repeats=12, pause=60)),
    ],
)
def test_each_year_repeats_by_its_own_rule(
    tmp_path: Path, year: Year, event_type: object, expected: Rule
) -> None:
    assert rule(year, event_type) == expected

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.callbacks.send(1234, {"event_type": event_type})
        found = await settled(sandbox)
        assert (found["sent"], found["repeated"], found["given_up"]) == (1, expected.repeats, 1)
        assert len(receiver.got) == 1 + expected.repeats

    run_scene(tmp_path, scene, answer=no, **in_year(year))


def test_a_pause_lies_between_repeats_and_is_scaled(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        begun = time.monotonic()
        sandbox.callbacks.send(1234, {"event_type": 332})
        await settled(sandbox)
        assert time.monotonic() - begun >= 3 * 60 * 0.002  # unscaled, it would take longer than a scene may

    run_scene(tmp_path, scene, answer=no, callback_pace=0.002, **in_year("2018"))


@pytest.mark.parametrize("status", [201, 204, 302, 403, 500, 503])
def test_only_200_ends_the_repeats(tmp_path: Path, status: int) -> None:
    answers = iter([status, status, 200])

    async def at_last(body: dict[str, Any]) -> int:
        return next(answers)

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.callbacks.send(1234, {"event_type": 332, "stream_id": "show"})
        found = await settled(sandbox)
        assert (found["answered"], found["repeated"]) == (1, 2)
        assert [one.status for one in receiver.got] == [status, status, 200]
        assert receiver.strays == 0
        (line,) = read_notified(tmp_path)
        assert (line.attempts, line.event_type, line.stream_id) == (3, 332, "show")

    run_scene(tmp_path, scene, answer=at_last)


@pytest.mark.parametrize(("fresh", "kinds"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_a_repeat_carries_a_fresh_signature_or_the_same_bytes(
    tmp_path: Path, fresh: float, kinds: set[bool]
) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async def later(body: dict[str, Any]) -> int:
            sandbox.clock.offset += 100
            return 500

        receiver.answer = later
        sandbox.callbacks.send(1234, {"event_type": 332})
        await settled(sandbox)
        pairs = list(zip(receiver.got, receiver.got[1:], strict=False))
        assert {one.wire != two.wire for one, two in pairs} == kinds
        assert all(two.body["t"] > one.body["t"] for one, two in pairs if one.wire != two.wire)
        assert all(one.is_signed() for one in receiver.got)
        assert len({str(one.about) for one in receiver.got}) == 1

    run_scene(tmp_path, scene, callback_fresh=fresh)


def test_beyond_the_limit_the_oldest_are_dropped(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        let = asyncio.Event()

        async def after(body: dict[str, Any]) -> int:
            await let.wait()
            return 200

        receiver.answer = after
        for number in range(1, 17):
            sandbox.callbacks.send(1234, {"event_type": 332, "number": number})
        await until(lambda: receiver.begun == 16)
        for number in range(17, 101):
            sandbox.callbacks.send(1234, {"event_type": 332, "number": number})
        assert (counts(sandbox)["dropped"], counts(sandbox)["waiting"]) == (70, 30)
        let.set()
        assert (await settled(sandbox))["answered"] == 30
        numbers = sorted(one.body["number"] for one in receiver.got)
        assert numbers == [*range(1, 17), *range(87, 101)], "what is just being sent is not dropped"

    run_scene(tmp_path, scene, callback_limit=30)


def test_the_end_does_not_wait_for_what_is_pending(tmp_path: Path) -> None:
    async def first(sandbox: Sandbox, receiver: Receiver) -> None:
        async with on_air(sandbox, "hung"):
            await until(lambda: receiver.begun == 1)
        for number in range(50):
            sandbox.callbacks.send(1234, {"event_type": 332, "stream_id": f"{number}"})

    async def second(sandbox: Sandbox, receiver: Receiver) -> None:
        sandbox.callbacks.send(1234, {"event_type": 341})
        await settled(sandbox)
        assert [one.body["event_type"] for one in receiver.got] == [341], "what was pending is forgotten"

    run_scene(tmp_path, first, answer=never)
    run_scene(tmp_path, second)


def test_the_log_has_a_line_for_each_that_was_answered(tmp_path: Path) -> None:
    async def mostly(body: dict[str, Any]) -> int:
        return 500 if body["stream_id"] == "lost" else 200

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        for name in ("show", "lost"):
            async with on_air(sandbox, name, SHOW):
                await receiver.until(1, 200)
            await over(sandbox, name)
        await settled(sandbox)
        taken = [one.body for one in receiver.got if one.status == 200]
        lines = read_notified(tmp_path)
        assert {one.stream_id for one in lines} == {"show"}
        assert Counter(one.event_type for one in lines) == Counter(one["event_type"] for one in taken)
        assert sorted(one.path for one in lines if one.path) == sorted(
            one["pic_url"][1:] for one in taken if one["event_type"] == 200
        )
        (segment,) = (one for one in lines if one.event_type == 100)
        assert segment.vid == next(one["video_id"] for one in taken if one["event_type"] == 100)
        begun, ended = (one for one in lines if one.sequence)
        assert (begun.event_type, ended.event_type, begun.sequence) == (1, 0, ended.sequence)
        assert all(one.attempts == 1 and one.fault is None and one.customer == 1234 for one in lines)

    run_scene(tmp_path, scene, answer=mostly, interval=1, **in_year("2018"))
