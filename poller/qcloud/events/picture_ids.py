"""The ids that the screenshot of a file name may have. Pure."""

from datetime import datetime, timedelta
from urllib.parse import unquote

from poller.core.model import identity
from poller.qcloud.events.names import parse_name
from poller.qcloud.events.screenshots import KIND
from poller.qcloud.wire.times import BEIJING
from poller.qcloud.wire.urls import locate

DAYS = 31
"""Event ids are remembered for 30 days."""


def picture_ids(name: str, account: str, picture_base: str | None, now: datetime) -> list[str]:
    """The ids of the screenshots of an account that a file name, path or URL may mean.

    The path is tried as it stands, and its last part alone, because a stored picture lies in folders of its own. A name
    that has a time of day without a date is tried below the folder of each of the last days. Empty if the name does not
    determine the moment of the shot: then the id cannot be worked out.
    """
    path = locate(name, picture_base).path
    last = path.rpartition("/")[2]
    newest = now.astimezone(BEIJING).date() + timedelta(days=1)
    dated = [f"{newest - timedelta(days=age)}/{last}" for age in range(DAYS + 1)]
    paths = dict.fromkeys((path, last, unquote(last), *dated))
    return [identity(KIND, account, one) for one in paths if parse_name(one).fixed]
