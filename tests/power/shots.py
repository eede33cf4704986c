"""What the workload and the rig both know: which names a page holds, and the parts as the daemon builds them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from poller.core.model import Event, ParsedPage, RawPage
from poller.pipeline.courier import Terms
from poller.pipeline.retry import RetryPolicy
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock
from poller.settings import AccountSettings, CosSettings
from poller.sinks.download import DownloadSettings
from poller.sources.screenshot_queue import ScreenshotQueue, ScreenshotQueueSettings
from poller.spools.sqlite import SqliteSpool

ACCOUNT = "main"
SOURCE = "shots"
SINK = "archive"
PUSH = 1471850187
PER_PAGE = 20
PAGES_PER_STREAM = 3
"""Few, so that new folders come all the time."""
LANES = 4
JOURNAL_SIZE = 24 * 1024 * 1024
"""Room for the lanes and little more, so that the ring comes round every few lives."""
LARGEST_PADDING = 200_000
TERMS = Terms(
    policy=RetryPolicy(give_up_after=3600.0), timeout=30.0, concurrency=2, max_events=16, max_wait=0.0
)


def names(page: int) -> list[str]:
    """The pictures of a page."""
    stream, first = f"cam{page // PAGES_PER_STREAM}", page * PER_PAGE
    return [f"{stream}_{PUSH}_{PUSH}_{first + n}_320_176.jpg" for n in range(PER_PAGE)]


def page_of(name: str) -> int:
    """The page a picture was announced in."""
    return int(name.split("_")[3]) // PER_PAGE


def name_of(event: Event) -> str:
    """An event's picture."""
    return str(event.fields["file_name"])


def page(number: int) -> RawPage:
    """A page as the platform would send it, and padding, so that pages differ in size."""
    return answered({**_output(number), "padding": "x" * (number * 7919 % LARGEST_PADDING)})


def page_again(number: int) -> RawPage:
    """A page with the same messages, for a reader who knows them."""
    return answered(_output(number))


def _output(number: int) -> dict[str, object]:
    messages = [{"stream_id": name.split("_")[0], "pic_url": name} for name in names(number)]
    return {"output": {"count": len(messages), "data": messages}}


def answered(said: dict[str, object]) -> RawPage:
    """An answer of the platform."""
    body = json.dumps({"ret": 0, "message": "return successfully!", **said}).encode()
    return RawPage(
        source=SOURCE, received_at=datetime.now(UTC), status=200, encoding="", whole=True, body=body
    )


def pages_in(readings: Sequence[ParsedPage]) -> list[int]:
    """The pages that were read."""
    return [page_of(name_of(reading.events[0])) for reading in readings if reading.events]


# ---------------------------------------------------------------- the parts


def account(pictures: str) -> Account:
    """An account whose pictures are at this URL; not entered, because nothing is called."""
    cos = CosSettings(base_url=pictures)
    return Account(ACCOUNT, AccountSettings.model_validate({"app_id": 1234, "key": "c0ffee", "cos": cos}))


def queue_settings() -> ScreenshotQueueSettings:
    """The queue, as fast as it goes."""
    return ScreenshotQueueSettings(
        type="screenshot_queue",
        account=ACCOUNT,
        count=PER_PAGE,
        min_delay=0.01,
        max_delay=0.01,
        max_in_flight=LANES,
    )


class DryQueue(ScreenshotQueue):
    """A queue that holds nothing any more."""

    async def ready(self) -> None:
        """Allow it."""

    async def fetch(self) -> RawPage:
        """An empty answer."""
        return answered({"output": {"count": 0, "data": []}})


def spool_settings(folder: Path) -> SqliteSpool.Settings:
    """The spool in this folder."""
    return SqliteSpool.Settings(type="sqlite", path=folder / "spool.db")


def spool_of(folder: Path, clock: Clock | None = None) -> SqliteSpool:
    """The spool in this folder, not entered."""
    return SqliteSpool("spool", spool_settings(folder), {}, clock)


def journal_path(folder: Path) -> Path:
    """Where the daemon would put the journal."""
    return folder / "spool.db.journal"


def download_settings(folder: Path, sync: str) -> DownloadSettings:
    """Pictures beside the spool, from this machine, synced in this way."""
    return DownloadSettings.model_validate(
        {
            "type": "download",
            "directory": pictures_path(folder),
            "allow_cidr": ["127.0.0.0/8"],
            "sidecar": False,
            "sync": sync,
        }
    )


def pictures_path(folder: Path) -> Path:
    """Where pictures end up."""
    return folder / "pictures"


def wants(event: Event) -> bool:
    """The sink takes everything."""
    return True
