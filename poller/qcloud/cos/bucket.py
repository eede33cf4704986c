"""Lists the bucket of an account. The keys sign a request, and the request goes to the bucket's own host only.

The host comes from the configuration and not from an event, so private addresses are allowed: within the platform's
own network the name of a bucket resolves to one.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from yarl import URL

from poller.core.errors import NotSent, PollerError
from poller.qcloud.cos.listing import MOST_KEYS, BadPage, ListPage, error_code, is_whole, read_page
from poller.qcloud.cos.signature import encoded
from poller.qcloud.cos.signer import Signer
from poller.qcloud.wire.client import Client, Deadlines, HttpReply
from poller.qcloud.wire.urls import bucket_endpoint
from poller.runtime.outbound import ssl_context
from poller.settings import AccountSettings, CosSettings

DEADLINES: Final = Deadlines(connect=5.0, progress=15.0, whole=60.0)
MEANS: Final = {
    "AccessDenied": "the key may not list this bucket (cos:GetBucket)",
    "InvalidAccessKeyId": "the store does not know secret_id",
    "NoSuchBucket": "there is no such bucket in this region",
    "SignatureDoesNotMatch": "secret_key does not belong to secret_id",
}


class ListingFailed(PollerError):
    """The bucket could not be listed. The text says why, without a URL or a signature."""


class Bucket:
    """The bucket of one account, to be entered before it is listed. A request may be cancelled, and repeated."""

    def __init__(
        self,
        name: str,
        settings: AccountSettings,
        ready: Callable[[], Awaitable[None]],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`ready` is the account's throttle. Raises `ListingFailed` where the account has no keys."""
        cos = settings.cos
        if not has_keys(settings) or cos is None or cos.secret_id is None or cos.secret_key_value is None:
            raise ListingFailed(no_keys(name))
        self._endpoint = URL(_endpoint(cos))
        self._signer = Signer(cos.secret_id.get_secret_value(), cos.secret_key_value, now=now)
        self._settings = settings
        self._ready = ready
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        client = Client(
            str(self._endpoint),
            tls=ssl_context(self._settings.tls),
            proxy=self._settings.proxy,
            deadlines=DEADLINES,
            complete=is_whole,
        )
        self._client = await client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.__aexit__(kind, error, trace)

    async def pages(
        self, prefix: str, *, after: str = "", delimiter: str = ""
    ) -> AsyncGenerator[ListPage, None]:
        """The pages of the keys that begin with `prefix` and come behind `after`; raises `ListingFailed`."""
        marker: str | None = after
        while marker is not None:
            page = await self.page(prefix, marker=marker, delimiter=delimiter)
            marker = page.following
            yield page

    async def page(self, prefix: str, *, marker: str = "", delimiter: str = "") -> ListPage:
        """One page of up to a thousand keys; raises `ListingFailed`."""
        params = {"prefix": prefix, "max-keys": str(MOST_KEYS), "encoding-type": "url"}
        params |= {"marker": marker} if marker else {}
        params |= {"delimiter": delimiter} if delimiter else {}
        ahead = self._signer.ahead
        reply = await self._ask(params)
        if reply.status == 403 and self._signer.corrects_clock(reply.date, signed=ahead):
            reply = await self._ask(params)
        if reply.status != 200:
            raise ListingFailed(f"{self._endpoint.host}: {_why(reply)}")
        try:
            return read_page(reply.body, prefix=prefix, marker=marker)
        except BadPage as error:
            raise ListingFailed(f"{self._endpoint.host}: {error}") from None

    async def _ask(self, params: dict[str, str]) -> HttpReply:
        assert self._client is not None, "enter the bucket first"
        await self._ready()
        url = self._endpoint
        headers = {"host": url.host_port_subcomponent or ""}
        signed = self._signer.sign("GET", url.path, headers=headers, params=params)
        query = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in params.items())
        asked = URL(f"{url}?{query}", encoded=True)
        try:
            reply = await self._client.send(asked, (("Authorization", signed),))
        except NotSent as error:
            raise ListingFailed(str(error)) from None
        if not reply.status:
            raise ListingFailed(f"{url.host}: no answer in time")
        return reply


def has_keys(settings: AccountSettings) -> bool:
    """Whether the bucket of an account can be listed."""
    return settings.cos is not None and not settings.cos.missing_to_list


def no_keys(account: str) -> str:
    """What is missing in the settings of an account whose bucket cannot be listed."""
    return (
        f"account {account}: its bucket cannot be listed without keys:"
        " set secret_id, secret_key_file and region under cos"
    )


def _endpoint(cos: CosSettings) -> str:
    if cos.endpoint is not None:
        return cos.endpoint if cos.endpoint.endswith("/") else f"{cos.endpoint}/"
    assert cos.bucket is not None
    assert cos.app_id is not None
    assert cos.region is not None
    return bucket_endpoint(cos.bucket, cos.app_id, cos.region)


def _why(reply: HttpReply) -> str:
    code = error_code(reply.body)
    if 300 <= reply.status < 400:
        return f"HTTP {reply.status}: a redirect is not followed, because requests are signed for the bucket's host"
    said = f"HTTP {reply.status} {code}".rstrip()
    return f"{said}: {MEANS[code]}" if code in MEANS else said
