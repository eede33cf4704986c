"""The sink `webhook`: a POST for each event or batch, signed by the rules of Standard Webhooks."""

import asyncio
import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator
from standardwebhooks import Webhook as Signer
from yarl import URL

from poller.core.errors import Gone, Rejected, SinkError, TryLater
from poller.core.event_lines import lines_of
from poller.core.model import Batch
from poller.core.ports import Sink
from poller.runtime.http_client import Route, Unreachable, client_context
from poller.runtime.http_poster import ConnectionLost, Poster
from poller.runtime.outbound import USER_AGENT, AddressGuard, literal_address, wait_seconds
from poller.runtime.resolver import Resolver
from poller.settings import (
    AccountSettings,
    Cidr,
    Duration,
    Secret,
    SecretsFile,
    SinkSettings,
    TlsSettings,
    Url,
    duration_between,
    wrong,
)
from poller.sinks.servers import tls_context

REJECTIONS = frozenset({400, 405, 413, 415, 422})

_ONE = "application/cloudevents+json"
_MANY = "application/cloudevents-batch+json"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SPEAKABLE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
_OURS = re.compile(
    r"accept-encoding|connection|content-.*|expect|host|keep-alive|proxy-.*|te|traceparent|trailer"
    r"|transfer-encoding|upgrade|user-agent|webhook-.*",
    re.IGNORECASE | re.ASCII,
)


# ---------------------------------------------------------------- settings


def _signing(secret: SecretStr) -> SecretStr:
    for line in secret.get_secret_value().splitlines():
        prefix, _, key = line.partition("_")
        try:
            size = len(base64.b64decode(key + "=" * (-len(key) % 4), validate=True))
        except ValueError:
            size = 0
        if prefix != "whsec" or size < 24:
            raise wrong("a Standard Webhooks secret is whsec_ and then 24 bytes or more as base64")
    return secret


def _extra(headers: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    names = [name.lower() for name in headers]
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise wrong("a header's name is letters, digits and -")
        if _OURS.fullmatch(name):
            raise wrong(f"the header {name} is the sink's own: remove it")
        if names.count(name.lower()) > 1:
            raise wrong(f"the header {name} is given twice")
        if not _SPEAKABLE.fullmatch(value.get_secret_value()):
            raise wrong(f"the header {name} holds a line break or a control character")
    return headers


SigningSecret = Annotated[Secret, AfterValidator(_signing)]


class WebhookSettings(SinkSettings):
    """Settings of a sink of type `webhook`."""

    url: Url = Field(description="The URL to which events are posted.")
    secret: SigningSecret | None = Field(
        default=None,
        description="The Standard Webhooks secret (whsec_…) that signs; prefer ${NAME} to it.",
    )
    secret_file: Annotated[SecretsFile, AfterValidator(_signing)] | None = Field(
        default=None, description="A file with the secret; during rotation two secrets, one a line."
    )
    secrets: tuple[SigningSecret, ...] = Field(
        default=(), description="Several secrets that all sign: the new and the old one during rotation."
    )
    headers: Annotated[Mapping[str, Secret], AfterValidator(_extra)] = Field(
        default={},
        description="Additional headers, such as Authorization. Their values are never shown.",
    )
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed as targets although they are not public."
    )
    tls: TlsSettings | None = Field(default=None, description="Certificates for an https URL.")
    proxy: Url | None = Field(
        default=None,
        description="An HTTP proxy. It resolves and guards addresses, and allow_cidr does not apply.",
    )
    timeout: Annotated[Duration, duration_between("1ms", "1h")] = Field(
        default=15.0, description="How long one POST may take before it counts as failed."
    )
    concurrency: int = Field(default=4, ge=1, le=256, description="The most POSTs at once.")

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> Self:
        ways = [name for name in ("secret", "secret_file", "secrets") if name in self.model_fields_set]
        for name in ways:
            if not getattr(self, name):
                raise wrong("a secret cannot be empty: remove it to post without a signature", at=name)
        if len(ways) > 1:
            raise wrong(f"does not go with {ways[0]}: remove one (secrets takes several)", at=ways[1])
        return self

    def contradictions(self, accounts: Mapping[str, AccountSettings]) -> Iterator[tuple[str, str]]:
        """See `SinkSettings.contradictions`."""
        address = literal_address(urlsplit(self.url).hostname or "")
        if address is not None and self.proxy is None and not AddressGuard(self.allow_cidr).allows(address):
            yield "url", f"{address} is not a public address: name it in allow_cidr to permit it"

    def signing(self) -> tuple[str, ...]:
        """All secrets that sign, in the order of the settings."""
        given = [self.secret, self.secret_file, *self.secrets]
        lines = [secret.get_secret_value().splitlines() for secret in given if secret is not None]
        return tuple(line for secret in lines for line in secret)


# ---------------------------------------------------------------- the sink


class Webhook(Sink):
    """Posts events to a URL. Only the status of the answer decides the outcome."""

    Settings = WebhookSettings

    def __init__(self, name: str, settings: WebhookSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        self._one_by_one = settings.batch.max_events == 1
        self._signers = tuple(Signer(secret) for secret in settings.signing())
        given = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._given = given if "accept" in map(str.lower, given) else {"Accept": "*/*", **given}

    async def __aenter__(self) -> Self:
        settings = self._settings
        context = tls_context(self.name, settings.tls)
        url, proxy = URL(settings.url), None if settings.proxy is None else URL(settings.proxy)
        route = Route(
            resolver=Resolver(),
            guard=AddressGuard(settings.allow_cidr),
            tls=client_context(context, url, proxy),
            proxy=proxy,
        )
        self._poster = Poster(url, route, limit=settings.concurrency)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._poster.close()

    async def deliver(self, batch: Batch) -> None:
        """Post the batch once, and return on a 2xx; raises a `SinkError` otherwise. May be cancelled and repeated."""
        until = asyncio.get_running_loop().time() + self._settings.timeout
        single = self._one_by_one and len(batch.events) == 1
        body = batch.events[0].encoded if single else _array(batch)
        headers = self._headers(batch.id, body, _ONE if single else _MANY, batch.traceparent)
        try:
            answer = await self._poster.post(headers, body, until=until)
        except (Unreachable, ConnectionLost) as error:
            raise TryLater(str(error)) from None
        if not 200 <= answer.status < 300:
            refused = refusal(answer.status, answer.retry_after, datetime.now(UTC))
            refused.said = answer.body
            raise refused
        if answer.early:
            raise TryLater(f"HTTP {answer.status} before the whole request was sent")

    def _headers(
        self, batch_id: str, body: bytes, content_type: str, traceparent: str = ""
    ) -> Iterable[tuple[str, str]]:
        now = datetime.now(UTC)
        headers = {
            "User-Agent": USER_AGENT,
            "Accept-Encoding": "identity",
            **self._given,
            "Content-Type": content_type,
            "webhook-id": batch_id,
            "webhook-timestamp": str(int(now.timestamp())),
        }
        if traceparent:
            headers["traceparent"] = traceparent
        if self._signers:
            text = body.decode()
            headers["webhook-signature"] = " ".join(
                signer.sign(batch_id, now, text) for signer in self._signers
            )
        return headers.items()


def _array(batch: Batch) -> bytes:
    return b"[" + b",".join(lines_of(batch.events)) + b"]"


# ---------------------------------------------------------------- answers


def refusal(status: int, retry_after: str | None, now: datetime) -> SinkError:
    """The error for a status that is not 2xx. A `Retry-After` applies if the batch is tried again."""
    if status in REJECTIONS:
        return Rejected(f"HTTP {status}")
    if status == 410:
        return Gone("HTTP 410")
    text = f"HTTP {status}: redirect refused" if 300 <= status < 400 else f"HTTP {status}"
    return TryLater(text, after=None if retry_after is None else wait_seconds(retry_after, now))
