"""The queue read: signed, destructive, per customer, oldest first."""

import asyncio
import json
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import pytest

from poller.sandbox import Customer, Load, Options, Sandbox
from poller.sandbox.query.reading import signature

from .api_client import ask, loaded, play, signed, tell

OTHER = Customer(app_id=77, key="f" * 32, bucket="others")


def test_the_signature_is_the_known_one() -> None:
    assert signature("5d41402abc4b2a76b9719d911017c592", "1471850187") == "b17971b51ba0fe5916ddcd96692e9fb3"


def test_a_message_is_given_out_only_once(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.enqueue(Load(count=250))
        answers = [await ask(sandbox, session) for _ in range(4)]
        assert [answer["output"]["count"] for answer in answers] == [100, 100, 50, 0]
        given = [one["pic_url"] for answer in answers for one in answer["output"]["data"]]
        assert len(set(given)) == 250
        removed = sandbox.oracle.removed()
        assert [one.path for one in removed] == given
        assert [one.n for one in removed] == list(range(1, 251))
        assert [one.poll for one in removed] == [1] * 100 + [2] * 100 + [3] * 50

    play(tmp_path, scene)


def test_without_a_count_one_message_comes(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        assert len((await ask(sandbox, session, signed(Param__n__count=None)))["output"]["data"]) == 1

    play(tmp_path, scene)


def test_the_documents_slip_of_the_count_is_accepted(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        query = signed(Param__n__count=None, Param__ncount="2")
        assert len((await ask(sandbox, session, query))["output"]["data"]) == 2

    play(tmp_path, scene)


def test_two_customers_never_see_each_others_messages(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.enqueue(Load(count=5))
        sandbox.enqueue(Load(count=7, customer=77))
        mine = await ask(sandbox, session)
        theirs = await ask(sandbox, session, signed(OTHER))
        assert {one["stream_id"].split("_")[1] for one in mine["output"]["data"]} == {"1234"}
        assert {one["stream_id"].split("_")[1] for one in theirs["output"]["data"]} == {"77"}
        assert (len(mine["output"]["data"]), len(theirs["output"]["data"])) == (5, 7)
        assert len(sandbox.oracle.removed(77)) == 7

    play(tmp_path, scene, customers=(Customer(), OTHER))


@pytest.mark.parametrize("word", ["cmd", "appid"])
def test_a_customer_may_say_who_it_is_by_either_word(tmp_path: Path, word: str) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        changes = {"cmd": None, word: "1234"}
        assert (await ask(sandbox, session, signed(**changes)))["ret"] == 0

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("changes", "ret", "message"),
    [
        ({"cmd": "9"}, 1, "cmd is invalid"),
        ({"cmd": None}, 1, "cmd is invalid"),
        ({"cmd": None, "appid": "9"}, 1, "appid is invalid"),
        ({"sign": "0" * 32}, 1, "sign invalid"),
        ({"sign": "A" * 32}, 1, "sign invalid"),
        ({"sign": None}, 1, "sign invalid"),
        ({"t": "1471850187"}, 1, "time expired"),
        ({"t": "soon"}, 1204, "t is invalid"),
        ({"Param__n__bid": None}, 1204, "Param.n.bid is invalid"),
        ({"Param__n__bid": "1"}, 1204, "Param.n.bid is invalid"),
        ({"Param__n__count": "0"}, 1204, "Param.n.count is invalid"),
        ({"Param__n__count": "101"}, 1204, "Param.n.count is invalid"),
        ({"Param__n__count": "-1"}, 1204, "Param.n.count is invalid"),
        ({"Param__n__count": "ten"}, 1204, "Param.n.count is invalid"),
        ({"interface": "Live_Nothing"}, 1204, "interface is invalid"),
    ],
)
def test_a_bad_query_is_refused_and_takes_nothing(
    tmp_path: Path, changes: dict[str, str | None], ret: int, message: str
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        answer = await ask(sandbox, session, signed(**changes))
        assert (answer["ret"], answer["message"]) == (ret, message)
        assert sandbox.platform.queue().depth == 3
        assert sandbox.oracle.removed() == []

    play(tmp_path, scene)


def test_an_expiry_in_milliseconds_is_accepted(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert (await ask(sandbox, session, signed(t=str(int(time.time() * 1000)))))["ret"] == 0

    play(tmp_path, scene)


def test_calls_that_come_too_often_are_told_so(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        answers = [await ask(sandbox, session) for _ in range(6)]
        assert [answer["ret"] for answer in answers] == [0, 0, 1202, 1202, 1202, 1202]
        assert sandbox.state()["refused"] == 4

    play(tmp_path, scene, rate_limit=2)


def test_the_platforms_clock_can_be_wrong(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert (await ask(sandbox, session))["ret"] == 0
        await tell(sandbox, session, "clock", offset=600)
        assert (await ask(sandbox, session))["message"] == "time expired"
        async with session.get(f"{sandbox.endpoints['api']}?{signed()}") as response:
            ahead = parsedate_to_datetime(response.headers["Date"]).timestamp() - time.time()
        assert 598 <= ahead <= 601

    play(tmp_path, scene)


def test_the_log_is_written_before_the_answer_and_cut_lines_are_ignored(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        await ask(sandbox, session)
        log = tmp_path / "removed.ndjson"
        assert json.loads(log.read_bytes().splitlines()[0])["stream_id"] == "load_1234_1"
        with log.open("ab") as file:
            file.write(b'{"n":9,"cust')
        assert [one.n for one in sandbox.oracle.removed()] == [1, 2, 3]

    play(tmp_path, scene)


def test_a_full_queue_drops_its_oldest_and_says_how_many(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.enqueue(Load(count=15))
        await ask(sandbox, session)
        assert [one.n for one in sandbox.oracle.removed()] == list(range(6, 16))
        assert sandbox.state()["dropped"] == 5

    play(tmp_path, scene, queue_limit=10)


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    async def one_run() -> None:
        async with Sandbox(Options(directory=tmp_path)) as sandbox, aiohttp.ClientSession() as session:
            loaded(sandbox)
            await ask(sandbox, session)

    asyncio.run(one_run())
    asyncio.run(one_run())
    removed = Sandbox(Options(directory=tmp_path)).oracle.removed()
    assert [one.n for one in removed] == [1, 2, 3, 4, 5, 6]
    assert [one.poll for one in removed] == [1, 1, 1, 2, 2, 2]


def test_made_up_load_never_repeats_a_path(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        for streams in (4, 2, 3, 4, 1):
            await tell(sandbox, session, "enqueue", count=50, streams=streams, step=streams)
        while (await ask(sandbox, session))["output"]["count"]:
            pass
        assert len(set(sandbox.oracle.paths())) == 250

    play(tmp_path, scene)
