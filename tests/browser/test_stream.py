"""The page of a stream, in a browser, before a daemon and its platform."""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from poller.core.model import Event, ParsedPage, PollOutcome, new_event
from poller.sandbox import Customer
from tests.fakes import sqlite_spool
from tests.sandbox.api_client import record
from tests.scenario.environment import Environment, environment, until

from .rig import (
    DARK,
    GONE,
    LOOKS,
    Look,
    Pages,
    Requests,
    Visitor,
    barriers,
    drawn,
    pages,
    picture_number,
    watch,
)
from .shots import Shots

ROOM = "room-7"
SOURCES = {
    "shots": {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "250ms"},
    "states": {"type": "channel_status", "account": "main", "follow": "seen", "interval": "200ms"},
    "tapes": {
        "type": "recordings",
        "account": "main",
        "follow": "seen",
        "after_end": ["100ms", "500ms", "2s"],
        "rate": "100/s",
    },
}
AUDITED = {"audit": {"enabled": True, "settle": "3s"}}
SINKS = {"console": {"type": "stdout"}}
# Text that is markup or script where it is not taken for text alone.
CORPUS = (
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "' onmouseover='alert(1)",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "</a><base href=//evil.example>",
    "&lt;b&gt;&amp;",
    "流-🎥-é",
)


LOAD = """async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
}"""
"""Loads a picture in the page, which does not show it."""


@pytest.fixture
def town(tmp_path: Path) -> Iterator[tuple[Environment, Pages]]:
    with (
        environment(tmp_path) as town,
        pages(town, tmp_path / "daemon", account=AUDITED, sources=SOURCES, sinks=SINKS) as daemon,
    ):
        yield town, daemon


def address(daemon: Pages, stream: str = ROOM, **query: Any) -> str:
    return f"{daemon.url}/stream?{urlencode({'account': 'main', 'id': stream, **query})}"


def facts(daemon: Pages, stream: str = ROOM, **query: Any) -> Any:
    """What the daemon knows of a stream."""
    return daemon.get(f"/api/stream?{urlencode({'account': 'main', 'id': stream, **query})}")


class LongPush(Shots):
    """Pictures of a push that began two days ago."""

    def __init__(self, town: Environment) -> None:
        super().__init__(town)
        self._push -= 2 * 86_400


def take(
    town: Environment, daemon: Pages, ages: list[int], stream: str = ROOM, shots: Shots | None = None
) -> list[tuple[int, float]]:
    """Pictures of these ages in seconds, oldest first, that the daemon knows; of a push of its own without `shots`."""
    shots = shots or LongPush(town)
    known = until_known(daemon, stream, 0, since=int(time.time()) - 86_000)
    shots.take_all(stream, ages)
    return until_known(daemon, stream, len(known) + len(ages), since=int(time.time()) - 86_000)


def until_known(daemon: Pages, stream: str, count: int, **query: Any) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []

    def known() -> bool:
        streams = daemon.get("/api/streams")["streams"]
        if any(row[2] == stream for row in streams):
            found[:] = [(number, taken) for number, taken in facts(daemon, stream, **query)["pictures"]]
        return len(found) >= count

    until(known, what=f"for {count} pictures")
    return found


def slider(page: Page) -> Locator:
    return page.get_by_role("slider", name=f"Pictures of {ROOM}")


def says(page: Page, text: str) -> None:
    """The slider says which picture is chosen, and the page shows the same words."""
    expect(slider(page)).to_have_attribute("aria-valuetext", re.compile(f"{text}$"))
    expect(page.locator(".moment")).to_contain_text(text)


def shown(page: Page) -> int:
    """The number of the big picture; 0 if there is none."""
    sources = page.locator(".big img").evaluate_all("all => all.map((one) => one.src)")
    return picture_number(sources[0]) if sources else 0


def shows(page: Page, number: int) -> None:
    watch(page, lambda: shown(page) == number, f"for picture {number}")


def asked_for(page: Page) -> str | None:
    """The moment in the address."""
    return parse_qs(urlsplit(page.url).query).get("at", [None])[0]


def axis(page: Page, name: str) -> int:
    return int(page.locator("canvas.axis").get_attribute(f"data-{name}") or 0)


# ---------------------------------------------------------------- what is there


def test_ticks_and_gaps_are_those_that_the_sandbox_made(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    take(place, daemon, [ago for ago in range(600, 0, -10) if not 260 <= ago < 320])
    until(lambda: facts(daemon)["gaps"], what="for the audit")
    page = visitor.open(address(daemon))
    says(page, "picture 54 of 54")
    watch(page, lambda: axis(page, "pictures") == 54, "for the ticks")
    assert (axis(page, "ticks"), axis(page, "gaps")) == (54, 1)
    expect(page.locator(".strip-gap")).to_have_count(1)
    expect(page.locator(".strip-labels")).to_have_text("6 missing")
    expect(page.locator(".stream-facts")).to_contain_text(
        re.compile(r"6 pictures never came \(1 min 1[01] s\)")
    )
    expect(page.locator(".strip-break")).to_have_count(0)


def test_an_interruption_and_a_new_push_are_shown_and_are_no_gap(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    app_id, channels = Customer().app_id, place.sandbox.channels
    place.ask(lambda: channels.begin(app_id, ROOM))
    before, again = LongPush(place), Shots(place)
    take(place, daemon, [8, 7, 6, 5, 4, 3, 2, 1], shots=before)
    until(lambda: facts(daemon)["state"] == "live", what="for the state")
    with before.going_on({ROOM}, 1):  # after four seconds without a picture it would be silent
        page = visitor.open(address(daemon))
        expect(page.locator(".stream-head")).to_contain_text("● Live for")
    place.ask(lambda: record(place.sandbox, Customer(), 1, stream_id=ROOM, start=time.time() - 300, step=120))
    place.ask(lambda: channels.end(app_id, ROOM))
    expect(page.locator(".stream-head")).to_contain_text("■ Interrupted for")
    page.wait_for_timeout(4000)  # an interruption of some length
    place.ask(lambda: channels.begin(app_id, ROOM))
    again.take_all(ROOM, [0] * 4)
    with again.going_on({ROOM}, 1):
        expect(page.locator(".stream-head")).to_contain_text("● Live for")
    shots = until_known(daemon, ROOM, before.pictures + again.pictures)
    until(lambda: facts(daemon)["recordings"], what="for the recording")
    page.reload()
    says(page, f"picture {len(shots)} of {len(shots)}")
    expect(page.locator(".strip-break")).to_have_count(1)
    listed = page.locator(".stream-facts")
    expect(listed).to_contain_text(re.compile(r"interrupted for \d+ s: \d+ pictures?, no gap"))
    expect(listed).to_contain_text("live again (seen by channel_status)")
    expect(listed).to_contain_text(re.compile(r"segment \d+ (min|s)"))
    assert facts(daemon)["gaps"] == []
    assert axis(page, "gaps") == 0
    expect(page.locator(".strip-gap")).to_have_count(0)


def test_a_stream_without_pictures_in_this_time_leads_to_the_newest_one(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    (*_, (number, _)) = take(place, daemon, [9020, 9010, 9000])
    page = visitor.open(address(daemon))
    expect(page.locator(".stream-empty")).to_contain_text("No picture was taken in the last hour.")
    page.get_by_role("button", name="Go to the newest picture").click()
    shows(page, number)
    says(page, "picture 3 of 3")


def test_a_stream_that_nobody_knows_is_said_to_be_unknown(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    visitor.allow("404")
    _, daemon = town
    page = visitor.open(address(daemon, "nowhere"))
    expect(page.get_by_role("alert")).to_contain_text("No stream nowhere is known.")
    expect(page.get_by_role("slider")).to_be_hidden()
    page.goto(f"{daemon.url}/stream")
    expect(page.get_by_role("main")).to_contain_text("The address names no stream.")


def test_the_newest_is_shown_before_all_of_the_history_has_come(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    known = take(place, daemon, list(range(300, 0, -10)))
    page = visitor.open(f"{daemon.url}/dead")

    def answer(route: Route) -> None:
        """The daemon's answer, but partial, as that of a log in which reading takes long."""
        whole = route.fetch().json()
        route.fulfill(json={**whole, "pictures": known[20:], "complete": False, "below": known[20][0]})

    page.route("**/api/stream?*", answer)
    others = Requests(page, "**/api/stream?*below=*", held=True)
    page.goto(address(daemon))
    says(page, "picture 10 of 10")
    shows(page, known[-1][0])
    watch(page, lambda: others.waiting, "for the page to read on")
    others.hold_no_more()
    says(page, "picture 30 of 30")


def test_a_day_has_a_tick_for_each_of_its_pictures(visitor: Visitor, tmp_path: Path) -> None:
    fill(tmp_path / "daemon", day(8640))
    with environment(tmp_path) as place, pages(place, tmp_path / "daemon", sinks=SINKS) as daemon:
        page = visitor.open(f"{daemon.url}/dead")
        asked = Requests(page, "**/api/stream?*")
        visitor.allow("/picture/")
        page.goto(address(daemon, hours=24))
        watch(page, lambda: axis(page, "pictures") == 8640, "for all pictures")
        queries = [parse_qs(urlsplit(one).query) for one in asked.addresses]
        of_the_day = [one for one in queries if one["since"] == queries[0]["since"]]  # others: what came late
        assert sum("below" in one for one in of_the_day) == len(of_the_day) - 1, (
            "each request goes on where an answer stopped"
        )
        says(page, "picture 8,640 of 8,640")
        slider(page).focus()
        page.keyboard.press("Home")
        says(page, "picture 1 of 8,640")


# ---------------------------------------------------------------- choosing a moment


def test_keys_choose_pictures_and_the_address_keeps_the_moment(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    known = take(place, daemon, list(range(300, 0, -10)))
    page = visitor.open(address(daemon))
    says(page, "picture 30 of 30")
    shows(page, known[-1][0])
    page.keyboard.press("ArrowLeft")
    says(page, "picture 29 of 30")
    shows(page, known[-2][0])
    watch(page, lambda: asked_for(page) == f"{known[-2][1]:g}" or float(asked_for(page) or 0) == known[-2][1])
    slider(page).focus()
    for key, place_of in (("Shift+ArrowLeft", 23), ("Home", 1), ("ArrowRight", 2), ("Shift+ArrowRight", 8)):
        page.keyboard.press(key)
        says(page, f"picture {place_of} of 30")
    page.keyboard.press("End")
    says(page, "picture 30 of 30")
    expect(page.locator(".moment")).to_contain_text("followed live")
    watch(page, lambda: asked_for(page) is None, "for the address to follow")
    page.keyboard.press("Home")
    says(page, "picture 1 of 30")
    page.keyboard.press("l")
    says(page, "picture 30 of 30")


def test_a_pointer_chooses_the_nearest_picture(visitor: Visitor, town: tuple[Environment, Pages]) -> None:
    place, daemon = town
    known = take(place, daemon, [3000, 2400, 1800, 1200, 600, 60])
    page = visitor.open(address(daemon))
    says(page, "picture 6 of 6")
    shows(page, known[-1][0])

    def point(ago: float) -> tuple[float, float]:
        box = page.locator("canvas.axis").bounding_box()
        assert box is not None
        return box["x"] + box["width"] * (1 - ago / 3600), box["y"] + 20

    page.mouse.move(*point(1700))
    expect(page.locator(".hoverline")).to_be_visible()
    page.mouse.down()
    says(page, "picture 3 of 6")
    page.mouse.move(*point(2900))
    says(page, "picture 1 of 6")
    page.mouse.up()
    pointed = page.locator(".hoverline").inner_text()
    page.mouse.move(*point(700))
    expect(page.locator(".hoverline")).not_to_have_text(pointed)
    drawn(page)
    says(page, "picture 1 of 6")
    shows(page, known[0][0])


@pytest.mark.parametrize("ago", [600, 3 * 3600])
def test_a_link_shows_the_same_picture_to_somebody_else(
    visitor: Visitor, town: tuple[Environment, Pages], ago: int
) -> None:
    place, daemon = town
    known = take(place, daemon, [ago + 20, ago + 10, ago, 20, 10])
    number, taken = known[1]
    page = visitor.open(address(daemon, at=taken))
    shows(page, number)
    page.locator(".moment-time", has_text=":").wait_for()
    page.evaluate(
        """() => { window.copied = ""; navigator.clipboard.writeText = async (text) => { window.copied = text; }; }"""
    )
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#notices")).to_contain_text("The link is copied.")
    link = page.evaluate("window.copied")
    other = visitor.open(link, DARK)
    shows(other, number)
    expect(other.locator(".moment-time")).to_have_text(page.locator(".moment-time").inner_text())
    other.reload()
    shows(other, number)
    other.get_by_role("button", name="Back to live").click()
    shows(other, known[-1][0])


def test_hours_change_what_is_shown_and_stay_in_the_address(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    take(place, daemon, [20 * 3600, 5 * 3600, 1800, 60])
    page = visitor.open(address(daemon))
    says(page, "picture 2 of 2")
    for hours, count in ((6, 3), (24, 4), (1, 2)):
        page.get_by_role("button", name=f"{hours} h", exact=True).click()
        says(page, f"picture {count} of {count}")
    watch(page, lambda: "hours=" not in page.url, "for the address of the usual hour")
    page.get_by_role("button", name="24 h", exact=True).click()
    watch(page, lambda: "hours=24" in page.url, "for the address")
    page.reload()
    says(page, "picture 4 of 4")


# ---------------------------------------------------------------- live


def test_the_newest_picture_is_followed_and_a_chosen_one_stays(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    shots = LongPush(place)
    take(place, daemon, [30, 20, 10], shots=shots)
    page = visitor.open(address(daemon))
    says(page, "picture 3 of 3")
    page.evaluate("window.same = true")
    known = take(place, daemon, [0], shots=shots)
    shows(page, known[-1][0])
    says(page, "picture 4 of 4")
    page.keyboard.press("ArrowLeft")
    says(page, "picture 3 of 4")
    shows(page, known[-2][0])
    newer = take(place, daemon, [0], shots=shots)
    says(page, "picture 3 of 5")
    page.evaluate(LOAD, f"/picture/{newer[-1][0]}?{newer[-1][1]:g}")
    drawn(page)
    assert shown(page) == known[-2][0]
    page.get_by_role("button", name="Back to live").click()
    shows(page, newer[-1][0])
    assert page.evaluate("window.same") is True


def test_a_stream_without_a_daemon_says_since_when_and_goes_on_after_a_restart(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    visitor.allow(GONE)
    place, daemon = town
    shots = LongPush(place)
    known = take(place, daemon, [30, 20, 10], shots=shots)
    page = visitor.open(address(daemon))
    shows(page, known[-1][0])
    expect(page.locator(".stream[data-stale]")).to_have_count(0)
    daemon.process.stop()
    expect(page.get_by_text("Not live since")).to_be_visible()
    expect(page.locator(".stream[data-stale]")).to_have_count(1)
    daemon.start()
    expect(page.get_by_text("Not live since")).to_be_hidden()
    shows(page, take(place, daemon, [0], shots=shots)[-1][0])
    expect(page.locator(".stream[data-stale]")).to_have_count(0)


def test_a_stream_whose_pictures_stop_is_late_in_words(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    take(place, daemon, [4, 3, 2, 1, 0])
    page = visitor.open(address(daemon))
    expect(page.locator(".stream-head")).to_contain_text(
        re.compile(r"■ Silent no picture for \d+ s, usually one each [\d.]+ s")
    )


def test_a_picture_that_is_not_there_is_said_to_be_missing(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    visitor.allow("404|425|502")
    place, daemon = town
    shots = Shots(place)
    for ago in (30, 20):
        shots.take(ROOM, ago=ago)
    shots.take(ROOM, ago=10, stored=False)
    known = until_known(daemon, ROOM, 3)
    page = visitor.open(address(daemon, at=known[2][1]))
    expect(page.locator(".frame-why")).to_contain_text("This picture is not uploaded yet.")
    page.keyboard.press("ArrowLeft")
    shows(page, known[1][0])
    expect(page.locator(".frame-why")).to_be_hidden()


# ---------------------------------------------------------------- for everybody


def test_few_pictures_are_loaded_and_never_more_than_eight_at_once(
    visitor: Visitor, town: tuple[Environment, Pages]
) -> None:
    place, daemon = town
    take(place, daemon, list(range(3500, 0, -10)))
    page = visitor.open(f"{daemon.url}/dead")
    asked = Requests(page, "**/picture/*", held=True)
    page.goto(address(daemon))
    says(page, "picture 350 of 350")
    watch(page, lambda: len(asked.waiting) >= 9, "for eight thumbs and the big picture")
    asked.settle()
    assert len(asked.waiting) == 9, "eight thumbs and the big picture"
    asked.hold_no_more()
    expect(page.locator(".strip-thumbs img:not([data-there])")).to_have_count(0)
    thumbs = page.locator(".strip-thumbs img").count()
    assert 6 <= thumbs <= 14
    assert len(asked.addresses) <= thumbs + 2


def test_ids_are_only_text(visitor: Visitor, town: tuple[Environment, Pages]) -> None:
    place, daemon = town
    for stream in CORPUS:
        shots = Shots(place)
        for ago in (20, 10):
            shots.take(stream, ago=ago)
    page = visitor.open(f"{daemon.url}/dead")
    for stream in CORPUS:
        until_known(daemon, stream, 2)
        page.goto(address(daemon, stream))
        expect(page.get_by_role("heading", level=1)).to_have_text(stream)
        expect(page.get_by_role("slider")).to_have_attribute("aria-label", f"Pictures of {stream}")
        expect(page.locator(".big img")).to_have_attribute("alt", re.compile(re.escape(stream)))
        page.get_by_role("link", name="Trace").click()
        expect(page.locator(".event-facts")).to_contain_text(f"{stream} of account main")
        link = page.get_by_role("link", name="The stream at this moment").get_attribute("href")
        assert parse_qs(urlsplit(link or "").query)["id"] == [stream]
    page.get_by_role("link", name="The stream at this moment").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(CORPUS[-1])


def fill(folder: Path, history: Sequence[tuple[Event, ...]] | None = None) -> None:
    """A spool that holds these pages of events; by default of an hour: live, interrupted, live again, two segments."""
    events = [(past(kind, ago, dict(fields)),) for kind, ago, fields in PAST] if history is None else history

    async def filled() -> None:
        async with sqlite_spool(folder) as spool:
            for some in events:
                page = ParsedPage(events=some, rejects=(), outcome=PollOutcome.PARTIAL)
                await spool.append("states", [page])

    folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as other:  # the browser's own loop runs in this thread
        other.submit(lambda: asyncio.run(filled())).result()


PAST: tuple[tuple[str, float, dict[str, object]], ...] = (
    ("channel", 3500, {"state": "live", "seen_by": "callbacks"}),
    ("recording", 2500, {"duration": 1000, "file_format": "flv", "file_size": 22_400_000}),
    ("channel", 2500, {"state": "interrupted", "seen_by": "callbacks"}),
    ("channel", 2230, {"state": "live", "seen_by": "channel_status"}),
    ("recording", 420, {"duration": 1810, "file_format": "flv", "file_size": 40_800_000}),
)


def day(pictures: int) -> list[tuple[Event, ...]]:
    """So many pictures of a day, but for some minutes at its begin, a hundred to a page; the newest now."""
    ages = [n * 85_500 / pictures for n in reversed(range(pictures))]
    return [
        tuple(past("screenshot", ago, {}) for ago in ages[at : at + 100]) for at in range(0, pictures, 100)
    ]


def past(kind: str, ago: float, fields: dict[str, object]) -> Event:
    at = datetime.now(UTC) - timedelta(seconds=ago)
    return new_event(
        id=f"{kind == 'channel':016x}{int(ago):016x}",
        kind=kind,
        account="main",
        stream_id=ROOM,
        occurred_at=at,
        received_at=at,
        url=None,
        fields=fields,
        message=msgspec.Raw(b"{}"),
    )


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A daemon that knows of an hour with an interruption, a gap and recordings."""
    folder = tmp_path_factory.mktemp("eventful")
    fill(folder / "daemon")
    with (
        environment(folder) as place,
        pages(place, folder / "daemon", account=AUDITED, sinks=SINKS) as daemon,
    ):
        take(place, daemon, list(range(3490, 2500, -10)))
        take(
            place, daemon, [ago for ago in range(2220, 0, -10) if not 1140 <= ago < 1200], shots=Shots(place)
        )
        until(lambda: facts(daemon)["gaps"], what="for the audit")
        yield daemon


@LOOKS
def test_the_page_hinders_nobody(visitor: Visitor, eventful: Pages, look: Look) -> None:
    page = visitor.open(address(eventful), look)
    expect(page.locator(".strip-labels")).to_have_text("6 missing")
    watch(page, lambda: axis(page, "pictures") > 280, "for the whole hour")
    expect(page.locator(".strip-thumbs img[data-there]")).not_to_have_count(0)
    expect(page.locator(".strip-thumbs img:not([data-there])")).to_have_count(0)
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.get_by_role("button", name="Back to live")).to_be_visible()
    chosen = page.locator(".moment-time").inner_text()
    expect(page.locator(".big img")).to_have_attribute("alt", re.compile(f"{chosen}$"))
    expect(page.locator(".big[data-waiting]")).to_have_count(0)
    assert barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visitor.picture(page, f"stream-{look.name}".removesuffix("-light"))
