"""The tests' own eyes: what a page must never do is seen where it happens."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.scenario.environment import environment

from .rig import DARK, PHONE, Pages, Requests, Visitor, Windows, barriers, pages, watch


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("harness")
    with environment(folder) as town, pages(town, folder / "daemon") as daemon:
        yield daemon


def test_a_page_of_the_daemon_opens_without_a_fault(visitor: Visitor, daemon: Pages) -> None:
    for look in (DARK, PHONE):
        page = visitor.open(f"{daemon.url}/dead", look)
        page.get_by_role("heading", name="Dead letters", exact=True).wait_for()
        assert page.evaluate("innerWidth") == look.width
        assert barriers(page) == []


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("() => { console.error('broken') }", "broken"),
        ("() => { setTimeout(() => { throw new Error('thrown') }) }", "thrown"),
        ("() => { void fetch('http://127.0.0.1:9/').catch(() => {}) }", "127.0.0.1:9"),
    ],
)
def test_a_fault_of_a_page_is_seen(
    windows: Windows, tmp_path: Path, daemon: Pages, script: str, seen: str
) -> None:
    with Visitor(windows, tmp_path) as visitor:
        page = visitor.open(f"{daemon.url}/dead")
        page.evaluate(script)
        assert_seen(visitor, page, seen)


def test_a_report_of_a_content_security_policy_is_seen(windows: Windows, tmp_path: Path) -> None:
    with strict_site() as url, Visitor(windows, tmp_path) as visitor:
        page = visitor.open(url)
        page.evaluate(
            "document.body.append(Object.assign(new Image(), { src: 'data:image/gif;base64,R0lGOD' }))"
        )
        assert_seen(visitor, page, "CSP: img-src")


def assert_seen(visitor: Visitor, page: Page, fault: str) -> None:
    watch(page, lambda: any(fault in one for one in visitor.faults), f"for {fault}")
    with pytest.raises(AssertionError):
        visitor.check()
    visitor.allow(".")
    visitor.check()


@contextlib.contextmanager
def strict_site() -> Iterator[str]:
    """A page that may load nothing."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Security-Policy", "default-src 'none'")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>strict</title><body>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_what_hinders_people_is_found(visitor: Visitor, daemon: Pages) -> None:
    page = visitor.open(f"{daemon.url}/dead")
    page.get_by_role("heading", name="Dead letters", exact=True).wait_for()
    page.evaluate("document.getElementById('main').append(document.createElement('input'))")
    assert any(found.startswith("label:") for found in barriers(page))


def test_a_visitor_leaves_nothing_to_the_next_one(windows: Windows, tmp_path: Path, daemon: Pages) -> None:
    with Visitor(windows, tmp_path) as first:
        page = first.open(f"{daemon.url}/dead")
        page.evaluate("document.cookie = 'left=1'")
        assert page.evaluate("document.cookie") == "left=1"
    with Visitor(windows, tmp_path) as second:
        page = second.open(f"{daemon.url}/dead")
        assert page.evaluate("document.cookie") == ""
        assert page.context.pages[1:] == [page]
        page.evaluate("console.error('broken')")
        assert_seen(second, page, "broken")
    assert first.faults == []


def test_tabs_are_closed_before_their_daemon_stops(visitor: Visitor, tmp_path: Path) -> None:
    with environment(tmp_path) as town, pages(town, tmp_path / "daemon") as daemon:
        tabs = [visitor.open(f"{daemon.url}/{path}") for path in ("pipeline", "", "dead")]
        tabs[0].get_by_role("article", name="spool").wait_for()
        assert daemon.stop() == 0
        assert [tab.is_closed() for tab in tabs] == [True] * 3
        daemon.start()
        tab = visitor.open(f"{daemon.url}/pipeline")
        tab.get_by_role("article", name="spool").wait_for()
    assert tab.is_closed()
    assert visitor.faults == []


def test_a_request_is_known_before_it_is_sent(visitor: Visitor, daemon: Pages) -> None:
    page = visitor.open(f"{daemon.url}/dead")
    asked = Requests(page, "**/api/me?*", held=True)
    page.evaluate(
        "() => { for (const n of [1, 2, 3]) void fetch(`/api/me?${n}`).then(() => (window.last = n)); }"
    )
    asked.settle()
    assert [one.rpartition("?")[2] for one in asked.addresses] == ["1", "2", "3"]
    assert page.evaluate("window.last") is None
    asked.hold_no_more()
    watch(page, lambda: page.evaluate("window.last") is not None, "for an answer")
    assert asked.waiting == []


def test_a_screenshot_is_among_the_tests_own_files(visitor: Visitor, daemon: Pages, tmp_path: Path) -> None:
    page = visitor.open(f"{daemon.url}/dead")
    path = Visitor(visitor.windows, tmp_path).picture(page, "page")
    assert path.parent == tmp_path
    assert path.read_bytes().startswith(b"\x89PNG")
