"""The webhook sink's tables: what each answer of the other side comes to."""

import asyncio
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller.core.errors import LONGEST_WAIT, Gone, Rejected, SinkError, TryLater
from poller.runtime.outbound import wait_seconds
from poller.sinks.webhook import refusal
from tests.patience import PATIENCE

from .hooks import carried, carry, sink
from .servers import Request, batch, saying, serving

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


# ---------------------------------------------------------------- statuses


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 226, 299])
def test_a_2xx_is_delivered(status: int) -> None:
    error, server = carried(saying(status, body=b"thanks"))
    assert error is None
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Rejected) for status in (400, 405, 413, 415, 422)),
        *((status, TryLater) for status in (401, 403, 404, 402, 406, 408, 409, 418, 425, 429, 451, 499)),
        *((status, TryLater) for status in (500, 501, 502, 503, 504, 507, 511, 599)),
        *((status, TryLater) for status in (300, 301, 302, 303, 304, 305, 307, 308)),
        (410, Gone),
    ],
)
def test_each_status_comes_to_one_thing_and_is_sent_once(status: int, kind: type[SinkError]) -> None:
    body = b"" if status == 304 else b"canary: do not repeat me"
    error, server = carried(saying(status, body=body))
    assert type(error) is kind
    assert f"HTTP {status}" in error.reason
    assert "canary" not in error.reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_its_target_is_not_asked(status: int) -> None:
    async def main() -> int:
        async with (
            serving(saying(200)) as target,
            serving(saying(status, f"Location: {target.url}")) as server,
        ):
            error = await carry(server.url)
            assert isinstance(error, TryLater)
            assert error.reason == f"HTTP {status}: redirect refused"
            assert len(server.requests) == 1
            return target.connections

    assert asyncio.run(main()) == 0


# ---------------------------------------------------------------- Retry-After


def _date(offset: float) -> str:
    return format_datetime(NOW + timedelta(seconds=offset), usegmt=True)


RETRY_AFTER: list[tuple[str, float | None]] = [
    ("1", 1.0),
    ("120", 120.0),
    (" 120 ", 120.0),
    ("1.5", 1.5),
    ("000120", 120.0),
    ("3600", 3_600.0),
    ("3601", LONGEST_WAIT),
    ("315360000", LONGEST_WAIT),
    ("9" * 300, LONGEST_WAIT),
    ("9" * 5000, None),
    ("0", None),
    ("-1", None),
    ("-999999", None),
    ("", None),
    ("soon", None),
    ("nan", None),
    ("inf", None),
    ("1e9", None),
    ("0x10", None),
    ("١٢٠", None),
    ("120, 240", None),
    ("120s", None),
    (_date(90), 90.0),
    ("Mon, 04 May 2026 12:01:30 GMT", 90.0),
    ("Monday, 04-May-26 12:01:30 GMT", 90.0),
    ("Mon May  4 12:01:30 2026", 90.0),
    ("Mon, 04 May 2026 14:01:30 +0200", 90.0),
    (_date(-90), None),
    (_date(0), None),
    (_date(10 * 365 * 86_400), LONGEST_WAIT),
    ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
    ("Thu, 01 Jan 1970 00:00:00 GMT", None),
    ("Mon, 99 May 2026 12:01:30 GMT", None),
    ("Mon, 04 May 999999 12:01:30 GMT", None),
    ("Mon, 04 May 2026 12:01:30 +999999", None),
]


@pytest.mark.parametrize(("text", "seconds"), RETRY_AFTER)
def test_each_form_of_retry_after_is_a_bounded_wait_or_none(text: str, seconds: float | None) -> None:
    assert wait_seconds(text, NOW) == seconds


@given(st.text() | st.from_regex(r"\A[A-Za-z]{0,9},? ?[0-9 ]{0,6} ?[A-Za-z]{0,3} ?[0-9: +-]{0,30}\Z"))
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
def test_no_retry_after_whatsoever_raises_or_leaves_its_bounds(text: str) -> None:
    seconds = wait_seconds(text, NOW)
    assert seconds is None or 0 < seconds <= LONGEST_WAIT


@pytest.mark.parametrize("status", [429, 503, 404, 500, 302])
def test_whoever_says_when_is_waited_for(status: int) -> None:
    error, _ = carried(saying(status, "Retry-After: 7"))
    assert isinstance(error, TryLater)
    assert error.after == 7.0


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "after"),
    [
        ("later", None),
        ("-5", None),
        ("0", None),
        ("\x01\x02", None),
        ("99999999999999999999", LONGEST_WAIT),
    ],
)
def test_an_absurd_retry_after_over_the_wire_does_no_harm(
    status: int, value: str, after: float | None
) -> None:
    error, _ = carried(saying(status, f"Retry-After: {value}"))
    assert isinstance(error, TryLater)
    assert (error.reason, error.after) == (f"HTTP {status}", after)


def test_a_rejection_stays_one_whatever_it_says_about_later() -> None:
    assert isinstance(refusal(400, "7", NOW), Rejected)
    assert isinstance(refusal(410, "7", NOW), Gone)


# ---------------------------------------------------------------- bodies


async def _endless(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x" * 65536)
        await writer.drain()


async def _drip(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _cut(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nxxx")
    writer.close()


@pytest.mark.parametrize("answer", [_endless, _drip, _cut], ids=["endless", "drip", "cut"])
def test_a_2xx_counts_whatever_its_body_does_and_its_connection_is_not_used_again(answer: object) -> None:
    async def main() -> tuple[int, int]:
        async with serving(answer) as server, sink(server.url) as hook:  # type: ignore[arg-type]
            async with asyncio.timeout(PATIENCE):
                await hook.deliver(batch())
                await hook.deliver(batch())
            return len(server.requests), server.connections

    assert asyncio.run(main()) == (2, 2)


def test_a_huge_answer_is_left_after_its_first_part() -> None:
    sent = 0

    async def huge(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 500 Whatever\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(15_000):
            sent += 65536
            writer.write(b"x" * 65536)
            await writer.drain()

    error, _ = carried(huge)
    assert error is not None
    assert error.reason == "HTTP 500"
    assert 1_000_000 < sent < 50_000_000, "it was huge, and was left"


def test_a_compressed_bomb_is_not_unpacked() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(50)) + packer.flush()

    async def main() -> str:
        async with (
            serving(saying(500, "Content-Encoding: gzip", body=bomb)) as server,
            sink(server.url) as hook,
        ):
            tracemalloc.start()
            with pytest.raises(TryLater, match="HTTP 500"):
                await hook.deliver(batch())
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 10 * 2**20
            return server.requests[0].headers["accept-encoding"]

    assert asyncio.run(main()) == "identity"


@pytest.mark.parametrize(
    "nonsense", [b"\0\1\2\3\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n"]
)
def test_what_is_not_http_is_tried_later(nonsense: bytes) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(nonsense)

    error, _ = carried(answer)
    assert isinstance(error, TryLater)
    assert "in-the-query" not in error.reason
