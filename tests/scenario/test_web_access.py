"""The pages' listener of a real daemon: who is served, under which names, and what strangers and slow clients do."""

import gzip
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final, NamedTuple

import pytest

from tests.patience import in_best_turn

from .environment import PATIENCE, environment, until
from .rig import Process, Scenario, scenario
from .test_reload import changed, hang_up

OPERATE: Final = "canary-operate-5f0c2d91"
LOOK: Final = "canary-look-77ab03e4c1"
WALL: Final = "wall.example.com"
OWN: Final = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
FOREIGN: Final = {"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}
SECURITY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Server": "poller",
}


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    @property
    def cookie(self) -> str:
        """The cookie that was set, as a browser sends it back."""
        return str(self.headers["Set-Cookie"]).partition(";")[0]


class Pages:
    """The pages of a running daemon."""

    def __init__(self, daemon: Scenario, process: Process) -> None:
        self.daemon = daemon
        self.process = process
        self.port = int(process.heard("web_listens")[0]["port"])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
        source: str = "127.0.0.1",
    ) -> Answer:
        wire = http.client.HTTPConnection("127.0.0.1", self.port, PATIENCE, source_address=(source, 0))
        try:
            wire.request(method, path, body, dict(headers or {}))
            answer = wire.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            wire.close()

    def post(
        self, path: str, content: object, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        body = json.dumps(content).encode()
        return self.ask(path, {**OWN, **(headers or {})}, method="POST", body=body, **more)

    def log_in(self, token: str, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        return self.post("/login", {"token": token}, headers, **more)

    def cookie(self, token: str) -> dict[str, str]:
        """The headers of somebody who is logged in."""
        answer = self.log_in(token)
        assert answer.status == 200, answer
        return {"Cookie": answer.cookie}

    def raw(self, lines: Sequence[str]) -> int:
        """The status of the answer to a head as it stands."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as wire:
            wire.sendall("\r\n".join([*lines, "", ""]).encode())
            return int(wire.makefile("rb").readline().split()[1])


@contextmanager
def pages(tmp_path: Path, *, tokens: bool = True, **settings: Any) -> Iterator[Pages]:
    """A daemon with pages; with a token for each role, unless asked otherwise."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    web: dict[str, Any] = {"listen": "127.0.0.1:0", **settings}
    if tokens:
        (tmp_path / "token").write_text(OPERATE + "\n")
        (tmp_path / "view").write_text(LOOK + "\n")
        web |= {"token_file": str(tmp_path / "token"), "view_token_file": str(tmp_path / "view")}
        web.setdefault("hosts", [WALL])
    log = {"level": "debug", "format": "json"}
    with environment(tmp_path) as place, scenario(place, folder, web=web, log=log) as daemon:
        yield Pages(daemon, daemon.run())


# ---------------------------------------------------------------- names


def test_only_our_own_names_are_served(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        port = found.port
        ours = [f"127.0.0.1:{port}", f"localhost:{port}", f"LocalHost:{port}", f"[::1]:{port}"]
        ours += [WALL, WALL.upper(), f"{WALL}:443"]
        for name in ours:
            assert found.ask("/", {"Host": name}).status == 200, name
        foreign = ["evil.example", f"evil.example:{port}", f"localhost.evil.example:{port}", "127.0.0.1"]
        foreign += [
            f"127.0.0.1:{port + 1}",
            f"127.0.0.1.nip.example:{port}",
            f"[::2]:{port}",
            f"0.0.0.0:{port}",
        ]
        foreign += [
            f"x.{WALL}",
            f"{WALL}.evil.example",
            f"user@localhost:{port}",
            "localhost",
            "",
            "[",
        ]
        for name in foreign:
            for path in ("/", "/static/app.js", "/api/me", "/nothing"):
                answer = found.ask(path, {"Host": name})
                assert answer.status == 421, (name, path)
                assert SECURITY.items() <= dict(answer.headers).items()
            assert found.log_in(OPERATE, {"Host": name}).status == 421, name


def test_no_host_several_hosts_and_a_target_with_another_host_are_refused(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        own = f"Host: {found.host}"
        assert found.raw(["GET / HTTP/1.1", own]) == 200
        assert found.raw(["GET / HTTP/1.1"]) in (400, 421)
        assert found.raw(["GET / HTTP/1.0"]) == 421
        assert found.raw(["GET / HTTP/1.1", own, "Host: evil.example"]) in (400, 421)
        assert found.raw(["GET / HTTP/1.1", own, own]) in (400, 421)
        assert found.raw([f"GET http://{found.host}/ HTTP/1.1", own]) == 200
        assert found.raw(["GET http://evil.example/ HTTP/1.1", own]) == 421
        assert found.raw(["GET http://evil.example/api/me HTTP/1.1", "Host: evil.example"]) == 421
        assert found.raw(["CONNECT evil.example:443 HTTP/1.1", own]) in (400, 405, 421)
        assert found.raw(["OPTIONS * HTTP/1.1", own]) == 405


# ---------------------------------------------------------------- roles


def test_pages_are_free_and_data_needs_a_login(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        for path in ("/", "/login", "/stream?id=x", "/event/x", "/static/app.js", "/static/pages/login.js"):
            assert found.ask(path).status == 200, path
        for path in ("/api/me", "/api/status", "/api/nothing", "/picture/1"):
            answer = found.ask(path)
            assert (answer.status, answer.content) == (401, {"error": "You are not logged in."}), path
        viewer, operator = found.cookie(LOOK), found.cookie(OPERATE)
        for cookie, role in ((viewer, "look"), (operator, "operate")):
            me = found.ask("/api/me", cookie).content
            assert me == {"role": role, "login": True, "now": me["now"]}
        assert found.ask("/api/status", viewer).content["sinks"]
        for wrong in ("", "x", "=", viewer["Cookie"][:-1]):
            assert found.ask("/api/me", {"Cookie": wrong}).status == 401
        for given in (f"Bearer {OPERATE}", OPERATE):
            assert found.ask(f"/api/me?token={OPERATE}", {"Authorization": given}).status == 401


def test_a_viewer_writes_nothing_and_what_an_operator_writes_is_logged(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        viewer, operator = found.cookie(LOOK), found.cookie(OPERATE)
        for path in ("/api/pause", "/api/dead/purge", "/api/nothing", "/"):
            assert found.post(path, {}).status == 401, path
            assert found.post(path, {}, viewer).status == 403, path
        assert not found.process.said("web_action")
        answer = found.post("/api/nothing", {}, operator)
        assert answer.status == 404
        (line,) = found.process.heard("web_action")
        wanted = {"path": "/api/nothing", "status": 404, "role": "operate", "address": "127.0.0.1"}
        assert wanted.items() <= line.items()


def test_a_write_from_another_site_is_refused_whoever_is_logged_in(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        operator = found.cookie(OPERATE)
        origins: list[tuple[dict[str, str], bool]] = [
            ({"Sec-Fetch-Site": "same-origin"}, True),
            ({"Origin": f"http://{found.host}"}, True),
            ({}, False),
            ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{found.host}"}, False),
            ({"Sec-Fetch-Site": "same-site"}, False),
            ({"Sec-Fetch-Site": "none"}, False),
            ({"Origin": "null"}, False),
            ({"Origin": f"http://localhost:{found.port}"}, False),
            ({"Origin": f"https://{found.host}"}, False),
        ]
        json_type = {"Content-Type": "application/json"}
        for headers, own in origins:
            for path in ("/api/nothing", "/login", "/logout"):
                answer = found.ask(path, {**operator, **headers, **json_type}, method="POST", body=b"[")
                assert (answer.status == 403) is not own, (headers, path, answer)
            if own:  # it was a logout, too
                operator = found.cookie(OPERATE)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            headers = {**operator, "Sec-Fetch-Site": "same-origin", "Content-Type": kind}
            assert found.ask("/api/nothing", headers, method="POST", body=b"{}").status == 403
        assert found.ask("/api/me", operator).status == 200, "a refused /logout logs nobody out"


def test_an_answer_to_head_has_no_body_and_the_next_request_is_answered(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        cookie = found.cookie(LOOK)["Cookie"]
        for path in ("/", "/static/app.js", "/api/me", "/api/streams", "/api/live", "/picture/1"):
            with socket.create_connection(("127.0.0.1", found.port), PATIENCE) as wire:
                head = f" HTTP/1.1\r\nHost: {found.host}\r\nCookie: {cookie}\r\n\r\n"
                wire.sendall(f"HEAD {path}{head}GET /api/me{head}".encode())
                answers = wire.makefile("rb")
                assert answers.readline().startswith(b"HTTP/1.1 "), path
                while answers.readline().strip():
                    pass
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n", path


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FROB", "PROPFIND"])
def test_other_methods_are_refused(tmp_path: Path, method: str) -> None:
    with pages(tmp_path) as found:
        for path in ("/", "/api/me", "/login", "/nothing"):
            assert found.ask(path, OWN, method=method).status == 405


def test_a_large_body_is_refused(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        assert found.post("/login", {"token": "x" * (64 * 1024)}).status == 413
        assert found.post("/login", {"token": "x" * (63 * 1024)}).status == 401


def test_a_cookie_of_any_bytes_is_no_session_and_no_fault_of_ours(tmp_path: Path) -> None:
    with pages(tmp_path) as found, socket.create_connection(("127.0.0.1", found.port), PATIENCE) as wire:
        head = f"GET /api/me HTTP/1.1\r\nHost: {found.host}\r\nCookie: poller-{found.port}=".encode()
        wire.sendall(head + b"\xff\xfe\xed\xa0\x80\r\n\r\n")
        assert b" 401 " in wire.makefile("rb").readline()
        assert not found.process.said("web_failed")


# ---------------------------------------------------------------- login


def test_the_cookie_is_for_this_origin_and_no_script(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        flags = {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"}
        plain = found.log_in(LOOK)
        name, *rest = str(plain.headers["Set-Cookie"]).split("; ")
        assert re.fullmatch(rf"poller-{found.port}=[A-Za-z0-9_-]{{43}}", name)
        assert set(rest) == flags
        assert plain.headers["Cache-Control"] == "no-store"
        behind = {"Host": WALL, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
        secure = found.log_in(OPERATE, behind)
        name, *rest = str(secure.headers["Set-Cookie"]).split("; ")
        assert name.startswith("__Host-poller=")
        assert set(rest) == flags | {"Secure"}
        assert found.ask("/api/me", {**behind, "Cookie": secure.cookie}).content["role"] == "operate"
        assert found.ask("/api/me", {"Cookie": secure.cookie}).status == 401, "not without https"
        claimed = found.log_in(LOOK, {"X-Forwarded-Proto": "https"})
        assert "Secure" not in str(claimed.headers["Set-Cookie"]), "only behind a configured proxy"
        line = found.process.heard("web_login", 3)[1]
        assert (line["role"], line["address"], line["proxy"]) == ("operate", "203.0.113.9", "127.0.0.1")


def test_a_session_ends_with_the_logout_with_another_login_and_with_the_daemon(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        first = found.cookie(OPERATE)
        answer = found.post("/logout", {}, first)
        assert answer.status == 200
        assert "Max-Age=0" in str(answer.headers["Set-Cookie"])
        assert found.ask("/api/me", first).status == 401
        assert found.process.heard("web_logout")[0]["role"] == "operate"
        assert found.post("/logout", {}).status == 200, "twice is no error"
        second = found.cookie(OPERATE)
        third = found.log_in(LOOK, second)
        assert found.ask("/api/me", second).status == 401
        assert found.ask("/api/me", {"Cookie": third.cookie}).content["role"] == "look"
        assert found.process.stop() == 0
        again = Pages(found.daemon, found.daemon.run())
        cookie = third.cookie.replace(str(found.port), str(again.port))
        assert again.ask("/api/me", {"Cookie": cookie}).status == 401


def test_after_five_wrong_tokens_an_address_waits_and_no_other_does(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        for _ in range(20):
            assert found.log_in(LOOK).status == 200, "only failures count"
        statuses = [found.log_in("wrong" * 4).status for _ in range(5)]
        assert statuses == [401] * 5
        answer = found.log_in(OPERATE)
        wait = answer.content["wait"]
        assert 0 < wait <= 60
        assert answer.status == 429
        assert answer.headers["Retry-After"] == str(wait)
        assert answer.content["error"] == f"Too many tries. Wait {wait} s."
        assert found.log_in(OPERATE, source="127.0.0.2").status == 200
        lines = found.process.heard("web_login_failed", 5)
        assert [bool(line["blocked_for"]) for line in lines] == [False] * 4 + [True]
        assert {(line["reason"], line["address"]) for line in lines} == {("wrong token", "127.0.0.1")}


def test_behind_a_proxy_each_client_has_its_own_tries(tmp_path: Path) -> None:
    with pages(tmp_path) as found:

        def tried(token: str, client: str) -> int:
            return found.log_in(token, {"Host": WALL, "X-Forwarded-For": client}).status

        assert [tried("wrong" * 4, f"{n}.1.1.1, 203.0.113.9") for n in range(1, 7)] == [401] * 5 + [429]
        assert tried(OPERATE, "203.0.113.9") == 429
        assert tried(OPERATE, "203.0.113.10") == 200
        direct = [found.log_in("wrong" * 4, {"X-Forwarded-For": f"{n}.1.1.1"}).status for n in range(1, 7)]
        assert direct == [401] * 5 + [429], "a header counts only under the proxy's name"


def test_a_proxy_that_appends_a_line_of_its_own_is_believed_and_its_client_is_not(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        body = json.dumps({"token": "wrong" * 4}).encode()

        def status(number: int) -> int:
            head = [
                "POST /login HTTP/1.1",
                f"Host: {WALL}",
                f"Origin: http://{WALL}",
                f"Content-Length: {len(body)}",
            ]
            head += ["Content-Type: application/json", f"X-Forwarded-For: 198.51.100.{number}"]
            head += ["X-Forwarded-For: 203.0.113.9", "", body.decode()]
            with socket.create_connection(("127.0.0.1", found.port), PATIENCE) as wire:
                wire.sendall("\r\n".join(head).encode())
                return int(wire.makefile("rb").readline().split()[1])

        assert [status(number) for number in range(6)] == [401] * 5 + [429]
        assert {line["address"] for line in found.process.heard("web_login_failed", 5)} == {"203.0.113.9"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": null}',
        b'{"token": 7}',
        b'{"token": "a", "code": "b"}',
        b'{"token": "a", "more": 1}',
        b'{"token": "\\ud800"}',
        b'"' + b"\xff" * 10 + b'"',
        b"[" * 60_000,
    ],
)
def test_a_login_of_another_form_is_a_bad_request(tmp_path: Path, body: bytes) -> None:
    with pages(tmp_path) as found:
        answer = found.ask("/login", OWN, method="POST", body=body)
        assert answer.status == 400
        assert answer.content == {"error": 'A login is {"token": "…"} or {"code": "…"}.'}
        assert not found.process.said("web_failed")


def test_without_tokens_this_machine_looks_and_nobody_operates(tmp_path: Path) -> None:
    with pages(tmp_path, tokens=False) as found:
        assert found.ask("/api/me").content.items() >= {"role": "look", "login": False}.items()
        assert found.ask("/api/status").status == 200
        assert found.post("/api/pause", {"sink": "hook"}).status == 403
        assert found.log_in(OPERATE).status == 404
        for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
            assert found.ask("/api/status", {name: "203.0.113.9"}).status == 403, "a proxy's viewers log in"
        assert found.ask("/api/status", {"Host": WALL}).status == 421


# ---------------------------------------------------------------- headers and files


def test_every_answer_has_the_security_headers(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        viewer = found.cookie(LOOK)
        answers = [
            found.ask("/"),
            found.ask("/static/app.css"),
            found.ask(
                "/static/app.css", {"If-None-Match": str(found.ask("/static/app.css").headers["ETag"])}
            ),
            found.ask("/nothing"),
            found.ask("/static/../server.py"),
            found.ask("/static/%2e%2e/server.py"),
            found.ask("/api/me"),
            found.ask("/api/me", viewer),
            found.ask("/", method="PUT"),
            found.post("/login", 7),
            found.post("/login", {}, FOREIGN),
            found.ask("/", method="HEAD"),
            found.ask("/", {"Expect": "the-unexpected"}),
        ]
        statuses = [answer.status for answer in answers]
        assert statuses == [200, 200, 304, 404, 404, 404, 401, 200, 405, 400, 403, 200, 417]
        for answer in answers:
            assert SECURITY.items() <= dict(answer.headers).items()
            assert len(answer.headers.get_all("Content-Security-Policy", [])) == 1
            assert not re.search(r"[0-9]", str(answer.headers["Server"]))


def test_a_file_is_sent_once_and_then_only_asked_for(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        plain = found.ask("/static/app.css")
        zipped = found.ask("/static/app.css", {"Accept-Encoding": "gzip, br"})
        assert gzip.decompress(zipped.body) == plain.body
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert plain.headers["ETag"] != zipped.headers["ETag"]
        for refused in ("gzip;q=0", "br, gzip; q=0.0"):
            assert found.ask("/static/app.css", {"Accept-Encoding": refused}).body == plain.body
        for answer, accepted in ((plain, "identity"), (zipped, "gzip")):
            assert answer.headers["Cache-Control"] == "no-cache"
            assert answer.headers["Vary"] == "Accept-Encoding"
            asked = {"If-None-Match": f'"other", {answer.headers["ETag"]}', "Accept-Encoding": accepted}
            again = found.ask("/static/app.css", asked)
            assert (again.status, again.body) == (304, b"")
            assert again.headers["ETag"] == answer.headers["ETag"]
        assert found.ask("/static/app.css", {"If-None-Match": '"older"'}).status == 200


# ---------------------------------------------------------------- many and slow clients


def slowest_health_check(found: Pages, most: float) -> float:
    """The seconds of the slowest of twenty health checks, in the best turn, which is the first one below `most`."""
    port = int(found.process.heard("admin_listens")[0]["port"])
    return in_best_turn(lambda: _slowest_of_a_turn(port), most)


def _slowest_of_a_turn(port: int) -> float:
    slowest = 0.0
    for _ in range(20):
        since = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as wire:
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 200 " in wire.recv(4096)
        slowest = max(slowest, time.monotonic() - since)
    return slowest


def hung_viewer(found: Pages, headers: Mapping[str, str], *, live: bool = True) -> socket.socket:
    """A viewer that reads nothing, and asks for a live stream (or not) and for more than anybody holds for it."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.connect(("127.0.0.1", found.port))
    cookie = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    wire.settimeout(PATIENCE)
    first = f"GET /api/live HTTP/1.1\r\nHost: {found.host}\r\n{cookie}\r\n" if live else ""
    wire.sendall((first + f"GET /static/app.js HTTP/1.1\r\nHost: {found.host}\r\n\r\n" * 100).encode())
    return wire


def test_health_is_answered_in_a_tenth_of_a_second_beside_64_hung_viewers_and_256_connections(
    tmp_path: Path, soak: bool
) -> None:
    most = 0.1 if soak else 1.0
    with pages(tmp_path) as found, ExitStack() as stack:
        viewers = [found.cookie(LOOK) for _ in range(8)]
        for number in range(64):
            stack.enter_context(hung_viewer(found, viewers[number % 8]))
        with_hung_viewers = slowest_health_check(found, most)
        for number in range(256):
            wire = stack.enter_context(socket.create_connection(("127.0.0.1", found.port), PATIENCE))
            if number % 2:
                wire.sendall(b"GET / HTT")
        with_all = slowest_health_check(found, most)
        assert found.ask("/").status == 200, "a newcomer is served, too"
        print(f"\nhealthz: {with_hung_viewers * 1000:.1f} ms, {with_all * 1000:.1f} ms with 256 more")
        assert max(with_hung_viewers, with_all) < most


def test_hung_viewers_are_cut_after_ten_seconds(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        cookie, since = found.cookie(LOOK), time.monotonic()
        wire = hung_viewer(found, cookie, live=False)
        own = wire.getsockname()[1]
        until(lambda: holds_connection(found.port, own), what="for the daemon to take the connection")
        until(lambda: not holds_connection(found.port, own), what="for the daemon to cut it")
        assert time.monotonic() - since > 8
        wire.close()


class End(NamedTuple):
    """One end of a connection on this machine; the kernel's own end has no inode."""

    port: int
    other: int
    unread: int
    inode: str


def ends() -> list[End]:
    """All of them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        End(int(row[1].partition(":")[2], 16), int(row[2].partition(":")[2], 16), int(row[4][:8], 16), row[9])
        for row in rows
    ]


def holds_connection(port: int, other: int) -> bool:
    """Whether a process has the end of a connection open that is at `port`."""
    return any((one.port, one.other) == (port, other) and one.inode != "0" for one in ends())


def is_written_to(port: int, other: int) -> bool:
    """Whether bytes were sent from `port` that the other end has no place for."""
    return any((one.port, one.other) == (port, other) and one.unread > 0 for one in ends())


def test_the_daemon_stops_at_once_beside_viewers(tmp_path: Path) -> None:
    def seconds() -> float:
        return seconds_to_stop_beside_viewers(Path(mkdtemp(dir=tmp_path)))

    assert in_best_turn(seconds, 9, good=2) < 9, "it did not wait until those who read nothing are cut"


def seconds_to_stop_beside_viewers(folder: Path) -> float:
    """Half of them follow a live stream, and to the other half an answer is being written."""
    with pages(folder) as found, ExitStack() as stack:
        viewer = found.cookie(LOOK)
        for number in range(8):
            wire = stack.enter_context(hung_viewer(found, viewer, live=number < 4))
            if number >= 4:
                own = wire.getsockname()[1]
                until(lambda: is_written_to(found.port, own), what="for an answer that nobody reads")  # noqa: B023
        since = time.monotonic()
        assert found.process.stop() == 0
        return time.monotonic() - since


# ---------------------------------------------------------------- secrets and settings


def test_no_token_and_no_cookie_is_found_in_anything_that_the_daemon_writes_or_answers(
    tmp_path: Path,
) -> None:
    with pages(tmp_path) as found:
        cookies = [found.cookie(OPERATE), found.cookie(LOOK)]
        answers = [found.ask(path, cookie) for cookie in cookies for path in ("/api/me", "/api/status")]
        answers += [found.log_in(OPERATE + "x"), found.post("/login", {"code": LOOK})]
        answers += [found.ask(f"/api/{OPERATE}", cookies[0]), found.ask(f"/{LOOK}?{LOOK}", cookies[0])]
        answers += [found.ask("/api/me", {"Host": OPERATE}), found.ask("/api/me", {"Authorization": LOOK})]
        answers.append(found.ask("/login", OWN, method="POST", body=f'{{"token": "{OPERATE}"'.encode()))
        found.post("/logout", {}, cookies[1])
        ports = [found.process.get(path)[1] for path in ("/metrics", "/readyz")]
        command_line = Path(f"/proc/{found.process.child.pid}/cmdline").read_bytes()
        assert found.process.stop() == 0
        secrets = [OPERATE, LOOK] + [cookie["Cookie"].partition("=")[2] for cookie in cookies]
        places = {str(path): path.read_bytes() for path in found.daemon.folder.rglob("*") if path.is_file()}
        places |= {"command line": command_line, "ports": "\n".join(ports).encode()}
        places |= {f"answer {n}": answer.body for n, answer in enumerate(answers)}
        assert any("web_login_failed" in place.decode(errors="replace") for place in places.values())
        assert [
            (name, word) for name, text in places.items() for word in secrets if word.encode() in text
        ] == []


def test_changed_pages_and_changed_tokens_need_a_restart_and_a_reload_says_so(tmp_path: Path) -> None:
    with pages(tmp_path) as found:
        (tmp_path / "token").write_text("another-token-of-twenty\n")
        hang_up(found.process, 1)
        assert found.process.heard("reloaded")[0]["unheeded"] == ["web"]
        changed(found.daemon, lambda new: new["web"].update(hosts=["other.example.com"]))
        hang_up(found.process, 2)
        assert found.process.heard("reloaded", 2)[1]["unheeded"] == ["web"]
        assert found.log_in(OPERATE).status == 200
        assert found.ask("/", {"Host": "other.example.com"}).status == 421
