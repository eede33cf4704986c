"""What of an upload's headers is kept with the object and comes back with it."""

from __future__ import annotations

from collections.abc import Mapping

from poller.sandbox.cos.errors import CosRefused

KEPT = ("cache-control", "content-disposition", "content-language", "expires")
USERS = ("x-cos-meta-", "x-amz-meta-")
LARGEST = 2048  # bytes of names and values; https://www.tencentcloud.com/document/product/436/13324
# These are about the request, and change nothing of what is stored.
PASSING = frozenset(
    ("x-cos-security-token", "x-amz-security-token", "x-amz-content-sha256", "x-amz-date", "x-amz-user-agent")
)
# They would have to change what is stored, or how; nothing is stored otherwise than asked.
NOT_KEPT = frozenset(("content-encoding", "content-range", "pic-operations", "trailer"))
AS_IT_IS = {"x-cos-storage-class": "STANDARD", "x-amz-storage-class": "STANDARD"}
"""What may be asked for because it is so anyway."""


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers to keep. Raises CosRefused for one that asks for more than is done here."""
    found: dict[str, str] = {}
    for sent, value in headers.items():
        name = sent.lower()
        if name in KEPT or name.startswith(USERS):
            found[sent] = f"{found[sent]}, {value}" if sent in found else value
        elif name in NOT_KEPT or (name.startswith(("x-cos-", "x-amz-")) and not _is_harmless(name, value)):
            raise CosRefused("NotImplemented", f"{sent}: this store does not do what the header asks for.")
    _check(found)
    return found


def _is_harmless(name: str, value: str) -> bool:
    return name in PASSING or AS_IT_IS.get(name) == value


def _check(found: Mapping[str, str]) -> None:
    try:
        size = sum(len(f"{name}{value}".encode()) for name, value in found.items())
    except UnicodeEncodeError:
        raise CosRefused("InvalidArgument", "A header holds bytes that are no text.") from None
    if size > LARGEST:
        raise CosRefused("InvalidArgument", f"Your metadata headers exceed {LARGEST} bytes.")
