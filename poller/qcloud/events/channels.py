"""Parses an answer to `Live_Channel_GetStatus`: the state of a channel. Pure."""

from typing import Final

import msgspec

from poller.core.model import PollOutcome
from poller.qcloud.wire.redaction import redact_message
from poller.qcloud.wire.replies import Reply, Verdict, judge_answer, open_output

LIVE: Final = "live"
INTERRUPTED: Final = "interrupted"
DISABLED: Final = "disabled"
NEVER: Final = "never"

INTERFACE: Final = "Live_Channel_GetStatus"
_STATES: Final = {0: INTERRUPTED, 1: LIVE, 3: DISABLED}
NEVER_PUSHED: Final = (20601, 1301, 10003)
"""Never pushed, no such live stream, no rows (docs/wire.md, section 2)."""
Scalar = int | float | str | None


class ChannelState(msgspec.Struct, frozen=True, kw_only=True):
    """The reported state: one of the four above, with the platform's numbers for rate and reception.

    `message` is the object of the answer, as one line of JSON.
    """

    state: str
    rate_type: int | None = None
    recv_type: int | None = None
    message: bytes = b"{}"


class _Channel(msgspec.Struct, gc=False):
    status: Scalar = None
    rate_type: Scalar = None
    recv_type: Scalar = None


_decode = msgspec.json.Decoder(list[_Channel] | _Channel).decode


def read_status(
    body: bytes, encoding: str, *, status: int, whole: bool
) -> tuple[ChannelState | None, Verdict]:
    """Parse an answer: the state of the channel (None without one), and the outcome of the poll.

    `FULL` means a good answer. Never raises.
    """
    answer, output = open_output(body, encoding)
    if whole and answer.ret in NEVER_PUSHED:
        return ChannelState(state=NEVER), Verdict(outcome=PollOutcome.FULL)
    verdict = judge_answer(answer, status=status, whole=whole, asked=1)
    if verdict.outcome is not PollOutcome.EMPTY:
        return None, verdict
    found = _channel_state(output)
    if isinstance(found, ChannelState):
        return found, Verdict(outcome=PollOutcome.FULL)
    return None, Verdict(outcome=PollOutcome.FAILED, detail=found)


def right_key(answer: Reply) -> bool:
    """Whether an answer shows that the signature was accepted: a code that is asked for only behind it."""
    return answer.ret in (0, *NEVER_PUSHED)


def _channel_state(output: bytes) -> ChannelState | str:
    """What the output says, or why it says nothing."""
    try:
        found = _decode(output)
        message = redact_message(msgspec.json.format(output, indent=-1))
        message.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "no status in the answer"
    channel = found if isinstance(found, _Channel) else next(iter(found), _Channel())
    number = whole(channel.status)
    if number not in _STATES:
        return "no status in the answer" if number is None else f"status {number}"
    return ChannelState(
        state=_STATES[number],
        rate_type=whole(channel.rate_type),
        recv_type=whole(channel.recv_type),
        message=message,
    )


def whole(value: Scalar) -> int | None:
    """A small whole number, written as a number or as text."""
    try:
        number = None if value is None else float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if number is not None and abs(number) < 1e9 and number == int(number) else None
