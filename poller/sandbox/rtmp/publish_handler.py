"""What the ingest expects of the platform behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class PublishRefused(Exception):
    """Refuses a push. The pusher gets the text, which holds no secret."""


@dataclass(frozen=True, kw_only=True)
class PublishRequest:
    """What a pusher asks for: `rtmp://host/app/stream?query`.

    The stream is percent-decoded, without its query; the query's parameters are decoded too, the first of a name
    counts. `repr` leaves the query out, because it holds the push secret. `quiet` tells at any time for how many
    seconds nothing came from the pusher.
    """

    host: str
    app: str
    stream: str
    query: Mapping[str, str]
    peer: str
    quiet: Callable[[], float] = field(default=lambda: 0.0, compare=False)

    @property
    def address(self) -> str:
        """The address of the pusher, without its port."""
        return self.peer.rpartition(":")[0]

    def __repr__(self) -> str:
        return f"PublishRequest({self.app}/{self.stream} from {self.peer})"


class Push(Protocol):
    """One push that was let in. Called from the event loop, never again after `end`."""

    def tag(self, kind: int, timestamp: int, body: bytes) -> None:
        """A whole media message: 8 audio, 9 video, 18 script data (without `@setDataFrame`). Must not raise."""

    def end(self, why: str) -> None:
        """The push is over: `unpublished`, `closed`, `reset`, `silent`, `broken`, `kicked`, `stopped`.

        Called once, even if the handler itself has ended the push.
        """


class PublishHandler(Protocol):
    """Decides whether a push is accepted."""

    def publish(self, request: PublishRequest, close: Callable[[], None]) -> Push:
        """Lets a push begin. Raises PublishRefused: a name that is live already, a wrong secret, a bad name.

        `close()`, called from the event loop at any time, drops the pusher's connection: no tag follows, and a turn
        of the loop later the push ends with `kicked`. Once the push is over it does nothing.
        """
