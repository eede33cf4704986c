"""What lets a page of another origin read pictures and recordings, and players such as mpegts.js seek in them."""

from __future__ import annotations

from typing import Final

from aiohttp import web

READING: Final = "GET, HEAD, OPTIONS"
SHARED: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, Date, ETag, Last-Modified",
}
"""The headers of every answer."""


def is_preflight(request: web.BaseRequest) -> bool:
    """Whether a browser asks what a page of another origin may do here."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def options(request: web.BaseRequest, allowed: str = READING) -> dict[str, str]:
    """The headers of the answer to OPTIONS, a preflight or not; `allowed` are the methods."""
    headers = {"Allow": allowed, **SHARED}
    if "Access-Control-Request-Method" in request.headers:
        headers |= {
            "Access-Control-Allow-Methods": READING,
            "Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers", "Range"),
            "Access-Control-Max-Age": "600",
            "Vary": "Access-Control-Request-Headers",
        }
    if (
        "Access-Control-Request-Private-Network" in request.headers
    ):  # a public page asks for a private address
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers
