"""What the object store refuses, with the codes and in the XML that COS has for it."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

REFUSALS = {  # https://www.tencentcloud.com/document/product/436/7730
    "AccessDenied": (403, "Access Denied."),
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "InvalidAccessKeyId": (403, "The Access Key Id you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid argument."),
    "InvalidDigest": (400, "The Content-MD5 you specified is not valid."),
    "InvalidRange": (416, "The requested range is not satisfiable."),
    "KeyTooLong": (400, "Your key is too long."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NotImplemented": (501, "A header or query you provided implies functionality that is not implemented."),
    "PreconditionFailed": (412, "At least one of the preconditions you specified did not hold."),
    "RequestTimeTooSkewed": (
        403,
        "The difference between the request time and the server's time is too large.",
    ),
    "SignatureDoesNotMatch": (403, "The Signature you specified is invalid."),
    "XAmzContentSHA256Mismatch": (
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
}


class CosRefused(Exception):
    """A request that COS would refuse.

    `details` are further elements of the answer's XML, `headers` further headers.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.status, usual = REFUSALS[code]
        self.message = message or usual
        self.details = details or {}
        self.headers = headers or {}

    def xml(self, resource: str, request_id: str) -> bytes:
        """The answer's body; `resource` is the path asked for."""
        elements = {"Code": self.code, "Message": self.message, **self.details}
        elements |= {"Resource": resource, "RequestId": request_id}
        lines = (f"\t<{name}>{text_of(value)}</{name}>\n" for name, value in elements.items())
        return f"<?xml version='1.0' encoding='utf-8' ?>\n<Error>\n{''.join(lines)}</Error>\n".encode()


def text_of(value: str) -> str:
    """A text for XML 1.0; what cannot stand there at all becomes U+FFFD."""
    kept = "".join(c if c >= " " or c in "\t\n\r" else "\ufffd" for c in value)
    return escape(kept.encode("utf-8", "replace").decode(), {"\r": "&#13;"})
