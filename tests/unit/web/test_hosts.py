"""Under which names the pages are served, and which origins are their own."""

from collections.abc import Sequence

import pytest

from poller.web.hosts import Local, Site, find_site, same_origin

HERE = Local(address="127.0.0.1", port=9480)
WALL = ("wall.example.com", "wall.lan:8443")


def found(
    *given: str,
    target: str = "/",
    local: Local = HERE,
    listen: str = "127.0.0.1",
    hosts: Sequence[str] = WALL,
    forwarded: str = "",
) -> Site | None:
    return find_site(given, target, local=local, listen=listen, hosts=hosts, forwarded=forwarded)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9480",
        "localhost:9480",
        "LOCALHOST:9480",
        "[::1]:9480",
        "127.0.0.2:9480",
        "wall.example.com",
        "Wall.Example.COM",
        "wall.example.com:4433",
        "wall.lan:8443",
    ],
)
def test_our_own_names_are_served(host: str) -> None:
    assert found(host) is not None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:9480",
        "127.0.0.1",
        "127.0.0.1:9481",
        "127.0.0.1:80",
        "localhost",
        "localhost:",
        "localhost.:9480",
        "evil.localhost:9480",
        "127.0.0.1.evil.example:9480",
        "127.0.0.1@evil.example:9480",
        "wall.example.com.evil.example",
        "evil.wall.example.com",
        "wall.example.com.",
        "wall.example.com/",
        "wall.example.com:abc",
        "wall.example.com:",
        "wall.lan",
        "wall.lan:8444",
        "10.0.0.7:9480",
        "0.0.0.0:9480",
        "[::2]:9480",
        "[::1:9480",
        "::1:9480",
        "2130706433:9480",
        "0x7f.1:9480",
        "localhost:9480, evil.example",
        " localhost:9480",
        "loc\u0430lhost:9480",
    ],
)
def test_any_other_name_is_not(host: str) -> None:
    assert found(host) is None


def test_no_host_and_several_hosts_are_nobodys() -> None:
    assert found() is None
    assert found("localhost:9480", "localhost:9480") is None
    assert found("localhost:9480", "evil.example") is None


@pytest.mark.parametrize(
    ("target", "ours"),
    [
        ("http://localhost:9480/", True),
        ("http://LOCALHOST:9480/api/me", True),
        ("http://evil.example/", False),
        ("http://user@localhost:9480/", False),
        ("//evil.example/", True),  # a path that begins with two slashes, by the grammar
        ("evil.example:443", False),
        ("http://[", False),
        ("*", True),
    ],
)
def test_a_target_with_a_host_names_the_same_host(target: str, ours: bool) -> None:
    assert (found("localhost:9480", target=target) is not None) == ours


def test_the_address_that_the_connection_came_to_is_ours() -> None:
    lan = Local(address="192.168.1.5", port=9480)
    assert found("192.168.1.5:9480", local=lan, listen="0.0.0.0") is not None
    assert found("192.168.1.6:9480", local=lan, listen="0.0.0.0") is None
    assert found("poller.lan:9480", local=lan, listen="poller.lan") is not None
    assert found("[fd00::5]:9480", local=Local(address="fd00::5", port=9480), listen="::") is not None
    assert found("192.168.1.5:9480", local=Local(address="::ffff:192.168.1.5", port=9480)) is not None


def test_on_port_80_the_port_may_be_left_out() -> None:
    assert found("localhost", local=Local(address="127.0.0.1", port=80)) is not None


@pytest.mark.parametrize(
    ("host", "forwarded", "scheme"),
    [
        ("wall.example.com", "https", "https"),
        ("wall.example.com", "http", "http"),
        ("wall.example.com", "", "http"),
        ("wall.example.com", "https, http", "http"),
        ("localhost:9480", "https", "http"),
    ],
)
def test_https_is_believed_only_behind_a_configured_proxy(host: str, forwarded: str, scheme: str) -> None:
    site = found(host, forwarded=forwarded)
    assert site is not None
    assert site.scheme == scheme


@pytest.mark.parametrize(
    ("host", "forwarded", "origin", "own"),
    [
        ("localhost:9480", "", "http://localhost:9480", True),
        ("localhost:9480", "", "http://127.0.0.1:9480", False),
        ("localhost:9480", "", "http://localhost:9481", False),
        ("localhost:9480", "", "https://localhost:9480", False),
        ("localhost:9480", "", "null", False),
        ("localhost:9480", "", "", False),
        ("wall.example.com", "https", "https://wall.example.com", True),
        ("wall.example.com", "https", "http://wall.example.com", False),
        ("wall.example.com:443", "https", "https://wall.example.com", True),
        ("wall.example.com", "", "http://wall.example.com:80", True),
        ("wall.example.com", "https", "https://wall.example.com.evil.example", False),
        ("wall.example.com", "https", "https://evil.example", False),
    ],
)
def test_an_origin_is_our_own_if_scheme_host_and_port_are(
    host: str, forwarded: str, origin: str, own: bool
) -> None:
    site = found(host, forwarded=forwarded)
    assert site is not None
    assert same_origin(origin, site) == own
