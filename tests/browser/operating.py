"""What tests of operating share: a daemon with tokens, a tab that is logged in, and the keyboard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

from tests.scenario.environment import Environment
from tests.scenario.web_client import OPERATOR, VIEWER

from .rig import LIGHT, Look, Pages, Visitor, pages

XSS: Final = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "</summary><iframe srcdoc='<script>parent.alert(1)</script>'>",
    "${alert(1)}{{constructor.constructor('alert(1)')()}}",
    "\u202egnp.exe <b>bold</b> &lt;i&gt;",
)
"""Texts that run, or become elements, where they are read as markup."""
LOG_IN: Final = """token => fetch('/login', {method: 'POST', headers: {'Content-Type': 'application/json'},
  body: JSON.stringify({token})}).then(answer => answer.status)"""


@contextmanager
def operated(place: Environment, folder: Path, **settings: Any) -> Iterator[Pages]:
    """A daemon with pages, an operator's token and a viewer's."""
    web = {}
    for name, token in (("token_file", OPERATOR), ("view_token_file", VIEWER)):
        file = folder / name
        file.write_text(token)
        file.chmod(0o600)
        web[name] = str(file)
    with pages(place, folder, web=web, **settings) as found:
        yield found


def enter(visitor: Visitor, found: Pages, path: str, token: str = OPERATOR, look: Look = LIGHT) -> Page:
    """A tab that is logged in, at a page."""
    page = visitor.open(f"{found.url}/login", look)
    log_in(page, token)
    page.goto(found.url + path)
    return page


def log_in(page: Page, token: str) -> None:
    """Begin a session in this tab, which stays where it is."""
    assert page.evaluate(LOG_IN, token) == 200


def tab_to(page: Page, name: str) -> None:
    """Press Tab until something of this name has the focus."""
    for _ in range(150):
        page.keyboard.press("Tab")
        if focus(page) == name:
            return
    raise AssertionError(f"Tab does not lead to {name}")


def focus(page: Page) -> str:
    """The name of what has the focus."""
    name: str = page.evaluate(
        "() => { const one = document.activeElement;"
        " return one.getAttribute('aria-label') || one.innerText || one.name || ''; }"
    )
    return name.strip()


def elements_of_markup(page: Page) -> int:
    """How many elements there are that only markup in a text could have made."""
    count: int = page.evaluate(
        "() => document.querySelectorAll('main img, main script, main iframe, main b, main svg[onload]').length"
    )
    return count
