"""The sink `s3`: pictures into a bucket of your own, by the S3 interface (AWS, MinIO, COS, OSS and others).

Delivered
    The store has answered 200 to the PUT of the whole picture, and the ETag is the picture's MD5. A store that encrypts
    gives other ETags: the length of the stored object is then compared. An object is never stored in part.

Twice
    A key is made of the event, so a repetition writes the same object again.

The library's calls run in threads: its coroutines can end the interpreter with an abort when the loop is closed.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import S3Store
from pydantic import Field, model_validator

from poller.core.errors import SinkError
from poller.core.model import Batch, Event
from poller.core.ports import ChecksDestination, Sink
from poller.qcloud.pictures.fetch import Arrived
from poller.qcloud.pictures.hosts import Target
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.settings import Secret, SecretFile, Url, wrong
from poller.sinks.brokers import check_hosts, header_value
from poller.sinks.picture_paths import Layout, parse_template
from poller.sinks.pictures import (
    FIELDS,
    HasPictureHosts,
    PictureSettings,
    PictureSource,
    PlaceTrouble,
    Template,
    report,
)

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_WITHIN: Final = timedelta(seconds=10)
LONGEST_REASON: Final = 2048
MD5_DIGITS: Final = 32
FAILURES: Final = (exceptions.BaseError, OSError)
"""What the library raises. For what is not there it raises Python's own `FileNotFoundError`."""


class S3Settings(PictureSettings):
    """The bucket, who writes to it, and which pictures it gets."""

    bucket: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="The bucket, such as live-pictures or live-1250000000 of COS.",
    )
    region: str = Field(
        default="us-east-1", pattern=r"^[A-Za-z0-9-]{1,50}$", description="The region of the bucket."
    )
    endpoint: Url | None = Field(
        default=None,
        description="The store's URL without the bucket; by default that of AWS for the region.",
        examples=["https://cos.ap-guangzhou.myqcloud.com", "http://minio.internal:9000"],
    )
    path_style: bool = Field(
        default=False,
        description="Whether the bucket is the first part of the path, as MinIO expects, and not of the host.",
    )
    template: Template = Field(
        default="{date}/{stream}/{name}", description=f"The key of a picture, from {FIELDS}"
    )
    access_key: Secret | None = Field(default=None, description="The id of the key; prefer ${NAME} to it.")
    access_key_file: SecretFile | None = Field(default=None, description="A file with the id of the key.")
    secret_key: Secret | None = Field(default=None, description="The key; prefer ${NAME} to it.")
    secret_key_file: SecretFile | None = Field(default=None, description="A file with the key.")
    uploads: int = Field(default=16, ge=1, le=256, description="The most pictures that are stored at once.")

    @model_validator(mode="after")
    def _whole_key(self) -> Self:
        for name in ("access_key", "secret_key"):
            given = [one for one in (name, f"{name}_file") if getattr(self, one) is not None]
            if len(given) > 1:
                raise wrong(f"does not go with {name}: remove one", at=f"{name}_file")
            if not given:
                raise wrong(f"is missing: give {name} or {name}_file", at=name)
        return self

    def address(self) -> tuple[str, str, int]:
        """The URL of the store, and the host and port that are connected to."""
        base = self.endpoint or f"https://s3.{self.region}.amazonaws.com"
        parts = urlsplit(base)
        host = parts.hostname or ""
        named = base if self.path_style else base.replace("://", f"://{self.bucket}.", 1)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return named.rstrip("/"), host if self.path_style else f"{self.bucket}.{host}", port

    def key(self) -> tuple[str, str]:
        """The id of the key, and the key."""
        pairs = ((self.access_key, self.access_key_file), (self.secret_key, self.secret_key_file))
        found = [(one or other) for one, other in pairs]
        return tuple(one.get_secret_value() for one in found if one is not None)  # type: ignore[return-value]


class S3(Sink, ChecksDestination):
    """Fetches and checks pictures as `download` does, and puts them into a bucket."""

    Settings = S3Settings

    def __init__(self, name: str, settings: S3Settings, accounts: Mapping[str, HasPictureHosts]) -> None:
        self.name = name
        self._settings = settings
        self._source = PictureSource(settings, accounts)
        self._layout = Layout(parts=parse_template(settings.template), lone=len(accounts) <= 1)
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._store = _store(self._settings)
        self._threads = ThreadPoolExecutor(self._settings.uploads, f"s3-{self.name}")
        self._open.push_async_callback(asyncio.to_thread, self._threads.shutdown, cancel_futures=True)
        await self._open.enter_async_context(self._source)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._open.aclose()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. An object is stored and deleted again."""
        await self._check_address()
        key = f".poller-check-{secrets.token_hex(8)}"
        try:
            await self._in_thread(self._put, key, b"check", {"Content-Type": "text/plain"})
        except SinkError as error:
            return [error.reason]
        try:
            await self._in_thread(obstore.delete, self._store, key)
        except FAILURES:
            return [f"the key may not delete, so that the object {key} of this check is left"]
        return []

    async def deliver(self, batch: Batch) -> None:
        """Store the pictures of all events; raises a `SinkError`, `PartlyFailed` for some of them.

        May be cancelled and repeated: a picture that is being stored then is stored whole, or not at all.
        """
        await self._check_address()
        async with self._source.fetch(batch.events) as fetched:
            stored = [self._in_thread(self._keep, *one) for one in fetched.arrived]
            errors = await asyncio.gather(*stored)
            failures = dict(fetched.failures)
        for (event, _, _), error in zip(fetched.arrived, errors, strict=True):
            if error is not None:
                failures[event.id] = error
        report(failures, batch.events)

    async def _check_address(self) -> None:
        _, host, port = self._settings.address()
        await check_hosts(self._resolver, self._guard, [(host, port)])

    def _keep(self, event: Event, target: Target, arrived: Arrived) -> SinkError | None:
        try:
            picture = arrived.picture()
            place = self._layout.place(event, target.path)
            key = "/".join((*place.folders, place.name))
            if self._settings.sidecar:  # first, so that a picture never lacks it
                self._put(
                    f"{key}.json", event.encoded + b"\n", {"Content-Type": "application/cloudevents+json"}
                )
            self._put(key, picture, _attributes(event))
        except SinkError as error:
            return error
        return None

    def _put(self, key: str, content: bytes, attributes: Mapping[str, str]) -> None:
        """Store an object; raises `PlaceTrouble` unless the store says that it has the whole of it."""
        try:
            done = obstore.put(self._store, key, content, attributes=dict(attributes), use_multipart=False)
            tag = str(done["e_tag"] or "").strip('"')
            if tag != hashlib.md5(content, usedforsecurity=False).hexdigest():
                self._compare_length(key, len(content), tag)
        except FAILURES as error:
            raise _translate(error) from None

    def _compare_length(self, key: str, size: int, tag: str) -> None:
        """A store that encrypts gives ETags that are no MD5. The length is what can still be compared."""
        if obstore.head(self._store, key)["size"] != size:
            raise PlaceTrouble(f"the store keeps an object of another length (ETag {tag[:MD5_DIGITS]})")

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))


def _attributes(event: Event) -> dict[str, str]:
    """The content type, and what the store keeps beside a picture (`x-amz-meta-…`)."""
    return {
        "Content-Type": "image/jpeg",
        "id": event.id,
        "account": header_value(event.account),
        "stream": header_value(event.stream_id),
        "time": event.occurred_at.isoformat(),
    }


def _store(settings: S3Settings) -> Any:
    url, _, _ = settings.address()
    access_key, secret_key = settings.key()
    return S3Store(
        settings.bucket,
        endpoint=url,
        region=settings.region,
        access_key_id=access_key,
        secret_access_key=secret_key,
        virtual_hosted_style_request=not settings.path_style,
        client_options={
            "allow_http": url.startswith("http://"),
            "connect_timeout": CONNECT_WITHIN,
            "timeout": timedelta(seconds=settings.timeout),
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},  # the courier retries
    )


def _translate(error: Exception) -> SinkError:
    """The error of a request. The library's text may hold a signed header: only the courier shows it, masked."""
    known: dict[type[Exception], str] = {
        FileNotFoundError: "there is no such bucket",
        exceptions.PermissionDeniedError: "the store refuses: the key may not write here",
        exceptions.UnauthenticatedError: "the store does not accept the key",
    }
    found = PlaceTrouble(known.get(type(error), "the store failed"))
    found.said = str(error).encode("utf-8", "replace")[:LONGEST_REASON] if type(error) not in known else b""
    return found
