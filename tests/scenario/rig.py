"""The daemon as a process, and its books: what was removed from the queue must be found again.

What was removed is in the spool, in quarantine, or was in a poll whose answer did not arrive whole; what is in
the spool is delivered, dead or pending, for each sink.
"""

import json
import os
import re
import signal
import sqlite3
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from poller.sandbox import Customer, Removed
from tests import lives
from tests.commands import Ended, poller

from .environment import PATIENCE, Environment, until

# ---------------------------------------------------------------- the daemon


class Process:
    """A daemon that was started, with its output."""

    def __init__(
        self,
        config: Path,
        command: str,
        *arguments: str,
        life: int = 0,
        environ: Mapping[str, str] | None = None,
        forked: bool = True,
        network: int | None = None,
    ) -> None:
        self.stderr_file = config.with_name(f"{command}-{life}.stderr")
        self.stdout_file = config.with_name(f"{command}-{life}.stdout")
        with self.stderr_file.open("ab") as stderr, self.stdout_file.open("ab") as stdout:
            self.child = lives.start(
                [command, "-c", str(config), *arguments],
                cwd=config.parent,  # a journal beside no spool lies there by default
                environ={**os.environ, **(environ or {})},
                stdout=stdout,
                stderr=stderr,
                forked=forked,
                network=network,
            )
        self._port = 0
        self._read = 0
        self._log: list[dict[str, Any]] = []

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log's whole lines; what was read before is not read again."""
        with self.stderr_file.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        self._log += [json.loads(line) for line in whole.split(b"\n") if line.startswith(b"{")]
        return list(self._log)

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of that event."""
        return [line for line in self.log if line["event"] == event]

    def heard(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """The same, once there are so many. The daemon's log has its own thread, which may be later than an effect."""
        until(lambda: len(self.said(event)) >= count, what=f"for the log to say {event}")
        return self.said(event)

    def until_running(self) -> None:
        until(lambda: self.said("running") or not self.alive, what="for the daemon to run")
        assert self.alive, self.stderr

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        return self.child.wait(seconds)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> int:
        """SIGKILL, if it still lives; it is gone afterwards. Returns how it ended: -9 where the kill met it."""
        self.child.kill()
        return self.child.wait(PATIENCE)

    # ------------------------------------------------------------ the admin port

    def get(self, path: str, token: str = "") -> tuple[int, str]:
        """Status and body of one of the admin port's pages."""
        if not self._port:
            until(lambda: self.said("admin_listens"))
            self._port = self.said("admin_listens")[0]["port"]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """The samples of a metric, each with its labels."""
        for line in self.get("/metrics")[1].splitlines():
            if not line.startswith(f"poller_{name}"):
                continue  # nearly all of the page
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match is not None and match[1] == f"poller_{name}":
                yield dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")), float(match[3])

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all samples of a metric that have these labels."""
        return sum((value for found, value in self.samples(name) if labels.items() <= found.items()), 0.0)


class Scenario:
    """A town, a configuration in it, and the daemon's lives one after the other."""

    def __init__(self, environment: Environment, folder: Path, settings: Mapping[str, Any]) -> None:
        self.environment = environment
        self.folder = folder
        self.config = folder / "poller.yaml"
        self.config.write_text(json.dumps(settings))
        self.spool_file = Path(settings["spool"].get("path", folder / "no-file"))
        self.lives = 0
        self.forked = True
        """Whether its daemons are forked from a warm process (`tests/lives.py`) where that can be."""
        self.network: int | None = None
        """The network namespace of its daemons, as an open file; None for that of the tests."""
        self.processes: list[Process] = []

    def start(self, command: str = "run", *arguments: str, **environ: str) -> Process:
        """One more life."""
        self.lives += 1
        for receiver in self.environment.receivers.values():
            receiver.life = self.lives
        process = Process(
            self.config,
            command,
            *arguments,
            life=self.lives,
            environ=environ,
            forked=self.forked,
            network=self.network,
        )
        self.processes.append(process)
        return process

    def run(self) -> Process:
        """A daemon, running."""
        process = self.start()
        process.until_running()
        return process

    def drain(self, timeout: str = "5m") -> int:
        """Empty the queue and deliver all; returns the exit code."""
        return self.start("drain", "--timeout", timeout).wait(300)

    def look_after(self, *words: str) -> Ended:
        """One `poller spool` command."""
        return poller("spool", *words, "-c", str(self.config), folder=self.config.parent)

    def end(self) -> None:
        for process in self.processes:
            process.kill()

    # ------------------------------------------------------------ what is left

    def books(self) -> "Books":
        """Read the spool; only after an orderly end."""
        return Books.read(self.environment.oracle.removed(), self.spool_file)

    def printed(self, *, torn: bool = False) -> list[list[str]]:
        """The file names on each life's stdout; with `torn`, a life's last line may be cut short."""
        return [_printed(process.stdout_file.read_bytes(), torn) for process in self.processes]


def _printed(text: bytes, torn: bool) -> list[str]:
    *lines, last = text.split(b"\n")
    assert torn or not last, f"the last line is cut: {last[:80]!r}"
    return [_lines.decode(line).data.file_name for line in lines]


def spool_with(daemon: Scenario, **more: Any) -> None:
    """Change the spool's settings for the lives to come."""
    settings = json.loads(daemon.config.read_text())
    settings["spool"] = {"type": "sqlite", "path": str(daemon.spool_file), **more}
    daemon.config.write_text(json.dumps(settings))


@contextmanager
def scenario(
    environment: Environment,
    folder: Path,
    *,
    endpoint: str = "",
    account: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    sinks: Mapping[str, Any] | None = None,
    **more: Any,
) -> Iterator[Scenario]:
    """A small configuration (JSON is YAML too) and its daemons; what still runs at the end is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    shots = {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "250ms"}
    main = {
        "endpoint": endpoint or environment.endpoint,
        "app_id": Customer().app_id,
        "key": Customer().key,
        "rate": "1000/s",
        "cos": {"base_url": environment.pictures},
        "audit": {"enabled": False},  # what the audit finds would be in every test's books
    }
    settings = {
        "accounts": {"main": {**main, **(account or {})}},
        "sources": {"shots": {**shots, **(source or {})}},
        "spool": {"type": "sqlite", "path": str(folder / "spool.db")},
        "journal": {"size": "16MiB"},
        "sinks": sinks or {"console": {"type": "stdout"}, "hook": webhook(environment)},
        "admin": {"listen": "127.0.0.1:0"},
        "log": {"level": "info", "format": "json"},
        **more,
    }
    daemon = Scenario(environment, folder, settings)
    try:
        yield daemon
    finally:
        daemon.end()


def webhook(environment: Environment, name: str = "hook", **more: Any) -> dict[str, Any]:
    """Settings of a webhook to one of the town's receivers, in batches of 100."""
    return {
        "type": "webhook",
        "url": environment.receivers[name].url,
        "allow_cidr": ["127.0.0.0/8"],
        "batch": {"max_events": 100},
        **more,
    }


# ---------------------------------------------------------------- the books


class _Data(msgspec.Struct):
    file_name: str


class _Line(msgspec.Struct):
    id: str
    data: _Data


_lines = msgspec.json.Decoder(_Line)


@dataclass(kw_only=True)
class Books:
    """What was removed from the queue, and what a spool holds of it. Events go by their picture's name."""

    removed: list[Removed]
    spooled: list[str] = field(default_factory=list)
    quarantine: list[tuple[str, bytes]] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    dead: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, removed: list[Removed], spool: Path) -> "Books":
        books = cls(removed=removed)
        with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
            for (events,) in file.execute("SELECT events FROM page ORDER BY first"):
                books.spooled += _names(events)
            books.quarantine = file.execute("SELECT reason, body FROM quarantine").fetchall()
            for (events,) in file.execute("SELECT events FROM waiting"):
                books.waiting.update(_names(events))
            for sink, event in file.execute("SELECT sink, event FROM dead"):
                books.dead.setdefault(sink, set()).update(_names(event))
        return books

    def lost(self) -> list[Removed]:
        """What is neither in the spool nor in quarantine; messages that name no picture are left out."""
        known, seen = set(self.spooled), b"\0".join(body for _, body in self.quarantine)
        return [
            one
            for one in self.removed
            if one.path is not None and one.path not in known and one.path.encode() not in seen
        ]

    def lost_polls(self) -> dict[int, list[Removed]]:
        """The same by poll."""
        return by_poll(self.lost())

    def check_once(self) -> None:
        """Every event is in the spool once, and none that was never removed."""
        assert len(set(self.spooled)) == len(self.spooled)
        assert set(self.spooled) <= {one.path for one in self.removed}


def by_poll(removed: Sequence[Removed]) -> dict[int, list[Removed]]:
    found: defaultdict[int, list[Removed]] = defaultdict(list)
    for one in removed:
        found[one.poll].append(one)
    return dict(found)


def _names(events: bytes) -> list[str]:
    return [_lines.decode(line).data.file_name for line in events.split(b"\n")]
