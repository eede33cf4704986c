"""An easy handle of libcurl: it prepares a GET, passes the answer on, and translates failures."""

import errno
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import pycurl

from poller.core.errors import PollerError, SinkError
from poller.runtime.outbound import CONNECT_TIMEOUT, USER_AGENT, AddressGuard

LONGEST_HEAD: Final = 128 * 2**10
"""The most bytes in the head of an answer, including informational answers before it."""
MOST_INTERIM: Final = 32
_CUT: Final = -1
_STATUS: Final = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})\b")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")


class TransferFailed(PollerError):
    """No complete answer arrived. The text gives the reason, without URL, query or header."""


class BadUrl(PollerError):
    """libcurl does not accept the URL."""


class ResponseReader(Protocol):
    """Takes an answer as it arrives. A `SinkError` from either method ends the transfer and becomes its error."""

    def begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """Take the head: headers by lower-case name, and the announced length of the body in bytes, if any."""
        ...

    def take(self, piece: bytes) -> None:
        """Take a piece of the body."""
        ...


class Handle:
    """A handle that is reused for many transfers, one at a time."""

    def __init__(self, guard: AddressGuard, trusted: Mapping[int, str]) -> None:
        self._guard = guard
        self.curl = pycurl.Curl()
        for option, value in {
            **trusted,
            pycurl.CONNECTTIMEOUT_MS: int(CONNECT_TIMEOUT * 1000),
            pycurl.HEADERFUNCTION: self._line,
            pycurl.HTTPHEADER: ["Accept: image/jpeg", "Accept-Encoding: identity"],
            pycurl.HTTP_CONTENT_DECODING: 0,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.NOSIGNAL: 1,
            pycurl.OPENSOCKETFUNCTION: self._open_socket,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.PROXY: "",  # none from the environment either
            pycurl.USERAGENT: USER_AGENT,
            pycurl.WRITEFUNCTION: self._piece,
        }.items():
            self.curl.setopt(option, value)

    def prepare(self, url: str, target: str, answer: ResponseReader) -> None:
        """Prepare the next transfer. `target` is the URL's path and query."""
        self.curl.setopt(pycurl.URL, url)
        self.curl.setopt(pycurl.REQUEST_TARGET, target)  # libcurl would write %2f as %2F, and a/../b as b
        self._answer: ResponseReader | None = answer
        self._status = 0
        self._headers: dict[str, str] = {}
        self._barred: str | None = None
        self._opened = False
        self._interim = self._head = 0
        self._no_socket: OSError | None = None
        self._raised: SinkError | None = None

    def forget(self) -> None:
        """Drop the references to the last answer."""
        self._answer = self._raised = None

    def failure(self, code: int) -> Exception:
        """The error of a failed transfer."""
        if self._raised is not None:
            return self._raised
        if code == pycurl.E_URL_MALFORMAT:
            return BadUrl("not a URL")
        return TransferFailed(self._reason(code))

    def _reason(self, code: int) -> str:
        if self._barred is not None and not self._opened:
            return f"{self._barred} is not a public address; allow_cidr can permit it"
        if self._endless():
            return "the head of the answer does not end"
        if self._no_socket is not None:
            return f"no socket: {self._no_socket.strerror}"
        if code in _TLS:
            return f"TLS: {self.curl.errstr()}"
        number = self.curl.getinfo(pycurl.OS_ERRNO)
        return _REASONS.get(code, f"not HTTP: {pycurl.easy_strerror(code)}").format(
            errno.errorcode.get(number, "no address could be reached")
        )

    def _endless(self) -> bool:
        return self._head > LONGEST_HEAD or self._interim > MOST_INTERIM

    # ------------------------------------------------------------ called by libcurl

    def _open_socket(self, purpose: int, address: pycurl.CurlSockAddr) -> socket.socket | int:
        host = str(address.addr[0])
        if not self._guard.allows(host):
            self._barred = host
            return pycurl.SOCKET_BAD
        try:
            opened = socket.socket(address.family, address.socktype, address.protocol)
        except OSError as error:  # libcurl would print what a callback raises
            self._no_socket = error
            return pycurl.SOCKET_BAD
        self._opened = True
        return opened

    def _line(self, line: bytes) -> int | None:
        """Take a line of a head (there may be a head of status 100 first), or of the trailer of a chunked body."""
        self._head += len(line)
        self._interim += line.startswith(b"HTTP/")
        if self._endless():
            return _CUT
        name, colon, value = line.decode("latin-1").partition(":")
        if line.startswith(b"HTTP/"):
            found = _STATUS.match(line)
            self._status, self._headers = int(found[1]) if found else 0, {}
        elif colon:
            self._headers[name.strip().lower()] = value.strip()
        elif self._status >= 200:
            return self._tell(lambda answer: answer.begin(self._status, self._headers, self._length()))
        return None

    def _length(self) -> int | None:
        text = self._headers.get("content-length", "")
        return int(text) if _LENGTH.fullmatch(text) and "transfer-encoding" not in self._headers else None

    def _piece(self, piece: bytes) -> int | None:
        if self._status < 200:
            return _CUT  # a body without a readable head
        return self._tell(lambda answer: answer.take(piece))

    def _tell(self, tell: Callable[[ResponseReader], None]) -> int | None:
        assert self._answer is not None
        try:
            tell(self._answer)
        except SinkError as error:
            self._raised = error
            return _CUT
        return None


_TLS: Final = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
_REASONS: Final = {
    pycurl.E_COULDNT_RESOLVE_HOST: "name not resolved",
    pycurl.E_COULDNT_CONNECT: "cannot connect: {}",
    pycurl.E_OPERATION_TIMEDOUT: "connecting took too long",
    pycurl.E_GOT_NOTHING: "connection closed without an answer",
    pycurl.E_PARTIAL_FILE: "connection closed in the midst of the answer",
    pycurl.E_RECV_ERROR: "connection lost: {}",
    pycurl.E_SEND_ERROR: "connection lost: {}",
}


def trust_store() -> dict[int, str]:
    """The system's certificate authorities, at the same places as for Python (`SSL_CERT_FILE`, `SSL_CERT_DIR`)."""
    paths = ssl.get_default_verify_paths()
    found = {pycurl.CAINFO: paths.cafile, pycurl.CAPATH: paths.capath}
    return {option: path for option, path in found.items() if path is not None}
