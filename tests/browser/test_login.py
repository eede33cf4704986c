"""The login page: tokens, a one-time code, too many tries, and what each role finds behind it."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from poller.web.server import WebServer
from tests.integration.test_web_login import server
from tests.patience import PATIENCE
from tests.scenario.environment import environment
from tests.scenario.web_client import OPERATOR, VIEWER

from .operating import enter, focus, log_in, operated
from .rig import DARK, LOOKS, Look, Pages, Visitor, barriers, visited, watch

REFUSED = "status of 4(01|29)"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A daemon with an operator's and a viewer's token. No test of this file changes what it holds."""
    folder = tmp_path_factory.mktemp("login")
    with environment(folder) as town, operated(town, folder) as found:
        yield found


@contextmanager
def pages_alone() -> Iterator[tuple[str, WebServer]]:
    """The pages' listener without a daemon behind it, which has no data, with its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    at = server()
    try:
        asyncio.run_coroutine_threadsafe(at.__aenter__(), loop).result(PATIENCE)
        url = f"http://127.0.0.1:{at.port}"
        with visited(url):
            yield url, at
        asyncio.run_coroutine_threadsafe(at.__aexit__(None, None, None), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def submit(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")


def test_a_token_leads_to_the_page_that_was_asked_for(visitor: Visitor, daemon: Pages) -> None:
    visitor.allow(REFUSED)
    page = visitor.open(f"{daemon.url}/dead?reason=HTTP")
    expect(page).to_have_url(f"{daemon.url}/login?to=%2Fdead%3Freason%3DHTTP")
    expect(page.get_by_label("Token")).to_be_focused()
    submit(page, OPERATOR)
    expect(page).to_have_url(f"{daemon.url}/dead?reason=HTTP")
    expect(page.get_by_role("banner")).to_contain_text("Operating")
    expect(page.get_by_label("Reason has")).to_have_value("HTTP")
    page.go_back()
    expect(page.get_by_role("heading", name="Dead letters", exact=True)).to_be_visible()
    expect(page.get_by_label("Token")).to_have_count(0)


def test_a_login_leads_nowhere_else(visitor: Visitor, daemon: Pages) -> None:
    visitor.allow("/picture/")
    page = visitor.open(f"{daemon.url}/login")
    for to in ("//evil.example/", "https://evil.example/", "/\\evil.example", "/login"):
        page.goto("about:blank")
        page.context.clear_cookies()
        page.goto(f"{daemon.url}/login?to={to}")
        submit(page, VIEWER)
        expect(page).to_have_url(f"{daemon.url}/")


def test_a_wrong_token_is_said_to_be_wrong_and_the_right_one_still_opens(
    visitor: Visitor, daemon: Pages
) -> None:
    visitor.allow(REFUSED)
    page = visitor.open(f"{daemon.url}/login?to=/quarantine")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Enter a token.")
    submit(page, "wrong-token-0123456789")
    expect(page.get_by_role("alert")).to_have_text("This token is not right.")
    expect(page.get_by_label("Token")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Token")).to_be_focused()
    submit(page, OPERATOR)
    expect(page).to_have_url(f"{daemon.url}/quarantine")


def test_after_too_many_tries_the_page_says_how_long_to_wait(visitor: Visitor) -> None:
    visitor.allow(REFUSED)
    with pages_alone() as (url, _):
        page = visitor.open(f"{url}/login")
        for _ in range(5):
            with page.expect_response("**/login"):
                submit(page, "wrong-token-0123456789")
            expect(page.get_by_role("alert")).not_to_have_text("")
        expect(page.get_by_role("alert")).to_have_text("Too many tries.")
        expect(page.get_by_text(re.compile(r"^Wait [1-9]\d* s\.$"))).to_be_visible()
        expect(page.get_by_role("button", name="Log in")).to_be_disabled()
        assert barriers(page) == []


def test_a_one_time_code_logs_in_by_itself_and_only_once(visitor: Visitor) -> None:
    visitor.allow(REFUSED + "|status of 500")
    with pages_alone() as (url, at):
        address = f"{url}/login?to=/quarantine#{at.one_time_code()}"
        page = visitor.open(address)
        expect(page).to_have_url(f"{url}/quarantine")
        expect(page.get_by_role("banner")).to_contain_text("Operating")
        other = visitor.open(address, DARK)
        expect(other.get_by_role("alert")).to_contain_text("This link was used already, or is too old.")
        expect(other).to_have_url(re.compile("^[^#]*$"))  # a code does not stay in the address


def test_a_logout_ends_the_session(visitor: Visitor, daemon: Pages) -> None:
    visitor.allow(REFUSED)
    page = enter(visitor, daemon, "/dead")
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{daemon.url}/login")
    page.goto(f"{daemon.url}/dead")
    expect(page).to_have_url(f"{daemon.url}/login?to=%2Fdead")


def test_who_may_only_look_finds_no_button_that_changes_anything(visitor: Visitor, daemon: Pages) -> None:
    page = visitor.open(f"{daemon.url}/login")
    for path, there in (
        ("/pipeline", page.get_by_role("article", name="hook")),
        ("/dead", page.get_by_role("heading", name="No dead letters.")),
        ("/quarantine", page.get_by_role("heading", name="Quarantine is empty.")),
    ):
        log_in(page, VIEWER)
        page.goto(daemon.url + path)
        expect(there).to_be_visible()
        expect(page.get_by_role("link", name="log in with the operator’s token")).to_be_visible()
        expect(page.get_by_role("banner")).to_contain_text("Looking only")
        assert page.locator("main button").count() == 0
        page.get_by_role("link", name="log in with the operator’s token").click()
        submit(page, OPERATOR)
        expect(page).to_have_url(f"{daemon.url}{path}")
        expect(page.get_by_role("banner")).to_contain_text("Operating")
        expect(page.get_by_role("link", name="log in with the operator’s token")).to_have_count(0)


def test_a_question_mark_lists_the_keys_and_is_no_key_where_somebody_writes(
    visitor: Visitor, daemon: Pages
) -> None:
    page = enter(visitor, daemon, "/dead")
    page.get_by_label("Reason has").focus()
    page.keyboard.type("why?")
    expect(page.get_by_label("Reason has")).to_have_value("why?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("link", name="Wall").click()
    page.get_by_role("searchbox").wait_for()
    page.locator("main").focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    for words in ("Wall", "full screen", "Every page"):
        expect(dialog).to_contain_text(words)
    assert barriers(page) == []
    page.keyboard.press("f")
    expect(page.locator("#header")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("link", name="Pipeline", exact=True).click()
    page.get_by_role("heading", name="Pipeline", exact=True).wait_for()
    page.get_by_role("button", name="Keys").click()
    expect(dialog).to_contain_text("Every page")
    expect(dialog).not_to_contain_text("full screen")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    watch(page, lambda: focus(page) == "Keys")


@LOOKS
def test_the_login_hinders_nobody(visitor: Visitor, daemon: Pages, look: Look) -> None:
    page = visitor.open(f"{daemon.url}/login", look)
    expect(page.get_by_label("Token")).to_be_focused()
    assert barriers(page) == []
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Enter a token.")
    assert barriers(page) == []
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("Token")).to_have_attribute("type", "text")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
