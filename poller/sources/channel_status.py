"""The source `channel_status`: calls `Live_Channel_GetStatus` for each channel. A change of state is an event."""

import asyncio
import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, ClassVar

import msgspec
from pydantic import Field

from poller.core.catalogue import POLLS, Stream
from poller.core.model import Event, ParsedPage, RawPage, identity, new_event
from poller.core.ports import Follows, Source
from poller.qcloud.events.channels import INTERFACE, INTERRUPTED, LIVE, NEVER, ChannelState, read_status
from poller.qcloud.wire.account import Account
from poller.qcloud.wire.replies import Verdict
from poller.settings import Duration, duration_between
from poller.sources.channel_selection import ANSWERS_KEPT, ChannelSelection, FollowingSettings

KIND = "channel"
LOOK = 5.0
"""Seconds between two looks at the catalogue for channels that were added or removed."""
GRAIN = 0.05
"""Seconds of the shortest sleep between calls. Several calls at a time cost less than waking up for each."""
SOONER = 4.0
"""The interval is divided by this for a channel that may have been interrupted: its next call comes sooner."""
LATEST = 1.0
"""Seconds of delay that are made up for. Calls that are later than this are left out."""


class ChannelStatusSettings(FollowingSettings):
    """The states of the account's channels."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"channel"})

    interval: Annotated[Duration, duration_between("100ms", "1d")] = Field(
        default=60.0, description="The time between two calls for the same channel; calls are spread evenly."
    )
    confirm: int = Field(
        default=3, ge=1, le=10, description="The number of answers in a row that make a channel interrupted."
    )


class PollSchedule:
    """Decides which channel to poll next: each once in an interval, evenly, and doubtful channels sooner.

    It never reads a clock: callers pass the time.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._ring: OrderedDict[str, None] = OrderedDict()
        self._next = 0.0
        self._soon: list[tuple[float, str]] = []
        self._next_soon = 0.0
        self._waiting: set[str] = set()
        self.in_flight: set[str] = set()

    @property
    def _step(self) -> float:
        return self._interval / max(1, len(self._ring))

    def follow(self, channels: Iterable[str], now: float) -> None:
        """Replace the channels. A new channel is polled before those that were polled already."""
        wanted = dict.fromkeys(channels)
        if not self._ring:
            self._next = now
        for gone in [channel for channel in self._ring if channel not in wanted]:
            del self._ring[gone]
        for new in [channel for channel in wanted if channel not in self._ring]:
            self._ring[new] = None
            self._ring.move_to_end(new, last=False)
        self._next = min(self._next, now + self._step)

    def doubt(self, channel: str, now: float) -> None:
        """Poll this channel again soon instead of at its turn."""
        self._waiting.add(channel)
        heapq.heappush(self._soon, (now + self._interval / SOONER, channel))

    def wait(self, now: float) -> float | None:
        """Seconds until a channel is due; None while there are no channels."""
        if not self._ring:
            return None
        due = self._next
        if self._soon:
            due = min(due, max(self._soon[0][0], self._next_soon))
        return max(0.0, due - now)

    def take(self, now: float) -> str | None:
        """The channel that is due now, if any. Doubtful channels get at most two calls for each regular call."""
        if self._soon and max(self._soon[0][0], self._next_soon) <= now:
            self._next_soon = max(self._next_soon, now - LATEST) + self._step / 2
            _, channel = heapq.heappop(self._soon)
            self._waiting.discard(channel)
            if channel in self._ring:
                return channel
        if self._ring and self._next <= now:
            self._next = max(self._next, now - LATEST) + self._step
            return self._turn()
        return None

    def _turn(self) -> str | None:
        for _ in range(len(self._ring)):
            channel = next(iter(self._ring))
            self._ring.move_to_end(channel)
            if channel not in self._waiting and channel not in self.in_flight:
                return channel
        return None


class ChannelMemory(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The memory of a channel.

    `state` is the last reported state. `against` answers in a row contradicted it, the first of them at the
    epoch `since`.
    """

    state: str = ""
    against: int = 0
    since: float = 0.0


_packed = msgspec.json.Encoder().encode
_unpacked = msgspec.json.Decoder(ChannelMemory).decode


def learn_state(
    known: ChannelMemory, state: str, at: float, confirm: int
) -> tuple[ChannelMemory, float | None]:
    """The memory after an answer, and the epoch at which the state changed, or None.

    The first state is a change too. A channel is interrupted after `confirm` such answers in a row, from the
    first of them on. A channel that was never pushed has no state. If the platform reports that state for a
    channel that had another, it counts as interrupted.
    """
    if state == NEVER:
        if known.state in ("", NEVER):
            return ChannelMemory(state=NEVER), None
        state = INTERRUPTED
    if state == known.state:
        return ChannelMemory(state=state), None
    if state != INTERRUPTED:
        return ChannelMemory(state=state), at
    since = known.since or at
    if known.against + 1 < confirm:
        return ChannelMemory(state=known.state, against=known.against + 1, since=since), None
    return ChannelMemory(state=state), since


class ChannelStatus(Source, Follows):
    """Polls the state of each channel. The account must be entered before it, and left after it."""

    Settings = ChannelStatusSettings
    destructive = False
    min_delay = 0.0
    max_delay = 1.0

    def __init__(self, name: str, settings: ChannelStatusSettings, accounts: Mapping[str, Account]) -> None:
        self.name = name
        self.account = settings.account
        self.max_in_flight = settings.max_in_flight
        self._confirm = settings.confirm
        self._account = accounts[settings.account]
        self._following = ChannelSelection(settings)
        self._schedule = PollSchedule(settings.interval)
        self._looked = float("-inf")
        self._turnstile = asyncio.Lock()
        self._taken: deque[str] = deque()
        self._against: dict[str, int] = {}
        """The channels whose last known state was live, with the number of answers in a row that contradict it."""

    def follow(self, streams: Callable[[], Sequence[Stream]]) -> None:
        """See `Follows.follow`."""
        self._following.follow(streams)

    async def ready(self) -> None:
        """Wait until a channel is due and the account's throttle allows the call."""
        async with self._turnstile:
            while True:
                await self._until_due()
                await self._account.ready()
                # nothing is awaited from here on, so that a channel that is taken is polled
                if (channel := self._schedule.take(time.monotonic())) is not None:
                    self._schedule.in_flight.add(channel)
                    self._taken.append(channel)
                    return

    async def _until_due(self) -> None:
        while True:
            now = time.monotonic()
            if now - self._looked >= LOOK:
                self._looked = now
                self._look(now)
            wait = self._schedule.wait(now)
            if wait == 0.0:
                return
            await asyncio.sleep(LOOK if wait is None else min(max(wait, GRAIN), LOOK))

    def _look(self, now: float) -> None:
        known = self._following.known(datetime.now(UTC))
        self._schedule.follow(known, now)
        for channel, stream in known.items():
            if stream is not None and stream.state == LIVE:
                self._against.setdefault(channel, 0)
        for gone in self._against.keys() - known.keys():
            del self._against[gone]

    async def fetch(self) -> RawPage:
        """Poll the channel that `ready` returned for longest ago."""
        channel = self._taken.popleft()
        try:
            answer = await self._account.call(INTERFACE, {"Param.s.channel_id": channel})
        finally:
            self._schedule.in_flight.discard(channel)
        page = answer.page(self.name, channel)
        self._plan(channel, page)
        return page

    def _plan(self, channel: str, page: RawPage) -> None:
        """Poll a channel sooner if it was live and seems to be interrupted."""
        reported, _ = _read(page)
        if reported is None:
            return
        if reported.state == LIVE:
            self._against[channel] = 0
        elif channel in self._against:
            self._against[channel] += 1
            if reported.state in (INTERRUPTED, NEVER) and self._against[channel] < self._confirm:
                self._schedule.doubt(channel, time.monotonic())
            else:
                del self._against[channel]

    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """Parse an answer: a change of the channel's state is an event."""
        reported, verdict = _read(page)
        events: tuple[Event, ...] = ()
        if reported is not None:
            known = _unpacked(memory) if memory else ChannelMemory()
            at = page.received_at.timestamp()
            known, changed = learn_state(known, reported.state, at, self._confirm)
            memory = _packed(known)
            if changed is not None:
                events = (self._event(page, reported, known.state, changed),)
        return ParsedPage(
            events=events,
            rejects=(),
            outcome=verdict.outcome,
            detail=verdict.detail,
            expired=verdict.expired,
            memory=memory,
            about=page.about,
        )

    def _event(self, page: RawPage, reported: ChannelState, state: str, changed: float) -> Event:
        return new_event(
            id=identity(KIND, self.account, f"{page.about}\0{state}\0{changed:.6f}"),
            kind=KIND,
            account=self.account,
            stream_id=page.about,
            occurred_at=datetime.fromtimestamp(changed, UTC),
            received_at=page.received_at,
            url=None,
            fields={
                "state": state,
                "seen_by": POLLS,
                "rate_type": reported.rate_type,
                "recv_type": reported.recv_type,
            },
            message=msgspec.Raw(reported.message),
        )


@lru_cache(maxsize=ANSWERS_KEPT)
def _read(page: RawPage) -> tuple[ChannelState | None, Verdict]:
    return read_status(page.body, page.encoding, status=page.status, whole=page.whole)
