"""Where a request comes from, and which writes are taken."""

import pytest
from multidict import CIMultiDict

from poller.web.access import check_write
from poller.web.callers import find_caller
from poller.web.errors import WebError
from poller.web.hosts import Site

OWN = Site(scheme="http", authority="localhost:9480", proxied=False)
BEHIND = Site(scheme="https", authority="wall.example.com", proxied=True)
JSON = "application/json"


@pytest.mark.parametrize(
    ("headers", "site"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, OWN),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:9480"}, OWN),
        ({"Origin": "http://localhost:9480"}, OWN),
        ({"Origin": "https://wall.example.com"}, BEHIND),
    ],
)
def test_a_write_of_our_own_page_is_taken(headers: dict[str, str], site: Site) -> None:
    check_write(CIMultiDict(headers), JSON, site)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:9480"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Referer": "http://localhost:9480/"},
    ],
)
def test_a_write_from_elsewhere_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(WebError) as refused:
        check_write(CIMultiDict(headers), JSON, OWN)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", ""]
)
def test_a_form_is_no_write(content_type: str) -> None:
    with pytest.raises(WebError, match="application/json"):
        check_write({"Sec-Fetch-Site": "same-origin"}, content_type, OWN)


def test_the_other_side_of_the_connection_is_the_caller() -> None:
    caller = find_caller("192.0.2.7", "203.0.113.9", OWN)
    assert (caller.address, caller.key, caller.proxy) == ("192.0.2.7", "192.0.2.7", None)


def test_behind_the_configured_proxy_its_last_word_counts() -> None:
    caller = find_caller("127.0.0.1", "198.51.100.1, 203.0.113.9", BEHIND)
    assert (caller.address, caller.proxy) == ("203.0.113.9", "127.0.0.1")


@pytest.mark.parametrize("told", ["", "unknown", "203.0.113.9,", "<script>"])
def test_a_proxy_that_says_nothing_is_the_caller_itself(told: str) -> None:
    caller = find_caller("127.0.0.1", told, BEHIND)
    assert (caller.address, caller.proxy) == ("127.0.0.1", None)


def test_addresses_of_one_ipv6_network_count_as_one_caller() -> None:
    keys = {find_caller(f"2001:db8::{end}", "", OWN).key for end in range(1, 5)}
    assert len(keys) == 1
