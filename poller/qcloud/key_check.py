"""Checks the key of an account with a call that takes no messages off a queue."""

from enum import StrEnum

import msgspec

from poller.core.errors import NotSent
from poller.core.model import PollOutcome
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


class KeyCheck(msgspec.Struct, frozen=True):
    """A result, and the platform's or the network's text for it (redacted)."""

    state: KeyState
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.detail}" if self.detail else str(self.state)


async def check_key(account: Account) -> KeyCheck:
    """Ask for the status of a channel that nobody has; the account is entered. One call, two if its clock was wrong."""
    found, expired = await _asked_once(account)
    if expired:  # the answer told the platform's time: sign by it
        found, _ = await _asked_once(account)
    return found


async def _asked_once(account: Account) -> tuple[KeyCheck, bool]:
    try:
        reply = await account.call(INTERFACE, {"Param.s.channel_id": _NOBODYS_CHANNEL})
    except NotSent as error:
        return KeyCheck(KeyState.UNREACHABLE, str(error)), False
    answer, _ = open_output(reply.body, reply.encoding)
    verdict = judge_answer(answer, status=reply.status, whole=reply.whole, asked=1)
    if reply.status == 0:
        return KeyCheck(KeyState.UNREACHABLE, verdict.detail), False
    if verdict.outcome is PollOutcome.REFUSED:
        return KeyCheck(KeyState.REFUSED, verdict.detail), verdict.expired
    if right_key(answer):
        return KeyCheck(KeyState.RIGHT), False
    return KeyCheck(KeyState.UNCLEAR, verdict.detail), False
