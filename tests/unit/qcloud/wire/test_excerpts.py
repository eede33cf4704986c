"""What the other side said is shown in a few words, without anything that it echoed."""

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from pydantic import SecretStr

from poller.qcloud.wire.excerpts import Words, excerpt, secrets_of
from poller.sinks.webhook import WebhookSettings

KEY = 'can"ary/key+<0b7c1d2e>&x='
ECHOES: dict[str, Callable[[str], str]] = {
    "raw": str,
    "JSON": json.dumps,
    "JSON twice": lambda text: json.dumps(json.dumps({"a": text})),
    "percent": lambda text: quote(text, safe=""),
    "percent, slashes": quote,
    "percent, lower case": lambda text: quote(text, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "header": lambda text: f"Authorization: Bearer {text}",
    "query": lambda text: f"GET /hook?token={quote(text)}&x=1",
}


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("secret", ["canary0key0b7c1d2e", KEY])
def test_a_secret_that_an_error_page_echoes_is_not_shown(echo: str, secret: str) -> None:
    page = f"<p>bad: {ECHOES[echo](secret)} </p>"
    found = excerpt(page.encode(), [secret])
    assert found.startswith("<p>bad: ")
    for spelled in (secret, ECHOES[echo](secret), "canary0", "can&quot;", "ary"):
        assert spelled not in found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_secret_on_a_page_in_another_encoding_is_not_shown(encoding: str) -> None:
    page = "<p>bad: Bearer canary0key0b7c1d2e, ?txSecret=canary1 </p>"
    found = excerpt(page.encode(encoding), ["canary0key0b7c1d2e"])
    assert "<p>bad: Bearer ***" in found
    assert "canary" not in found.replace("\0", "").replace(" ", "")


def test_a_secret_that_is_cut_off_is_not_shown_in_part() -> None:
    for size in range(5, 18):
        assert "canar" not in excerpt(b"x " + b"canary0key0b7c1d2e"[:size], ["canary0key0b7c1d2e"])


def test_urls_lose_their_queries_and_signatures_are_masked() -> None:
    signed = "webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="
    assert (
        excerpt(f"POST http://h/p?a=secret1&b=2 {signed} txSecret=abc")
        == "POST http://h/p?*** webhook-signature: v1,*** txSecret=***"
    )


def test_an_excerpt_is_short_one_line_and_steers_no_terminal() -> None:
    said = "a\x1b[31mb\x9bc\u202ed\u2066e\x00f\r\ng\u200bh" + "x" * 5000
    found = excerpt(said)
    assert len(found) == 300
    assert found.startswith("a [31mb c d e f g h")
    assert excerpt(b"\xff\xfe") == "\ufffd\ufffd"
    assert excerpt(b"") == ""


def test_every_secret_of_the_settings_is_known() -> None:
    settings = WebhookSettings.model_validate(
        {
            "type": "webhook",
            "url": "https://h.example/x?token=in-the-url",
            "secret": SecretStr("whsec_" + "YWJj" * 10),
            "headers": {"Authorization": "Bearer in-a-header", "X": "short"},
        }
    )
    assert secrets_of(settings) == {
        "token=in-the-url",
        "whsec_" + "YWJj" * 10,
        "YWJj" * 10,
        "Bearer in-a-header",
        "in-a-header",
    }
    words = Words()
    words.learn(settings)
    assert words.of("you sent in-a-header") == "you sent ***"
