"""From a file name, a path or a URL to the id of the event."""

from datetime import UTC, datetime

import msgspec
import pytest

from poller.qcloud.events.picture_ids import picture_ids
from poller.qcloud.events.screenshots import screenshot_event

BASE = "http://shots-1250000000.file.myqcloud.com/"
NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
A = "room_1763800000_1763800000_20_300_169.jpg"
B = "2026-11-22/room-screenshot-10-03-20-300x169.jpg"


def id_of(name: str) -> str:
    raw = msgspec.json.encode({"stream_id": "room", "pic_url": name})
    return screenshot_event(raw, account="main", picture_base=BASE, received_at=NOW).id


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (A, A),
        (f"/{A}", A),
        (f"live/{A}", f"live/{A}"),
        (BASE + A, A),
        (f"{BASE}{A}?sign=abc", A),
        (f"/srv/pictures/2026-11-22/room/{A}", A),
        (B, B),
        (B.rpartition("/")[2], B),
        (f"2026-11-22/room/{B.rpartition('/')[2]}", B),
        (
            f"/srv/pictures/2026-11-22/r%C3%A4um/r%C3%A4um_{A.partition('_')[2]}",
            f"räum_{A.partition('_')[2]}",
        ),
    ],
)
def test_a_name_leads_to_the_id_of_its_event(asked: str, name: str) -> None:
    assert id_of(name) in picture_ids(asked, "main", BASE, NOW)
    assert id_of(name) not in picture_ids(asked, "another", BASE, NOW)


def test_a_name_that_does_not_say_when_its_picture_was_taken_has_no_id() -> None:
    assert picture_ids("cat.jpg", "main", BASE, NOW) == []
    assert picture_ids("room", "main", BASE, NOW) == []
