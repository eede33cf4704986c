"""What is left to do of a move, by the standing of both spools."""

from datetime import UTC, datetime
from typing import Any

import pytest

from poller.core.moving import Move, Standing
from poller.operations.moving import CannotMove, Step, next_step

CONTENT = "content"
NEW = Standing(spool="", empty=True)
STARTED = Standing(spool="fresh", empty=True)
USED = Standing(spool="other", empty=False)


def a_move(id: str = "one", spool: str = CONTENT) -> Move:
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    return Move(id=id, spool=spool, origin="/old.db", to="PostgreSQL db/poller", at=at)


def standing(**records: Any) -> Standing:
    return Standing(spool=CONTENT, empty=False, **records)


IN_FORCE = standing()


@pytest.mark.parametrize(
    "new",
    [
        NEW,
        STARTED,
        Standing(spool="", empty=False, moving=a_move("cut off")),
        Standing(spool="other", empty=False, moved=a_move("elsewhere", "other")),
        standing(moved=a_move("back"), arrived=a_move("there")),
    ],
    ids=["new", "started", "the same move, cut off", "moved elsewhere", "the way back"],
)
def test_everything_is_moved_into_a_spool_that_nobody_needs(new: Standing) -> None:
    assert next_step(IN_FORCE, new) is Step.EVERYTHING


def test_a_move_that_the_old_spool_knows_of_is_ended_or_was() -> None:
    old = standing(moved=a_move())
    assert next_step(old, Standing(spool=CONTENT, empty=False, moving=a_move())) is Step.THE_END
    assert next_step(old, standing(arrived=a_move())) is Step.NOTHING


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (IN_FORCE, USED, "the new spool is not empty"),
        (IN_FORCE, standing(arrived=a_move()), "the new spool is not empty"),
        (IN_FORCE, Standing(spool="", empty=False, moving=a_move(spool="x")), "a part of another spool"),
        (NEW, NEW, "no daemon has used it yet"),
        (standing(moving=a_move()), NEW, "holds only a part: the move from /old.db, begun on 2026-01-02"),
        (standing(moved=a_move()), NEW, "it was moved to PostgreSQL db/poller"),
        (standing(moved=a_move()), standing(moving=a_move("two")), "it was moved to"),
        (standing(moved=a_move()), standing(arrived=a_move("two")), "it was moved to"),
        (standing(moved=a_move()), standing(arrived=a_move(), moved=a_move("two")), "it was moved to"),
    ],
)
def test_a_move_that_would_lose_something_is_refused(old: Standing, new: Standing, why: str) -> None:
    with pytest.raises(CannotMove, match=why):
        next_step(old, new)


def test_a_spool_that_is_not_in_force_says_why() -> None:
    assert IN_FORCE.refusal is None
    assert standing(arrived=a_move()).refusal is None
    assert standing(moved=a_move()).refusal == (
        "this spool was moved to PostgreSQL db/poller on 2026-01-02 at 03:04 UTC: use that one"
    )
    assert "repeat `poller spool move`" in str(standing(moving=a_move()).refusal)
