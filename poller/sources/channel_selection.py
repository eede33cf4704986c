"""The channels that a source follows: those in its settings, or all streams that other sources have seen."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from poller.core.catalogue import Stream
from poller.settings import Duration, SourceSettings, duration_between, wrong

Channel = Annotated[str, StringConstraints(min_length=1, max_length=512)]

ANSWERS_KEPT = 8
"""Parsed answers that are remembered: `fetch` plans by what it got, and `read` reads the same answer soon after."""


class FollowingSettings(SourceSettings):
    """The settings of every source that follows channels."""

    channels: Annotated[
        tuple[Channel, ...] | None, Field(min_length=1, description="The channels to follow.")
    ] = None
    follow: Literal["seen"] | None = Field(
        default=None, description="Instead of channels: all streams that the account's other sources saw."
    )
    forget_after: Annotated[Duration, duration_between("1m", "30d")] = Field(
        default=604_800.0,
        description="With follow: the time after its last event at which a stream that is not live is dropped.",
    )
    max_in_flight: int = Field(
        default=4, ge=1, le=64, description="The most calls that may be outstanding at once."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.channels is None and self.follow is None:
            raise wrong("needs channels, or follow: seen")
        if self.channels is not None and self.follow is not None:
            raise wrong("does not go with channels: remove one", at="follow")
        return self


class ChannelSelection:
    """The channels that a source follows now, each with its entry in the catalogue."""

    def __init__(self, settings: FollowingSettings) -> None:
        self._account = settings.account
        self._listed = settings.channels
        self._forget_after = timedelta(seconds=settings.forget_after)
        self._streams: Callable[[], Sequence[Stream]] = tuple

    def follow(self, streams: Callable[[], Sequence[Stream]]) -> None:
        """See `Follows.follow`."""
        self._streams = streams

    def known(self, now: datetime) -> Mapping[str, Stream | None]:
        """Each channel that is followed now, with its entry in the catalogue, or None."""
        of_account = {s.stream_id: s for s in self._streams() if s.account == self._account and s.stream_id}
        if self._listed is not None:
            return {channel: of_account.get(channel) for channel in self._listed}
        oldest = now - self._forget_after
        return {id: s for id, s in of_account.items() if s.last_seen >= oldest or s.state == "live"}
