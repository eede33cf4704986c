"""What the sink needs of an object store, and what a store's refusals mean."""

import hashlib
from collections.abc import Mapping
from typing import Final, Protocol, Self

import msgspec

from poller.core.errors import Rejected, SinkError
from poller.sinks.pictures import PlaceTrouble

LONGEST_REASON: Final = 2048
MEANS: Final = {
    "AccessDenied": "the store refuses: the key may not write here",
    "InvalidAccessKeyId": "the store does not accept the key",
    "NoSuchBucket": "there is no such bucket",
    "RequestTimeTooSkewed": "the store's clock and the clock of this machine differ too much",
    "SignatureDoesNotMatch": "the store does not accept the key",
}
NEVER: Final = frozenset(
    {"EntityTooLarge", "InvalidObjectName", "KeyTooLong", "KeyTooLongError", "MetadataTooLarge"}
)
"""The codes of refusals that concern the object and not the store."""


class NewObject(msgspec.Struct, frozen=True, kw_only=True):
    """An object to store. `metadata` has printable ASCII only, and its names are lower case. `md5` is of `content`."""

    key: str
    content: bytes
    type: str
    md5: bytes
    metadata: Mapping[str, str] = {}

    @classmethod
    def of(cls, key: str, content: bytes, type: str, metadata: Mapping[str, str] | None = None) -> Self:
        """An object with its MD5, which takes time where the content is large."""
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        return cls(key=key, content=content, type=type, md5=md5, metadata=metadata or {})


class ObjectStore(Protocol):
    """One bucket. A call raises a `SinkError`, may be repeated, and may be cancelled."""

    async def put(self, new: NewObject) -> None:
        """Store an object. On return the store has said that it has all of it. It never has a part."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object."""
        ...

    def close(self) -> None:
        """End the connections. May be repeated."""
        ...


def failure(code: str, otherwise: str, said: bytes = b"", *, after: float | None = None) -> SinkError:
    """The error for a refusal with this code (may be empty). `otherwise` is the reason where the code says nothing."""
    if code in NEVER:
        return Rejected(f"the store never takes this object: {code}")
    found = PlaceTrouble(MEANS.get(code, otherwise), after=after)
    found.said = b"" if code in MEANS else said[:LONGEST_REASON]
    return found
