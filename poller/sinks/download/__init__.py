"""The sink `download`: pictures as files below a directory, whole and durable or not there."""

from poller.sinks.download.settings import DownloadSettings
from poller.sinks.download.sink import Download

__all__ = ["Download", "DownloadSettings"]
