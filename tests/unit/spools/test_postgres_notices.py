"""What a daemon hears from the others that share its spool."""

import asyncio

from poller.spools.postgres.notices import Notices
from poller.spools.postgres.sessions import CHANGED, CORRECTED, FREED
from tests.patience import PATIENCE


def test_words_are_taken_once_however_often_they_were_heard() -> None:
    async def scenario() -> None:
        notices = Notices(head=lambda: 1)
        for word in (FREED, CORRECTED, FREED):
            notices.hear(word)
        assert await notices.take(within=PATIENCE) == {FREED, CORRECTED}
        assert await notices.take(within=0.01) == set()

    asyncio.run(scenario())


def test_words_that_were_put_back_are_taken_with_the_next_ones_and_wake_nobody() -> None:
    async def scenario() -> None:
        notices = Notices(head=lambda: 1)
        notices.put_back({CORRECTED})
        taking = asyncio.create_task(notices.take(within=PATIENCE))
        await asyncio.sleep(0.05)
        assert not taking.done()
        notices.hear(FREED)
        assert await taking == {FREED, CORRECTED}

    asyncio.run(scenario())


def test_a_head_wakes_only_who_does_not_know_the_log_up_to_there() -> None:
    notices = Notices(head=lambda: 7)
    notices.hear("head 7")
    assert not notices.grown.is_set()
    notices.hear("head 8")
    assert notices.grown.is_set()


def test_a_connection_that_was_lost_makes_everything_worth_a_look() -> None:
    """The number 0 stands for a head that was not heard."""
    notices = Notices(head=lambda: 7)
    notices.hear("head 0")
    assert notices.grown.is_set()


def test_only_a_change_wakes_those_who_wait_for_a_change() -> None:
    notices = Notices(head=lambda: 1)
    for word in (FREED, CORRECTED, "head 9"):
        notices.hear(word)
    assert not notices.changed.is_set()
    notices.hear(CHANGED)
    assert notices.changed.is_set()
