"""The wall, in a browser, before a daemon and its platform."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, Page, expect

from poller.core.catalogue import Stream
from poller.operations.stream_states import attention
from poller.sandbox import Customer
from tests.feed import feeding
from tests.scenario.environment import environment, until

from .measuring import Cost, measure
from .rig import (
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
    visited,
    watch,
)
from .shots import LEISURE, Shots

FOCUSED: Final = """() => {
  const { ariaLabel, className, textContent } = document.activeElement;
  return ariaLabel || className || textContent;
}"""
REMEMBER: Final = """(element) => {
  window.told = [element.textContent];
  new MutationObserver(() => window.told.push(element.textContent)).observe(element, { childList: true });
}"""
"""Keeps what an element says from now on, one text after the other."""
STREAMS: Final = tuple(f"studio-{n}" for n in range(1, 25))
# Text that is markup, script or an odd letter where it is not taken for text alone.
CORPUS: Final = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "' onmouseover='alert(1)",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "</a><base href=//evil.example>",
    "\u202eevil\u202c-\u0000",
    "&lt;b&gt;&amp;",
    "流-🎥-é",
)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[tuple[Shots, Pages]]:
    with environment(tmp_path) as town, pages(town, tmp_path / "daemon") as daemon:
        yield Shots(town), daemon


def tile(page: Page, stream: str) -> Locator:
    """The tile of a stream."""
    return page.locator(".tile").filter(
        has=page.locator(".name", has_text=re.compile(f"^{re.escape(stream)}$"))
    )


def names(page: Page) -> list[str]:
    """The streams whose tiles there are, in their order."""
    return page.locator(".tile .name").all_text_contents()


def shown(page: Page, stream: str) -> int:
    """The number of the picture that a tile shows; 0 without one."""
    source = shown_source(page, stream)
    return picture_number(source) if source else 0


def shown_source(page: Page, stream: str) -> str:
    """The address of the picture that a tile shows; empty without one."""
    found = tile(page, stream).locator("img:not([hidden])")
    sources: list[str] = found.evaluate_all("all => all.map((one) => one.src)")
    return sources[0] if sources else ""


# ---------------------------------------------------------------- what goes on


def test_tiles_are_there_soon_and_a_picture_is_replaced_without_a_reload(
    visitor: Visitor, town: tuple[Shots, Pages], soak: bool
) -> None:
    shots, daemon = town
    shots.begin(STREAMS, LEISURE)
    until_taken(daemon, 3 * len(STREAMS))
    begun = time.monotonic()
    page = visitor.open(daemon.url)
    expect(page.locator(".tile img:not([hidden])")).to_have_count(len(STREAMS))
    if soak:  # a machine with other work may take longer
        assert time.monotonic() - begun < 2.0
    page.evaluate("window.same = true")
    before = shown(page, "studio-3")
    shots.take("studio-3")
    watch(page, lambda: shown(page, "studio-3") > before, "for a newer picture")
    assert page.evaluate("window.same") is True
    assert page.evaluate("document.querySelector('.tile img').naturalWidth") > 0


def test_a_stream_that_is_unplugged_is_late_and_then_silent_in_words(
    visitor: Visitor, town: tuple[Shots, Pages]
) -> None:
    shots, daemon = town
    plugged = {"studio-1", "studio-2", "studio-3"}
    shots.begin(sorted(plugged))
    with shots.going_on(plugged):
        page = visitor.open(daemon.url)
        expect(tile(page, "studio-3")).to_contain_text("Live")
        watch(page, lambda: names(page) == ["studio-1", "studio-2", "studio-3"])
        tile(page, "studio-3").locator(".state").evaluate(REMEMBER)
        plugged.remove("studio-3")
        expect(tile(page, "studio-3")).to_contain_text(re.compile(r"no picture for \d+ s"))
        expect(page).to_have_title("(1) Wall · poller")
        expect(tile(page, "studio-3")).to_contain_text("■ Silent")
        assert page.evaluate("window.told") == ["● Live", "▲ Late", "■ Silent"]
        assert names(page) == ["studio-3", "studio-1", "studio-2"], "attention comes first"
        expect(tile(page, "studio-3")).to_have_attribute("data-dim", "1")
        expect(tile(page, "studio-1")).to_have_attribute("data-dim", "")
        plugged.add("studio-3")
        expect(tile(page, "studio-3")).to_contain_text("Live")
        expect(page).to_have_title("Wall · poller")


def test_a_wall_without_a_daemon_says_since_when_and_is_right_again_after_a_restart(
    visitor: Visitor, town: tuple[Shots, Pages]
) -> None:
    visitor.allow(GONE)
    shots, daemon = town
    shots.begin(["studio-1", "studio-2"], LEISURE)
    page = visitor.open(daemon.url)
    expect(page.locator(".tile img:not([hidden])")).to_have_count(2)
    daemon.process.kill()
    expect(page.get_by_role("status").first).to_have_text(re.compile(r"Not live since \d\d:\d\d:\d\d"))
    expect(page).to_have_title(re.compile("^Not live"))
    expect(tile(page, "studio-1")).to_contain_text("○ Was live")
    assert barriers(page) == []
    shots.take("studio-2")
    shots.begin(["studio-0"])
    daemon.start()
    expect(page).to_have_title(re.compile(r"^(\(\d+\) )?Wall"))
    expect(page.locator(".notice.lost:visible")).to_have_count(0)
    expect(tile(page, "studio-2")).to_contain_text("● Live")
    watch(page, lambda: sorted(names(page)) == ["studio-0", "studio-1", "studio-2"], "for the new stream")
    expect(page.locator(".tile img:not([hidden])")).to_have_count(3)


def until_known(daemon: Pages, streams: int) -> None:
    """Return when the daemon knows so many streams."""
    until(lambda: len(daemon.get("/api/streams")["streams"]) >= streams)


def until_taken(daemon: Pages, pictures: int) -> None:
    """Return when the daemon has taken this number of pictures; their own numbers begin with 1."""
    until(lambda: max((row[3] or 0 for row in daemon.get("/api/streams")["streams"]), default=0) >= pictures)


# ---------------------------------------------------------------- how it looks


def test_a_wall_without_streams_says_what_to_do(visitor: Visitor, town: tuple[Shots, Pages]) -> None:
    shots, daemon = town
    page = visitor.open(daemon.url)
    page.get_by_role("heading", name="No streams yet").wait_for()
    assert barriers(page) == []
    shots.begin(["studio-1"])
    expect(tile(page, "studio-1")).to_be_visible()
    expect(page.get_by_role("heading", name="No streams yet")).to_have_count(0)


@LOOKS
def test_odd_names_show_as_text_and_nothing_hinders_people(
    visitor: Visitor, town: tuple[Shots, Pages], look: Look
) -> None:
    shots, daemon = town
    shots.begin(CORPUS, LEISURE)
    until_known(daemon, len(CORPUS))
    page = visitor.open(daemon.url, look)
    expect(page.locator(".tile")).to_have_count(len(CORPUS))
    known = {row[2] for row in daemon.get("/api/streams")["streams"]}
    assert set(names(page)) == known
    assert {"<img src=x onerror=alert(1)>", "<script>alert(1)</script>"} <= known
    watch(page, lambda: page.locator(".tile img:not([hidden])").count() > len(CORPUS) - 3, "for pictures")
    assert barriers(page) == []


@pytest.fixture(scope="module")
def studios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A daemon whose streams are live, but for two that are silent."""
    folder = tmp_path_factory.mktemp("studios")
    with environment(folder) as town, pages(town, folder / "daemon") as daemon:
        shots = Shots(town)
        shots.begin(STREAMS)
        with shots.going_on({*STREAMS} - {"studio-2", "studio-7"}):
            yield daemon


@LOOKS
def test_the_wall_has_its_picture_in_the_documents(visitor: Visitor, studios: Pages, look: Look) -> None:
    page = visitor.open(studios.url, look)
    expect(tile(page, "studio-7")).to_contain_text("Silent")
    expect(tile(page, "studio-1")).to_contain_text("Live")
    expect(tile(page, "studio-1").locator("img:not([hidden])")).to_be_visible()
    assert barriers(page) == []
    page.mouse.move(0, 0)
    assert visitor.picture(page, f"wall-{look.name}".removesuffix("-light")).stat().st_size < 200_000


# ---------------------------------------------------------------- by keyboard


def test_everything_is_done_by_keyboard(visitor: Visitor, town: tuple[Shots, Pages]) -> None:
    shots, daemon = town
    shots.begin(STREAMS, LEISURE)
    until_known(daemon, len(STREAMS))
    page = visitor.open(daemon.url)
    expect(page.locator(".tile")).to_have_count(len(STREAMS))
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("studio-2")
    expect(page.locator(".tile")).to_have_count(6)
    expect(page).to_have_url(f"{daemon.url}/?q=studio-2")
    page.keyboard.press("ArrowDown")
    expect(tile(page, "studio-2")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tile(page, "studio-20")).to_be_focused()
    page.keyboard.press("End")
    expect(tile(page, "studio-24")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page).to_have_url(f"{daemon.url}/")
    expect(page.locator(".tile")).to_have_count(len(STREAMS))
    page.keyboard.press("f")
    expect(page.locator("#header")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#header")).to_be_visible()
    expect(tile(page, "studio-24")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/stream\?account=main&id=studio-24$"))
    page.go_back()
    expect(page.locator(".tile")).to_have_count(len(STREAMS))


def test_each_control_is_reached_by_tab_and_the_tiles_are_one_stop(
    visitor: Visitor, town: tuple[Shots, Pages]
) -> None:
    shots, daemon = town
    shots.begin(["a", "b", "c"], LEISURE)
    page = visitor.open(f"{daemon.url}/?sort=newest")
    expect(page.locator(".tile")).to_have_count(3)
    page.get_by_role("searchbox").focus()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    assert {"Order", "Sort again", "Small", "Medium", "Large", "Full screen", "tile"} <= set(reached)
    assert reached.count("tile") == 1


def test_the_choice_is_in_the_address(visitor: Visitor, town: tuple[Shots, Pages]) -> None:
    shots, daemon = town
    shots.begin(["a", "b"], LEISURE)
    until_known(daemon, 2)
    page = visitor.open(f"{daemon.url}/?q=b&size=large&sort=name&state=live")
    expect(page.locator(".tile")).to_have_count(1)
    assert page.get_by_role("searchbox").input_value() == "b"
    assert page.get_by_label("Order").input_value() == "name"
    expect(page.get_by_role("button", name="Large", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="1 live")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="1 live").click()
    page.get_by_label("Order").select_option("newest")
    page.get_by_role("button", name="Small", exact=True).click()
    expect(page).to_have_url(f"{daemon.url}/?q=b&sort=newest&size=small")


def test_the_newest_first_stand_still_until_they_are_sorted_again(
    visitor: Visitor, town: tuple[Shots, Pages]
) -> None:
    shots, daemon = town
    for ago, stream in ((9, "c"), (6, "a"), (3, "b")):
        shots.take(stream, ago=ago)
    until_known(daemon, 3)
    page = visitor.open(f"{daemon.url}/?sort=newest")
    expect(page.locator(".tile")).to_have_count(3)
    assert names(page) == ["b", "a", "c"]
    expect(page.locator(".tile img:not([hidden])")).to_have_count(3)
    before = shown(page, "c")
    shots.take("c")
    watch(page, lambda: shown(page, "c") > before, "for a newer picture")
    age = tile(page, "b").locator(".age")
    expect(age).not_to_have_text(age.inner_text())  # the wall has put its tiles in order once more
    assert names(page) == ["b", "a", "c"]
    page.get_by_role("button", name="Sort again").click()
    assert names(page) == ["c", "b", "a"]


def test_streams_of_several_accounts_say_whose_they_are(visitor: Visitor, tmp_path: Path) -> None:
    visitor.allow("/picture/")
    other = Customer(app_id=5678, cos_app_id=1250000001)
    with environment(tmp_path, customers=(Customer(), other)) as town:
        main = {"endpoint": town.endpoint, "rate": "1000/s", "audit": {"enabled": False}}
        accounts = {
            name: {**main, "app_id": one.app_id, "key": one.key, "cos": {"base_url": town.pictures}}
            for name, one in (("main", Customer()), ("other", other))
        }
        sources = {name: {"type": "screenshot_queue", "account": name} for name in accounts}
        with pages(town, tmp_path / "daemon", accounts=accounts, sources=sources) as daemon:
            Shots(town).begin(["a"], LEISURE)
            town.enqueue(2, customer=other.app_id, streams=2)
            until_known(daemon, 3)
            page = visitor.open(daemon.url)
            expect(page.locator(".tile")).to_have_count(3)
            assert names(page) == ["a · main", "load_5678_1 · other", "load_5678_2 · other"]
            page.get_by_label("Account").select_option("other")
            expect(page.locator(".tile")).to_have_count(2)
            expect(page).to_have_url(f"{daemon.url}/?account=other")
            page.reload()
            expect(page.locator(".tile")).to_have_count(2)


def test_accounts_whose_names_differ_by_case_alone_keep_their_own_streams(
    visitor: Visitor, studios: Pages
) -> None:
    page = visitor.open(f"{studios.url}/dead")
    accounts = page.evaluate(
        """async () => {
          const { Streams } = await import("/static/wall/model.js");
          const rows = ["main", "Main"].map((account, n) => [n, account, "a", n, 0, 0, "live", 10]);
          const streams = new Streams();
          for (let times = 0; times < 2; times++) streams.restart({ epoch: "e", seq: 0, now: 0, streams: rows });
          return [...streams.known.values()].map((stream) => stream.account);
        }"""
    )
    assert accounts == ["main", "Main"]


# ---------------------------------------------------------------- pictures that do not come


def test_a_picture_that_is_not_uploaded_yet_leaves_the_last_one(
    visitor: Visitor, town: tuple[Shots, Pages]
) -> None:
    visitor.allow(r"status of (404|425|502).*/picture/")
    shots, daemon = town
    shots.begin(["a"], LEISURE)
    shots.take("b", stored=False)
    until_taken(daemon, 4)
    page = visitor.open(daemon.url)
    expect(tile(page, "b")).to_contain_text(re.compile("not uploaded yet"))
    watch(page, lambda: shown(page, "a") == 3, "for the newest picture")
    shots.take("a", stored=False)
    watch(page, lambda: sum("/picture/5?" in one for one in visitor.faults) >= 2, "for the page to ask why")
    drawn(page)
    assert shown(page, "a") == 3
    shots.take("a")
    watch(page, lambda: shown(page, "a") == 6, "for a picture that can be fetched")


def test_a_new_spool_that_counts_anew_shows_its_own_pictures(
    visitor: Visitor, town: tuple[Shots, Pages]
) -> None:
    visitor.allow(GONE)
    shots, daemon = town
    shots.take("a")
    page = visitor.open(daemon.url)
    watch(page, lambda: shown(page, "a") == 1, "for the first picture")
    before = shown_source(page, "a")
    assert daemon.process.stop() == 0
    for file in daemon.daemon.spool_file.parent.glob(f"{daemon.daemon.spool_file.name}*"):
        file.unlink()
    shots.take("a")
    daemon.start()
    watch(page, lambda: shown_source(page, "a") not in ("", before), "for the picture of the new spool")
    assert shown(page, "a") == 1


def test_at_most_eight_pictures_are_asked_for_at_a_time(visitor: Visitor, town: tuple[Shots, Pages]) -> None:
    shots, daemon = town
    shots.begin(STREAMS, LEISURE)
    until_taken(daemon, 3 * len(STREAMS))
    page = visitor.open(f"{daemon.url}/dead")
    asked = Requests(page, "**/picture/*", held=True)
    page.get_by_role("link", name="Wall").click()
    for _ in range(len(STREAMS) // 8):
        watch(page, lambda: len(asked.waiting) >= 8, "for eight requests")
        asked.settle()
        assert len(asked.waiting) == 8
        asked.let_go()
    expect(page.locator(".tile img:not([hidden])")).to_have_count(len(STREAMS))


# ---------------------------------------------------------------- many streams, many tabs


def test_of_thousands_of_streams_few_have_nodes(visitor: Visitor, tmp_path: Path, soak: bool) -> None:
    visitor.allow(r"/picture/")
    streams, rate = (5000, 500) if soak else (2000, 100)
    web = {"listen": "127.0.0.1:0", "allow_cidr": ["127.0.0.0/8"]}
    with (
        feeding(tmp_path / "feed", streams=streams, rate=rate, pictures=True, web=web) as feed,
        visited(feed.url),
    ):
        page = visitor.open(feed.url)
        expect(page.get_by_role("button", name=f"{streams:,} in all")).to_be_visible()
        costs = [scrolled(page, seconds=10 if soak else 3) for _ in range(3 if soak else 1)]
        watch(page, lambda: page.evaluate("scrollY") > 5000, "for the wheel")
    assert max(cost.most_nodes for cost in costs) < 700
    assert max(cost.heap for cost in costs) < 10_000_000
    if soak:
        assert min(cost.script_share for cost in costs) < 0.05, costs
        assert min(cost.longest_script for cost in costs) <= 50, costs


def scrolled(page: Page, seconds: int) -> Cost:
    """Scroll through the wall, ten times a second."""
    page.mouse.move(600, 500)

    def scroll() -> None:
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(100)

    return measure(page, scroll, 10 * seconds)


def test_the_seventh_tab_works_while_six_are_hidden(visitor: Visitor, town: tuple[Shots, Pages]) -> None:
    shots, daemon = town
    shots.begin(["a"], LEISURE)
    until_taken(daemon, 3)
    for _ in range(6):
        page = visitor.open(daemon.url)
        expect(page.locator(".tile")).to_have_count(1)
        hide(page)
    page = visitor.open(daemon.url)
    watch(page, lambda: shown(page, "a") == 3, "for a picture")
    shots.take("a")
    watch(page, lambda: shown(page, "a") == 4, "for a newer picture")


def hide(page: Page) -> None:
    """Chromium without a screen shows all tabs at once; so the page is told what a browser tells a hidden tab."""
    page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", { value: true, configurable: true });
          Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )


# ---------------------------------------------------------------- the rules


def test_the_wall_and_the_commands_agree_which_stream_needs_attention(
    visitor: Visitor, studios: Pages
) -> None:
    page = visitor.open(f"{studios.url}/dead")
    cases = [
        {"state": state, "cadence": cadence, "taken": taken, "arrived": -silent}
        for state in (None, "live", "interrupted", "disabled", "never")
        for cadence in (None, 2.0, 10.0)
        for taken in (None, -1.0)
        for silent in (0.0, 9.5, 24.5, 25.5, 39.5, 40.5, 3599.0, 3601.0)
    ]
    kinds: list[str] = page.evaluate(
        "(cases) => import('/static/wall/model.js').then((model) => cases.map((one) => model.judge(one, 0)))",
        cases,
    )
    told = {"silent": "no pictures", "live": "", "ended": "", "unknown": ""}
    assert [told.get(kind, kind) for kind in kinds] == [_attention(case) for case in cases]


def _attention(case: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(0, UTC)
    stream = Stream(
        account="a",
        stream_id="s",
        first_seen=at,
        last_seen=at,
        last_screenshot=None if case["taken"] is None else at,
        state=case["state"],
        cadence=case["cadence"],
    )
    return attention(stream, -case["arrived"])
