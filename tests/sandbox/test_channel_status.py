"""Live_Channel_GetStatus: live, interrupted, disabled, or never pushed."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.sandbox import Answers, Customer, Sandbox

from .api_client import ask, asking_status, play

MINE = Customer()
OTHER = Customer(app_id=77, key="f" * 32, bucket="others")


def test_a_channel_goes_through_its_states(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async def said() -> Any:
            return await ask(sandbox, session, asking_status())

        answer = await said()
        assert (answer["ret"], answer["message"]) == (20601, "the stream was never pushed")
        assert "output" not in answer
        sandbox.channels.begin(1234, "show")
        assert (await said())["output"] == [{"rate_type": 0, "recv_type": 1, "status": 1}]
        sandbox.channels.end(1234, "show")
        assert (await said())["output"] == [{"rate_type": 0, "recv_type": 1, "status": 0}]
        sandbox.channels.disable(1234, "show")
        assert (await said())["output"] == [{"rate_type": 0, "recv_type": 1, "status": 3}]
        sandbox.channels.disable(1234, "show", disabled=False)
        assert (await said())["output"] == [{"rate_type": 0, "recv_type": 1, "status": 0}]
        sandbox.channels.begin(1234, "show")
        assert (await said())["output"][0]["status"] == 1
        counts = sandbox.platform.queue().counts
        assert (counts.statuses, counts.polls, counts.lists) == (6, 0, 0)

    play(tmp_path, scene)


def test_the_output_may_be_the_object_itself(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.channels.begin(1234, "show")
        answer = await ask(sandbox, session, asking_status())
        assert answer["output"] == {"rate_type": 0, "recv_type": 1, "status": 1}
        assert (answer["ret"], answer["retcode"]) == ("0", 0)

    play(tmp_path, scene, answers=Answers(status="object", ret="string", extra=True, pretty=True))


def test_another_customers_channel_looks_as_if_it_was_never_pushed(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.channels.begin(77, "show")
        assert (await ask(sandbox, session, asking_status(MINE)))["ret"] == 20601
        assert (await ask(sandbox, session, asking_status(OTHER)))["output"][0]["status"] == 1

    play(tmp_path, scene, customers=(MINE, OTHER))


@pytest.mark.parametrize("stream_id", ["3891_@v_tls#3pfnm5fw35qt", "a-b_c", "直播", "a b&c=d%"])
def test_a_channel_may_have_any_name(tmp_path: Path, stream_id: str) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.channels.begin(1234, stream_id)
        query = asking_status(Param__s__channel_id=stream_id)
        assert (await ask(sandbox, session, query))["output"][0]["status"] == 1

    play(tmp_path, scene)


def test_the_documents_slip_of_the_channel_is_accepted(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.channels.begin(1234, "show")
        query = asking_status(Param__s__channel_id=None, Param__n__channel_id="show")
        assert (await ask(sandbox, session, query))["output"][0]["status"] == 1

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("changes", "ret", "message"),
    [
        ({"Param__s__channel_id": None}, 1204, "Param.s.channel_id is invalid"),
        ({"Param__s__channel_id": ""}, 1204, "Param.s.channel_id is invalid"),
        ({"cmd": "9"}, 1, "cmd is invalid"),
        ({"cmd": None, "appid": "9"}, 1, "appid is invalid"),
        ({"sign": "0" * 32}, 1, "sign invalid"),
        ({"t": "1471850187"}, 1, "time expired"),
        ({"interface": "live_channel_getstatus"}, 1204, "interface is invalid"),
    ],
)
def test_a_bad_query_gets_the_documented_error(
    tmp_path: Path, changes: dict[str, str | None], ret: int, message: str
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.channels.begin(1234, "show")
        answer = await ask(sandbox, session, asking_status(**changes))
        assert (answer["ret"], answer["message"]) == (ret, message)

    play(tmp_path, scene)


def test_nothing_is_live_after_a_restart(tmp_path: Path) -> None:
    async def first(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.channels.begin(1234, "show")
        sandbox.channels.disable(1234, "shut")

    async def second(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert (await ask(sandbox, session, asking_status()))["output"][0]["status"] == 0
        query = asking_status(Param__s__channel_id="shut")
        assert (await ask(sandbox, session, query))["output"][0]["status"] == 3

    play(tmp_path, first)
    play(tmp_path, second)
