"""The receiver of pushed notifications.

Each POST is one notification. The cheapest checks come first. The answer is sent after the notification is
committed.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from poller.core.errors import PollerError, StorageError
from poller.core.model import Event, ParsedPage, PollOutcome, PushOutcome, RawPage
from poller.core.ports import PushedSource, PushHandler
from poller.qcloud.events.notifications import RECORDING, notification_event
from poller.qcloud.events.screenshots import KIND as SHOT
from poller.qcloud.wire.messages import UnreadableMessage
from poller.qcloud.wire.signed_bodies import LARGEST, LATE, Fields, flaw, is_signed, mask, open_body
from poller.qcloud.wire.skew import CORRECTABLE
from poller.runtime.addresses import Address, address, caller_key, holds
from poller.runtime.clock import Clock
from poller.runtime.http_server import Listener, Refusal, proceed
from poller.sources.callbacks.callers import Refusals, Replays, caller
from poller.sources.callbacks.settings import CallbacksSettings

DEADLINE = 15.0
"""Seconds for a whole request. The platform waits 20 seconds for the answer."""
MOST_CONNECTIONS = 256
MOST_OF_ONE = 128
"""The most connections of one address. Behind a trusted proxy: the most requests of one caller that it names."""
GRACE = 8.0
SHORTEST_MASKED = 8
"""The least length of a secret that is masked anywhere in a body. A shorter text would be found by chance."""
EARLY = 60.0
"""Seconds by which a shot may be ahead of our clock. Clocks differ, but no picture is announced before it is taken."""
TAKEN = b'{"code":0}'


class OfAccount(Protocol):
    """The part of an account that the receiver uses."""

    key: str
    picture_base: str | None

    @property
    def skew(self) -> float: ...


class TurnedAway(PollerError):
    """A request is refused, with an HTTP status and a reason. The reason has no text from the request."""

    def __init__(self, status: int, reason: str = "", outcome: PushOutcome = PushOutcome.REFUSED) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.outcome = outcome


class Callbacks(PushedSource):
    """Receives the notifications of one account."""

    Settings = CallbacksSettings

    def __init__(
        self,
        name: str,
        settings: CallbacksSettings,
        accounts: Mapping[str, OfAccount],
        clock: Clock | None = None,
    ) -> None:
        assert settings.path is not None, "the settings see to it"
        self.name = name
        self.account = settings.account
        self._account = accounts[settings.account]
        self._settings = settings
        self._path = settings.path.get_secret_value().encode()
        self._keys = settings.good_keys()
        secrets = (*self._keys, self._account.key, settings.path.get_secret_value())
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_MASKED]
        self._clock = clock or Clock()
        self._refusals = Refusals()
        self._replays = Replays()
        self._present: Counter[str] = Counter()
        """The number of open requests behind trusted proxies, by caller."""
        self._listener = Listener(
            settings.listen.host,
            settings.listen.port,
            self._answer,
            deadline=DEADLINE,
            most=MOST_CONNECTIONS,
            each=MOST_OF_ONE,
            exempt=self._is_proxy,
            refused=self._count_refusal,
            grace=GRACE,
        )
        self._handler: PushHandler

    @property
    def address(self) -> str:
        """The address that is bound: host and port."""
        host = self._listener.host
        return f"[{host}]:{self._listener.port}" if ":" in host else f"{host}:{self._listener.port}"

    def attach(self, handler: PushHandler) -> None:
        """See `PushedSource.attach`."""
        self._handler = handler

    async def __aenter__(self) -> Self:
        await self._listener.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `PushedSource.close`."""
        await self._listener.close()

    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """Parse a notification, which is one event."""
        event = self._event(page)
        # the signature does not cover the body: the queue and the lists are more reliable
        provisional = event.kind in (SHOT, RECORDING)
        return ParsedPage(events=(event,), rejects=(), outcome=PollOutcome.PARTIAL, provisional=provisional)

    def _event(self, page: RawPage) -> Event:
        return notification_event(
            page.body,
            account=self.account,
            picture_base=self._account.picture_base,
            received_at=page.received_at,
        )

    # ------------------------------------------------------------ one request

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._is_ours(request):
            self._handler.turn_away(PushOutcome.REFUSED)
            return web.Response(status=404)
        who = caller(
            request.remote, request.headers.getall("X-Forwarded-For", ()), self._settings.trusted_proxies
        )
        try:
            with self._present_once(who if self._is_proxy(request.remote) else None):
                await self._take(request, who)
        except TurnedAway as error:
            return self._refusal_answer(error, who)
        except StorageError:
            return web.Response(status=503, headers={"Retry-After": "5"})
        return web.Response(body=TAKEN, content_type="application/json")

    async def _take(self, request: web.BaseRequest, who: Address | None) -> None:
        """Check a request, cheap checks first, and return after its commit; raises `TurnedAway`, `StorageError`."""
        self._check_caller(who)
        body = await _body(request)
        fields = _open_body(body)
        received_at = self._clock.now()
        ours = received_at.timestamp()
        theirs = ours + self._skew()
        self._check_signature(fields, ours, theirs)
        now = min(ours, theirs)  # remember a request as long as either clock would accept it again
        digest = _digest(fields, body)
        monotonic = self._clock.monotonic()
        if self._replays.holds(digest, monotonic):
            self._handler.turn_away(PushOutcome.KNOWN)
            return
        page = self._page(received_at, fields)
        self._check_moment(page, max(ours, theirs))
        await self._handler.accept(page)
        self._replays.add(digest, monotonic + _lives_until(fields, now) - now, monotonic)

    def _page(self, received_at: datetime, fields: Fields) -> RawPage:
        return RawPage(
            source=self.name,
            received_at=received_at,
            status=200,
            encoding="",
            whole=True,
            body=mask(fields, self._secrets),
        )

    @contextmanager
    def _present_once(self, who: Address | None) -> Iterator[None]:
        """Count a request of a caller that a trusted proxy names. The listener counts all others."""
        if who is None:
            yield
            return
        home = caller_key(who)
        if self._present[home] >= MOST_OF_ONE:
            raise TurnedAway(503, "too many requests at once")
        self._present[home] += 1
        try:
            yield
        finally:
            self._present[home] -= 1
            if not self._present[home]:
                del self._present[home]

    def _is_proxy(self, peer: str | None) -> bool:
        found = address(peer)
        return found is not None and holds(self._settings.trusted_proxies, found)

    def _count_refusal(self, refusal: Refusal) -> None:
        """Count a connection that was refused before a request. The listener itself reports too many connections."""
        who = address(refusal.peer)
        reported = not refusal.crowded and self._refusals.count(who, self._clock.monotonic())
        reason = f"{refusal.reason}, from {who or 'unknown'}" if reported else ""
        self._handler.turn_away(PushOutcome.REFUSED, reason)

    def _is_ours(self, request: web.BaseRequest) -> bool:
        path = request.path.encode("utf-8", "surrogateescape")
        return request.method == "POST" and hmac.compare_digest(path, self._path)

    def _check_caller(self, who: Address | None) -> None:
        allowed = self._settings.allow_from
        if allowed and (who is None or not holds(allowed, who)):
            raise TurnedAway(403, "not in allow_from")

    def _check_signature(self, fields: Fields, ours: float, theirs: float) -> None:
        """Check the signature. Its `t` must be valid by our clock, or by the platform's clock as measured."""
        if not is_signed(fields):
            found = None if self._settings.unsigned == "allow" else "not signed"
        else:
            found = flaw(fields, self._keys, ours)
            if found is not None and theirs != ours:
                found = flaw(fields, self._keys, theirs)
        if found is not None:
            raise TurnedAway(403, found, PushOutcome.REFUSED_SIGNATURE)

    def _check_moment(self, page: RawPage, now: float) -> None:
        """Refuse a picture of the future: otherwise a caller could announce the pictures of days to come."""
        try:
            ahead = shot_ahead(self._event(page), now)
        except Exception:  # a bug in a parser: the intake quarantines the page and reports it
            return
        if ahead > EARLY:
            raise TurnedAway(403, f"its shot is {ahead:.0f} s ahead")

    def _skew(self) -> float:
        """Seconds by which the platform's clock is ahead; 0 if the measured value is implausible."""
        skew = self._account.skew
        return skew if abs(skew) <= CORRECTABLE else 0.0

    def _refusal_answer(self, error: TurnedAway, who: Address | None) -> web.Response:
        # Only the reports are limited, not the callers: the platform and others may share the address of
        # a proxy. A good signature is accepted, however many bad ones came before it.
        reported = self._refusals.count(who, self._clock.monotonic())
        self._handler.turn_away(error.outcome, f"{error.reason}, from {who or 'unknown'}" if reported else "")
        limited = not reported and error.outcome is PushOutcome.REFUSED_SIGNATURE
        return web.Response(status=429 if limited else error.status)


async def _body(request: web.BaseRequest) -> bytes:
    if (request.content_length or 0) > LARGEST:
        raise TurnedAway(413, "larger than 256 KiB")
    packed = request.headers.get("Content-Encoding", "identity").lower() != "identity"
    if request.content_type.lower() != "application/json" or packed:
        raise TurnedAway(415, "not application/json, or packed")
    proceed(request)
    body = bytearray()
    try:
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > LARGEST:
                raise TurnedAway(413, "larger than 256 KiB")
    except (ConnectionError, web.RequestPayloadError):
        raise TurnedAway(400, "cut") from None
    return bytes(body)


def _open_body(body: bytes) -> Fields:
    try:
        return open_body(body)
    except UnreadableMessage as error:
        raise TurnedAway(400, str(error)) from None


def _digest(fields: Fields, body: bytes) -> bytes:
    signature = f"{fields.get('sign')}\0{fields.get('t')}\0".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(signature + body, digest_size=16).digest()


def shot_ahead(event: Event, now: float) -> float:
    """Seconds by which the shot of a picture is ahead of `now`; 0 for other kinds.

    `occurred_at` comes from `create_time` where there is one, rather than from the name: in a published body
    the name is four hours ahead of it.
    """
    if event.kind != SHOT:
        return 0.0
    return event.occurred_at.timestamp() - now


def _lives_until(fields: Fields, now: float) -> float:
    """The epoch from which the signature is too old, so that its request need not be remembered any more."""
    return (int(fields["t"]) if "t" in fields else now) + LATE
