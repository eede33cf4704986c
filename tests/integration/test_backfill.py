"""Missing pictures are found in the bucket of the sandbox, and put in once."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from poller.core.model import Event, ParsedPage, PollOutcome
from poller.core.selection import ALL_EVENTS
from poller.core.spool import Member, SpoolAdmin
from poller.daemon.automatic_backfill import AutomaticBackfill, retry_in, with_loss
from poller.operations.backfill import Backfill, Period, Progress, period_around, source_name
from poller.qcloud.cos.bucket import Bucket, ListingFailed
from poller.qcloud.events.names import parse_name
from poller.qcloud.events.screenshots import screenshot_event
from poller.qcloud.wire.times import BEIJING
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.sandbox import Customer, Options, Sandbox
from poller.settings import AccountSettings
from poller.spools.memory import MemorySpool
from poller.spools.sqlite import SqliteSpool
from tests.fakes import SharedMemory
from tests.patience import patiently

LABEL = Customer().host_label
BASE = "http://shots-1250000000.file.myqcloud.com/"
NOW = int(time.time())
PUSH = NOW - 1800


def at(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def name_a(stream: str, offset: int, push: int = PUSH, task: int = PUSH) -> str:
    return f"{stream}_{push}_{task}_{offset}_300_169.jpg"


def name_b(stream: str, epoch: int, root: str = "") -> str:
    there = at(epoch).astimezone(BEIJING)
    return f"{root}{there:%Y-%m-%d}/{stream}-screenshot-{there:%H-%M-%S}-300x169.jpg"


def queued(name: str, received: float = NOW) -> Event:
    """The event that the queue's message about a picture gives."""
    raw = msgspec.json.encode({"stream_id": parse_name(name).stream, "pic_url": f"/{name}"})
    return screenshot_event(raw, account="main", picture_base=BASE, received_at=at(received))


def page(events: Iterable[Event]) -> ParsedPage:
    return ParsedPage(events=tuple(events), rejects=(), outcome=PollOutcome.FULL)


@dataclass(kw_only=True)
class Place:
    """A spool, a sandbox with a bucket, and the backfill between them."""

    spool: SpoolAdmin
    sandbox: Sandbox
    backfill: Backfill
    metrics: Metrics

    async def came(self, *names: str, received: float = NOW) -> None:
        await self.spool.append("shots", [page(queued(name, received) for name in names)])

    def lies(self, *names: str) -> None:
        self.sandbox.pictures.put_many(LABEL, list(names), b"x")

    async def look(self, since: float = PUSH, until: float = NOW, stream: str | None = None) -> Progress:
        last = Progress()
        async for progress in self.backfill.look(Period(since=at(since), until=at(until), stream=stream)):
            last = progress
        return last

    async def names(self) -> list[str]:
        found: list[str] = []
        start: int | None = 1
        while start is not None:
            scan = await self.spool.scan(ALL_EVENTS, start, 1000)
            found += [str(event.fields["file_name"]) for _, event in scan.found]
            start = scan.following
        return found

    async def backfilled(self) -> list[Event]:
        scan = await self.spool.scan(ALL_EVENTS, 1, 1000)
        return [event for _, event in scan.found if event.fields.get("backfilled")]


def settings(endpoint: str) -> AccountSettings:
    keys = {"secret_id": Customer().secret_id, "secret_key": Customer().secret_key}
    cos = {"bucket": "shots", "app_id": 1250000000, "endpoint": endpoint, **keys}
    return AccountSettings.model_validate({"app_id": 1234, "key": "k", "cos": cos})


async def at_once() -> None:
    pass


def spool_in(folder: Path, engine: str) -> SpoolAdmin:
    if engine == "shared":
        return SharedMemory()
    if engine == "memory":
        return MemorySpool("spool", MemorySpool.Settings(type="memory"), {})
    return SqliteSpool("spool", SqliteSpool.Settings(type="sqlite", path=folder / "spool.db"), {})


@asynccontextmanager
async def standing(folder: Path, engine: str = "sqlite") -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            Sandbox(Options(directory=folder / "platform", upload_delay=(0.0, 0.0)))
        )
        spool = await stack.enter_async_context(spool_in(folder, engine))
        account = settings(f"{sandbox.endpoints['cos']}/{LABEL}/")
        bucket = await stack.enter_async_context(Bucket("main", account, at_once))
        metrics = Metrics()
        backfill = Backfill("main", BASE, bucket, spool, metrics=metrics, clock=Clock())
        yield Place(spool=spool, sandbox=sandbox, backfill=backfill, metrics=metrics)


@pytest.mark.parametrize("engine", ["sqlite", "memory"])
def test_what_never_came_is_put_in_and_what_came_is_not_put_in_again(tmp_path: Path, engine: str) -> None:
    every = [name_a(stream, offset) for stream in ("a", "b_1", "3891_@v#x") for offset in range(0, 600, 10)]

    async def story() -> None:
        async with standing(tmp_path, engine) as place:
            place.lies(*every)
            await place.came(*every[::3])
            done = await place.look()
            assert sorted(await place.names()) == sorted(every)
            assert (done.pictures, done.listed) == (len(every) - len(every[::3]), len(every))
            assert (await place.look()).pictures == 0
            assert sorted(await place.names()) == sorted(every)
            counted = place.metrics.registry.get_sample_value(
                "poller_backfilled_pictures_total", {"account": "main"}
            )
            assert counted == done.pictures

    asyncio.run(patiently(story()))


def test_a_picture_whose_message_comes_late_is_known_then(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as place:
            place.lies(name_a("a", 0), name_a("a", 10))
            await place.came(name_a("a", 0))
            assert (await place.look()).pictures == 1
            await place.came(name_a("a", 10))
            assert await place.names() == [name_a("a", 0), name_a("a", 10)]

    asyncio.run(patiently(story()))


def test_only_pictures_of_the_period_and_older_than_a_minute_are_put_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as place:
            place.lies(*(name_a("a", offset) for offset in (0, 290, 300, 600, 610)))
            young = name_a("a", int(time.time()) - 15 - PUSH)
            place.lies(young, name_a("b", 300), name_a("a", 300, push=PUSH - 7))
            await place.came(name_a("a", 100))
            await place.look(PUSH + 300, PUSH + 600)
            assert sorted(await place.names()) == sorted(
                [name_a("a", 100), name_a("a", 300), name_a("a", 600)]
            )
            await place.look(PUSH, NOW + 60)
            assert young not in await place.names()

    asyncio.run(patiently(story()))


def test_a_picture_that_the_spool_may_have_forgotten_is_not_put_in(tmp_path: Path) -> None:
    push = NOW - 31 * 86_400

    async def story() -> None:
        async with standing(tmp_path) as place:
            offsets = [86_400, 3 * 86_400]
            names = [name_a("a", offset, push=push, task=push) for offset in offsets]
            place.lies(*names)
            await place.came(name_a("a", 3 * 86_400 + 10, push=push, task=push))
            assert (await place.look(push, NOW)).pictures == 1
            assert names[0] not in await place.names()

    asyncio.run(patiently(story()))


def test_one_stream_alone_can_be_looked_at(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as place:
            place.lies(*(name_a(stream, offset) for stream in ("a", "a_1", "b") for offset in (0, 10)))
            place.lies(name_b("a", PUSH), name_b("a-1", PUSH), name_b("a_1", PUSH))
            await place.came(*(name_a(stream, 0) for stream in ("a", "a_1", "b")))
            assert (await place.look(stream="a")).pictures == 2
            assert {event.stream_id for event in await place.backfilled()} == {"a"}

    asyncio.run(patiently(story()))


@pytest.mark.parametrize("root", ["", "live/"])
def test_streams_of_grammar_b_are_found_even_if_nothing_of_them_came(tmp_path: Path, root: str) -> None:
    every = [name_b(stream, PUSH + offset, root) for stream in ("a", "new") for offset in range(0, 600, 10)]

    async def story() -> None:
        async with standing(tmp_path) as place:
            place.lies(*every, f"{root}{every[0].split('/')[-2]}/cover.jpg")
            await place.came(every[7])
            await place.look()
            assert sorted(await place.names()) == sorted(every)

    asyncio.run(patiently(story()))


def test_a_day_of_pictures_is_not_listed_for_a_minute_of_them(tmp_path: Path) -> None:
    """By grammar B the list begins and ends within the day."""
    midnight = int(
        (at(NOW).astimezone(BEIJING) - timedelta(days=1)).replace(hour=0, minute=0, second=0).timestamp()
    )
    every = [name_b("a", midnight + offset) for offset in range(0, 86_400, 10)]

    async def story() -> None:
        async with standing(tmp_path) as place:
            place.lies(*every)
            await place.came(every[5000], received=midnight + 50_000)
            done = await place.look(midnight + 50_000, midnight + 50_060)
            assert done.pictures == 6
            assert done.listed <= 1000

    asyncio.run(patiently(story()))


def test_a_store_that_fails_half_way_keeps_what_was_found(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as place:
            since = NOW - 40_000
            push = since + 10
            names = [name_a(f"s{n}", 10 * k, push=push, task=push) for n in range(3) for k in range(1500)]
            place.lies(*names)
            await place.came(*names[::1500], received=since + 20)
            for _ in range(3):
                place.sandbox.faults["cos"].order("latency", seconds=0.0)
            place.sandbox.faults["cos"].order("status")
            with pytest.raises(ListingFailed, match="HTTP 503"):
                await place.look(since, NOW)
            begun = len(await place.names())
            assert 1000 < begun < len(names)
            await place.look(since, NOW)
            assert sorted(await place.names()) == sorted(names)

    asyncio.run(patiently(story()))


# ---------------------------------------------------------------- when


def test_lost_pictures_lie_between_those_that_came_before_and_after(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as place:
            await place.came(*(name_a("a", offset) for offset in range(0, 100, 10)), received=NOW - 100)
            await place.came(*(name_a("a", offset) for offset in range(200, 300, 10)), received=NOW - 50)
            found = await period_around(place.spool, "main", at(NOW - 70), at(NOW - 70))
            assert at(PUSH - 21) < found.since <= at(PUSH - 20), "two cadences before the first"
            assert at(PUSH + 310) <= found.until < at(PUSH + 311), "two cadences after the last"
            before = await period_around(place.spool, "main", at(NOW - 10), at(NOW - 10))
            assert at(NOW + 10) <= before.until < at(NOW + 11), "nothing came after"
            assert (await period_around(place.spool, "other", at(NOW), at(NOW))).since == at(NOW - 20)

    asyncio.run(patiently(story()))


def test_a_picture_with_a_time_years_ago_does_not_make_the_period_endless(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as place:
            await place.came(name_a("a", 0, push=1_100_000_000), received=NOW - 100)
            found = await period_around(place.spool, "main", at(NOW - 70), at(NOW - 70))
            assert found.since == at(NOW - 70) - timedelta(days=1)

    asyncio.run(patiently(story()))


# ---------------------------------------------------------------- by itself


async def pending_in(spool: SpoolAdmin) -> list[float]:
    memory = (await spool.memory(source_name("main"))).get("pending", b"{}")
    found: list[float] = msgspec.json.decode(memory).get("pending", [])
    return found


def automatic(place: Place, settled: float = 0.3) -> AutomaticBackfill:
    return AutomaticBackfill(place.backfill, place.spool, Clock(), settled=settled)


async def until(condition: object) -> None:
    assert callable(condition)
    while not await condition():
        await asyncio.sleep(0.01)


def test_after_a_reported_loss_the_bucket_is_looked_at(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as place:
            every = [name_a("a", offset) for offset in range(1500, 1740, 10)]
            place.lies(*every)
            await place.came(*every[::2], received=NOW - 60)
            one = automatic(place)
            running = asyncio.ensure_future(one.run())
            one.report_loss()
            await until(lambda: _all_there(place, every))
            await until(lambda: _nothing_pending(place))
            one.stop()
            await running

    asyncio.run(patiently(story()))


async def _all_there(place: Place, every: list[str]) -> bool:
    return sorted(await place.names()) == sorted(every)


async def _nothing_pending(place: Place) -> bool:
    return not await pending_in(place.spool)


def test_a_loss_is_noted_before_the_look_and_the_next_life_looks(tmp_path: Path) -> None:
    every = [name_a("a", offset) for offset in range(1500, 1740, 10)]

    async def first() -> None:
        async with standing(tmp_path) as place:
            place.lies(*every)
            await place.came(*every[::2], received=NOW - 60)
            one = automatic(place, settled=3600.0)
            running = asyncio.ensure_future(one.run())
            one.report_loss()

            async def noted() -> bool:
                return bool(await pending_in(place.spool))

            await until(noted)
            one.stop()
            await running

    async def second() -> None:
        async with standing(tmp_path) as place:
            one = automatic(place, settled=0.1)
            running = asyncio.ensure_future(one.run())
            await until(lambda: _all_there(place, every))
            await until(lambda: _nothing_pending(place))
            one.stop()
            await running

    asyncio.run(patiently(first()))
    asyncio.run(patiently(second()))


def test_a_loss_that_is_reported_while_the_daemon_stops_is_noted(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as place:
            one = automatic(place, settled=3600.0)
            running = asyncio.ensure_future(one.run())
            await asyncio.sleep(0)
            one.report_loss()
            one.stop()
            await running
            assert len(await pending_in(place.spool)) == 1

    asyncio.run(patiently(story()))


def test_after_a_crash_the_answers_that_were_on_their_way_are_looked_for(tmp_path: Path) -> None:
    every = [name_a("a", offset) for offset in range(1500, 1740, 10)]

    async def life(expected: int, *, killed: bool) -> None:
        async with standing(tmp_path) as place:
            place.lies(*every)
            await place.came(*every[:-2], received=NOW - 65)
            one = automatic(place, settled=0.0)
            running = asyncio.ensure_future(one.run())

            async def at_work() -> bool:
                memory = (await place.spool.memory(source_name("main"))).get("pending", b"{}")
                note = msgspec.json.decode(memory)
                return bool(note.get("running")) and len(await place.names()) == expected

            await until(at_work)
            if killed:
                running.cancel()
                await asyncio.wait({running})
            else:
                one.stop()
                await running

    asyncio.run(patiently(life(len(every) - 2, killed=False)))
    asyncio.run(patiently(life(len(every) - 2, killed=True)))
    asyncio.run(patiently(life(len(every), killed=False)))


def test_while_the_bucket_cannot_be_listed_the_look_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.daemon.automatic_backfill.FIRST_RETRY", 0.05)

    async def story() -> None:
        async with standing(tmp_path) as place:
            every = [name_a("a", offset) for offset in range(1500, 1740, 10)]
            place.lies(*every)
            await place.came(*every[::2], received=NOW - 60)
            place.sandbox.faults["cos"].order("status", 2)
            place.sandbox.faults["cos"].order("close", 1)
            one = automatic(place)
            running = asyncio.ensure_future(one.run())
            one.report_loss()
            await until(lambda: _all_there(place, every))
            assert place.sandbox.faults["cos"].fired.total() == 3
            one.stop()
            await running

    asyncio.run(patiently(story()))


def test_waits_between_failures_grow_to_ten_minutes() -> None:
    assert [retry_in(n, 0.5) for n in (1, 2, 3, 8, 50)] == [5.0, 10.0, 20.0, 600.0, 600.0]


def test_many_losses_keep_the_first_and_the_last() -> None:
    pending: tuple[float, ...] = ()
    for moment in range(1000):
        pending = with_loss(pending, float(moment))
        assert len(pending) <= 100
        assert (pending[0], pending[-1]) == (0.0, float(moment))
    assert list(pending) == sorted(pending)


# ---------------------------------------------------------------- daemons that share the spool


async def note_of(spool: SpoolAdmin, member: int) -> dict[str, object]:
    memory = (await spool.memory(source_name("main"))).get(f"pending {member}", b"{}")
    found: dict[str, object] = msgspec.json.decode(memory)
    return found


async def leave_note(spool: SpoolAdmin, member: int, **note: object) -> None:
    """What another daemon has noted."""
    memory = msgspec.json.encode(note)
    about = f"pending {member}"
    one = ParsedPage(events=(), rejects=(), outcome=PollOutcome.EMPTY, memory=memory, about=about)
    await spool.append(source_name("main"), [one])


def other(number: int) -> Member:
    return Member(number=number, name="there", since=at(NOW), expires=2.0)


def test_the_losses_of_a_daemon_that_is_gone_are_looked_for_by_another_and_its_note_is_taken_over(
    tmp_path: Path,
) -> None:
    every = [name_a("a", offset) for offset in range(1500, 1740, 10)]

    async def story() -> None:
        async with standing(tmp_path, "shared") as place:
            spool = place.spool
            assert isinstance(spool, SharedMemory)
            place.lies(*every)
            await place.came(*every[::2], received=NOW - 60)
            await leave_note(spool, 7, pending=[NOW - 60.0], running=True, alive_at=NOW - 30.0)
            spool.others = [other(7)]
            one = automatic(place)
            running = asyncio.ensure_future(one.run())
            await asyncio.sleep(0.5)
            assert await note_of(spool, 7), "its daemon lives, and looks by itself"
            assert len(await place.names()) == len(every[::2])
            spool.others = []
            one.members_changed()
            await until(lambda: _all_there(place, every))
            assert await note_of(spool, 7) == {}
            one.stop()
            await running
            assert await spool.memory(source_name("main")) == {}

    asyncio.run(patiently(story()))


def test_a_daemon_that_shares_its_spool_looks_for_its_own_losses_while_no_other_one_looks(
    tmp_path: Path,
) -> None:
    every = [name_a("a", offset) for offset in range(1500, 1740, 10)]

    async def story() -> None:
        async with standing(tmp_path, "shared") as place:
            spool = place.spool
            assert isinstance(spool, SharedMemory)
            spool.free.clear()
            place.lies(*every)
            await place.came(*every[::2], received=NOW - 60)
            one = automatic(place)
            running = asyncio.ensure_future(one.run())
            one.report_loss()
            await until(lambda: _noted(spool))
            await asyncio.sleep(0.5)
            assert len(await place.names()) == len(every[::2]), "another daemon is at it"
            spool.free.set()
            await until(lambda: _all_there(place, every))
            assert spool.duties in ([], ["backfill:main"])
            one.stop()
            await running
            assert spool.duties == []

    asyncio.run(patiently(story()))


async def _noted(spool: SpoolAdmin) -> bool:
    return bool((await note_of(spool, 1)).get("pending"))


def test_a_stop_does_not_wait_for_the_look_of_another_daemon(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path, "shared") as place:
            spool = place.spool
            assert isinstance(spool, SharedMemory)
            spool.free.clear()
            one = automatic(place)
            running = asyncio.ensure_future(one.run())
            one.report_loss()
            await until(lambda: _noted(spool))
            one.stop()
            await running
            note = await note_of(spool, 1)
            assert (note["running"], bool(note["pending"])) == (False, True), "the next daemon looks"

    asyncio.run(patiently(story()))
