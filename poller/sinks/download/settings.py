"""Settings of a sink of type `download`."""

from collections.abc import Iterator, Mapping

from pydantic import Field

from poller.runtime.syncfs import why_unsupported
from poller.settings import AccountSettings, FilePath
from poller.sinks.download.syncing import Way
from poller.sinks.pictures import FIELDS, PictureSettings, Template


class DownloadSettings(PictureSettings):
    """Where pictures are stored, which hosts they may come from, and how large they may be."""

    directory: FilePath = Field(description="The folder for pictures; created if it is missing.")
    template: Template = Field(
        default="{date}/{stream}/{name}",
        description=f"A picture's path below the directory, from {FIELDS}",
    )
    sync: Way = Field(
        default="file",
        description="How pictures are made durable: file (an fsync a picture), or filesystem (a syncfs a batch; on "
        "ext4 or xfs, with Linux 5.8 or later), which also waits for what others write to that file system.",
    )
    shared: bool | None = Field(
        default=None,
        description="Whether all daemons that share the spool see the same directory, as on a network file system. "
        "A spool of type postgres requires it.",
    )

    @property
    def keeps_files_here(self) -> bool:
        """See `SinkSettings.keeps_files_here`."""
        return not self.shared

    def contradictions(self, accounts: Mapping[str, AccountSettings]) -> Iterator[tuple[str, str]]:
        """See `SinkSettings.contradictions`."""
        yield from super().contradictions(accounts)
        if self.sync == "filesystem" and (why := why_unsupported(self.directory)):
            yield "sync", f"filesystem {why}"
