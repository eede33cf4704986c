"""The simple handshake (Adobe's RTMP specification 1.0, section 5.2). No I/O."""

from __future__ import annotations

import os

from poller.sandbox.rtmp.messages import Malformed

_VERSION = 3
_SIZE = 1536


class Handshake:
    """The server's side: `rest` is what came behind the handshake once that is done, None before."""

    def __init__(self) -> None:
        self.rest: bytes | None = None
        self._received = bytearray()
        self._answered = False

    def feed(self, data: bytes) -> bytes:
        """Takes bytes of the peer and returns the bytes to send. Raises Malformed for another protocol or version."""
        self._received += data
        if self._received[0] != _VERSION:
            raise Malformed("not RTMP, or encrypted")
        answer = b""
        if not self._answered and len(self._received) > _SIZE:
            # A version of zeros in our own part tells Adobe's clients that it holds no digest.
            answer = bytes([_VERSION]) + bytes(8) + os.urandom(_SIZE - 8) + self._received[1 : 1 + _SIZE]
            self._answered = True
        if len(self._received) > 2 * _SIZE:
            self.rest = bytes(self._received[1 + 2 * _SIZE :])
        return answer
