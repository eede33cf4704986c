"""The messages of the last minute, in the form of server-sent events, for viewers that come back. Pure."""

from collections import deque

import msgspec


class Place(msgspec.Struct, frozen=True):
    """A place in the messages of one life of the daemon: behind the message of this number."""

    epoch: str
    seq: int

    @classmethod
    def read(cls, text: str) -> "Place | None":
        """From the id of a message, `EPOCH-SEQ`; None for anything else."""
        epoch, dash, seq = text.partition("-")
        return cls(epoch, int(seq)) if dash and seq.isascii() and seq.isdigit() and len(seq) < 20 else None


class Ring:
    """Keeps each message for `seconds`, and at most `most_bytes` bytes of messages."""

    def __init__(self, epoch: str, *, seconds: float, most_bytes: int) -> None:
        self.epoch = epoch
        self.last = 0
        """The number of the newest message."""
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: deque[tuple[float, bytes]] = deque()

    def push(self, name: str, data: bytes, now: float) -> None:
        """Add a message; `name` is empty for a message of the usual kind."""
        self.last += 1
        message = self._event(name, data)
        self._kept.append((now, message))
        self._bytes += len(message)
        while self._kept and (self._bytes > self._most_bytes or self._kept[0][0] < now - self._seconds):
            self._bytes -= len(self._kept.popleft()[1])

    def next(self, place: Place) -> bytes | None:
        """The message behind a place, empty if there is none yet.

        None if the message is not kept any more, or if the place is of another life of the daemon.
        """
        behind = self.last - place.seq
        if place.epoch != self.epoch or not 0 <= behind <= len(self._kept):
            return None
        return self._kept[-behind][1] if behind else b""

    def break_off(self) -> None:
        """Forget all messages, so that only the newest place is known: all viewers have to begin anew."""
        self.last += 1
        self._kept.clear()
        self._bytes = 0

    @property
    def place(self) -> Place:
        """The place behind the newest message."""
        return Place(self.epoch, self.last)

    def reset(self) -> bytes:
        """The message that makes a viewer begin anew, from the newest place on."""
        return self._event("reset", b"{}")

    def _event(self, name: str, data: bytes) -> bytes:
        named = f"event: {name}\n" if name else ""
        return b"id: %s-%d\n%sdata: %s\n\n" % (self.epoch.encode(), self.last, named.encode(), data)
