"""The sink `download`: stores pictures as files below a directory. A file is whole and durable, or absent."""

from poller.sinks.download.settings import DownloadSettings
from poller.sinks.download.sink import Download

__all__ = ["Download", "DownloadSettings"]
