"""Settings of a sink of type `download`."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from poller.qcloud.pictures.hosts import host_list
from poller.settings import (
    BatchSettings,
    Cidr,
    Duration,
    FilePath,
    Only,
    SinkSettings,
    Size,
    duration_between,
    size_between,
    wrong,
)
from poller.sinks.download.paths import parse_template


def _template(text: str) -> str:
    try:
        parse_template(text)
    except ValueError as error:
        raise wrong(str(error)) from None
    return text


def _host(entry: str) -> str:
    try:
        host_list([entry])
    except ValueError as error:
        raise wrong(str(error)) from None
    return entry


class DownloadSettings(SinkSettings):
    """Where pictures are stored, which hosts they may come from, and how large they may be."""

    fetches_pictures: ClassVar[bool] = True

    directory: FilePath = Field(description="The folder for pictures; created if it is missing.")
    template: Annotated[str, AfterValidator(_template)] = Field(
        default="{date}/{stream}/{name}",
        description="A picture's path below the directory, from {date} {hour} {time} (of the shot, UTC) {account} "
        "{kind} {stream} {name} {id}. It must contain {name} or {id}.",
    )
    allow_hosts: tuple[Annotated[str, AfterValidator(_host)], ...] | None = Field(
        default=None,
        description="Hosts that pictures may come from, such as *.example.com or 127.0.0.1:8080; "
        "by default the accounts' own picture hosts.",
    )
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed for pictures although they are not public."
    )
    max_bytes: Annotated[Size, size_between("1KiB", "1GiB")] = Field(
        default=20 * 2**20, description="The largest picture, 1KiB to 1GiB."
    )
    max_pixels: int = Field(
        default=50_000_000, ge=1, le=2**28, description="The most pixels, width times height."
    )
    per_host: int = Field(default=16, ge=1, le=256, description="The most connections to one host.")
    sidecar: bool = Field(
        default=False, description="Whether to store each event as NAME.json beside its picture."
    )
    only: Only | None = Field(
        default=Only(kinds=("screenshot",)),
        description="The events that this sink takes; only events with a picture can be stored.",
    )
    timeout: Annotated[Duration, duration_between("1ms", "1h")] = Field(
        default=120.0, description="How long one batch may take before it counts as failed."
    )
    concurrency: int = Field(default=2, ge=1, le=256, description="The most batches in hand at once.")
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=32), description="How many pictures are fetched and stored together."
    )
