"""Talks to a daemon's pages as a browser does: with a session, and as one of their own pages."""

import http.client
import json
from typing import Any, Final
from urllib.parse import urlencode

from .environment import PATIENCE, until
from .rig import Process

OPERATOR: Final = "operators-token-0123456789"
VIEWER: Final = "viewers-token-0123456789"


class WebClient:
    """One browser."""

    def __init__(self, process: Process, token: str | None = None) -> None:
        self._port: int = process.heard("web_listens")[0]["port"]
        self._cookie = ""
        if token is not None:
            assert self.post("/login", {"token": token})[0] == 200

    def get(self, path: str, **params: Any) -> tuple[int, Any]:
        """Status and content of an answer."""
        return self._ask("GET", f"{path}?{urlencode(params)}" if params else path)

    def post(self, path: str, content: Any) -> tuple[int, Any]:
        """Status and content of the answer to a write."""
        return self._ask("POST", path, json.dumps(content).encode())

    def send(self, path: str, body: bytes) -> tuple[int, Any]:
        """The same with any bytes."""
        return self._ask("POST", path, body)

    def ended(self, job: str) -> Any:
        """A job once it has ended."""
        until(lambda: self.get(f"/api/job/{job}")[1]["state"] != "running", what="for a job to end")
        return self.get(f"/api/job/{job}")[1]

    def done(self, path: str, content: Any) -> Any:
        """Order something; returns the job once it has ended."""
        status, answer = self.post(path, content)
        assert status == 202, answer
        return self.ended(answer["job"])

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        headers = {
            "Cookie": self._cookie,
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/json",
        }
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if cookie := answer.getheader("Set-Cookie"):
                self._cookie = cookie.partition(";")[0]
        finally:
            connection.close()
        return answer.status, json.loads(content) if content.startswith((b"{", b"[")) else content
