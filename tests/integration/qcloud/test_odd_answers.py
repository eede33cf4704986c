"""A destructive read gives every message that came, whatever the head of its answer looks like."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from poller.core.model import ParsedPage, PollOutcome, RawPage
from poller.qcloud.wire.account import Account
from poller.qcloud.wire.client import LARGEST_BODY, Client, Deadlines
from poller.runtime.http_answer import MOST_INTERIM, AnswerReader
from poller.settings import AccountSettings
from poller.sources.screenshot_queue import ScreenshotQueue
from tests.patience import PATIENCE, patiently

from .answer_forms import FORMS, Form, headed, packed, with_a_wrong_sum

KEY = "5d41402abc4b2a76b9719d911017c592"
EACH = 100
POLLS = 3
QUICK = Deadlines(connect=5.0, progress=2.0, whole=20.0)
ORDINARY = FORMS["as it should be"]


class Queue:
    """A platform whose every dequeue takes 100 messages away, and that answers in one form after the other."""

    def __init__(self, *forms: Form) -> None:
        self.forms = list(forms)
        self.dequeues = 0
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                form = self.forms[min(self.dequeues, len(self.forms) - 1)]
                writer.write(form.answer(self.dequeue()))
                await writer.drain()
                if form.ends:
                    return
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def dequeue(self) -> bytes:
        first = self.dequeues * EACH
        self.dequeues += 1
        data = [{"stream_id": "s", "pic_url": name(first + n)} for n in range(EACH)]
        return json.dumps({"ret": 0, "output": {"count": EACH, "data": data}}).encode()


def name(number: int) -> str:
    return f"s_1471850187_1471850187_{number}_300_169.jpg"


@asynccontextmanager
async def queue(*forms: Form) -> AsyncIterator[Queue]:
    platform = Queue(*forms)
    server = await asyncio.start_server(platform.serve, "127.0.0.1", 0)
    platform.port = server.sockets[0].getsockname()[1]
    try:
        yield platform
    finally:
        server.close()


@asynccontextmanager
async def polling(port: int) -> AsyncIterator[Callable[[], Awaitable[tuple[RawPage, ParsedPage]]]]:
    given = {"app_id": "1250000000", "key": KEY, "endpoint": f"http://127.0.0.1:{port}/common_access"}
    account = Account("main", AccountSettings.model_validate(given), deadlines=QUICK)
    chosen = ScreenshotQueue.Settings.model_validate({"type": "screenshot_queue", "account": "main"})
    source = ScreenshotQueue("shots", chosen, {"main": account})

    async def poll() -> tuple[RawPage, ParsedPage]:
        page = await source.fetch()
        return page, source.read(page, b"")

    async with account, source:
        yield poll


def polled(*forms: Form, polls: int = POLLS) -> tuple[list[tuple[RawPage, ParsedPage]], Queue]:
    async def run() -> tuple[list[tuple[RawPage, ParsedPage]], Queue]:
        async with queue(*forms) as platform, polling(platform.port) as poll:
            return [await poll() for _ in range(polls)], platform

    return asyncio.run(patiently(run()))


def names(reading: ParsedPage) -> list[object]:
    return [event.fields["file_name"] for event in reading.events]


# ---------------------------------------------------------------- every form


def test_there_are_enough_forms() -> None:
    assert len(FORMS) >= 80


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_message_of_an_answer_comes_out_once_whatever_its_head_looks_like(form: Form) -> None:
    answers, platform = polled(form)
    assert platform.dequeues == platform.connections == POLLS
    came = [one for _, reading in answers for one in names(reading)]
    assert came == [name(number) for number in range(POLLS * EACH)]
    for page, reading in answers:
        assert page.whole is form.whole, (page.odd, page.body[-40:])
        assert form.odd in page.odd
        assert bool(page.odd) is bool(form.odd), page.odd
        assert page.odd in reading.detail
        assert reading.outcome is (PollOutcome.FULL if form.whole else PollOutcome.UNCERTAIN)


def test_the_detail_of_a_poll_names_what_is_odd_about_its_answer() -> None:
    [(_, reading)], _ = polled(FORMS["a header of 9,000 bytes"], polls=1)
    assert reading.detail == "HTTP 200, odd head: a header of 9008 bytes"


def test_gzip_with_a_wrong_sum_gives_every_message_and_is_not_believed_to_be_whole() -> None:
    [(_, reading)], _ = polled(Form(packed(headed("Content-Encoding: gzip"), with_a_wrong_sum)), polls=1)
    assert names(reading) == [name(number) for number in range(EACH)]
    assert reading.outcome is PollOutcome.UNCERTAIN


def test_with_lengths_that_conflict_every_byte_until_the_close_is_kept() -> None:
    [(page, _)], _ = polled(FORMS["lengths that conflict"], polls=1)
    assert (json.loads(page.body)["ret"], page.whole) == (0, False)


def test_what_is_odd_is_logged_once_for_each_kind_and_not_for_each_poll() -> None:
    longer = [Form(headed("X-Node: " + "x" * size)) for size in (9_000, 9_100, 12_000)]
    with capture_logs() as log:
        polled(*longer, FORMS["bare LF"], FORMS["bare LF"], ORDINARY, polls=6)
    odd = [line["odd"] for line in log if line["event"] == "odd_answer"]
    assert odd == ["a header of 9008 bytes", "a line end without CR"]
    assert KEY not in repr(log)


def test_an_answer_that_repeats_our_request_in_a_header_or_in_its_body_shows_no_signature() -> None:
    async def run() -> RawPage:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"{" + request + KEY.encode())
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, polling(server.sockets[0].getsockname()[1]) as poll:
            page, _ = await poll()
            return page

    page = asyncio.run(run())
    assert b"Live_Queue_Get" in page.body
    assert KEY.encode() not in page.body
    assert b"sign=" in page.body
    assert not re.search(rb"sign=[0-9a-f]{32}", page.body)


# ---------------------------------------------------------------- connections


def test_a_connection_that_is_said_to_live_and_is_dead_costs_no_repeat_and_no_message() -> None:
    answers, platform = polled(Form(headed("Connection: keep-alive", "Keep-Alive: timeout=60")), polls=8)
    assert platform.dequeues == platform.connections == 8
    assert [one for _, reading in answers for one in names(reading)] == [name(n) for n in range(8 * EACH)]


def test_answers_in_pieces_of_any_size_are_read_alike() -> None:
    body = Queue().dequeue()
    for form in FORMS.values():
        answer = form.answer(body)
        at_once = AnswerReader(2**22)
        at_once.feed(answer)
        expected = at_once.received()
        for step in (1, 7, 1000) if len(answer) < 30_000 else (1000,):
            reader = AnswerReader(2**22)
            for at in range(0, len(answer), step):
                reader.feed(answer[at : at + step])
            assert reader.received() == expected


@given(st.binary(max_size=300), st.integers(1, 50))
@settings(deadline=None)
def test_no_bytes_whatsoever_raise_or_are_read_differently_in_pieces(noise: bytes, step: int) -> None:
    for before in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        whole, pieces = AnswerReader(1000), AnswerReader(1000)
        whole.feed(before + noise)
        for at in range(0, len(before + noise), step):
            pieces.feed((before + noise)[at : at + step])
        assert whole.received() == pieces.received()


# ---------------------------------------------------------------- what never ends


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nX-Node: " + b"x" * 5000 + b"\r\n\r\n",
        b"X-Node: 1\r\n",
        b"x" * 1000,
    ],
    ids=["103", "long 100", "headers", "one header"],
)
def test_an_answer_that_never_begins_is_left_within_bounds_and_delays_nothing_else(endless: bytes) -> None:
    async def run() -> tuple[float, int]:
        sent = 0

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n" if b"103" not in endless and b"100" not in endless else b"")
            try:
                while not writer.is_closing():
                    writer.write(endless * 50)
                    sent += 50 * len(endless)
                    await writer.drain()
            except OSError:
                pass
            writer.close()

        server = await asyncio.start_server(flood, "127.0.0.1", 0)
        async with server, Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as client:
            async with asyncio.timeout(PATIENCE):
                answer = await client.get({})
            assert not answer.whole
            return len(answer.body), sent

    kept, sent = asyncio.run(run())
    assert kept <= LARGEST_BODY
    assert sent < 40 * 2**20


def test_no_more_informational_answers_are_taken_than_anybody_sends() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    reader = AnswerReader(1000)
    reader.feed(interim * MOST_INTERIM + b"HTTP/1.1 200 OK\r\n")
    assert (reader.status, reader.full) == (200, False)
    reader = AnswerReader(1000)
    reader.feed(interim * (MOST_INTERIM + 1) + b"HTTP/1.1 200 OK\r\n")
    assert (reader.status, reader.full) == (None, True)
