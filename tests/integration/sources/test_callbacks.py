"""The receiver of notifications, over real sockets: what is taken, what is refused, and in which order."""

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from poller.core.errors import BadConfiguration, StorageError, StorageFull
from poller.core.model import Event, PushOutcome, RawPage
from poller.core.ports import PushedSource
from poller.pipeline.push_intake import PushIntake
from poller.qcloud.pictures.hosts import HostList, vet
from poller.qcloud.wire.account import Account
from poller.runtime import http_server as listen
from poller.runtime.addresses import address
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import AccountSettings, load
from poller.sources.callbacks import Callbacks, CallbacksSettings, receiver
from poller.sources.callbacks.callers import (
    MOST_CALLERS,
    PERIOD,
    REPORTED,
    Refusals,
    Replays,
    caller,
)
from poller.testing.history import newest_events
from tests.fakes import sqlite_spool
from tests.integration.sources.pushes import (
    KEY,
    PATH,
    PUSH_SECRET,
    RECORDING_2018,
    SAMPLES,
    SCREENSHOT_2018,
    shot,
    signature,
    signed,
)
from tests.patience import patiently

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EPOCH = NOW.timestamp()
OK = (200, b'{"code":0}')


class ManualClock(Clock):
    """A clock that stands where it was put."""

    def __init__(self, now: datetime = NOW) -> None:
        self.at = now

    def now(self) -> datetime:
        return self.at


class Door:
    """A push handler that keeps what it is given, or refuses as scripted."""

    def __init__(self) -> None:
        self.pages: list[RawPage] = []
        self.away: list[tuple[PushOutcome, str]] = []
        self.error: StorageError | None = None
        self.hold: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def accept(self, page: RawPage) -> None:
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.pages.append(page)

    def turn_away(self, outcome: PushOutcome, reason: str = "") -> None:
        self.away.append((outcome, reason))


def account(skew: float = 0.0) -> Account:
    settings = AccountSettings.model_validate(
        {"app_id": 1, "key": "the api key", "cos": {"bucket": "shots", "app_id": 1250000000}}
    )
    made = Account("main", settings)
    made._skew = made._skew.__class__(low=skew, high=skew, state="corrected")
    return made


def source(clock: Clock | None = None, skew: float = 0.0, **settings: Any) -> Callbacks:
    said = {"type": "callbacks", "account": "main", "listen": "127.0.0.1:0", "path": PATH, **settings}
    if not {"key", "keys", "unsigned"} & settings.keys():
        said["key"] = KEY
    read = Callbacks.Settings.model_validate_json(json.dumps(said))
    return Callbacks("pushed", read, {"main": account(skew)}, clock or ManualClock())


Scenario = Callable[[Callbacks, Door], Awaitable[None]]


def tell(scenario: Scenario, *, clock: Clock | None = None, skew: float = 0.0, **settings: Any) -> Door:
    async def main() -> Door:
        made, door = source(clock, skew, **settings), Door()
        made.attach(door)
        async with made:
            await scenario(made, door)
        return door

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # what the program runs on
        return runner.run(patiently(main()))


async def ask(to: Callbacks, request: bytes) -> tuple[int, bytes]:
    """Send bytes; status and body of the answer, 0 when it was cut."""
    host, _, port = to.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        answer = await reader.read()
    except ConnectionError:
        return 0, b""
    finally:
        writer.close()
    if not answer:
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def request(body: bytes, *headers: str, path: str = PATH, method: str = "POST", length: bool = True) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if not any(header.lower().startswith("content-type") for header in headers):
        lines.append("Content-Type: application/json")
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


async def push(to: Callbacks, body: bytes, *headers: str, **how: Any) -> tuple[int, bytes]:
    return await ask(to, request(body, *headers, **how))


def good(number: int = 1, key: str = KEY, **more: Any) -> bytes:
    return signed({**shot(number), **more}, key=key, now=EPOCH)


def events(to: Callbacks, door: Door) -> list[Event]:
    return [event for page in door.pages for event in to.read(page, b"").events]


# ---------------------------------------------------------------- what is taken


def test_it_is_a_pushed_source() -> None:
    assert isinstance(source(), PushedSource)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_published_notification_is_taken_and_answered_as_the_platform_wants(name: str) -> None:
    fields = SAMPLES[name]
    when = fields.get("create_time") or fields.get("event_time") or fields["end_time"]
    clock = ManualClock(datetime.fromtimestamp(when, UTC) + timedelta(seconds=4))

    async def scenario(to: Callbacks, door: Door) -> None:
        for t in (when + 604, str(when + 664)):
            assert await push(to, signed(fields, t=t)) == OK
        first, second = events(to, door)
        assert first.id == second.id, "a repeat with a fresh t"
        assert first.stream_id == fields["stream_id"]
        assert door.pages[0].received_at == clock.now()

    tell(scenario, clock=clock)


def test_the_answer_is_json_and_the_connection_ends() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(good()))
        head = (await reader.read()).partition(b"\r\n\r\n")[0].lower()
        assert b"content-type: application/json" in head
        writer.close()

    tell(scenario)


@pytest.mark.parametrize(
    "type", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
def test_any_spelling_of_the_content_type_is_taken(type: str) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        assert await push(to, good(), f"Content-Type: {type}") == OK

    tell(scenario)


def test_a_chunked_body_is_taken() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        body = good()
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:7], body[7:])) + b"0\r\n\r\n"
        sent = request(chunks, "Transfer-Encoding: chunked", length=False)
        assert await ask(to, sent) == OK
        assert len(door.pages) == 1

    tell(scenario)


def test_a_picture_may_be_fetched_from_the_accounts_hosts_and_from_no_other() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        await push(to, good(1))
        await push(to, good(2, pic_full_url="http://127.0.0.1:9464/metrics"))
        own, foreign = events(to, door)
        hosts = HostList(exact=frozenset((host, None) for host in account().picture_hosts))
        assert vet(own.url, hosts).path == shot(1)["pic_url"]
        assert foreign.id != own.id
        with pytest.raises(Exception, match="allow_hosts"):
            vet(foreign.url, hosts)

    tell(scenario)


def test_a_burst_is_taken_whole() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        answers = await asyncio.gather(*(push(to, good(n)) for n in range(200)))
        assert set(answers) == {OK}
        assert len({event.id for event in events(to, door)}) == 200

    tell(scenario)


# ---------------------------------------------------------------- what is refused

SIGNED_BADLY = signed(shot(1), key="another key", now=EPOCH)


@pytest.mark.parametrize(
    "sent",
    [
        request(good(), path="/"),
        request(good(), path=PATH + "/"),
        request(good(), path=PATH[:-1]),
        request(good(), path=PATH.upper()),
        request(good(), path="/x" + PATH),
        request(good(), path="/%ff%00"),
        request(b"", method="GET"),
        request(good(), method="PUT"),
        request(b"", method="HEAD"),
        request(b"", method="OPTIONS"),
        request(b"x" * 300_000, "Content-Type: text/html", path="/wrong"),
    ],
)
def test_any_other_path_or_method_is_not_there_and_gives_no_hint(sent: bytes) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        status, body = await ask(to, sent)
        assert (status, body) in ((404, b""), (0, b""))
        assert door.away == [(PushOutcome.REFUSED, "")]
        assert door.pages == []

    tell(scenario)


AHEAD_A = f"room_{int(EPOCH)}_{int(EPOCH)}_70_300_169.jpg"
AHEAD_B = "/2026-01-02/room-screenshot-11-05-20-300x169.jpg"
"""Beijing time."""
REFUSED, SIGNATURE = PushOutcome.REFUSED, PushOutcome.REFUSED_SIGNATURE


@pytest.mark.parametrize(
    ("sent", "status", "outcome", "reason"),
    [
        (request(b"", "Content-Length: 262145", length=False), 413, REFUSED, "larger than 256 KiB"),
        (request(b"x" * 262_145), 413, REFUSED, "larger than 256 KiB"),
        (request(good(), "Content-Type: text/plain"), 415, REFUSED, "not application/json, or packed"),
        (
            request(good(), "Content-Type: application/x-www-form-urlencoded"),
            415,
            REFUSED,
            "not application/json, or packed",
        ),
        (
            request(gzip.compress(good()), "Content-Encoding: gzip"),
            415,
            REFUSED,
            "not application/json, or packed",
        ),
        (request(b"{"), 400, REFUSED, "not JSON"),
        (request(b""), 400, REFUSED, "not JSON"),
        (request(b"[]"), 400, REFUSED, "not an object"),
        (request(b'{"t":1,"t":2}'), 400, REFUSED, "a name stands twice"),
        (request(b'{"a":' * 1000 + b"1" + b"}" * 1000), 400, REFUSED, "too deep"),
        (request(b'{"a":' + b"1" * 400 + b"}"), 400, REFUSED, "a number is too long"),
        (request(json.dumps(shot(1)).encode()), 403, SIGNATURE, "not signed"),
        (request(json.dumps({**shot(1), "t": int(EPOCH)}).encode()), 403, SIGNATURE, "no signature"),
        (
            request(json.dumps({**shot(1), "sign": "x"}).encode()),
            403,
            SIGNATURE,
            "t is not ten digits",
        ),
        (request(SIGNED_BADLY), 403, SIGNATURE, "wrong signature"),
        (request(signed(shot(1), t=f"{int(EPOCH)}x")), 403, SIGNATURE, "t is not ten digits"),
        (request(signed(shot(1), t=int(EPOCH) + 901)), 403, SIGNATURE, "t is 901 s ahead"),
        (request(signed(shot(1), t=int(EPOCH) - 3601)), 403, SIGNATURE, "t was 3601 s ago"),
        (request(good(create_time=int(EPOCH) + 61)), 403, REFUSED, "its shot is 61 s ahead"),
        (request(good(pic_url=AHEAD_A)), 403, REFUSED, "its shot is 70 s ahead"),
        (request(good(pic_url=AHEAD_B)), 403, REFUSED, "its shot is 75 s ahead"),
    ],
)
def test_each_check_refuses_for_its_own_reason(
    sent: bytes, status: int, outcome: PushOutcome, reason: str
) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        assert await ask(to, sent) in ((status, b""), (0, b""))
        assert door.away == [(outcome, f"{reason}, from 127.0.0.1")]
        assert door.pages == []
        assert await push(to, good()) == OK

    tell(scenario)


def test_the_checks_come_in_the_order_of_what_they_cost() -> None:
    elsewhere: dict[str, Any] = {"allow_from": ["192.0.2.0/24"], "trusted_proxies": ["127.0.0.1"]}

    async def scenario(to: Callbacks, door: Door) -> None:
        inside = "X-Forwarded-For: 192.0.2.9"
        large, form = "Content-Length: 999999", "Content-Type: text/plain"
        wrong = [
            (404, request(b"", large, form, path="/wrong", length=False)),
            (403, request(b"", large, form, length=False)),
            (413, request(b"", inside, large, form, length=False)),
            (415, request(b"{", inside, form)),
            (400, request(b"{", inside)),
            (403, request(b'{"t":0,"sign":0}', inside)),
            (403, request(SIGNED_BADLY, inside)),
        ]
        for status, sent in wrong:
            assert (await ask(to, sent))[0] == status
        assert [reason.partition(",")[0] for _, reason in door.away] == [
            "",
            "not in allow_from",
            "larger than 256 KiB",
            "not application/json",
            "not JSON",
            "t is not ten digits",
            "wrong signature",
        ]
        assert await push(to, good(), inside) == OK

    tell(scenario, **elsewhere)


def test_an_endless_body_is_cut_off_at_the_limit() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(b"", "Transfer-Encoding: chunked", length=False))
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
                await writer.drain()
        status = await reader.readline() if not reader.at_eof() else b" 413 "
        assert b" 413 " in status
        assert door.away == [(REFUSED, "larger than 256 KiB, from 127.0.0.1")]
        writer.close()

    tell(scenario)


def test_a_body_that_is_cut_or_broken_is_nobodys_notification() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(good(2))[:-20])  # whole, it would be a second page
        await writer.drain()
        writer.close()
        await ask(to, request(b"zz\r\n", "Transfer-Encoding: chunked", length=False))
        for sent in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", f"POST {PATH} HTTP/9.9\r\n\r\n".encode()):
            assert (await ask(to, sent))[0] in (0, 400)
        assert await push(to, good()) == OK
        assert len(door.pages) == 1

    with structlog.testing.capture_logs() as logs:
        tell(scenario)
    assert logs == []


def test_what_is_sent_slowly_is_cut_and_others_are_served_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "DEADLINE", 4.0)  # longer than this process is ever held up

    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        body = good()

        async def drip(sent: bytes) -> None:
            reader, writer = await asyncio.open_connection(host, int(port))
            cut = asyncio.ensure_future(reader.read())
            for byte in sent:
                if cut.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.wait({cut}, timeout=0.05)
            assert cut.done()
            assert cut.exception() is not None or cut.result() == b""
            writer.close()

        slow = [asyncio.ensure_future(drip(request(body))) for _ in range(20)]
        slow.append(asyncio.ensure_future(drip(request(b"")[:-4] + b"a" * 999)))
        assert await push(to, good(2)) == OK
        await asyncio.gather(*slow)
        assert await push(to, good(3)) == OK
        assert len(door.pages) == 2

    tell(scenario)


def test_a_flood_of_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "DEADLINE", 0.5)
    monkeypatch.setattr(receiver, "MOST_CONNECTIONS", 20)

    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        flood = [await asyncio.open_connection(host, int(port)) for _ in range(60)]
        for reader, writer in flood:
            with contextlib.suppress(ConnectionError):
                assert (await reader.read())[:12] in (b"", b"HTTP/1.1 503")
            writer.close()
        assert await push(to, good()) == OK

    tell(scenario)
    assert listen.MOST_CONNECTIONS == 64


@pytest.mark.parametrize(
    "fields",
    [
        {"create_time": int(EPOCH) + 60},
        {"create_time": str(int(EPOCH) + 60)},
        {"pic_url": AHEAD_A, "create_time": int(EPOCH)},
        {"pic_url": "cover.jpg"},
        {"pic_url": AHEAD_A.replace("_70_", "_60_")},
    ],
)
def test_a_picture_of_this_minute_is_taken(fields: dict[str, Any]) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        assert await push(to, good(**fields)) == OK

    tell(scenario)


def test_what_nothing_proves_is_provisional() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        for fields in (shot(1), RECORDING_2018):
            assert await push(to, signed(fields, now=EPOCH)) == OK
        assert [to.read(page, b"").provisional for page in door.pages] == [True, True]

    tell(scenario)


def test_a_shot_is_ahead_by_the_platforms_clock_and_by_ours() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        assert await push(to, good(create_time=int(EPOCH) + 120)) == OK

    tell(scenario, skew=100.0)


# ---------------------------------------------------------------- repeats, keys, clocks


def test_a_captured_notification_that_is_sent_again_is_answered_and_stored_once() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        for _ in range(5):
            assert await push(to, good()) == OK
        assert len(door.pages) == 1
        assert door.away == [(PushOutcome.KNOWN, "")] * 4
        assert await push(to, good(2)) == OK
        assert len(door.pages) == 2, "the signature covers no body, so another body is another notification"

    tell(scenario)


def test_a_repeat_that_comes_before_the_commit_waits_for_its_own() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        door.hold = asyncio.Event()
        first = asyncio.ensure_future(push(to, good()))
        await door.begun.wait()
        second = asyncio.ensure_future(push(to, good()))
        await asyncio.sleep(0.05)
        assert not first.done()
        assert not second.done()
        door.hold.set()
        assert [await first, await second] == [OK, OK]
        assert len({event.id for event in events(to, door)}) == 1

    tell(scenario)


@pytest.mark.parametrize("error", [StorageFull("disk full"), StorageError("I/O error")])
def test_what_could_not_be_committed_is_refused_and_taken_when_it_comes_again(error: StorageError) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        door.error = error
        for _ in range(3):
            assert await push(to, good()) == (503, b"")
        door.error = None
        assert await push(to, good()) == OK
        assert len(door.pages) == 1
        assert door.away == []

    tell(scenario)


def test_a_notification_is_known_as_long_as_its_signature_lives() -> None:
    clock = ManualClock()

    async def scenario(to: Callbacks, door: Door) -> None:
        body = signed(shot(1), t=int(EPOCH) + 600)
        assert await push(to, body) == OK
        for seconds, status in ((4199, 200), (4201, 403)):
            clock.at = NOW + timedelta(seconds=seconds)
            assert (await push(to, body))[0] == status
        assert len(door.pages) == 1

    tell(scenario, clock=clock)


def test_either_key_is_good_during_rotation_and_the_old_one_is_not_afterwards() -> None:
    async def both(to: Callbacks, door: Door) -> None:
        assert await push(to, good(1, "old")) == OK
        assert await push(to, good(2, "new")) == OK
        assert (await push(to, good(3, "neither")))[0] == 403

    async def new(to: Callbacks, door: Door) -> None:
        assert (await push(to, good(1, "old")))[0] == 403
        assert await push(to, good(2, "new")) == OK

    tell(both, keys=["new", "old"])
    tell(new, key="new")


@pytest.mark.parametrize(
    ("skew", "late", "status"),
    [
        (0, 900, 200),
        (0, 905, 403),
        (300, 1195, 200),
        (300, 1205, 403),
        (-300, 895, 200),
        (-300, 905, 403),
        (300, -3595, 200),
        (300, -3605, 403),
        (-300, -3895, 200),
        (-300, -3905, 403),
        (-3000, 600, 200),
        (3000, 600, 200),
        (7200, 895, 200),
        (7200, 905, 403),
    ],
)
def test_a_push_is_good_by_our_clock_or_by_the_platforms_as_far_as_that_is_believed(
    skew: float, late: int, status: int
) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        assert (await push(to, signed(shot(1), t=int(EPOCH) + late)))[0] == status

    tell(scenario, skew=skew)


def test_unsigned_notifications_are_taken_only_where_that_is_allowed_and_from_there() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        unsigned = json.dumps(shot(1)).encode()
        assert await push(to, unsigned) == OK
        assert await push(to, unsigned) == OK
        assert len(door.pages) == 1
        assert (await push(to, unsigned, "X-Forwarded-For: 192.0.2.1"))[0] == 403
        assert (await push(to, SIGNED_BADLY))[0] == 403, "a signature that is there has to be good"
        assert (await push(to, json.dumps({**shot(1), "t": int(EPOCH)}).encode()))[0] == 403

    keys: list[dict[str, Any]] = [{}, {"key": KEY}]
    for more in keys:
        tell(scenario, unsigned="allow", allow_from=["127.0.0.0/8"], trusted_proxies=["127.0.0.1"], **more)


# ---------------------------------------------------------------- who calls


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("192.0.2.1", [], [], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.1"], [], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.1"], ["198.51.100.0/24"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1"], ["127.0.0.1/32"], "192.0.2.1"),
        ("127.0.0.1", [], ["127.0.0.1/32"], "127.0.0.1"),
        ("127.0.0.1", ["10.9.9.9, 192.0.2.1"], ["127.0.0.1/32"], "192.0.2.1"),
        ("127.0.0.1", ["10.9.9.9", "192.0.2.1"], ["127.0.0.1/32"], "192.0.2.1"),
        ("127.0.0.1", ["10.9.9.9,192.0.2.1 , 10.0.0.7"], ["127.0.0.1/32", "10.0.0.0/24"], "192.0.2.1"),
        ("127.0.0.1", ["10.0.0.1,10.0.0.2"], ["127.0.0.1/32", "10.0.0.0/24"], "10.0.0.1"),
        ("127.0.0.1", ["192.0.2.1:4711"], ["127.0.0.1/32"], "192.0.2.1"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], ["127.0.0.1/32"], "2001:db8::1"),
        ("127.0.0.1", ["2001:db8::1"], ["127.0.0.1/32"], "2001:db8::1"),
        ("::ffff:127.0.0.1", ["::ffff:192.0.2.1"], ["127.0.0.1/32"], "192.0.2.1"),
        ("fe80::1%eth0", ["192.0.2.1"], ["fe80::/10"], "192.0.2.1"),
        ("127.0.0.1", ["unknown"], ["127.0.0.1/32"], None),
        ("127.0.0.1", ["192.0.2.1, "], ["127.0.0.1/32"], None),
        ("127.0.0.1", ["192.0.2.1", "_hidden"], ["127.0.0.1/32"], None),
        ("127.0.0.1", [""], ["127.0.0.1/32"], None),
        ("127.0.0.1", ["192.0.2.1\t"], ["127.0.0.1/32"], "192.0.2.1"),
        ("127.0.0.1", ["1" * 10_000], ["127.0.0.1/32"], None),
        (None, ["192.0.2.1"], ["0.0.0.0/0"], None),
    ],
)
def test_the_caller_is_the_rightmost_hop_that_is_no_trusted_proxy(
    peer: str | None, forwarded: list[str], trusted: list[str], expected: str | None
) -> None:
    networks = source(allow_from=["127.0.0.1"], trusted_proxies=trusted)._settings.trusted_proxies
    found = caller(peer, forwarded, networks)
    assert (None if found is None else str(found)) == expected


def test_an_allow_list_holds_for_signed_notifications_too() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        for hop, status in (("192.0.2.77", 200), ("192.0.3.1", 403), ("2001:db8::5", 200), ("x", 403)):
            assert (await push(to, good(), f"X-Forwarded-For: 10.0.0.1, {hop}"))[0] == status
        assert (await push(to, good()))[0] == 403, "the proxy itself is none of them"

    tell(scenario, allow_from=["192.0.2.0/24", "2001:db8::/32"], trusted_proxies=["127.0.0.1"])


def test_wrong_signatures_are_reported_a_few_times_and_never_cost_a_good_one_its_answer() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        async def wrong(hop: str) -> int:
            return (await push(to, SIGNED_BADLY, f"X-Forwarded-For: {hop}"))[0]

        assert [await wrong("192.0.2.1") for _ in range(REPORTED + 5)] == [403] * REPORTED + [429] * 5
        assert await wrong("192.0.2.2") == 403
        assert await push(to, good(), "X-Forwarded-For: 192.0.2.1") == OK
        assert len([reason for _, reason in door.away if reason]) == REPORTED + 1
        assert len(door.away) == REPORTED + 6

    tell(scenario, trusted_proxies=["127.0.0.1"])


def test_the_table_of_refusals_is_bounded_and_forgets() -> None:
    refusals, one = Refusals(), address("192.0.2.1")
    assert [refusals.count(one, 0.0) for _ in range(REPORTED + 1)] == [True] * REPORTED + [False]
    assert not refusals.count(one, PERIOD - 1)
    assert refusals.count(one, PERIOD + 1)
    for number in range(3 * MOST_CALLERS):
        refusals.count(address(f"10.0.{number // 256}.{number % 256}"), PERIOD)
    assert len(refusals._since) == MOST_CALLERS
    houses = [address(f"2001:db8::{number}") for number in range(REPORTED + 1)]
    assert [refusals.count(house, 0.0) for house in houses][-1] is False, "one /64 is one caller"


def test_the_table_of_what_was_taken_is_bounded_and_forgets() -> None:
    replays = Replays(most=3)
    for number in range(5):
        replays.add(b"%d" % number, until=100.0 + number, now=0.0)
    assert [number for number in range(5) if replays.holds(b"%d" % number, 0.0)] == [2, 3, 4]
    assert not replays.holds(b"2", 102.0)
    replays.add(b"9", until=200.0, now=103.5)
    assert len(replays._until) == 2


# ---------------------------------------------------------------- secrets


def test_what_opens_a_stream_or_signs_never_gets_past_the_receiver() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        fields = {
            **RECORDING_2018,
            "note": f"{KEY} {PATH} the api key",
            "url": f"rtmp://h/a?txSecret={PUSH_SECRET}",
        }
        body = signed(fields, now=EPOCH)
        assert await push(to, body) == OK
        (page,), (event,) = door.pages, events(to, door)
        for place in (page.body, event.encoded):
            for secret in (PUSH_SECRET, KEY, PATH, "the api key", json.loads(body)["sign"]):
                assert secret.encode() not in place
        assert PATH not in repr(to._settings)
        assert KEY not in repr(to._settings)
        for wrong in (SIGNED_BADLY, body.replace(b'"t"', b'"tt"'), b'{"a":"' + PUSH_SECRET.encode(), b""):
            await push(to, wrong)
        reasons = " ".join(reason for _, reason in door.away)
        for secret in (PUSH_SECRET, KEY, PATH, signature("another key", int(EPOCH) + 600)):
            assert secret not in reasons

    tell(scenario)


# ---------------------------------------------------------------- with the core


def test_what_was_answered_is_in_the_spool_and_a_closed_receiver_takes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        metrics, made = Metrics(), source(Clock())
        async with sqlite_spool(tmp_path) as spool:
            intake = PushIntake(made, spool, metrics=metrics)
            made.attach(intake)
            async with made:
                assert (await push(made, signed(shot(0))))[0] == 503, "not begun"
                running = asyncio.ensure_future(intake.run())
                while intake.trouble is not None:
                    await asyncio.sleep(0)
                assert {await push(made, signed(shot(n))) for n in range(3)} == {OK}
                assert await push(made, signed(SCREENSHOT_2018)) == OK
                found = await newest_events(spool, 10)
                assert [event.stream_id for event in found] == ["stream_name", "room", "room", "room"]
                idle = await asyncio.open_connection(*made.address.split(":"))
                began = time.monotonic()
                intake.stop()
                await running
                assert time.monotonic() - began < 5, "somebody who only connects does not hold a stop up"
                idle[1].close()
                with pytest.raises(ConnectionError):
                    await push(made, signed(shot(9)))
        labels = {"source": "pushed", "outcome": "accepted"}
        assert metrics.registry.get_sample_value("poller_callbacks_total", labels) == 4

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(patiently(main()))


def test_at_a_stop_what_was_sent_whole_is_still_answered() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        door.hold = asyncio.Event()
        pushes = [asyncio.ensure_future(push(to, good(n))) for n in range(5)]
        await door.begun.wait()
        await asyncio.sleep(0.1)
        closing = asyncio.ensure_future(to.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        door.hold.set()
        assert await asyncio.gather(*pushes) == [OK] * 5
        await closing

    tell(scenario)


# ---------------------------------------------------------------- settings

GOOD = """\
accounts:
  main: {app_id: 1, key: k}
sources:
  pushed:
    type: callbacks
    account: main
%s
spool: {type: memory}
sinks:
  out: {type: stdout}
"""
LONG = "/aB3-_xYz0123456789"


def settings(folder: Path, *lines: str) -> CallbacksSettings:
    file = folder / "poller.yaml"
    file.write_text(GOOD % "\n".join(f"    {line}" for line in lines))
    (folder / "key").write_text("from a file\n")
    found = load(file, {"CANARY": "canary-9d2e-never-shown"}).sources["pushed"]
    assert isinstance(found, CallbacksSettings)
    return found


def test_settings_have_their_defaults_and_listen_on_loopback(tmp_path: Path) -> None:
    found = settings(tmp_path, f"path: {LONG}", "key: k")
    assert (str(found.listen), found.unsigned) == ("127.0.0.1:9465", "refuse")
    assert (found.allow_from, found.trusted_proxies) == ((), ())
    assert found.good_keys() == ("k",)


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        (["key_file: key"], ("from a file",)),
        (["keys: [new, old]"], ("new", "old")),
        (["unsigned: allow", "allow_from: [127.0.0.1]"], ()),
        (["unsigned: allow", "allow_from: [127.0.0.1]", "key: k"], ("k",)),
        (["key: k", "listen: 0.0.0.0:9465"], ("k",)),
        (["key: k", "allow_from: [10.0.0.0/8]", "trusted_proxies: [127.0.0.1]"], ("k",)),
        (["key: k", "allow_from: [10.0.0.0/8]", "listen: 0.0.0.0:9465"], ("k",)),
    ],
)
def test_a_way_to_know_the_platform_is_enough(
    lines: list[str], keys: tuple[str, ...], tmp_path: Path
) -> None:
    assert settings(tmp_path, f"path: /in/{LONG}/deep".replace("//", "/"), *lines).good_keys() == keys


@pytest.mark.parametrize(
    ("lines", "where", "said"),
    [
        (["key: k"], "path", "secrets.token_urlsafe(24)"),
        (["key: k", "path: /callbacks"], "path", "secrets.token_urlsafe(24)"),
        (["key: k", "path: /a/b/c/d/e/f/g/h/i/j/k/l/m"], "path", "secrets.token_urlsafe(24)"),
        (["key: k", "path: /short-canary-15"], "path", "secrets.token_urlsafe(24)"),
        (["key: k", f"path: {LONG[1:]}"], "path", "begins with a slash"),
        (["key: k", f"path: {LONG}/"], "path", "between slashes"),
        (["key: k", f"path: {LONG}?a=1"], "path", "between slashes"),
        (["key: k", f"path: '{LONG} b'"], "path", "between slashes"),
        (["key: k", f"path: {LONG}%41"], "path", "between slashes"),
        ([f"path: {LONG}"], "pushed", "needs key, key_file or keys"),
        ([f"path: {LONG}", "unsigned: allow"], "unsigned", "needs allow_from"),
        ([f"path: {LONG}", "unsigned: allow", "key: k"], "unsigned", "needs allow_from"),
        ([f"path: {LONG}", "unsigned: always"], "unsigned", "refuse"),
        ([f"path: {LONG}", "key: k", "keys: [k]"], "keys", "does not go with key"),
        ([f"path: {LONG}", "key: k", "key_file: key"], "key_file", "does not go with key"),
        ([f"path: {LONG}", "keys: []"], "keys", "cannot be empty"),
        ([f"path: {LONG}", "keys: [a, b, c, d, e]"], "keys", "at most 4"),
        ([f"path: {LONG}", "key: k", "allow_from: [10.0.0.1/8]"], "allow_from", "network"),
        ([f"path: {LONG}", "key: k", "allow_from: [10.0.0.0/8]"], "allow_from", "trusted_proxies"),
        ([f"path: {LONG}", "key: k", "listen: 9465"], "listen", "host and port"),
        (["key: ${CANARY}", "path: ${CANARY}"], "path", "begins with a slash"),
    ],
)
def test_settings_that_would_let_anybody_in_are_refused_with_the_remedy(
    lines: list[str], where: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadConfiguration) as caught:
        settings(tmp_path, *lines)
    (finding,) = caught.value.findings
    assert said in finding
    assert f"sources.pushed.{where}"[: None if where != "pushed" else 14] in finding
    assert "canary" not in finding
