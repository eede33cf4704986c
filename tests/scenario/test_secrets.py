"""Canaries: after a run through all faults at log level debug, no secret is found anywhere."""

import base64
import hashlib
import html
import itertools
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from poller.sandbox import API_FAULTS, COS_FAULTS, Customer
from tests.unit.qcloud.wire.spellings import SECRET, all_messages

from .environment import Environment, environment, until
from .rig import Process, scenario

KEY = "canary0key0b7c1d2e3f4a5b6c7d8e9f"
HOOK_SECRET = "Y2FuYXJ5LWhvb2stc2VjcmV0LTAxMjM0NTY3ODlhYmNkZWY="
HEADER = "canary-header-8d1f7a"
TOKEN = "canary-token-3c9b2e"
CANARIES = {"key": KEY, "hook": HOOK_SECRET, "header": HEADER, "token": TOKEN}
SECRETS = {
    "CANARY_KEY": KEY,
    "CANARY_HOOK": f"whsec_{HOOK_SECRET}",
    "CANARY_HEADER": HEADER,
    "CANARY_TOKEN": TOKEN,
}
SLOW = {"hang", "latency", "drip"}


@pytest.mark.parametrize("form", ["json", pytest.param("console", marks=pytest.mark.soak)])
def test_no_secret_is_found_anywhere_after_a_run_through_all_faults(tmp_path: Path, form: str) -> None:
    rng, begun = random.Random(form), time.time()
    with environment(tmp_path, customers=(Customer(key=KEY),), clock_offset=30.0) as place:
        folder = tmp_path / "daemon"
        with scenario(
            place,
            folder,
            account={"key": "${CANARY_KEY}"},
            source={"max_delay": "10ms"},
            sinks=_sinks(place, folder),
            admin={"listen": "127.0.0.1:0", "token": "${CANARY_TOKEN}"},
            log={"level": "debug", "format": form},
        ) as daemon:
            _trouble(place, rng)
            daemon.forked = False  # a forked one has no command line of its own
            process = daemon.start(**SECRETS)
            until(lambda: place.sandbox.faults["api"].ordered == 0 and place.depth == 0)
            until(lambda: place.sandbox.faults["cos"].ordered == 0, what="for pictures to be asked for")
            place.turn(200)
            until(lambda: place.hook.files.total() >= 1000)
            pages = _pages(process) if form == "json" else []
            command_line = Path(f"/proc/{process.child.pid}/cmdline").read_bytes()
            assert process.stop() == 0, process.stderr[-3000:]
            assert daemon.start("drain", "--timeout", "1s", **SECRETS).wait() in (0, 1)
            assert len(daemon.books().spooled) >= 1000
        assert any(headers.get("X-Canary") == HEADER for headers in place.hook.headers), "they were in use"
        assert place.counts.refused < place.counts.polls / 2, "the key was in use"
        places = {"command line": command_line, "pages": "\n".join(pages).encode(), **_files(folder)}
        assert b"pictured " + b"*" * len(KEY) in places["spool.db"], "the platform did echo the key"
        assert any("stderr" in name for name in places)
        signs = _signs(begun - 120, time.time() + 240)
        assert _found(places, CANARIES.values()) == []
        assert _found(places, signs) == []
        size = sum(map(len, places.values()))
        print(f"\ncanaries ({form}): {len(places)} places, {size} bytes, {len(signs)} signatures, none found")


def test_a_receiver_that_echoes_all_that_it_was_sent_is_quoted_without_a_secret(tmp_path: Path) -> None:
    with environment(tmp_path) as place, echoing_receiver() as url:
        folder = tmp_path / "daemon"
        hook = {
            "type": "webhook",
            "url": url + "?token=${CANARY_TOKEN}",
            "allow_cidr": ["127.0.0.0/8"],
            "secret": "${CANARY_HOOK}",
            "headers": {"X-Canary": "${CANARY_HEADER}"},
        }
        with scenario(
            place, folder, sinks={"hook": hook}, log={"level": "debug", "format": "json"}
        ) as daemon:
            place.enqueue(20)
            process = daemon.start(**SECRETS)
            until(lambda: len(process.said("delivery_failed")) >= 3)
            reasons = " ".join(str(line["reason"]) for line in process.said("delivery_failed"))
            assert "HTTP 500: you sent" in reasons
            assert process.stop() == 0
        encoded = [base64.b64encode(word.encode()).decode().rstrip("=") for word in CANARIES.values()]
        assert _found(_files(folder), [*CANARIES.values(), *encoded]) == []


@contextmanager
def echoing_receiver() -> Iterator[str]:
    """Answers 500 and all that came: raw, as JSON, percent-encoded, as HTML, in base64; the beginning differs."""
    ways: list[Callable[[str], str]] = [
        str,
        json.dumps,
        lambda text: quote(text, safe=""),
        html.escape,
        lambda text: " ".join(base64.b64encode(word.encode()).decode() for word in text.split()),
    ]
    turn = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            number = next(turn)
            names = ("X-Canary", "webhook-signature")[:: 1 if number % 2 else -1]
            words = " ".join(f"{name}: {self.headers[name]}" for name in names)
            body = f"you sent {ways[number % len(ways)](f'{words} {self.path}')}".encode()
            self.send_response(500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/hook"
        finally:
            server.shutdown()


def test_no_spelling_of_a_push_secret_is_stored_logged_or_delivered(tmp_path: Path) -> None:
    spelled = [raw for form in all_messages().values() for raw in list(form.values())[::4]]
    raws = [raw.replace("a.jpg", f"{number}.jpg") for number, raw in enumerate(spelled)]
    torn = [raw.replace('"pic_url":', '"pic_url":"x') for raw in raws]
    with environment(tmp_path) as place:
        folder = tmp_path / "daemon"
        with scenario(place, folder, log={"level": "debug", "format": "json"}) as daemon:
            queue = place.sandbox.platform.queue()
            for raw in raws + torn:
                place.ask(lambda raw=raw: queue.enqueue_raw(raw.encode()))  # type: ignore[misc]
            process = daemon.run()
            until(lambda: place.depth == 0 and place.hook.files.total() >= len(raws))
            assert process.stop() == 0, process.stderr[-3000:]
            assert len(daemon.books().quarantine) > 0
        places = _files(folder)
        assert places.pop("spool.db.journal"), "it alone holds raw bytes"
        assert (folder / "spool.db.journal").stat().st_mode & 0o777 == 0o600
        assert [name for name, content in places.items() if SECRET.encode() in content] == []


def _sinks(place: Environment, folder: Path) -> dict[str, object]:
    return {
        "console": {"type": "stdout"},
        "hook": {
            "type": "webhook",
            "url": place.hook.url,
            "allow_cidr": ["127.0.0.0/8"],
            "batch": {"max_events": 100},
            "secret": "${CANARY_HOOK}",
            "headers": {"X-Canary": "${CANARY_HEADER}"},
            "timeout": "1s",
        },
        "archive": {
            "type": "download",
            "directory": str(folder / "pictures"),
            "allow_cidr": ["127.0.0.0/8"],
            "only": {"kinds": ["screenshot"], "streams": ["pictured*", "load_1234_1"]},
            "sidecar": True,
            "timeout": "2s",
        },
    }


def _trouble(place: Environment, rng: random.Random) -> None:
    """Every fault there is, a platform that echoes what it was sent, and a webhook that is down at first."""
    place.turn(500)
    names = [name for name in API_FAULTS if name not in SLOW] * 2
    rng.shuffle(names)
    for name in names:
        params = {"size": 6 << 20} if name in ("endless", "bomb") else {}
        place.order(name, **params)
        place.order("latency", seconds=0.0)
    for name in COS_FAULTS:
        if name not in SLOW | {"endless", "bomb"}:
            place.ask(lambda name=name: place.sandbox.faults["cos"].order(name))  # type: ignore[misc]
    place.enqueue(100 * 2 * len(names), streams=40, pictures=True)
    echo = {"stream_id": f"pictured {KEY}", "pic_url": f"{KEY}.jpg", "errmsg": KEY}
    ill = f'{{"stream_id":"{KEY}","pic_url":["{KEY}"],"key":"{KEY}"}}'
    queue = place.sandbox.platform.queue()
    place.ask(lambda: queue.enqueue_raw(json.dumps(echo).encode()))
    place.ask(lambda: queue.enqueue_raw(ill.encode()))
    place.ask(lambda: queue.enqueue_raw(f'{{"torn":"{KEY}",'.encode()))


def _pages(process: Process) -> list[str]:
    refused, _ = process.get("/metrics")
    assert refused == 401
    found = [process.get(path, TOKEN) for path in ("/metrics", "/readyz", "/healthz", "/nothing")]
    assert found[0][0] == 200
    return [body for _, body in found]


def _files(folder: Path) -> dict[str, bytes]:
    """All that the daemon wrote, by name; the configuration holds no secret either."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    } | {"names": "\n".join(str(path) for path in folder.rglob("*")).encode("utf-8", "replace")}


def _signs(first: float, last: float) -> list[str]:
    """Every signature that the key can have made, the skew included."""
    return [hashlib.md5(f"{KEY}{t}".encode()).hexdigest() for t in range(int(first), int(last))]


def _found(places: dict[str, bytes], words: Iterable[str]) -> list[tuple[str, str]]:
    wanted = {word.encode() for word in words}
    found = []
    for name, content in places.items():
        text = content.replace(b"\0", b"")  # so that UTF-16 is seen too
        if len(wanted) > len(CANARIES):
            present = wanted & set(re.findall(rb"(?=([0-9a-f]{32}))", text))
        else:
            present = {word for word in wanted if word in text}
        found += [(name, word.decode()) for word in present]
    return found
