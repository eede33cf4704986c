"""Settings of a sink of type `download`."""

from pydantic import Field

from poller.settings import FilePath
from poller.sinks.pictures import FIELDS, PictureSettings, Template


class DownloadSettings(PictureSettings):
    """Where pictures are stored, which hosts they may come from, and how large they may be."""

    directory: FilePath = Field(description="The folder for pictures; created if it is missing.")
    template: Template = Field(
        default="{date}/{stream}/{name}",
        description=f"A picture's path below the directory, from {FIELDS}",
    )
