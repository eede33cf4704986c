"""The page of an event, in a browser: what `poller trace` says, the picture, and the event itself."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Page, expect

from poller.core.model import Dead, Done, Event, ParsedPage, PollOutcome, Retry, new_event
from poller.testing import anything
from tests.commands import poller
from tests.fakes import sqlite_spool
from tests.scenario.environment import environment, until
from tests.scenario.rig import webhook

from .rig import LOOKS, Look, Pages, Visitor, barriers, pages
from .shots import Shots

MARKUP = "<img src=x onerror=alert(1)>"
SIGNED = "http://shots-1250000000.file.myqcloud.com/a.jpg?q-signature=0123456789abcdef"
DAY = r"\d{4}-\d\d-\d\d[ T]|[A-Z][a-z]{2},? \d{1,2} [A-Z][a-z]{2,3}, "
"""As commands write it, and as the page does where the day is not today."""
TIMES = re.compile(rf"({DAY})?\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Pages]:
    """A daemon that was given three events: one is delivered, one waits at the hook, and one is a dead letter there."""
    fill(tmp_path / "daemon")
    with environment(tmp_path) as town, pages(town, tmp_path / "daemon") as daemon:
        town.turn("refuse")
        yield daemon


def fill(folder: Path) -> None:
    async def filled() -> None:
        async with sqlite_spool(folder) as spool:
            for sink in ("console", "hook"):
                await spool.attach(sink, anything)
            events = tuple(event(number) for number in (1, 2, 3))
            page = ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL)
            await spool.append("shots", [page])
            await spool.settle(await spool.claim("console", 3), [Done()] * 3)
            claimed = await spool.claim("hook", 3)
            await spool.settle(claimed, [Done(), Retry(after=3600, reason="HTTP 503"), Dead(reason=MARKUP)])

    folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as other:  # the browser's own loop runs in this thread
        other.submit(lambda: asyncio.run(filled())).result()


def event(number: int) -> Event:
    """A picture that was taken a while ago, with a signed URL."""
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10 - number)
    name = f"room_1700000000_1700000000_{number * 10}_300_169.jpg"
    return new_event(
        id=f"{number:032x}",
        kind="screenshot",
        account="main",
        stream_id="room",
        occurred_at=at,
        received_at=at + timedelta(seconds=1),
        url=SIGNED,
        fields={"file_name": name},
        message=msgspec.Raw(b'{"stream_id":"room"}'),
    )


def traced(daemon: Pages, id: str) -> list[str]:
    """The lines of `poller trace` without their times, first the one that names the event."""
    said = poller("trace", id, "-c", str(daemon.daemon.config), folder=daemon.daemon.folder)
    assert said.returncode == 0, said.stderr
    return [re.sub(r"\s+", " ", TIMES.sub("TIME", line)).strip() for line in said.stdout.splitlines()]


def words(page: Page) -> str:
    """What the page says, without times, in small letters: labels begin with a capital on the page only."""
    expect(page.locator(".event-sinks")).to_be_visible()
    text = TIMES.sub("TIME", page.get_by_role("main").inner_text())
    return re.sub(r"\s+", " ", text).lower()


def test_the_page_says_what_trace_says(visitor: Visitor, daemon: Pages) -> None:
    visitor.allow("picture")
    page = visitor.open(f"{daemon.url}/dead")
    for number in (1, 2, 3):
        title, *lines = traced(daemon, f"{number:032x}")
        page.goto(f"{daemon.url}/event/{number:032x}")
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        said = words(page)
        for line in lines:
            fact = line.removeprefix("console ").removeprefix("hook ")
            assert fact.lower() in said, line
        assert ("▲ waiting" in said, "■ dead" in said) == (number == 2, number == 3), number


def test_reasons_are_only_text_and_no_signature_is_shown(visitor: Visitor, daemon: Pages) -> None:
    visitor.allow("picture")
    page = visitor.open(f"{daemon.url}/event/{3:032x}")
    expect(page.locator(".event-sinks")).to_contain_text(f"dead: {MARKUP}")
    page.get_by_text("The event as sinks get it").click()
    content = page.locator(".event-json pre")
    expect(content).to_contain_text("a.jpg?***")
    expect(content).to_contain_text('"file_name": "room_1700000000_1700000000_30_300_169.jpg"')
    assert "0123456789abcdef" not in page.content()


def test_a_number_of_the_log_leads_to_the_event_and_from_there_to_the_stream(
    visitor: Visitor, daemon: Pages
) -> None:
    visitor.allow("picture")
    page = visitor.open(f"{daemon.url}/event/number:2")
    expect(page).to_have_url(f"{daemon.url}/event/{2:032x}")
    page.get_by_role("link", name="The stream at this moment").click()
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", re.compile("picture 2 of 3$"))
    page.get_by_role("link", name="Trace").click()
    expect(page).to_have_url(f"{daemon.url}/event/{2:032x}")
    page.go_back()
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", re.compile("picture 2 of 3$"))


def test_an_event_that_is_not_there_is_said_not_to_be_there(visitor: Visitor, daemon: Pages) -> None:
    visitor.allow("40[04]")
    page = visitor.open(f"{daemon.url}/dead")
    for named, says in (
        ("0" * 32, "unknown: no such event was taken in the last 30 days"),
        ("number:99", "number 99: no such event is retained"),
        ("cat.jpg", "neither an id nor a file name"),
        ("%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", "neither an id nor a file name"),
    ):
        page.goto(f"{daemon.url}/event/{named}")
        expect(page.get_by_role("alert")).to_contain_text(says)
        assert barriers(page) == [], named


def test_an_outcome_is_shown_once_it_is_known(visitor: Visitor, tmp_path: Path) -> None:
    with (
        environment(tmp_path) as town,
        pages(town, tmp_path / "daemon", sinks={"hook": webhook(town, timeout="4s")}) as daemon,
    ):
        town.turn("hang")
        Shots(town).take("room")
        until(lambda: any(row[3] for row in daemon.get("/api/streams")["streams"]), what="for the picture")
        page = visitor.open(f"{daemon.url}/event/number:1")
        expect(page.locator(".event-sinks")).to_contain_text("in hand")
        expect(page.locator(".event-picture img")).to_be_visible()
        assert page.evaluate("document.querySelector('.event-picture img').naturalWidth") > 0
        town.turn(200)
        expect(page.locator(".event-sinks")).to_contain_text(re.compile("hook● delivered .*, attempt "))
        expect(page.locator(".event-sinks")).to_contain_text(re.compile(rf", attempt {town.hook.attempts}\b"))
        assert town.hook.attempts > 1
        expect(page.locator(".event-sinks")).to_contain_text(": timed out")


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A daemon that has stored pictures."""
    folder = tmp_path_factory.mktemp("archived")
    archive: dict[str, Any] = {
        "type": "download",
        "directory": str(folder / "pictures"),
        "allow_cidr": ["127.0.0.0/8"],
    }
    sinks = {"archive": archive, "console": {"type": "stdout"}}
    with environment(folder) as town, pages(town, folder / "daemon", sinks=sinks) as daemon:
        Shots(town).begin(["room-7"])
        until(lambda: any(row[3] == 3 for row in daemon.get("/api/streams")["streams"]), what="for pictures")
        yield daemon


@LOOKS
def test_the_page_hinders_nobody(visitor: Visitor, archived: Pages, look: Look) -> None:
    page = visitor.open(f"{archived.url}/event/number:1", look)
    expect(page.locator(".event-sinks")).to_contain_text("file ")
    expect(page.locator(".event-picture img")).to_be_visible()
    page.get_by_text("The event as sinks get it").click()
    assert barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
