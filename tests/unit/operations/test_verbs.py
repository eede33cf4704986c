"""Verbs over a spool, without a socket between."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from poller.control import ControlError, OperatorContext, Request, Row, Verb, answer
from poller.core.model import Dead, Filter, ParsedPage, PollOutcome, RawPage, Reject, with_url
from poller.core.ports import Source
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import Settings, load
from poller.spools import sink_queue as queue
from poller.spools.sqlite import SqliteSpool
from poller.testing import START, anything, some_event, some_reading
from tests.fakes import ScriptedSource, sqlite_spool
from tests.patience import patiently

CONFIG = """
accounts: {main: {app_id: 1, key: abc, cos: {bucket: shots, app_id: 1}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
sinks: {hook: {type: webhook, url: "https://example.com/", batch: {max_events: 3}}}
"""


class Mended(ScriptedSource):
    """Reads bytes that are a number as that event, raises at a bug, and finds nothing in the rest."""

    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        if page.body == b"bug":
            raise KeyError("still")
        numbers = [int(page.body)] if page.body.isdigit() else []
        reading = some_reading(*numbers, memory=b"changed")
        assert memory == b"kept"
        return reading


def settings(folder: Path) -> Settings:
    (folder / "poller.yaml").write_text(CONFIG)
    return load(folder / "poller.yaml")


Scenario = Callable[[OperatorContext, SqliteSpool], Awaitable[None]]


def tell(folder: Path, scenario: Scenario, source: Source | None = None) -> None:
    async def run_scenario() -> None:
        async with sqlite_spool(folder) as spool:
            await spool.attach("hook", anything)
            await scenario(
                OperatorContext(
                    settings=settings(folder),
                    spool=spool,
                    clock=Clock(),
                    metrics=Metrics(),
                    source=lambda name: source if name == "shots" else None,
                ),
                spool,
            )

    asyncio.run(patiently(run_scenario()))


async def asked(
    context: OperatorContext,
    verb: Verb,
    chosen: Filter = Filter(),  # noqa: B008
    sink: str = "",
    expect: int | None = None,
) -> list[Row]:
    request = Request(verb=verb, chosen=chosen, sink=sink, limit=10_000, expect=expect)
    return [row async for row in answer(context, request) if row is not None]


def rejects(*bodies: bytes) -> list[ParsedPage]:
    return [
        ParsedPage(
            events=(),
            rejects=tuple(Reject(received_at=START, reason="bug", encoding="", body=body) for body in bodies),
            outcome=PollOutcome.FAILED,
            memory=b"kept",
        )
    ]


def test_more_letters_than_one_step_takes_are_all_retried_in_batches_of_the_sink(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        await spool.append("shots", [some_reading(*range(700))])
        await spool.settle(await spool.claim("hook", 700), [Dead(reason="no")] * 700)
        assert len(await asked(context, Verb.DEAD_LIST)) == 700
        assert await asked(context, Verb.DEAD_RETRY) == [{"retried": 700, "left": 0}]
        assert (await spool.backlog("hook")).retrying == 700
        assert len((await spool.claim("hook", 100)).events) == 3

    tell(tmp_path, scenario)


def test_a_letter_is_retried_with_the_url_that_todays_settings_give_it(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        await spool.append("shots", [some_reading(1)])
        await spool.settle(await spool.claim("hook", 1), [Dead(reason="no")])
        await asked(context, Verb.DEAD_RETRY)
        (event,) = (await spool.claim("hook", 1)).events
        assert event == with_url(
            some_event(1), f"http://shots-1.file.myqcloud.com/{event.fields['file_name']}"
        )

    tell(tmp_path, scenario)


def test_what_has_no_room_beside_other_retries_stays_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST_RETRYING", 4)

    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        await spool.append("shots", [some_reading(*range(10))])
        await spool.settle(await spool.claim("hook", 10), [Dead(reason="no")] * 10)
        (row,) = await asked(context, Verb.DEAD_RETRY)
        assert (row["retried"], row["left"]) == (4, 6)
        assert "come again" in str(row["why"])
        assert (await spool.backlog("hook")).dead == 6

    tell(tmp_path, scenario)


def test_letters_of_a_sink_that_is_not_configured_stay_dead_and_can_be_purged(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        await spool.attach("old", anything)
        await spool.append("shots", [some_reading(1)])
        await spool.settle(await spool.claim("old", 1), [Dead(reason="no")])
        (row,) = await asked(context, Verb.DEAD_RETRY)
        assert (row["retried"], row["left"], row["why"]) == (0, 1, "1 of sinks that are not configured")
        assert await asked(context, Verb.DEAD_PURGE, Filter(of="old")) == [{"purged": 1}]

    tell(tmp_path, scenario)


@pytest.mark.parametrize("verb", [Verb.DEAD_RETRY, Verb.DEAD_PURGE])
def test_a_change_of_many_does_nothing_if_their_number_is_not_the_expected_one(
    tmp_path: Path, verb: Verb
) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        await spool.append("shots", [some_reading(*range(450))])
        await spool.settle(await spool.claim("hook", 450), [Dead(reason="no")] * 450)
        with pytest.raises(ControlError, match="450 match now, and not 449"):
            await asked(context, verb, Filter(reason="no"), expect=449)
        assert len(await spool.dead(1_000)) == 450
        (row,) = await asked(context, verb, Filter(reason="no"), expect=450)
        assert 450 in row.values()
        assert await spool.dead(1_000) == []

    tell(tmp_path, scenario)


@pytest.mark.parametrize("verb", [Verb.QUARANTINE_RETRY, Verb.QUARANTINE_PURGE])
def test_so_does_a_change_of_many_in_quarantine(tmp_path: Path, verb: Verb) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        await spool.append("shots", rejects(b"7", b"8"))
        with pytest.raises(ControlError, match="2 match now, and not 3"):
            await asked(context, verb, expect=3)
        assert await spool.quarantine_size() == 2
        await asked(context, verb, expect=2)
        assert await spool.quarantine_size() == 0

    tell(tmp_path, scenario, Mended())


def test_only_what_gives_an_event_now_leaves_quarantine(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        await spool.append("shots", rejects(b"bug", b"nothing", b"7", b"8"))
        (row,) = await asked(context, Verb.QUARANTINE_RETRY)
        assert row == {"read": 2, "events": 2, "left": 2}
        assert [kept.reject.body for kept in await spool.quarantined(10)] == [b"nothing", b"bug"]
        assert (await spool.claim("hook", 9)).events == (some_event(7), some_event(8))
        assert await spool.memory("shots") == {"": b"kept"}

    tell(tmp_path, scenario, Mended())


def test_an_old_answer_of_a_source_that_asks_again_is_not_reported_as_if_it_were_now(tmp_path: Path) -> None:
    source = Mended()
    source.destructive = False

    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        await spool.append("shots", rejects(b"7"))
        (row,) = await asked(context, Verb.QUARANTINE_RETRY)
        assert (row["read"], row["left"], row["why"]) == (0, 1, "source shots asks again by itself")

    tell(tmp_path, scenario, source)


def test_a_sink_that_is_not_configured_cannot_be_paused(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool) -> None:
        with pytest.raises(ControlError, match="there are: hook"):
            await asked(context, Verb.PAUSE, sink="hok")

    tell(tmp_path, scenario)
