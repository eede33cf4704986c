"""The headers of every answer: what a page may load, and who may read it."""

from typing import Final

from aiohttp import web

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
SECURITY: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Server": "poller",  # the library would send its version
}

_NOT_WANTED: Final = frozenset({"q=0", "q=0.0", "q=0.00", "q=0.000"})


async def secure(request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers on an answer; called before each of them is sent."""
    response.headers.update(SECURITY)


def raw_refusal(status: int, reason: str) -> bytes:
    """An answer without a body, for a connection whose request is not complete."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in SECURITY.items())]
    return "\r\n".join([*lines, "Content-Length: 0", "Connection: close", "", ""]).encode()


def accepts_gzip(request: web.Request) -> bool:
    """Whether the client takes an answer that is compressed by gzip."""
    codings = request.headers.get("Accept-Encoding", "").lower().replace(" ", "").split(",")
    return any(
        coding == "gzip" or (coding[:5] == "gzip;" and coding[5:] not in _NOT_WANTED) for coding in codings
    )
