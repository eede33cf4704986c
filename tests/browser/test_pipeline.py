"""The page of the pipeline: what it shows, what it orders by keyboard alone, and what it never does."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.scenario.environment import environment, until
from tests.scenario.rig import webhook
from tests.scenario.test_operate import sink

from .operating import XSS, elements_of_markup, enter, focus, operated, tab_to
from .rig import LOOKS, PHONE, Look, Pages, Requests, Visitor, barriers, passes, watch

DOCS = Path(__file__).parents[2]
REASONS = (
    "source shots: polling is paused: no space",
    "source shots: 3 polls were sent and brought nothing, so it is polled once a minute",
    "source shots: no good answer yet",
    "source shots: failing for 61 s: HTTP 500",
    "source calls: takes nothing: no space",
    "sink hook: disabled: HTTP 410",
    "sink hook: its folder: it is gone",
    "sink hook: paused: probed after 5 failures in a row: HTTP 503",
    "sink hook: failing for 61 s: HTTP 503",
    "sink hook: its oldest event waits for 901 s",
    "journal: its oldest page waits for the spool for 61 s",
    "spool: no write within 5 s",
    "spool: damaged, 3 may be lost: torn",
    "what nobody has thought of",
)


def test_a_sink_is_paused_and_resumed_by_keyboard_alone(tmp_path: Path, visitor: Visitor) -> None:
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        page = enter(visitor, found, "/pipeline")
        card = page.get_by_role("article", name="hook")
        expect(card.locator(".state")).to_contain_text("Serving")
        tab_to(page, "Pause hook")
        page.keyboard.press("Enter")
        expect(card.locator(".state")).to_contain_text("Paused")
        assert sink(found.daemon)["why"] == "by the operator"
        watch(page, lambda: focus(page) == "Resume hook")
        page.keyboard.press("Enter")
        expect(card.locator(".state")).to_contain_text("Serving")
        assert sink(found.daemon)["state"] == "serving"


def test_a_replay_is_chosen_counted_and_ordered_by_keyboard_alone(tmp_path: Path, visitor: Visitor) -> None:
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        place.enqueue(40)
        until(lambda: sink(found.daemon)["delivered"] == 40)
        page = enter(visitor, found, "/pipeline")
        expect(page.get_by_role("article", name="hook")).to_be_visible()
        tab_to(page, "Replay… hook")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Replay to hook")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        watch(page, lambda: focus(page) == "Replay… hook")
        page.keyboard.press("Enter")
        tab_to(page, "Count")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="40 events match")).to_be_visible()
        watch(page, lambda: focus(page) == "Replay 40 events")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Replay 1 was ordered: 40 events to hook.")).to_be_visible()
        until(lambda: place.hook.files.total() == 80)


def test_a_running_replay_shows_how_far_it_is_and_is_paused_and_cancelled(
    tmp_path: Path, visitor: Visitor
) -> None:
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        place.enqueue(40)
        until(lambda: sink(found.daemon)["delivered"] == 40)
        page = enter(visitor, found, "/pipeline")
        page.get_by_role("button", name="Pause hook").click()
        expect(page.get_by_role("article", name="hook").locator(".state")).to_contain_text("Paused")
        page.get_by_role("button", name="Replay… hook").click()
        page.get_by_role("button", name="Count").click()
        page.get_by_role("button", name="Replay 40 events").click()
        replay = page.get_by_label("Replays")
        expect(replay.get_by_text("0 of 40, running")).to_be_visible()
        replay.get_by_role("button", name="Pause replay 1").click()
        expect(replay.get_by_text("0 of 40, paused")).to_be_visible()
        replay.get_by_role("button", name="Cancel… replay 1").click()
        page.get_by_role("button", name="Cancel the replay").click()
        expect(replay.get_by_text("No replay is running.")).to_be_visible()
        replay.get_by_text("Earlier replays").click()
        expect(replay.get_by_role("row").last).to_contain_text(
            re.compile(r"1hookall events.*0 of 40cancelled")
        )
        assert place.hook.files.total() == 40


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A daemon that has nothing to do, and is not ordered to do anything."""
    folder = tmp_path_factory.mktemp("idle")
    with environment(folder) as place, operated(place, folder) as found:
        yield found


def test_each_reason_leads_to_a_page_that_exists_and_has_that_title(idle: Pages, visitor: Visitor) -> None:
    page = enter(visitor, idle, "/pipeline")
    pages: list[Any] = page.evaluate(
        "async (all) => { const { pageOf } = await import('/static/reasons.js'); return all.map(pageOf); }",
        list(REASONS),
    )
    for reason, one in zip(REASONS, pages, strict=True):
        text = (DOCS / one["file"]).read_text().replace("'", "’")
        assert f"\n# {one['title']}\n" in text, reason
    assert len({one["file"] for one in pages}) == 12


def test_nothing_moves_away_under_the_pointer(tmp_path: Path, visitor: Visitor) -> None:
    with environment(tmp_path, receivers=("hook", "bad")) as place:
        sinks = {"hook": webhook(place), "bad": webhook(place, "bad")}
        place.turn(503, "bad")
        with operated(place, tmp_path, sinks=sinks) as found:
            page = enter(visitor, found, "/pipeline")
            button = page.get_by_role("button", name="Pause hook")
            button.hover()
            before = button.bounding_box()
            place.enqueue(5)
            expect(page.get_by_role("article", name="bad").locator(".state")).to_contain_text("Paused")
            assert button.bounding_box() == before
            page.mouse.move(2, 2)
            expect(page.get_by_text("Not ready: 1 reason")).to_be_visible()
            expect(page.get_by_text("docs/operations/alarms/sink-paused.md")).to_be_visible()


def test_a_hidden_page_asks_nothing(idle: Pages, visitor: Visitor) -> None:
    page = enter(visitor, idle, "/pipeline")
    asked = Requests(page, "**/api/status")
    watch(page, lambda: len(asked.addresses) >= 2)
    page.evaluate(
        "() => { Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    asked.settle()
    before = len(asked.addresses)
    passes(page, 2500)  # the page asks each two seconds while it is seen
    asked.settle()
    assert len(asked.addresses) == before
    page.evaluate("() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); }")
    watch(page, lambda: len(asked.addresses) > before)


def test_names_and_reasons_are_shown_as_text(idle: Pages, visitor: Visitor) -> None:
    def spoil(route: Route) -> None:
        content = json.loads(route.fetch().body())
        content.update(ready=False, reasons=list(XSS), notes=list(XSS))
        content["books"] += [
            {"owner": text, "book": "possibly_lost", "count": 3, "at": "2026-01-01T00:00:00Z"} for text in XSS
        ]
        for one in (*content["sinks"], *content["sources"]):
            one.update(name=XSS[0] + one["name"], why=XSS[1], last_error=XSS[2], trouble=XSS[3], state=XSS[4])
        content["replays"] = [
            {"replay": 1, "sink": XSS[0], "what": XSS[1], "done": 1, "total": 2, "state": XSS[2]}
        ]
        route.fulfill(json=content)

    page = enter(visitor, idle, "/login")
    page.route("**/api/status", spoil)
    page.goto(f"{idle.url}/pipeline")
    for text in XSS:
        expect(page.locator(".reasons").get_by_text(text, exact=True)).to_be_visible()
    expect(page.get_by_role("article", name=XSS[0] + "hook")).to_be_visible()
    assert elements_of_markup(page) == 0


def test_the_daemons_that_share_the_spool_are_shown_with_what_each_holds(
    idle: Pages, visitor: Visitor
) -> None:
    def shared(route: Route) -> None:
        content = json.loads(route.fetch().text())
        since, names = "2026-11-22T10:03:20Z", ("one, process 7", XSS[0])
        content["members"] = [
            {
                "number": number,
                "name": name,
                "here": number == 4,
                "since": since,
                "expires": 7.4,
                "duties": ["source:shots", "audit", "sink:moderation#13"] if number == 4 else [],
                "held": {"hook": 1600} if number == 5 else {},
            }
            for number, name in enumerate(names, 4)
        ]
        content["sources"][0] |= {
            "state": "stands by",
            "polled_by": "polled by daemon 5 (two)",
            "trouble": None,
        }
        route.fulfill(json=content)

    page = enter(visitor, idle, "/pipeline")
    daemons = page.get_by_role("region", name="Daemons")
    expect(page.get_by_role("article", name="hook")).to_be_visible()
    expect(daemons).to_have_count(0)
    page.route("**/api/status", shared)
    page.goto(f"{idle.url}/pipeline")
    expect(daemons.get_by_role("row")).to_have_count(3)
    first, second = (daemons.get_by_role("row").nth(number) for number in (1, 2))
    expect(first).to_contain_text("4: one, process 7 (here)")
    expect(first).to_contain_text("source:shots, audit")
    expect(second).to_contain_text(f"5: {XSS[0]}")
    expect(second).to_contain_text("hook 1,600")
    card = page.get_by_role("article", name="shots")
    expect(card.locator(".state")).to_contain_text("Stands by")
    expect(card).to_contain_text("polled by daemon 5 (two)")
    assert elements_of_markup(page) == 0
    page.set_viewport_size({"width": PHONE.width, "height": PHONE.height})
    watch(page, lambda: page.evaluate("innerWidth") == PHONE.width)
    assert daemons.evaluate("region => region.scrollWidth <= region.clientWidth"), "no column is cut off"


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A daemon whose sink is paused, because it fails."""
    folder = tmp_path_factory.mktemp("troubled")
    with environment(folder) as place, operated(place, folder) as found:
        place.turn(503)
        place.enqueue(30)
        until(lambda: sink(found.daemon)["state"] == "paused")
        yield found


@LOOKS
def test_nothing_hinders_people(troubled: Pages, visitor: Visitor, look: Look) -> None:
    page = enter(visitor, troubled, "/pipeline", look=look)
    expect(page.get_by_text("Not ready: 1 reason")).to_be_visible()
    assert barriers(page) == []
    visitor.picture(page, f"pipeline-{look.name}")
    page.get_by_role("button", name="Replay… hook").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert barriers(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
