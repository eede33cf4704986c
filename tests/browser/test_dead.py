"""The pages of dead letters and quarantine: filters, reasons, and orders that mean exactly what was counted."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.scenario.environment import Environment, environment, until
from tests.scenario.test_operate import _as_an_older_version_left_it, rows
from tests.scenario.web_client import OPERATOR, VIEWER, WebClient

from .operating import XSS, elements_of_markup, enter, focus, operated, tab_to
from .rig import LOOKS, Look, Pages, Visitor, barriers, watch


def die(place: Environment, found: Pages, count: int) -> None:
    """So many dead letters of the hook, which works again afterwards."""
    place.turn(422)
    place.enqueue(count)
    until(lambda: found.process.metric("dead_letters", sink="hook") == count)
    place.turn(200)


def give_reasons(found: Pages, *reasons: str) -> None:
    """Another life, in which dead letters have these reasons by turns."""
    assert found.process.stop() == 0
    with closing(sqlite3.connect(found.daemon.spool_file)) as file, file:
        for number, reason in enumerate(reasons):
            file.execute("UPDATE dead SET reason = ? WHERE n % ? = ?", (reason, len(reasons), number))
    found.start()


def test_the_letters_of_one_reason_are_retried_by_keyboard_alone(tmp_path: Path, visitor: Visitor) -> None:
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        die(place, found, 30)
        give_reasons(found, "HTTP 415", "HTTP 410")
        page = enter(visitor, found, "/dead")
        expect(page.get_by_text("30 match")).to_be_visible()
        watch(page, lambda: page.locator("summary").count() == 2)
        while not focus(page).startswith("HTTP 415"):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("details[open] tbody tr:not(.details)")).to_have_count(15)
        line, table = (page.locator(f"details[open] {part}").bounding_box() for part in ("summary", "table"))
        assert line is not None
        assert table is not None
        assert table["y"] >= line["y"] + line["height"], "the letters are below their reason"
        tab_to(page, "Retry these")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Retry 15 dead letters?")).to_be_visible()
        watch(page, lambda: focus(page) == "Retry 15")
        page.keyboard.press("Enter")
        expect(page.get_by_text("15 dead letters retried.")).to_be_visible()
        expect(page.get_by_text("15 match")).to_be_visible()
        watch(page, lambda: focus(page) == "15 match")
        until(lambda: place.hook.files.total() == 15)
        assert {row["reason"] for row in rows(found.daemon, "dead", "list")} == {"HTTP 410"}


def test_a_count_that_has_changed_is_shown_and_asked_again(tmp_path: Path, visitor: Visitor) -> None:
    visitor.allow("409")
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        die(place, found, 30)
        page = enter(visitor, found, "/dead")
        page.get_by_role("button", name="Purge these").click()
        expect(page.get_by_role("dialog", name="Purge 30 dead letters?")).to_be_visible()
        assert focus(page) == "Cancel", "what cannot be undone is not one key away"
        one = rows(found.daemon, "dead", "list")[0]["id"]
        client = WebClient(found.process, OPERATOR)
        assert client.done("/api/dead/purge", {"filter": {"id": one}, "expect": 1})["state"] == "done"
        page.get_by_role("button", name="Purge 30").click()
        expect(page.get_by_role("heading", name="29 match now")).to_be_visible()
        assert len(rows(found.daemon, "dead", "list")) == 29
        page.get_by_role("button", name="Purge 29").click()
        expect(page.get_by_text("29 dead letters purged.")).to_be_visible()
        expect(page.get_by_role("heading", name="No dead letters.")).to_be_visible()
        assert rows(found.daemon, "dead", "list") == []


def test_filters_live_in_the_address(tmp_path: Path, visitor: Visitor) -> None:
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        die(place, found, 30)
        give_reasons(found, "HTTP 415", "HTTP 410", "too old")
        page = enter(visitor, found, "/dead")
        page.get_by_label("Reason has").fill("HTTP")
        expect(page.get_by_text("20 match")).to_be_visible()
        page.get_by_label("When").select_option("Last hour")
        watch(page, lambda: page.url.endswith("/dead?reason=HTTP&within=1h"))
        page.reload()
        expect(page.get_by_text("20 match")).to_be_visible()
        expect(page.get_by_label("Reason has")).to_have_value("HTTP")
        page.get_by_label("Reason has").fill("nothing like it")
        expect(page.get_by_text("Nothing matches.")).to_be_visible()
        page.get_by_role("link", name="Show all").click()
        expect(page.get_by_text("30 match")).to_be_visible()


def test_rows_come_in_pieces_and_tell_their_attempts(tmp_path: Path, visitor: Visitor) -> None:
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        die(place, found, 120)
        page = enter(visitor, found, "/dead", VIEWER)
        lines = page.locator("tbody tr:not(.details)")
        expect(lines).to_have_count(50)
        assert page.get_by_role("button", name="Retry these").count() == 0
        expect(page.get_by_role("link", name="log in with the operator’s token")).to_be_visible()
        page.get_by_role("button", name="Show more").click()
        expect(lines).to_have_count(100)
        page.get_by_role("button", name="Show more").click()
        expect(lines).to_have_count(120)
        expect(page.get_by_role("button", name="Show more")).to_have_count(0)
        newest = rows(found.daemon, "dead", "list", "--limit", "1")[0]
        assert lines.first.get_by_role("link").get_attribute("href") == f"/event/{newest['id']}"
        lines.first.get_by_role("button").click()
        expect(page.locator(".attempts li").first).to_contain_text("HTTP 422")


def test_reasons_and_bytes_are_shown_as_text(tmp_path: Path, visitor: Visitor) -> None:
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        die(place, found, 14)
        assert found.process.stop() == 0
        _as_an_older_version_left_it(found.daemon.spool_file)
        found.start()
        give_reasons(found, *XSS)
        with closing(sqlite3.connect(found.daemon.spool_file)) as file, file:
            file.execute(
                "UPDATE quarantine SET reason = ?, body = ? WHERE encoding = ''", (XSS[0], XSS[1].encode())
            )
        page = enter(visitor, found, "/dead")
        expect(page.locator("summary")).to_have_count(len(XSS))
        for text in XSS:
            group = page.locator("details").filter(has=page.locator(".reason").get_by_text(text))
            group.locator("summary").click()
            expect(group.locator("tbody tr:not(.details)").first).to_contain_text(text)
        assert elements_of_markup(page) == 0
        page.goto(f"{found.url}/quarantine")
        group = page.locator("details").filter(has=page.locator(".reason").get_by_text(XSS[0]))
        expect(group).to_be_visible()
        if group.get_attribute("open") is None:
            group.locator("summary").click()
        group.locator("tbody button").first.click()
        expect(page.locator("pre").first).to_contain_text(XSS[1])
        assert elements_of_markup(page) == 0


def test_quarantine_is_read_again_and_purged(tmp_path: Path, visitor: Visitor) -> None:
    with environment(tmp_path) as place, operated(place, tmp_path) as found:
        assert found.process.stop() == 0
        _as_an_older_version_left_it(found.daemon.spool_file)
        found.start()
        page = enter(visitor, found, "/quarantine")
        page.get_by_role("button", name="Retry these").click()
        page.get_by_role("button", name="Retry 3").click()
        expect(page.get_by_text("1 piece read, 2 new events; 2 left")).to_be_visible()
        expect(page.get_by_text("2 match")).to_be_visible()
        page.get_by_role("button", name="Purge these").click()
        expect(page.get_by_text("Each may hold messages that are nowhere else")).to_be_visible()
        page.get_by_role("button", name="Purge 2").click()
        expect(page.get_by_role("heading", name="Quarantine is empty.")).to_be_visible()
        assert rows(found.daemon, "quarantine", "list") == []


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A daemon with dead letters of two reasons."""
    folder = tmp_path_factory.mktemp("letters")
    with environment(folder) as place, operated(place, folder) as found:
        die(place, found, 60)
        give_reasons(found, "HTTP 415", "HTTP 422: " + "too long " * 20)
        yield found


@LOOKS
def test_nothing_hinders_people(letters: Pages, visitor: Visitor, look: Look) -> None:
    page = enter(visitor, letters, "/quarantine", look=look)
    expect(page.get_by_role("heading", name="Quarantine is empty.")).to_be_visible()
    assert barriers(page) == []
    page.goto(f"{letters.url}/dead")
    page.locator("summary").first.click()
    expect(page.locator("tbody tr").first).to_be_visible()
    facts, table = page.locator(".facts").first.bounding_box(), page.locator("table").first.bounding_box()
    assert facts is not None
    assert table is not None
    assert facts["y"] + facts["height"] <= table["y"], "what is inside stands below the heading"
    page.locator("tbody button").first.click()
    expect(page.locator(".attempts")).to_be_visible()
    assert barriers(page) == []
    visitor.picture(page, f"dead-{look.name}")
    page.get_by_role("button", name="Purge these").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert barriers(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
