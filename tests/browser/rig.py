"""Pages in a browser: how they are looked at, what they must never do, and a daemon behind them."""

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Route,
    WebError,
    expect,
)

from tests.patience import PATIENCE
from tests.ports import lasting_port
from tests.scenario.environment import Environment
from tests.scenario.rig import Process, Scenario, scenario

from .palette import reduce

expect.set_options(timeout=PATIENCE * 1000)

GONE: Final = "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET"
"""What the browser says of a daemon that was stopped: a pattern for `Visitor.allow`."""

# A report is said aloud even where the page listens to none; the browser itself says only some of them.
REPORTS: Final = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.effectiveDirective} forbids ${event.blockedURI} ${event.sample}`));
"""

# The clock of a machine whose time is wrong, in milliseconds.
WRONG_CLOCK: Final = """
const Right = Date;
globalThis.Date = class extends Right {
  constructor(...given) {
    if (given.length) super(...given);
    else super(Right.now() + WRONG);
  }
  static now() {
    return Right.now() + WRONG;
  }
};
"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a page is looked at."""

    scheme: Literal["light", "dark"] = "light"
    width: int = 1280
    height: int = 800
    phone: bool = False
    still: bool = False
    """Whether the viewer wants reduced motion."""

    @property
    def name(self) -> str:
        """A word for it."""
        return "phone" if self.phone else self.scheme

    def options(self) -> dict[str, Any]:
        """The options of a browser context."""
        return {
            "viewport": {"width": self.width, "height": self.height},
            "color_scheme": self.scheme,
            "reduced_motion": "reduce" if self.still else "no-preference",
            "has_touch": self.phone,
            "is_mobile": self.phone,
            "locale": "en-GB",
            "timezone_id": "Europe/Berlin",
        }


LIGHT: Final = Look()
DARK: Final = Look(scheme="dark")
PHONE: Final = Look(width=360, height=780, phone=True)
STILL: Final = Look(still=True)
LOOKS: Final = pytest.mark.parametrize(
    "look", [LIGHT, pytest.param(DARK, marks=pytest.mark.soak), PHONE], ids=lambda look: look.name
)
"""A page as it is looked at. `barriers` looks at it in the dark too."""


class Windows:
    """A window for each look, which tests have one after the other: a new one takes longer than most pages."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: dict[Look, BrowserContext] = {}

    def of(self, look: Look) -> BrowserContext:
        """The window for a look, without tabs and cookies if the one who had it last has left it."""
        if look not in self._contexts:
            context = self._browser.new_context(**look.options())
            context.set_default_timeout(PATIENCE * 1000)
            context.add_init_script(REPORTS)
            context.new_page()  # it stays, empty: with its last tab a window loses its processes
            self._contexts[look] = context
        return self._contexts[look]


_TABS: Final[dict[str, list[Page]]] = {}
"""The tabs that visitors have opened, by origin."""


@contextmanager
def visited(url: str) -> Iterator[None]:
    """Whoever answers here goes afterwards: the tabs are closed before, which would say that nobody answers."""
    try:
        yield
    finally:
        leave(url)


def leave(url: str) -> None:
    """Close the tabs that were opened at the origin of this address."""
    _close(_TABS.pop(_origin(url), []))


def _close(tabs: Iterable[Page]) -> None:
    for page in tabs:
        if not page.is_closed():
            page.close()


class Visitor:
    """Opens pages, and keeps what they did wrong. Nothing of a visitor is left for the next one."""

    def __init__(self, windows: Windows, pictures: Path) -> None:
        self.windows = windows
        self._pictures = pictures
        self._contexts: dict[Look, BrowserContext] = {}
        self._allowed: list[re.Pattern[str]] = []
        self._origins: set[str] = set()
        self._hearing: dict[Any, Callable[[Any], None]] = {
            "console": self._console,
            "weberror": self._error,
            "request": self._request,
        }
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        for context in self._contexts.values():
            for event, hear in self._hearing.items():
                context.remove_listener(event, hear)
            context.clear_cookies()

    def open(self, url: str, look: Look = LIGHT, *, ahead: float = 0) -> Page:
        """A new tab, loaded, whose clock is some seconds ahead.

        Tabs with the same look share cookies and connections, as those of one window do.
        """
        if look not in self._contexts:
            self._contexts[look] = self._context(look)
        self._origins.add(_origin(url))
        page = self._contexts[look].new_page()
        _TABS.setdefault(_origin(url), []).append(page)
        if ahead:
            page.add_init_script(WRONG_CLOCK.replace("WRONG", str(int(ahead * 1000))))
        page.goto(url)
        return page

    def allow(self, pattern: str) -> None:
        """Console errors in which this is found are part of the test, such as those of a daemon that is stopped."""
        self._allowed.append(re.compile(pattern))

    def leave(self) -> None:
        """Close all tabs. What they have done until then is heard."""
        for context in self._contexts.values():
            _close(context.pages[1:])

    def check(self) -> None:
        """Fail if a page did what none may do."""
        faults = [fault for fault in self.faults if not any(one.search(fault) for one in self._allowed)]
        assert faults == [], faults

    def picture(self, page: Page, name: str) -> Path:
        """A picture of what the tab shows, for the documents with `--pictures`, else among the test's own files."""
        path = self._pictures / f"{name}.png"
        page.screenshot(path=path)
        reduce(path)
        return path

    def _context(self, look: Look) -> BrowserContext:
        context = self.windows.of(look)
        for event, hear in self._hearing.items():
            context.on(event, hear)
        return context

    def _error(self, error: WebError) -> None:
        self.faults.append(f"uncaught: {error.error}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"{message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        if _origin(request.url) not in self._origins:
            self.faults.append(f"a request to another origin: {request.url}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def watch(page: Page, condition: Callable[[], object], what: str = "") -> None:
    """Return as soon as the condition holds. What the browser reports arrives meanwhile."""
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        assert waited < PATIENCE, f"waited {PATIENCE} s in vain {what}"
        page.wait_for_timeout(min(max(1000 * waited / 20, 20), 100))


def drawn(page: Page) -> None:
    """Return when the page has drawn what it knows at this moment: it writes many of its texts in the next frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def passes(page: Page, milliseconds: int) -> None:
    """Let so much time pass in the page itself, so that its own timers that are due by then have had their turn."""
    page.evaluate("(time) => new Promise((done) => setTimeout(done, time))", milliseconds)


def advance_clock(page: Page, seconds: float) -> None:
    """Set the clock of an open tab ahead, or back."""
    page.evaluate(f"const right = Date.now; Date.now = () => right() + {int(seconds * 1000)}")


class Requests:
    """A tab's requests of some addresses from now on, each known before it is sent. They may be held."""

    def __init__(self, page: Page, pattern: str, *, held: bool = False) -> None:
        self.addresses: list[str] = []
        self.waiting: list[Route] = []
        """Those that are held."""
        self._page = page
        self._held = held
        page.route(pattern, self._take)

    def settle(self) -> None:
        """Return when all requests are known that the page has made at this moment: one is answered that came later."""
        self._page.evaluate(
            "() => fetch('/static/icon.svg', { cache: 'no-store' }).then((answer) => answer.blob())"
        )

    def let_go(self) -> None:
        """Send those that are held now, and none that comes meanwhile."""
        waiting, self.waiting = self.waiting, []
        for route in waiting:
            route.continue_()

    def hold_no_more(self) -> None:
        """Send those that are held, and all that come."""
        self._held = False
        self.let_go()

    def _take(self, route: Route) -> None:
        self.addresses.append(route.request.url)
        if self._held:
            self.waiting.append(route)
        else:
            route.continue_()


def picture_number(address: str) -> int:
    """The number of a picture, by its address."""
    return int(urlsplit(address).path.rpartition("/")[2])


OTHER_SCHEME: Final = (
    """() => matchMedia("(prefers-color-scheme: dark)").matches ? ["dark", "light"] : ["light", "dark"]"""
)
OF_COLOURS: Final = (
    """() => axe.run({ resultTypes: ["violations"], runOnly: ["color-contrast", "link-in-text-block"] })"""
)
"""The rules whose verdict depends on the colours."""


def barriers(page: Page) -> list[str]:
    """What axe finds serious or critical for people who cannot see, hear or point, with the elements' selectors.

    The colours are looked at in the page's own scheme and in the other one, light or dark.
    """
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    own, other = page.evaluate(OTHER_SCHEME)
    page.emulate_media(color_scheme=other)
    found += page.evaluate(OF_COLOURS)["violations"]
    page.emulate_media(color_scheme=own)
    return [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


# ---------------------------------------------------------------- a daemon with pages


class Pages:
    """A daemon whose pages keep their address over its lives."""

    def __init__(self, daemon: Scenario, port: int) -> None:
        self.daemon = daemon
        self.url = f"http://127.0.0.1:{port}"
        self.process = self.start()

    def start(self) -> Process:
        """One more life, whose pages answer."""
        self.process = self.daemon.run()
        self.process.heard("web_listens")
        return self.process

    def stop(self) -> int:
        """Close the tabs and end this life in order; returns its exit code."""
        leave(self.url)
        return self.process.stop()

    def get(self, path: str) -> Any:
        """An answer of the pages' port, read from JSON."""
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return json.load(answer)


@contextmanager
def pages(environment: Environment, folder: Path, **settings: Any) -> Iterator[Pages]:
    """A daemon with pages; `settings` go to `scenario`, and `web` is merged into its section.

    At the end its tabs are closed before it stops.
    """
    port = lasting_port()
    web = {"listen": f"127.0.0.1:{port}", "allow_cidr": ["127.0.0.0/8"], **settings.pop("web", {})}
    with scenario(environment, folder, web=web, **settings) as daemon:
        found = Pages(daemon, port)
        with visited(found.url):
            yield found
