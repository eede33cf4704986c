"""Pages before a viewer whose clock is wrong by more than a day: all times are the daemon's."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.scenario.environment import Environment, environment, until
from tests.scenario.rig import webhook

from .rig import Pages, Requests, Visitor, advance_clock, pages, watch
from .shots import LEISURE, Shots
from .test_stream import ROOM, address, shows, take

DAY = 26 * 3600.0
WRONG = pytest.mark.parametrize(
    "ahead", [DAY, pytest.param(-DAY, marks=pytest.mark.soak)], ids=["ahead", "behind"]
)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Environment, Pages]]:
    """A daemon with a stream that goes on, and one whose pictures cannot be delivered."""
    folder = tmp_path_factory.mktemp("clock")
    with environment(folder) as place, pages(place, folder, sinks={"hook": webhook(place)}) as daemon:
        place.turn(422)
        take(place, daemon, [3 * 3600 + 10, 3 * 3600, 3 * 3600 - 10, 20, 10])
        shots = Shots(place)
        shots.begin(["studio-1"], LEISURE)
        with shots.going_on({"studio-1"}, LEISURE):
            until(lambda: daemon.process.metric("dead_letters", sink="hook") >= 8)
            until(lambda: any(row[2] == "studio-1" and row[7] for row in known(daemon)), what="for a cadence")
            yield place, daemon


def known(daemon: Pages) -> list[list[object]]:
    """The rows of all streams."""
    rows: list[list[object]] = daemon.get("/api/streams")["streams"]
    return rows


def says_nothing_wrong(page: Page) -> None:
    """There is no notice."""
    expect(page.locator(".notice:visible")).to_have_count(0)


@WRONG
def test_a_stream_is_as_live_as_for_everybody_else(
    visitor: Visitor, town: tuple[Environment, Pages], ahead: float
) -> None:
    _, daemon = town
    page = visitor.open(address(daemon, "studio-1"), ahead=ahead)
    expect(page.locator(".stream-head")).to_contain_text(re.compile("● Live"))
    expect(page.locator(".moment")).to_contain_text("followed live")
    assert abs(page.evaluate("Date.now()") / 1000 - time.time() - ahead) < 3600, "its clock is wrong"
    says_nothing_wrong(page)
    wall = visitor.open(daemon.url, ahead=ahead)
    tile = wall.locator(".tile").filter(has_text="studio-1")
    expect(tile).to_contain_text("● Live")
    expect(tile).to_contain_text(re.compile(r"Live\d+ (s|min)"))
    says_nothing_wrong(wall)


@WRONG
def test_a_link_shows_the_moment_that_was_meant(
    visitor: Visitor, town: tuple[Environment, Pages], ahead: float
) -> None:
    _, daemon = town
    pictures = daemon.get(f"/api/stream?account=main&id={ROOM}&since={int(time.time()) - 86_000}")["pictures"]
    for place in (1, 3):  # three hours ago, and within the last hour
        number, taken = pictures[place]
        page = visitor.open(address(daemon, at=taken), ahead=ahead)
        shows(page, number)
        page.get_by_role("button", name="Back to live").click()
        shows(page, pictures[-1][0])
        says_nothing_wrong(page)


@WRONG
def test_a_clock_that_is_set_while_a_page_is_open_changes_nothing(
    visitor: Visitor, town: tuple[Environment, Pages], ahead: float
) -> None:
    _, daemon = town
    page = visitor.open(address(daemon, "studio-1"))
    expect(page.locator(".stream-head")).to_contain_text("● Live")
    asked = Requests(page, "**/api/stream?*")
    advance_clock(page, ahead)
    watch(page, lambda: asked.addresses, "for the page to look for what came late")
    expect(page.locator(".stream-head")).to_contain_text("● Live")
    expect(page.locator(".moment")).to_contain_text("followed live")
    says_nothing_wrong(page)


@WRONG
def test_an_age_and_the_last_hour_are_by_the_daemons_clock(
    visitor: Visitor, town: tuple[Environment, Pages], ahead: float
) -> None:
    _, daemon = town
    page = visitor.open(f"{daemon.url}/dead?within=1h", ahead=ahead)
    expect(page.locator(".matches")).to_contain_text(re.compile(r"\d+ match"))
    expect(page.locator(".facts").first).to_have_text(re.compile(r"last (\d+ min )?\d+ s ago"))
    pipeline = visitor.open(f"{daemon.url}/pipeline", ahead=ahead)
    expect(pipeline.get_by_text(re.compile(r"^As of \d\d:\d\d:\d\d, "))).to_be_visible()
    says_nothing_wrong(pipeline)


@WRONG
def test_a_wall_on_which_nothing_changes_hears_the_time_again(
    visitor: Visitor, tmp_path: Path, ahead: float
) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path / "daemon") as daemon:
        page = visitor.open(daemon.url)
        page.get_by_role("heading", name="No streams yet").wait_for()
        assert abs(clock(page) - time.time()) < 3600
        advance_clock(page, ahead)
        assert abs(clock(page) - time.time()) > 3600
        watch(page, lambda: abs(clock(page) - time.time()) < 3600, "for the page to hear the time")


def clock(page: Page) -> float:
    """What the page takes for the daemon's time."""
    now: float = page.evaluate("import('/static/clock.js').then((clock) => clock.now())")
    return now


@WRONG
def test_a_page_that_loads_before_it_knows_the_time_does_not_say_a_wrong_one(
    visitor: Visitor, town: tuple[Environment, Pages], ahead: float
) -> None:
    visitor.allow("ERR_FAILED")
    _, daemon = town
    page = visitor.open(f"{daemon.url}/static/icon.svg", ahead=ahead)
    asked = Requests(page, "**/api/me", held=True)
    page.route("**/api/live*", lambda route: route.abort())
    page.goto(daemon.url, wait_until="commit")
    watch(page, lambda: asked.waiting, "for the page to ask who it is")
    page.evaluate("import('/static/pages/wall.js').then(() => null)")
    asked.hold_no_more()
    expect(page.locator(".notice.lost:visible")).to_have_text(
        re.compile(r"^Not live since \d\d:\d\d:\d\d\. ")
    )


@pytest.mark.parametrize("at", ["0", "5"])
def test_a_moment_long_ago_has_no_pictures(
    visitor: Visitor, town: tuple[Environment, Pages], at: str
) -> None:
    _, daemon = town
    page = visitor.open(address(daemon, at=at))
    expect(page.locator(".stream-empty")).to_contain_text("No picture was taken in this time.")
    says_nothing_wrong(page)


@pytest.mark.parametrize("at", ["1950-01-01T00:00:00Z", "99999999999999"])
def test_a_moment_that_no_picture_can_have_is_no_error(
    visitor: Visitor, town: tuple[Environment, Pages], at: str
) -> None:
    _, daemon = town
    page = visitor.open(address(daemon, at=at))
    page.locator(".big img").wait_for()
    says_nothing_wrong(page)
