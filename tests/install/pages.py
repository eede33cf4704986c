"""Looks at the pages of a running program from outside: the document, every file that it leads to, and the JSON."""

import json
import re
import urllib.request
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urljoin, urlsplit

from tests.patience import PATIENCE

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
REFERENCE = re.compile(
    r"""(?:\b(?:src|href)=|\bfrom\s*|\bimport\s*\(?\s*|@import\s*(?:url\()?)["']((?:/static/|\./|\.\./)[^"']+)["']"""
)


class Pages:
    """The pages at an address as `poller pages` prints it. Logs in if the address holds a code."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.root = f"{parts.scheme}://{parts.netloc}"
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._opener = urllib.request.build_opener(cookies)
        if parts.fragment:
            body = json.dumps({"code": parts.fragment}).encode()
            headers = {"Content-Type": "application/json", "Origin": self.root}
            request = urllib.request.Request(f"{self.root}/login", body, headers)
            with self._opener.open(request, timeout=PATIENCE) as answer:
                assert answer.status == 200

    def get(self, path: str) -> tuple[str, bytes]:
        """Type and body of an answer; fails for any status but 200."""
        with self._opener.open(urljoin(self.root, path), timeout=PATIENCE) as answer:
            return answer.headers.get_content_type(), answer.read()

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def files(self) -> dict[str, bytes]:
        """Every file that the document leads to, directly or by another one."""
        found: dict[str, bytes] = {}
        waiting = ["/"]
        while waiting:
            path = waiting.pop()
            kind, body = self.get(path)
            assert kind == TYPES.get(path[path.rfind(".") :], "text/html"), path
            found[path] = body
            if kind != "image/svg+xml":
                named = {urljoin(path, name) for name in REFERENCE.findall(body.decode())}
                waiting += sorted(named - found.keys() - set(waiting))
        return found
