"""`GET /picture/{number}` of a daemon: from a sink's files, from the picture host, and no request elsewhere."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.integration.sinks.download.shots import jpeg

from .environment import PATIENCE, environment, until
from .rig import Process, Scenario, scenario

LOCAL = ["127.0.0.0/8"]
WEB: dict[str, Any] = {"listen": "127.0.0.1:0", "allow_cidr": LOCAL}
CONSOLE: dict[str, Any] = {"console": {"type": "stdout"}}
ARCHIVE = {"archive": {"type": "download", "directory": "archive", "template": "{name}", "allow_cidr": LOCAL}}


@dataclass(kw_only=True)
class Answer:
    status: int
    body: bytes
    headers: Message


@dataclass(kw_only=True)
class Host:
    """A picture host that answers as told and remembers what was asked for."""

    url: str = ""
    status: int = 200
    body: bytes = field(default_factory=jpeg)
    asked: list[str] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)


@contextmanager
def picture_host() -> Iterator[Host]:
    host = Host()
    host.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.asked.append(self.path)
            host.open.wait(PATIENCE)
            self.send_response(host.status)
            self.send_header("Content-Length", str(len(host.body)))
            self.end_headers()
            self.wfile.write(host.body)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        host.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield host
        finally:
            host.open.set()
            server.shutdown()


def get(process: Process, path: str, **headers: str) -> Answer:
    port = process.heard("web_listens")[0]["port"]
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return Answer(status=answer.status, body=answer.read(), headers=answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(status=error.code, body=error.read(), headers=error.headers)


def numbers(process: Process, count: int) -> list[int]:
    """The numbers of the events, once there are so many."""
    until(lambda: process.metric("events_total") >= count, what=f"for {count} events")
    return list(range(1, count + 1))


def file_names(daemon: Scenario) -> list[str]:
    shown = commands.poller("events", "--json", "-c", str(daemon.config), folder=daemon.config.parent)
    return [json.loads(line)["data"]["file_name"] for line in shown.stdout.splitlines()]


@contextmanager
def fetching(folder: Path, count: int, width: int = 300) -> Iterator[tuple[Host, Process, list[int]]]:
    """A daemon without a sink of pictures, whose log holds so many."""
    with (
        picture_host() as host,
        environment(folder) as place,
        scenario(place, folder, account={"cos": {"base_url": host.url}}, sinks=CONSOLE, web=WEB) as daemon,
    ):
        process = daemon.run()
        place.enqueue(count, streams=3, width=width)
        yield host, process, numbers(process, count)


def test_a_picture_is_fetched_once_and_may_be_kept_where_its_address_is_unique(tmp_path: Path) -> None:
    with fetching(tmp_path, 5) as (host, process, known):
        for number in [*known, *known]:
            answer = get(process, f"/picture/{number}")
            assert (answer.status, answer.body) == (200, jpeg())
            assert answer.headers["Content-Type"] == "image/jpeg"
            assert answer.headers["Cache-Control"] == "private, no-cache"
            unique = get(process, f"/picture/{number}?1763800000")
            assert unique.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        assert len(host.asked) == 5
        again = get(process, f"/picture/{known[0]}", **{"If-None-Match": answer.headers["ETag"]})
        assert again.status == 200, "the tag of another picture"
        same = get(process, f"/picture/{known[-1]}", **{"If-None-Match": answer.headers["ETag"]})
        assert (same.status, same.body) == (304, b"")


def test_a_browser_never_shows_the_picture_that_a_number_had_in_another_log(tmp_path: Path) -> None:
    with fetching(tmp_path / "one", 1) as (host, process, (number,)):
        old = get(process, f"/picture/{number}")
        host.status = 500
        held = get(process, f"/picture/{number}", **{"If-None-Match": old.headers["ETag"]})
        assert held.status == 304, "what a browser holds needs no host"
    with fetching(tmp_path / "two", 1, width=320) as (host, process, (number,)):
        new = get(process, f"/picture/{number}", **{"If-None-Match": old.headers["ETag"]})
        assert (new.status, new.body) == (200, jpeg())
        assert "no-cache" in str(old.headers["Cache-Control"]), "or the browser would not ask"


def test_a_picture_comes_from_the_sinks_file_while_its_host_is_down(tmp_path: Path) -> None:
    with ExitStack() as town:
        place = town.enter_context(environment(tmp_path))
        with scenario(place, tmp_path, sinks=ARCHIVE, web=WEB) as daemon:
            process = daemon.run()
            place.enqueue(3, pictures=True)
            numbers(process, 3)
            files = [tmp_path / "archive" / name for name in file_names(daemon)]
            until(lambda: all(file.exists() for file in files), what="for three files")
            town.close()
            for number, file in enumerate(files, start=1):
                answer = get(process, f"/picture/{number}")
                assert (answer.status, answer.body) == (200, file.read_bytes())


def test_a_link_that_is_planted_in_the_sinks_folder_is_never_followed(tmp_path: Path) -> None:
    with ExitStack() as town:
        place = town.enter_context(environment(tmp_path))
        with scenario(place, tmp_path, sinks=ARCHIVE, web=WEB) as daemon:
            process = daemon.run()
            place.enqueue(1, pictures=True)
            numbers(process, 1)
            (file,) = [tmp_path / "archive" / name for name in file_names(daemon)]
            until(file.exists, what="for the file")
            secret = tmp_path / "secret.jpg"
            file.rename(secret)
            file.symlink_to(secret)
            town.close()
            answer = get(process, "/picture/1")
            assert answer.status == 502
            assert answer.headers["Content-Type"].startswith("application/json")


def test_a_picture_that_is_not_uploaded_yet_is_there_a_moment_later(tmp_path: Path) -> None:
    with fetching(tmp_path, 1) as (host, process, (number,)):
        host.status, host.body = 404, b""

        def refused_twice_at_once() -> bool:
            """Within the time for which a refusal is remembered: the machine may hold up the daemon, or us."""
            asked, begun = len(host.asked), time.monotonic()
            early = get(process, f"/picture/{number}")
            assert (early.status, early.headers["Retry-After"]) == (425, "2")
            assert get(process, f"/picture/{number}").status == 425
            if time.monotonic() - begun >= 2:
                return False
            assert len(host.asked) <= asked + 1, "a refusal is remembered"
            return True

        until(refused_twice_at_once)
        host.status, host.body = 200, jpeg()
        until(lambda: get(process, f"/picture/{number}").status == 200)


def test_html_is_never_served_as_a_picture_and_no_text_names_a_url(tmp_path: Path) -> None:
    with fetching(tmp_path, 1) as (host, process, (number,)):
        host.body = b"<html><script>alert(1)</script></html>"
        answer = get(process, f"/picture/{number}")
        assert answer.status == 502
        assert b"script" not in answer.body
        assert host.url.encode() not in answer.body
        assert host.asked[0].encode() not in answer.body


def test_a_pruned_picture_and_a_number_that_never_was_are_not_found(tmp_path: Path) -> None:
    with picture_host() as host, environment(tmp_path) as place:
        account = {"cos": {"base_url": host.url}}
        spool = {"type": "sqlite", "path": str(tmp_path / "spool.db"), "retain": "0s"}
        with scenario(place, tmp_path, account=account, sinks=CONSOLE, web=WEB, spool=spool) as daemon:
            process = daemon.run()
            place.enqueue(250)
            numbers(process, 250)
            assert process.stop() == 0
            process = daemon.run()
            until(lambda: not file_names(daemon), what="for the events to be pruned")
            assert get(process, "/picture/1").status == 404
            assert get(process, "/picture/251").status == 404
            assert get(process, "/picture/999999999999999999").status == 404
            for wrong in ("/picture/", "/picture/-1", "/picture/1.jpg", "/picture/..%2Fpoller.yaml"):
                assert get(process, wrong).status == 404


def test_sixty_four_viewers_of_a_picture_make_one_fetch(tmp_path: Path) -> None:
    with fetching(tmp_path, 1) as (host, process, (number,)), ThreadPoolExecutor(64) as viewers:
        host.open.clear()
        asking = [viewers.submit(get, process, f"/picture/{number}") for _ in range(64)]
        until(lambda: len(host.asked) == 1)
        host.open.set()
        assert {(one.result().status, one.result().body) for one in asking} == {(200, jpeg())}
        assert len(host.asked) == 1


def test_a_burst_of_pictures_is_bounded_and_slows_no_health_check(tmp_path: Path) -> None:
    with fetching(tmp_path, 100) as (host, process, known), ThreadPoolExecutor(64) as viewers:
        host.open.clear()
        asking = [viewers.submit(get, process, f"/picture/{number}") for number in known[:60]]
        until(lambda: sum(one.done() for one in asking) == 20, what="for twenty to be told to come again")
        assert {
            (one.result().status, one.result().headers["Retry-After"]) for one in asking if one.done()
        } == {(503, "1")}
        assert len(host.asked) <= 8
        assert process.get("/healthz")[0] == 200
        host.open.set()
        assert sorted(one.result().status for one in asking) == [200] * 40 + [503] * 20
        assert all(get(process, f"/picture/{number}").status == 200 for number in known)


def test_memory_stays_within_its_bound_whatever_is_looked_at(tmp_path: Path) -> None:
    with fetching(tmp_path, 150) as (host, process, known):
        host.body = jpeg().ljust(2**20, b"\0")
        for number in known[:40]:
            assert get(process, f"/picture/{number}").status == 200
        before = _resident(process)
        for number in known[40:]:
            assert get(process, f"/picture/{number}").status == 200
        assert _resident(process) - before < 48 * 2**20, "110 MB were looked at"


def _resident(process: Process) -> int:
    lines = Path(f"/proc/{process.child.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def test_a_daemon_stops_although_viewers_wait_for_pictures(tmp_path: Path) -> None:
    with fetching(tmp_path, 20) as (host, process, known), ThreadPoolExecutor(20) as viewers:
        host.open.clear()

        def ask(number: int) -> object:
            try:
                return get(process, f"/picture/{number}")
            except OSError as error:
                return error

        asking = [viewers.submit(ask, number) for number in known]
        until(lambda: len(host.asked) == 8)
        assert process.stop() == 0
        assert all(one.result() is not None for one in asking)


# ---------------------------------------------------------------- the address of the pages


def test_an_operator_is_told_the_address_of_the_pages(tmp_path: Path) -> None:
    with fetching(tmp_path, 1) as (_, process, _):
        shown = commands.poller("pages", "-c", str(tmp_path / "poller.yaml"), folder=tmp_path)
        assert (shown.returncode, shown.stderr) == (0, "")
        port = process.heard("web_listens")[0]["port"]
        assert shown.stdout == f"http://127.0.0.1:{port}/\n"
        with urllib.request.urlopen(shown.stdout.strip(), timeout=PATIENCE) as page:
            assert b"<script" in page.read()
        desktop = dict.fromkeys(("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
        words = ("pages", "-c", str(tmp_path / "poller.yaml"), "--open")
        opened = commands.poller(*words, folder=tmp_path, **desktop)
        assert (opened.returncode, opened.stdout) == (0, shown.stdout)
        assert "no browser was opened" in opened.stderr
        assert process.stop() == 0
        shown = commands.poller("pages", "-c", str(tmp_path / "poller.yaml"), folder=tmp_path)
        assert shown.returncode == 1
        assert "no daemon runs" in shown.stderr


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_where_the_pages_listen_on_all_addresses_the_one_that_is_told_opens_them(
    tmp_path: Path, listen: str
) -> None:
    token = tmp_path / "token"
    token.write_text("a token of the pages")
    token.chmod(0o600)
    web = {**WEB, "listen": listen, "token_file": str(token)}
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=CONSOLE, web=web) as daemon:
        daemon.run()
        shown = commands.poller("pages", "-c", str(daemon.config), folder=tmp_path)
        address, _, code = shown.stdout.strip().partition("login#")
        assert address.startswith(("http://127.0.0.1:", "http://[::1]:"))
        assert _log_in(address, code) == 200


def test_a_daemon_without_pages_says_what_is_missing(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=CONSOLE) as daemon:
        daemon.run()
        shown = commands.poller("pages", "-c", str(daemon.config), folder=tmp_path)
        assert shown.returncode == 1
        assert "no section web" in shown.stderr


def test_where_people_log_in_the_address_logs_in_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a token of the pages")
    token.chmod(0o600)
    web = {**WEB, "listen": "0.0.0.0:0", "token_file": str(token)}
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=CONSOLE, web=web) as daemon:
        process = daemon.run()
        shown = commands.poller("pages", "-c", str(daemon.config), folder=tmp_path)
        assert shown.stdout.startswith("http://127.0.0.1:")
        address, _, code = shown.stdout.strip().partition("login#")
        assert get(process, "/picture/1").status == 401
        assert [_log_in(address, code) for _ in range(2)] == [200, 401]
        assert code not in process.stderr


def _log_in(address: str, code: str) -> int:
    headers = {"Content-Type": "application/json", "Origin": address.rstrip("/")}
    request = urllib.request.Request(f"{address}login", json.dumps({"code": code}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
