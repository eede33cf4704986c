"""The address guard: no spelling, no address and no name gets out to where only we could get."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from poller.qcloud.pictures.handle import BadUrl, TransferFailed
from poller.qcloud.pictures.transfers import TransferRequest, Transfers
from poller.runtime.http_client import Route, Unreachable, client_context, reason
from poller.runtime.http_poster import ConnectionLost, Poster
from poller.runtime.outbound import AddressGuard, AddressRefused
from poller.runtime.resolver import AddrInfo, Resolver

Get = Callable[[str, AddressGuard], Coroutine[Any, Any, tuple[Exception | None, int]]]

# PORT stands for the port of a server that listens on 127.0.0.1 and, where there is IPv6, on ::1.
_SPELLINGS = """
http://127.0.0.1:PORT/
http://127.0.0.1.:PORT/
http://127.0.0.1..:PORT/
http://127.1:PORT/
http://127.0.1:PORT/
http://127.1.:PORT/
http://127.127.127.127:PORT/
http://127.255.255.254:PORT/
http://2130706433:PORT/
http://2130706433.:PORT/
http://4294967295:PORT/
http://6425673729:PORT/
http://0x7f000001:PORT/
http://0X7F000001:PORT/
http://0x7f.1:PORT/
http://0x7f.0.0.1:PORT/
http://0x7f.0x0.0x0.0x1:PORT/
http://0x7f.0.1:PORT/
http://0x0000007f.1:PORT/
http://017700000001:PORT/
http://0177.1:PORT/
http://0177.0.0.1:PORT/
http://0177.0.0.01:PORT/
http://00000177.0.0.1:PORT/
http://0177.0x0.0.1:PORT/
http://127.0x0.0.01:PORT/
http://127.000.000.001:PORT/
http://0127.0.0.1:PORT/
http://0:PORT/
http://0.0:PORT/
http://0.0.0.0:PORT/
http://0x0:PORT/
http://00:PORT/
http://[::]:PORT/
http://[0:0:0:0:0:0:0:0]:PORT/
http://[::1]:PORT/
http://[0:0:0:0:0:0:0:1]:PORT/
http://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT/
http://[::0001]:PORT/
http://[::1%25lo]:PORT/
http://[::1%251]:PORT/
http://[::ffff:127.0.0.1]:PORT/
http://[::FFFF:127.0.0.1]:PORT/
http://[::ffff:7f00:1]:PORT/
http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/
http://[::ffff:0.0.0.0]:PORT/
http://[::127.0.0.1]:PORT/
http://[::7f00:1]:PORT/
http://[64:ff9b::127.0.0.1]:PORT/
http://[64:ff9b:1::7f00:1]:PORT/
http://[2002:7f00:1::]:PORT/
http://[2001:0:7f00:1::]:PORT/
http://[fe80::1%25lo]:PORT/
http://①②⑦.⓪.⓪.①:PORT/
http://１２７.０.０.１:PORT/
http://127。0。0。1:PORT/
http://127．0．0．1:PORT/
http://②①③⓪⑦⓪⑥④③③:PORT/
http://⓪ⓧ⑦ⓕ.①:PORT/
http://𝟏𝟐𝟕.𝟎.𝟎.𝟏:PORT/
http://٠:PORT/
http://١٢٧.٠.٠.١:PORT/
http://%31%32%37.0.0.1:PORT/
http://localhost:PORT/
http://LOCALHOST:PORT/
http://LocalHost.:PORT/
http://localhost..:PORT/
http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/
http://ｌｏｃａｌｈｏｓｔ:PORT/
http://loc%61lhost:PORT/
http://user@127.0.0.1:PORT/
http://user:secret@localhost:PORT/
http://example.com@127.0.0.1:PORT/
http://example.com:80@127.0.0.1:PORT/
http://example.com%40127.0.0.1:PORT/
http://example.com%23@127.0.0.1:PORT/
http://example.com\\@127.0.0.1:PORT/
http://127.0.0.1:PORT#@example.com/
http://127.0.0.1:PORT?@example.com/
http://127.0.0.1:PORT\\@example.com/
http:127.0.0.1:PORT/
http:/127.0.0.1:PORT/
http:///127.0.0.1:PORT/
"""

_SPECIAL = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.254 127.0.0.1 127.0.0.53
168.63.129.16 169.254.0.23 169.254.169.254 172.16.0.1 172.31.255.254 192.0.0.8 192.0.0.192 192.0.2.1
192.88.99.1 192.168.0.1 192.168.255.254 198.18.0.1 198.19.255.254 198.51.100.7 203.0.113.9 224.0.0.1
239.255.255.250 240.0.0.1 255.255.255.255
:: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1:: 2001:2::1 2001:10::1 2001:20::1
2001:db8::1 2002:7f00:1:: 2002:808:808::1 3ffe::1 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fdff::1
fe80::1 fe80::1%lo febf::1 fec0::1 feff::1 ff02::1 ff0e::1 ffff::1
"""

_PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 169.253.0.1
172.15.0.1 172.32.0.1 192.167.0.1 192.169.0.1 198.17.0.1 198.20.0.1 223.255.255.255 119.29.29.29
2001:4860:4860::8888 2606:4700:4700::1111 2400:3200::1 2a00:1450:4001::1 240e::1 ::ffff:8.8.8.8
"""

SPELLINGS, ADDRESSES, PUBLIC = _SPELLINGS.split(), _SPECIAL.split(), _PUBLIC.split()
NO_ADDRESSES = [
    "",
    "localhost",
    "127.1",
    "0x7f.1",
    "2130706433",
    "8.8.8.8.",
    "8.8.08.8",
    "１.1.1.1",
    "8.8.8.8\0",
    "[::1]",
]


# ---------------------------------------------------------------- the rig


@dataclass
class Counter:
    port: int = 0
    connections: int = 0


@asynccontextmanager
async def _loopback() -> AsyncIterator[Counter]:
    counter = Counter()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counter.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    first = await asyncio.start_server(count, "127.0.0.1", 0)
    counter.port = first.sockets[0].getsockname()[1]
    async with first:
        if not _has_ipv6():
            yield counter
            return
        async with await asyncio.start_server(count, "::1", counter.port):
            yield counter


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextmanager
def _poster(url: str, guard: AddressGuard, resolver: Resolver | None = None) -> Iterator[Poster]:
    route = Route(resolver=resolver or Resolver(), guard=guard, tls=client_context(None, URL(url)))
    poster = Poster(URL(url), route, limit=1)
    try:
        yield poster
    finally:
        poster.close()


async def _get(url: str, guard: AddressGuard) -> tuple[Exception | None, int]:
    async with _loopback() as server:
        try:
            with _poster(url.replace("PORT", str(server.port)), guard) as poster:
                await poster.post((), b"")
        except (Unreachable, ConnectionLost, ValueError) as error:
            return error, server.connections
        return None, server.connections


class _Ignored:
    """Takes any answer."""

    def begin(self, status: int, headers: object, length: int | None) -> None: ...

    def take(self, piece: bytes) -> None: ...


async def _get_by_libcurl(url: str, guard: AddressGuard) -> tuple[Exception | None, int]:
    async with _loopback() as server, Transfers(guard, per_host=1, timeout=30) as transfers:
        [error] = await transfers.get([TransferRequest(url.replace("PORT", str(server.port)), _Ignored())])
        assert error is None or isinstance(error, TransferFailed | BadUrl)
        return error, server.connections


def _info(host: str, port: int = 80) -> AddrInfo:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


def _opens(guard: AddressGuard, host: str) -> bool:
    try:
        guard.socket_factory(_info(host)).close()
    except AddressRefused:
        return False
    return True


# ---------------------------------------------------------------- spellings


def test_there_are_enough_spellings_and_addresses() -> None:
    assert len(set(SPELLINGS)) >= 60
    assert len(set(ADDRESSES)) >= 40


@pytest.mark.parametrize("get", [_get, _get_by_libcurl])
@pytest.mark.parametrize("url", SPELLINGS)
def test_no_spelling_of_a_loopback_target_reaches_a_server_there(url: str, get: Get) -> None:
    error, connections = asyncio.run(get(url, AddressGuard()))
    assert error is not None
    assert connections == 0


@pytest.mark.parametrize(
    ("url", "get"),
    [
        *[(f"http://{host}:PORT/", _get) for host in ("127.0.0.1", "localhost", "①②⑦.⓪.⓪.①")],
        *[
            (f"http://{host}:PORT/", _get_by_libcurl)
            for host in ("127.0.0.1", "localhost", "0x7f.1", "[::1]")
        ],
    ],
)
def test_the_same_spellings_reach_the_server_where_they_are_allowed(url: str, get: Get) -> None:
    if "::1" in url and not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    guard = AddressGuard([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])
    assert asyncio.run(get(url, guard)) == (None, 1)


@pytest.mark.parametrize("get", [_get, _get_by_libcurl])
def test_no_name_of_the_hosts_file_reaches_a_server_on_loopback(get: Get) -> None:
    lines = [line.partition("#")[0].split() for line in Path("/etc/hosts").read_text().splitlines()]
    names = {name for line in lines if line and line[0] in {"127.0.0.1", "::1"} for name in line[1:]}
    for name in names:
        error, connections = asyncio.run(get(f"http://{name}:PORT/", AddressGuard()))
        assert error is not None, name
        assert connections == 0, name


def test_a_name_with_only_refused_addresses_says_so() -> None:
    error, _ = asyncio.run(_get("http://localhost:PORT/", AddressGuard()))
    assert isinstance(error, Unreachable)
    assert str(error).endswith("is not a public address; allow_cidr can permit it")


def test_a_name_whose_addresses_are_partly_allowed_goes_to_those() -> None:
    class TwoFaced(Resolver):
        async def resolve(self, host: str, port: int) -> list[AddrInfo]:
            return [_info(address, port) for address in ("10.0.0.1", "127.0.0.1")]

    async def main() -> int:
        guard = AddressGuard([ipaddress.ip_network("127.0.0.0/8")])
        async with _loopback() as server:
            with _poster(f"http://two.example:{server.port}/", guard, TwoFaced()) as poster:
                return (await poster.post((), b"")).status

    assert asyncio.run(main()) == 204


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_not_global_unicast_is_refused(address: str) -> None:
    assert not _opens(AddressGuard(), address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address: str) -> None:
    assert AddressGuard().allows(address)


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_not_an_address_is_refused_even_where_everything_is_allowed(text: str) -> None:
    everything = AddressGuard([ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")])
    assert not everything.allows(text)


@given(st.ip_addresses())
@example(ipaddress.ip_address("192.0.0.9"))
def test_nothing_passes_that_the_standard_library_calls_private_or_special(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if AddressGuard().allows(str(address)):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


# ---------------------------------------------------------------- allow_cidr


@pytest.mark.parametrize(
    ("cidr", "inside", "outside"),
    [
        (
            "127.0.0.0/8",
            ["127.0.0.1", "127.255.255.255", "::ffff:127.0.0.1"],
            ["10.0.0.1", "0.0.0.0", "::1", "::127.0.0.1"],
        ),
        (
            "10.1.2.3/32",
            ["10.1.2.3", "::ffff:10.1.2.3"],
            ["10.1.2.2", "10.1.2.4", "64:ff9b::10.1.2.3", "2002:a01:203::"],
        ),
        ("192.168.4.0/22", ["192.168.4.0", "192.168.7.255"], ["192.168.3.255", "192.168.8.0"]),
        ("::1/128", ["::1"], ["::", "::2", "127.0.0.1", "::ffff:127.0.0.1"]),
        ("fd00:1::/32", ["fd00:1::", "fd00:1:ffff::1"], ["fd00:2::", "fd00::ffff"]),
        ("fe80::/10", ["fe80::1", "fe80::1%lo"], ["fec0::1"]),
        ("64:ff9b::/96", ["64:ff9b::8.8.8.8"], ["64:ff9b:1::1", "2002:808:808::"]),
    ],
)
def test_allow_cidr_lets_through_exactly_its_own(cidr: str, inside: list[str], outside: list[str]) -> None:
    guard = AddressGuard([ipaddress.ip_network(cidr)])
    assert [host for host in inside if not guard.allows(host)] == []
    assert [host for host in outside if guard.allows(host)] == []


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_an_address_that_is_not_public_passes_only_if_a_network_holds_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    base: ipaddress.IPv4Address | ipaddress.IPv6Address,
    length: int,
) -> None:
    network = ipaddress.ip_network((base, min(length, base.max_prefixlen)), strict=False)
    if AddressGuard([network]).allows(str(address)) and not AddressGuard().allows(str(address)):
        judged = getattr(address, "ipv4_mapped", None) or address
        assert judged in network


# ---------------------------------------------------------------- reasons


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ssl.SSLError(1, "[SSL: …] https://canary"), "TLS: handshake failed"),
        (ConnectionRefusedError(111, "canary"), "cannot connect: ECONNREFUSED"),
        (OSError("canary: http://canary"), "cannot connect: no address could be reached"),
        (TimeoutError(110, "canary"), "connecting took too long"),
        (AddressRefused("10.0.0.1"), "10.0.0.1 is not a public address; allow_cidr can permit it"),
    ],
)
def test_a_reason_is_short_and_repeats_nothing_from_outside(error: Exception, text: str) -> None:
    assert reason(error) == text


# ---------------------------------------------------------------- repeats


def test_a_post_whose_connection_dies_is_sent_once() -> None:
    async def main() -> int:
        requests = 0

        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            while True:
                try:
                    await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    break
                requests += 1
                if requests > 1:
                    break
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(cut, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server:
            with _poster(url, AddressGuard([ipaddress.ip_network("127.0.0.0/8")])) as poster:
                await poster.post((), b"")
                with pytest.raises(ConnectionLost, match="connection closed without an answer"):
                    await poster.post((), b"")
        return requests

    assert asyncio.run(main()) == 2


# ---------------------------------------------------------------- whom TLS trusts


@pytest.mark.parametrize(
    ("url", "proxy", "system"),
    [
        ("https://a.example", None, True),
        ("http://a.example", None, False),
        ("http://a.example", "http://proxy.example", False),
        ("https://a.example", "http://proxy.example", True),
        ("http://a.example", "https://proxy.example", True),
    ],
)
def test_the_systems_authorities_are_read_only_for_https(url: str, proxy: str | None, system: bool) -> None:
    context = client_context(None, URL(url), None if proxy is None else URL(proxy))
    known = ssl.create_default_context().cert_store_stats()
    assert context.cert_store_stats() == (known if system else {"x509": 0, "crl": 0, "x509_ca": 0})
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_given_authorities_are_those_that_are_trusted() -> None:
    given = ssl.create_default_context()
    assert client_context(given, URL("http://a.example")) is given
