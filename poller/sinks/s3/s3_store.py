"""A bucket with the S3 interface, through obstore.

The library's calls run in threads: its coroutines can end the interpreter with an abort when the loop is closed.
"""

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import timedelta
from typing import Final, ParamSpec, TypeVar

import obstore
from obstore import exceptions
from obstore.store import S3Store

from poller.core.errors import SinkError
from poller.qcloud.cos.listing import error_code
from poller.sinks.pictures import PlaceTrouble
from poller.sinks.s3.settings import S3Settings
from poller.sinks.s3.store import MEANS, NewObject, ObjectStore, failure

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_WITHIN: Final = timedelta(seconds=10)
FAILURES: Final = (exceptions.BaseError, OSError)
"""What the library raises. For what is not there it raises Python's own `FileNotFoundError`."""
CODES: Final[dict[type[Exception], str]] = {
    FileNotFoundError: "NoSuchBucket",
    exceptions.PermissionDeniedError: "AccessDenied",
    exceptions.UnauthenticatedError: "InvalidAccessKeyId",
}
"""What an error means if its text holds no code."""
CAUSES: Final = {
    "dns error": "name not resolved",
    "InvalidCertificate": "TLS fails: the server's certificate is not trusted",
    "InvalidData": "TLS fails: the server does not speak it",
    "kind: Connect": "cannot connect: no server answers",
    "kind: Timeout": "no answer in time",
    "kind: Interrupted": "connection lost",
    "IncompleteMessage": "connection lost",
    "BareRedirect": "the store redirects: check region and endpoint",
}
"""What a word in the cause of an error means where the store gave no answer, the more exact words first."""
_REFUSED: Final = re.compile(r"status code: (\d{3})[^:]*:")
_DEBUG: Final = "\n\nDebug source:\n"
_CAUSE: Final = "inner: "
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


class S3Bucket(ObjectStore):
    """One bucket, whose requests are signed as AWS has it (version 4)."""

    def __init__(self, settings: S3Settings, threads: Executor) -> None:
        self._threads = threads
        self._host = settings.place().host
        _hide_environment()
        url = settings.place().url
        access_key, secret_key = settings.key()
        self._store = S3Store(
            settings.bucket,
            endpoint=url,
            region=settings.usual_region,
            access_key_id=access_key,
            secret_access_key=secret_key,
            disable_bulk_delete=True,  # which not every store has
            virtual_hosted_style_request=not settings.path_style,
            client_options={
                "allow_http": url.startswith("http://"),
                "connect_timeout": CONNECT_WITHIN,
                "timeout": timedelta(seconds=settings.timeout),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},  # the courier retries
        )

    async def put(self, new: NewObject) -> None:
        """See `ObjectStore.put`."""
        await self._in_thread(self._put, new)

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        await self._in_thread(obstore.delete, self._store, key)

    def close(self) -> None:
        """The library closes its connections itself."""

    def _put(self, new: NewObject) -> None:
        attributes = {"Content-Type": new.type, **new.metadata}
        done = obstore.put(self._store, new.key, new.content, attributes=attributes, use_multipart=False)
        tag = str(done["e_tag"] or "").strip('"')
        if tag != new.md5.hex():
            self._compare_length(new, tag)

    def _compare_length(self, new: NewObject, tag: str) -> None:
        """A store that encrypts gives ETags that are no MD5. The length is what can still be compared."""
        if obstore.head(self._store, new.key)["size"] != len(new.content):
            raise PlaceTrouble(f"the store keeps an object of another length (ETag {tag[:32]})")

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))
        except FAILURES as error:
            raise _translate(error, self._host) from None


def _hide_environment() -> None:
    """Hide the variables that the library would obey beside the settings.

    `AWS_*` could send the pictures to another endpoint, unsigned or with another session's token, and a proxy is an
    address that was not checked. The variables stay in `os.environ`, for `${NAME}` in the configuration.
    """
    for name in os.environ:
        if name.upper().startswith("AWS_") or name.lower() in _PROXIES:
            os.unsetenv(name)


def _translate(error: Exception, host: str) -> SinkError:
    """The error of a request. The library's text may hold a signed header: only the courier shows it, masked."""
    text, _, source = str(error).partition(_DEBUG)
    said = text.encode("utf-8", "replace")
    code = error_code(said)
    if code not in MEANS:
        code = CODES.get(type(error), code)
    refused = _REFUSED.search(text)
    if refused:
        return failure(
            code,
            f"HTTP {refused[1]} {code}".rstrip(),
            text[refused.end() :].strip().encode("utf-8", "replace"),
        )
    cause = source.rpartition(_CAUSE)[2]
    for word, meaning in CAUSES.items():
        if word in cause:
            return failure(code, f"{host}: {meaning}")
    return failure(code, "the store failed", said)
