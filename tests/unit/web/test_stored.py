"""Dead letters by reason, and a count that stops in time and goes on where it stopped."""

from pathlib import Path

from poller.core.model import Dead, Filter
from poller.operations.operator_context import OperatorContext
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, some_event, some_reading
from poller.web.backend import Backend
from poller.web.stored import DEAD, MOST_REASONS, OTHER, DeadQuery, Reasons
from tests.unit.operations.test_replay_verbs import tell


async def died(spool: SqliteSpool, sink: str, *reasons: str) -> None:
    await spool.append("shots", [some_reading(*range(len(reasons)))])
    batch = await spool.claim(sink, len(reasons))
    await spool.settle(batch, [Dead(reason=reason) for reason in reasons])


def test_reasons_are_counted_the_most_frequent_first_with_their_sinks_and_the_newest(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await died(spool, "hook", "HTTP 415", "HTTP 415", "HTTP 410")
        clock.pass_time(60)
        await died(spool, "archive", "HTTP 415")
        answer = await DEAD.answer(Backend(context=lambda: context), DeadQuery(limit=1))
        newest = round(clock.now().timestamp(), 3)
        assert answer["reasons"] == [
            ("HTTP 415", 3, ["archive", "hook"], newest),
            ("HTTP 410", 1, ["hook"], newest - 60),
        ]
        assert (answer["count"], answer["complete"], answer["count_below"]) == (4, True, None)

    tell(tmp_path, scenario)


def test_a_count_that_takes_too_long_says_where_it_goes_on(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await died(spool, "hook", *["HTTP 415"] * 450)
        below: int | None = None
        counts: list[int] = []
        while not counts or below is not None:
            found, below = await DEAD.count(context, Filter(below=below), 0.0)
            counts.append(found.count)
        assert counts == [200, 200, 50, 0]

    tell(tmp_path, scenario)


def test_signatures_in_reasons_are_masked(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await died(spool, "hook", "refused: https://x.example/?sign=0123456789abcdef")
        answer = await DEAD.answer(Backend(context=lambda: context), DeadQuery())
        assert "0123456789abcdef" not in str(answer)

    tell(tmp_path, scenario)


def test_so_many_reasons_are_told_apart_and_no_more() -> None:
    found, at = Reasons(), some_event(0).received_at
    for number in range(MOST_REASONS + 50):
        found.add(f"reason {number}", "hook", at)
    rows = found.rows()
    assert (rows[0][0], rows[0][1]) == (OTHER, 50)
    assert len(rows) == MOST_REASONS + 1
    assert found.count == MOST_REASONS + 50
