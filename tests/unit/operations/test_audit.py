"""The `audit` command over a spool, and as people see it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from poller.control import OperatorContext, Request, Row, Verb, answer
from poller.core.history import Gap, LatePicture
from poller.core.model import Event, ParsedPage, PollOutcome, parse_event
from poller.core.selection import Selection
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import load
from poller.spools.sqlite import SqliteSpool
from poller.testing import anything
from tests.commands import Ended, poller
from tests.patience import patiently
from tests.unit.pipeline.on_grid import PUSH, audited, picture, pictures

CONFIG = """
accounts: {main: {app_id: 1, key: abc, cos: {bucket: shots, app_id: 1}, audit: {enabled: false}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
sinks: {hook: {type: webhook, url: "https://example.com/"}}
"""
Story = Callable[[OperatorContext], Awaitable[None]]


def told(folder: Path, story: Story) -> None:
    (folder / "poller.yaml").write_text(CONFIG)
    settings = load(folder / "poller.yaml")

    async def scenario() -> None:
        async with SqliteSpool(
            "spool", SqliteSpool.Settings(type="sqlite", path=folder / "spool.db"), {}
        ) as spool:
            await spool.attach("hook", anything)
            await story(
                OperatorContext(
                    settings=settings, spool=spool, clock=Clock(), metrics=Metrics(), source=lambda name: None
                )
            )

    asyncio.run(patiently(scenario()))


async def receive(context: OperatorContext, events: Sequence[Event]) -> None:
    reading = ParsedPage(events=tuple(events), rejects=(), outcome=PollOutcome.PARTIAL)
    await context.spool.append("shots", [reading])


async def asked(context: OperatorContext, **chosen: object) -> tuple[list[Row], Row]:
    request = Request(verb=Verb.AUDIT, selection=Selection(**chosen))  # type: ignore[arg-type]
    rows = [row async for row in answer(context, request) if row is not None]
    return rows[:-1], rows[-1]


def without(*gone: int, stream: str = "room") -> list[Event]:
    return pictures(*(offset for offset in range(0, 600, 10) if offset not in gone), stream=stream)


def at(offset: int) -> datetime:
    return datetime.fromtimestamp(PUSH + offset, UTC)


def test_the_log_is_audited_also_where_the_running_audit_is_off(tmp_path: Path) -> None:
    async def story(context: OperatorContext) -> None:
        await receive(context, [*without(50, 60), *without(300, stream="hall")])
        gaps, summary = await asked(context)
        assert [(gap["stream"], gap["from"], gap["to"], gap["missing"]) for gap in gaps] == [
            ("room", at(40), at(70), 2),
            ("hall", at(290), at(310), 1),
        ]
        assert [gap["reported"] for gap in gaps] == [False, False]
        assert {name: summary[name] for name in ("pictures", "streams", "gaps", "missing", "unaudited")} == {
            "pictures": 117,
            "streams": 2,
            "gaps": 2,
            "missing": 3,
            "unaudited": [],
        }
        assert await context.spool.gaps(Selection(), 9) == []

    told(tmp_path, story)


def test_a_gap_in_the_log_that_was_filled_later_is_not_missing(tmp_path: Path) -> None:
    async def story(context: OperatorContext) -> None:
        await receive(context, [*without(50, 60), *without(300, stream="hall")])
        await receive(context, pictures(*range(0, 10_000, 10), stream="long"))  # more than one step reads
        await receive(context, [picture(offset, delay=20_000) for offset in (50, 60)])
        await receive(context, [picture(300, stream="hall", delay=20_000)])
        gaps, summary = await asked(context)
        assert [(gap["stream"], gap["missing"], gap["filled"]) for gap in gaps] == [
            ("room", 2, 2),
            ("hall", 1, 1),
        ]
        assert summary["missing"] == 0

    told(tmp_path, story)


def test_a_range_counts_its_own_pictures_and_gaps(tmp_path: Path) -> None:
    async def story(context: OperatorContext) -> None:
        await receive(context, [*without(50, 300), *without(300, stream="hall")])
        gaps, summary = await asked(context, taken_since=at(200), taken_until=at(400), stream="room")
        assert [gap["first_missing_offset"] for gap in gaps] == [300]
        assert (summary["pictures"], summary["streams"]) == (19, 1)
        gaps, _ = await asked(context, taken_since=at(302))
        assert {gap["stream"] for gap in gaps} == {"room", "hall"}

    told(tmp_path, story)


def test_known_gaps_are_listed_with_what_came_later_and_only_once(tmp_path: Path) -> None:
    async def story(context: OperatorContext) -> None:
        known = audited(without(50, 60, 70))
        await receive(context, without(50, 70))
        late = LatePicture(account="main", stream_id="room", taken_at=at(60))
        old = msgspec.structs.replace(
            known[0], id="0" * 32, from_at=at(-90_000), to_at=at(-80_000), stream_id="pruned"
        )
        await context.spool.note_gaps("audit", [], [*known, old], [late])
        gaps, summary = await asked(context)
        assert [(gap["stream"], gap["missing"], gap["filled"], gap["reported"]) for gap in gaps] == [
            ("pruned", 3, 0, True),
            ("room", 3, 1, True),
        ]
        assert (summary["gaps"], summary["missing"]) == (2, 5)

    told(tmp_path, story)


def test_streams_whose_names_say_too_little_are_named(tmp_path: Path) -> None:
    async def story(context: OperatorContext) -> None:
        odd = picture(5, stream="hall").encoded.replace(b'"offset":5', b'"offset":null')
        await receive(context, [*without(), parse_event(odd)])
        _, summary = await asked(context)
        assert summary["unaudited"] == [{"account": "main", "stream": "hall"}]
        assert (summary["pictures"], summary["streams"]) == (60, 1)

    told(tmp_path, story)


# ---------------------------------------------------------------- as people see it


def fill(folder: Path, events: Sequence[Event], known: Sequence[Gap] = ()) -> None:
    async def story(context: OperatorContext) -> None:
        await receive(context, events)
        await context.spool.note_gaps("audit", [], known)

    told(folder, story)


def run(folder: Path, *words: str) -> Ended:
    done = poller("audit", "-c", "poller.yaml", *words, folder=folder)
    assert done.returncode == 0, done
    return done


def test_one_line_says_that_nothing_is_missing(tmp_path: Path) -> None:
    fill(tmp_path, without())
    assert run(tmp_path).stdout == "60 pictures of 1 stream looked at, nothing is missing\n"
    assert run(tmp_path).stderr == ""


def test_a_time_without_pictures_is_not_said_to_be_complete(tmp_path: Path) -> None:
    fill(tmp_path, without())
    assert run(tmp_path, "--until", "2001-01-01").stdout == "there are no pictures to look at\n"


def test_gaps_are_a_table_and_a_sum(tmp_path: Path) -> None:
    fill(tmp_path, [*without(50, 60), *without(300, stream="hall")])
    head, first, second, total = run(tmp_path, "--utc").stdout.splitlines()
    assert head.split() == ["stream", "from", "to", "missing", "filled"]
    assert first.split() == ["room", "2023-11-14T22:14:00Z", "2023-11-14T22:14:30Z", "2", "0"]
    assert second.split()[0] == "hall"
    assert total == "117 pictures of 2 streams looked at, 3 pictures missing in 2 gaps"
    assert max(map(len, (head, first, second))) <= 80


def test_the_sum_does_not_count_gaps_that_were_filled(tmp_path: Path) -> None:
    fill(
        tmp_path,
        [
            *without(50, 60),
            *without(300, stream="hall"),
            *pictures(*range(0, 10_000, 10), stream="long"),
            picture(300, stream="hall", delay=20_000),
        ],
    )
    total = run(tmp_path).stdout.splitlines()[-1]
    assert total == "1118 pictures of 3 streams looked at, 2 pictures missing in 1 gap"


def test_json_has_a_line_for_each_gap_and_a_summary(tmp_path: Path) -> None:
    fill(tmp_path, without(50))
    gap, summary = map(json.loads, run(tmp_path, "--json").stdout.splitlines())
    assert (gap["from"], gap["missing"], gap["reported"]) == ("2023-11-14T22:14:00Z", 1, False)
    assert (summary["gaps"], summary["missing"], summary["log_begins"]) == (1, 1, "2023-11-14T22:13:21Z")


@pytest.mark.parametrize("option", ["--account", "--stream"])
def test_of_an_account_or_a_stream_that_nobody_knows_it_is_not_said_that_nothing_is_missing(
    tmp_path: Path, option: str
) -> None:
    fill(tmp_path, without(50))
    done = poller("audit", "-c", "poller.yaml", option, "rom", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no {option.removeprefix('--')} rom is" in done.stderr


def test_notices_go_to_standard_error(tmp_path: Path) -> None:
    odd = [picture(5, stream=f"hall-{n}").encoded.replace(b'"offset":5', b'"offset":null') for n in range(7)]
    fill(tmp_path, [*without(), *map(parse_event, odd)])
    done = run(tmp_path, "--since", "2023-11-01", "--utc")
    assert done.stdout == "60 pictures of 1 stream looked at, nothing is missing\n"
    assert done.stderr.splitlines() == [
        "the log begins at 2023-11-14T22:13:21Z; before that only reported gaps are known",
        "7 streams cannot be audited, because names do not tell the task: hall-0, hall-1, hall-2, hall-3, hall-4, …",
    ]


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_bad_time_is_wrong_usage(tmp_path: Path, option: str) -> None:
    fill(tmp_path, without())
    done = poller("audit", "-c", "poller.yaml", option, "yesterday-ish", folder=tmp_path)
    assert done.returncode == 2
    assert option in done.stderr


def test_a_long_log_is_read_in_steps_between_which_the_client_hears_something(tmp_path: Path) -> None:
    async def story(context: OperatorContext) -> None:
        for start in range(0, 2_000, 100):
            await receive(context, pictures(*(10 * n for n in range(start, start + 100))))
        request = Request(verb=Verb.AUDIT)
        rows = [row async for row in answer(context, request)]
        assert rows.count(None) >= 1
        assert (rows[-1] or {})["pictures"] == 2_000

    told(tmp_path, story)
