"""Everything that can go wrong on purpose: that it did, and what was taken."""

import json
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.sandbox import API_FAULTS, POISONS, QUERY_FAULTS, BadOption, Customer, Load, Sandbox
from poller.sandbox.faults import Faults

from .api_client import ask, ask_bytes, asking_status, listing, loaded, play, raw, record, signed, tell


def broken(directory: Path, fault: str, *, taken: int, **params: Any) -> tuple[bytes, bytes, Any]:
    """What one ordered fault sends to a bare socket, after checking that it fired and what it took."""
    got: list[tuple[bytes, bytes, Any]] = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.enqueue(Load(count=20))
        sandbox.faults["api"].order(fault, **params)
        got.append(await raw(str(sandbox.endpoints["api"]), signed()))
        assert sandbox.faults["api"].fired == {fault: 1}
        assert [one.fault for one in sandbox.oracle.removed()] == [fault] * taken
        assert sandbox.state()["dequeues"] == (1 if taken else 0)
        left = await ask(sandbox, session)
        assert len(left["output"]["data"]) == (20 - taken)

    play(directory, scene)
    return got[0]


def stated_length(head: bytes) -> int:
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def test_a_cut_ends_before_its_length(tmp_path: Path) -> None:
    head, body, ended = broken(tmp_path, "cut", taken=20, offset=100)
    assert len(body) == 100 < stated_length(head)
    assert ended is None


def test_a_cut_at_a_random_place_is_somewhere_in_the_body(tmp_path: Path) -> None:
    head, body, _ = broken(tmp_path, "cut", taken=20)
    assert len(body) < stated_length(head)


def test_a_chunked_cut_lacks_its_last_chunk(tmp_path: Path) -> None:
    head, body, _ = broken(tmp_path, "cut_chunked", taken=20, offset=50)
    assert b"Transfer-Encoding: chunked" in head
    assert body.startswith(b"32\r\n{")
    assert not body.endswith(b"0\r\n\r\n")


def test_a_close_delimited_cut_looks_like_an_end(tmp_path: Path) -> None:
    head, body, ended = broken(tmp_path, "cut_close", taken=20, offset=50)
    assert b"Content-Length" not in head
    assert len(body) == 50
    assert ended is None


@pytest.mark.parametrize(("fault", "taken"), [("reset_before", 0), ("reset_after", 20)])
def test_a_reset_says_nothing(tmp_path: Path, fault: str, taken: int) -> None:
    head, _, ended = broken(tmp_path, fault, taken=taken)
    assert head == b""
    assert isinstance(ended, ConnectionResetError)


def test_a_reset_may_come_after_the_headers(tmp_path: Path) -> None:
    head, body, ended = broken(tmp_path, "reset_headers", taken=20)
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b""
    assert isinstance(ended, ConnectionResetError)


def test_a_close_without_an_answer(tmp_path: Path) -> None:
    assert broken(tmp_path, "close", taken=20) == (b"", b"", None)


def test_a_fault_can_be_told_not_to_take(tmp_path: Path) -> None:
    assert broken(tmp_path, "close", taken=0, takes=False) == (b"", b"", None)


@pytest.mark.parametrize("status", [400, 403, 404, 500, 502, 503])
def test_a_status_takes_nothing(tmp_path: Path, status: int) -> None:
    head, body, _ = broken(tmp_path, "status", taken=0, status=status)
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert b"<html>" in body


def test_a_status_that_takes_brings_the_messages(tmp_path: Path) -> None:
    head, body, _ = broken(tmp_path, "status", taken=20, status=502, takes=True)
    assert head.startswith(b"HTTP/1.1 502")
    assert len(json.loads(body)["output"]["data"]) == 20


def test_a_redirect_leads_to_itself(tmp_path: Path) -> None:
    head, _, _ = broken(tmp_path, "redirect", taken=0)
    assert head.startswith(b"HTTP/1.1 302")
    assert b"Location: /common_access?cmd=1234&" in head


@pytest.mark.parametrize(("fault", "text"), [("html", b"<html>"), ("text", b"request failed.no returnData")])
@pytest.mark.parametrize("takes", [False, True])
def test_a_200_may_be_no_json(tmp_path: Path, fault: str, text: bytes, takes: bool) -> None:
    head, body, _ = broken(tmp_path, fault, taken=20 if takes else 0, takes=takes)
    assert head.startswith(b"HTTP/1.1 200")
    assert body.startswith(text)


def test_a_wrong_ret_still_brings_the_messages(tmp_path: Path) -> None:
    _, body, _ = broken(tmp_path, "wrong_ret", taken=20, ret=1201)
    assert json.loads(body)["ret"] == 1201
    assert len(json.loads(body)["output"]["data"]) == 20


def test_a_wrong_content_type_still_brings_the_messages(tmp_path: Path) -> None:
    head, body, _ = broken(tmp_path, "wrong_type", taken=20)
    assert b"Content-Type: text/html" in head
    assert len(json.loads(body)["output"]["data"]) == 20


def test_too_frequent_is_code_1202(tmp_path: Path) -> None:
    assert json.loads(broken(tmp_path, "too_frequent", taken=0)[1])["ret"] == 1202


def test_latency_delays_and_changes_nothing(tmp_path: Path) -> None:
    begun = time.monotonic()
    _, body, _ = broken(tmp_path, "latency", taken=20, seconds=0.2)
    assert time.monotonic() - begun >= 0.2
    assert json.loads(body)["output"]["count"] == 20


def test_duplicates_come_in_one_answer(tmp_path: Path) -> None:
    names = [
        one["pic_url"] for one in json.loads(broken(tmp_path, "duplicate", taken=20)[1])["output"]["data"]
    ]
    assert len(names) == 30
    assert len(set(names)) == 20


def test_duplicates_come_in_a_later_answer(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        sandbox.faults["api"].order("duplicate_later")
        first, second = await ask(sandbox, session), await ask(sandbox, session)
        assert first["output"] == second["output"]
        assert [one.n for one in sandbox.oracle.removed()] == [1, 2, 3, 1, 2, 3]

    play(tmp_path, scene)


def test_reordering_loses_nothing(tmp_path: Path) -> None:
    data = json.loads(broken(tmp_path, "reorder", taken=20)[1])["output"]["data"]
    places = [(int(one["pic_url"].split("_")[5]), one["stream_id"]) for one in data]
    assert len(set(places)) == 20
    assert places != sorted(places)


def test_a_hang_lasts_until_the_client_goes(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        sandbox.faults["api"].order("hang")
        with pytest.raises(TimeoutError):
            await session.get(
                f"{sandbox.endpoints['api']}?{signed()}", timeout=aiohttp.ClientTimeout(total=0.1)
            )
        assert [one.fault for one in sandbox.oracle.removed()] == ["hang"] * 3
        assert (await ask(sandbox, session))["output"]["count"] == 0

    play(tmp_path, scene)


def test_a_drip_comes_byte_by_byte(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        sandbox.faults["api"].order("drip", seconds=0.01)
        async with session.get(f"{sandbox.endpoints['api']}?{signed()}") as response:
            pieces = [await response.content.readany() for _ in range(5)]
        assert all(len(piece) < 20 for piece in pieces)
        assert len(sandbox.oracle.removed()) == 3

    play(tmp_path, scene)


def test_an_endless_body_goes_on_for_its_size(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.faults["api"].order("endless", size=3_000_000)
        assert len(await ask_bytes(sandbox, session)) >= 3_000_000
        sandbox.faults["api"].order("endless")
        async with session.get(f"{sandbox.endpoints['api']}?{signed()}") as response:
            assert len(await response.content.readexactly(1_000_000)) == 1_000_000
        assert (await ask(sandbox, session))["ret"] == 0

    play(tmp_path, scene)


def test_a_bomb_is_small_until_it_is_unpacked(tmp_path: Path) -> None:
    head, body, _ = broken(tmp_path, "bomb", taken=0, size=10_000_000)
    assert b"Content-Encoding: gzip" in head
    assert len(body) < 100_000
    assert len(zlib.decompress(body, 31)) == 10_000_000


@pytest.mark.parametrize("kind", POISONS)
def test_poison_comes_among_good_neighbours(tmp_path: Path, kind: str) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        sandbox.faults["api"].order("poison", poison=(kind,))
        body = await ask_bytes(sandbox, session)
        removed = sandbox.oracle.removed()
        assert [one.poison for one in removed] == [kind, None, None, None]
        assert all(one.path.encode() in body for one in removed if one.path is not None)

    play(tmp_path, scene)


def test_the_same_seed_goes_wrong_in_the_same_way() -> None:
    rates = {"cut": 0.2, "html": 0.3}
    drawn = []
    for _ in range(2):
        faults = Faults(API_FAULTS, rates, random.Random(5))
        drawn.append([fault and fault.name for fault in (faults.draw() for _ in range(1000))])
    assert drawn[0] == drawn[1]
    assert 150 < drawn[0].count("cut") < 250
    assert 240 < drawn[0].count("html") < 360


def test_faults_are_ordered_and_cleared_at_run_time(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        order = {"fault": "status", "status": 503, "times": 2}
        said = await tell(sandbox, session, "faults", next=[order], rates={"html": 1.0}, seed=3)
        assert said == {"ordered": 2, "rates": {"html": 1.0}, "fired": {}}
        statuses = []
        for _ in range(3):
            async with session.get(f"{sandbox.endpoints['api']}?{signed()}") as response:
                statuses.append((response.status, response.content_type))
        assert statuses == [(503, "text/html"), (503, "text/html"), (200, "text/html")]
        await tell(sandbox, session, "faults", clear=True)
        assert (await ask(sandbox, session))["ret"] == 0
        async with session.get(f"{sandbox.endpoints['control']}/state") as response:
            state = await response.json()
        assert state["faults"]["api"] == {"status": 2, "html": 1}
        assert (state["polls"], state["dequeues"]) == (4, 1)

    play(tmp_path, scene)


@pytest.mark.parametrize(
    "wish",
    [
        {"next": [{"fault": "nonsense"}]},
        {"next": [{"fault": "cut", "colour": 1}]},
        {"rates": {"cut": 2}},
        {"rates": {"cut": 0.6, "html": 0.6}},
        {"target": "moon"},
    ],
)
def test_a_senseless_fault_is_refused(tmp_path: Path, wish: dict[str, Any]) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with session.post(f"{sandbox.endpoints['control']}/faults", json=wish) as response:
            assert response.status == 400
            assert (await response.json())["error"]

    play(tmp_path, scene)


def asked_broken(directory: Path, query: str, fault: str, **params: Any) -> tuple[bytes, bytes, Any]:
    """What one ordered fault makes of a list or a status, after checking that it fired and touched no queue."""
    got: list[tuple[bytes, bytes, Any]] = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        record(sandbox, Customer(), 5)
        sandbox.channels.begin(1234, "show")
        sandbox.enqueue(Load(count=20))
        sandbox.faults["query"].order(fault, **params)
        assert len((await ask(sandbox, session))["output"]["data"]) == 20, "the queue has faults of its own"
        got.append(await raw(str(sandbox.endpoints["api"]), query))
        assert sandbox.faults["query"].fired == {fault: 1}
        assert (await ask(sandbox, session, query))["ret"] == 0

    play(directory, scene)
    return got[0]


@pytest.mark.parametrize("query", [listing, asking_status])
def test_lists_and_statuses_break_too(tmp_path: Path, query: Callable[[], str]) -> None:
    def broken_by(fault: str, **params: Any) -> tuple[bytes, bytes, Any]:
        return asked_broken(tmp_path / fault, query(), fault, **params)

    head, body, _ = broken_by("cut", offset=10)
    assert len(body) == 10 < stated_length(head)
    assert isinstance(broken_by("reset_before")[2], ConnectionResetError)
    assert broken_by("status", status=503)[0].startswith(b"HTTP/1.1 503")
    assert json.loads(broken_by("wrong_ret", ret=1201)[1])["ret"] == 1201
    assert json.loads(broken_by("too_frequent")[1])["ret"] == 1202
    assert json.loads(broken_by("latency", seconds=0.01)[1])["output"]
    assert broken_by("html")[1].startswith(b"<html>")
    assert b"Location: /common_access?cmd=1234&" in broken_by("redirect")[0]


def test_faults_of_the_queue_alone_are_none_of_lists() -> None:
    assert API_FAULTS.keys() - QUERY_FAULTS.keys() == {"duplicate", "duplicate_later", "reorder", "poison"}


def test_lists_break_by_probability_and_by_the_control_port(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert (await ask_bytes(sandbox, session, listing())).startswith(b"<html>")
        assert (await ask(sandbox, session))["ret"] == 0
        await tell(sandbox, session, "faults", target="query", rates={"too_frequent": 1.0})
        assert (await ask(sandbox, session, asking_status()))["ret"] == 1202
        assert sandbox.state()["refused"] == 1

    play(tmp_path, scene, query_faults={"html": 1.0})


def test_an_option_may_name_a_fault_that_is_none(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(BadOption, match="nonsense"):
        play(tmp_path, scene, faults={"nonsense": 0.5})
