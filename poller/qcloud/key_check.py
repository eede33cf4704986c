"""Checks the key of an account with a call that takes no messages off a queue."""

from enum import StrEnum

from poller.core.errors import NotSent
from poller.core.model import PollOutcome
from poller.qcloud.check_result import CheckResult
from poller.qcloud.events.channels import INTERFACE, right_key
from poller.qcloud.wire.account import Account
from poller.qcloud.wire.replies import judge_answer, open_output

_NOBODYS_CHANNEL = "poller-check"


class KeyState(StrEnum):
    """The result of checking a key."""

    RIGHT = "the key is right"
    REFUSED = "refused"
    UNREACHABLE = "not reachable"
    UNCLEAR = "no clear answer"


async def check_key(account: Account) -> CheckResult[KeyState]:
    """Ask for the status of a channel that nobody has; the account is entered. One call, two if its clock was wrong."""
    found, expired = await _ask_once(account)
    if expired:  # the answer has the platform's time: sign by it
        found, _ = await _ask_once(account)
    return found


async def _ask_once(account: Account) -> tuple[CheckResult[KeyState], bool]:
    try:
        reply = await account.call(INTERFACE, {"Param.s.channel_id": _NOBODYS_CHANNEL})
    except NotSent as error:
        return CheckResult(KeyState.UNREACHABLE, str(error)), False
    answer, _ = open_output(reply.body, reply.encoding)
    verdict = judge_answer(answer, status=reply.status, whole=reply.whole, asked=1)
    if reply.status == 0:
        return CheckResult(KeyState.UNREACHABLE, verdict.detail), False
    if verdict.outcome is PollOutcome.REFUSED:
        return CheckResult(KeyState.REFUSED, verdict.detail), verdict.expired
    if right_key(answer):
        return CheckResult(KeyState.RIGHT), False
    return CheckResult(KeyState.UNCLEAR, verdict.detail), False
