"""What an answer about a channel says, in every form."""

import json
from typing import Any

import pytest

from poller.core.model import PollOutcome
from poller.qcloud.events.channels import ChannelState, read_status
from poller.sandbox import Answers
from poller.sandbox.channels import Status
from poller.sandbox.query.answers import encode, refusal, status

FULL, FAILED = PollOutcome.FULL, PollOutcome.FAILED


def state_and_outcome(
    body: bytes | dict[str, Any], *, http: int = 200, whole: bool = True
) -> tuple[str | None, PollOutcome]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    found, verdict = read_status(text, "", status=http, whole=whole)
    return None if found is None else found.state, verdict.outcome


SAMPLE = [{"rate_type": 0, "recv_type": 1, "status": 0}]
"""`channel_status_output` of a published client."""


@pytest.mark.parametrize(
    "form", [{}, {"status": "object"}, {"ret": "string", "extra": True}, {"pretty": True}, {"gzip": True}]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-bom", "utf-16"])
def test_every_form_of_the_sandbox_is_read(form: dict[str, Any], encoding: str) -> None:
    answers = Answers(encoding=encoding, **form)  # type: ignore[arg-type]
    for state, name in (
        (Status.LIVE, "live"),
        (Status.INTERRUPTED, "interrupted"),
        (Status.DISABLED, "disabled"),
    ):
        found, verdict = read_status(encode(status(state, answers), answers), "", status=200, whole=True)
        assert found is not None
        assert (found.state, found.rate_type, found.recv_type, verdict.outcome) == (name, 0, 1, FULL)
        assert json.loads(found.message)
        assert b"\n" not in found.message
    refused = encode(refusal(20601, "never", answers), answers)
    assert read_status(refused, "", status=200, whole=True)[0] == ChannelState(state="never")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"ret": 0, "message": "ok", "output": SAMPLE}, ("interrupted", FULL)),
        ({"ret": 0, "output": {"status": "1", "rate_type": "10", "recv_type": None}}, ("live", FULL)),
        ({"ret": "0", "retcode": 0, "output": [{"status": 1.0}]}, ("live", FULL)),
        ({"ret": 0, "output": [{"status": 3}]}, ("disabled", FULL)),
        ({"ret": "20601", "message": "no"}, ("never", FULL)),
        ({"ret": 1301}, ("never", FULL)),
        ({"ret": 10003, "output": None}, ("never", FULL)),
        ({"ret": 0, "output": []}, (None, FAILED)),
        ({"ret": 0, "output": None}, (None, FAILED)),
        ({"ret": 0}, (None, FAILED)),
        ({"ret": 0, "output": [{"status": 2}]}, (None, FAILED)),
        ({"ret": 0, "output": [{"status": None}]}, (None, FAILED)),
        ({"ret": 0, "output": "live"}, (None, FAILED)),
        ({"ret": 1201, "message": "internal"}, (None, FAILED)),
        ({"ret": 1202, "message": "x"}, (None, PollOutcome.THROTTLED)),
        ({"ret": 4, "message": "sign invalid"}, (None, PollOutcome.REFUSED)),
        ({"ret": 5, "message": "cmd is invalid"}, (None, PollOutcome.REFUSED)),
        (b"", (None, FAILED)),
        (b"request failed.no returnData", (None, FAILED)),
        (b"<html>busy</html>", (None, FAILED)),
        (b'{"ret":0,"output":[{"status":1', (None, PollOutcome.UNCERTAIN)),
        (b'call({"ret":0,"output":[{"status":1}]});', ("live", FULL)),
        (b"[" * 100_000, (None, PollOutcome.UNCERTAIN)),
        (b'{"ret":0,"output":[{"status":1,"x":"\xff"}]}', (None, FAILED)),
    ],
)
def test_an_answer_is_a_state_or_says_why_not(
    body: bytes | dict[str, Any], expected: tuple[str | None, PollOutcome]
) -> None:
    assert state_and_outcome(body) == expected


def test_an_answer_that_did_not_come_whole_says_nothing() -> None:
    assert state_and_outcome({"ret": 20601}, whole=False) == (None, PollOutcome.UNCERTAIN)
    assert state_and_outcome(b"", http=0, whole=False) == (None, PollOutcome.UNCERTAIN)


def test_the_published_sample_is_read() -> None:
    found, _ = read_status(json.dumps({"ret": 0, "output": SAMPLE}).encode(), "", status=200, whole=True)
    assert found == ChannelState(
        state="interrupted",
        rate_type=0,
        recv_type=1,
        message=json.dumps(SAMPLE, separators=(",", ":")).encode(),
    )
