"""Made-up load: as many messages as wanted, at once, of shots in the past."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from poller.sandbox.cos.store import Pictures
from poller.sandbox.names import Shot, path_of
from poller.sandbox.options import BadOption, Customer, Naming
from poller.sandbox.query.messages import Said
from poller.sandbox.query.queues import Platform

DAYS_BACK = 60
BATCH = 10_000  # bounds the memory that a million messages need while they are made


@dataclass(frozen=True, kw_only=True)
class Load:
    """The number and the kind of messages to make up.

    customer: app id; None: the first customer
    streams:  how many streams, which take turns
    step:     seconds between two shots of a stream
    pictures: whether a small real JPEG lies behind every message
    """

    count: int
    customer: int | None = None
    streams: int = 4
    step: int = 10
    width: int = 300
    height: int = 169
    pictures: bool = False

    def __post_init__(self) -> None:
        for name in ("count", "streams", "step", "width", "height"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise BadOption(f"{name}: {value!r} is no number above 0")


class Synthetic:
    """Enqueues made-up messages; no two of a customer have the same path."""

    def __init__(
        self, platform: Platform, pictures: Pictures, naming: Naming, jpeg: Callable[[int, int], bytes]
    ) -> None:
        self._platform = platform
        self._pictures = pictures
        self._naming = naming
        self._jpeg = jpeg
        self._turn = itertools.count()
        self._latest: dict[str, int] = {}
        # Also unlike those of an earlier run in the same directory.
        self._push = int(time.time()) - DAYS_BACK * 86400

    def enqueue(self, load: Load) -> int:
        """Enqueues the load; returns the number of the last message."""
        queue = self._platform.queue(load.customer)
        for start in range(0, load.count, BATCH):
            said = [
                self._next_facts(load, queue.customer) for _ in range(start, min(start + BATCH, load.count))
            ]
            if load.pictures:
                paths = [one.path for one in said]
                jpeg = self._jpeg(load.width, load.height)
                self._pictures.put_many(queue.customer.host_label, paths, jpeg)
            queue.enqueue(said)
        self._platform.wakeup.ring()
        return queue.last_n

    def _next_facts(self, load: Load, customer: Customer) -> Said:
        stream_id = f"load_{customer.app_id}_{next(self._turn) % load.streams + 1}"
        at = self._latest.get(stream_id, self._push) + load.step
        self._latest[stream_id] = at
        shot = Shot(
            stream_id=stream_id, push=self._push, task=self._push, at=at, width=load.width, height=load.height
        )
        return Said(stream_id=stream_id, path=path_of(shot, self._naming), create_time=at)
