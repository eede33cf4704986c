"""A Prometheus as a process of its own, with the configuration that the documents show."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.docs.test_commands import SCRAPED, marked
from tests.ports import lasting_port
from tests.scenario.environment import PATIENCE, until
from tests.service.running import tool

from .expressions import RULES

SHOWN: Final = "127.0.0.1:9464"
"""The daemon's address in the documents."""
RULE_FILE: Final = "poller-rules.yml"


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """A running Prometheus."""

    port: int

    def ask(self, path: str, **words: str) -> Any:
        """What the interface answers, without its envelope."""
        query = f"?{urllib.parse.urlencode(words)}" if words else ""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/{path}{query}", timeout=PATIENCE
        ) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def values(self, expr: str) -> list[float]:
        """The values of all series of an expression, now."""
        return [float(one["value"][1]) for one in self.ask("query", query=expr)["result"]]


def scrape_configuration(target: str, interval: str = "1s", token_file: Path | None = None) -> dict[str, Any]:
    """The documents' blocks, with the daemon's true address and a shorter interval."""
    whole, part = (yaml.safe_load(marked(kind)[0].text) for kind in SCRAPED)
    (job,) = whole["scrape_configs"]
    assert job["static_configs"] == [{"targets": [SHOWN]}]
    job |= {"static_configs": [{"targets": [target]}], "scrape_interval": interval}
    if token_file is not None:
        assert set(part["authorization"]) == {"credentials_file"}
        job["authorization"] = {"credentials_file": str(token_file)}
    assert whole["rule_files"] == [RULE_FILE]
    return {"global": {"evaluation_interval": interval}, **whole}


@contextmanager
def prometheus(folder: Path, configuration: dict[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus in this folder, on a free port, with our rules; it has ended afterwards."""
    folder.mkdir()
    (folder / RULE_FILE).write_text(RULES.read_text())
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = lasting_port()
    data = folder / "data"
    words = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [tool("prometheus"), *words, f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        running = Prometheus(port=port)
        until(lambda: server.poll() is not None or _is_up(running), what="for Prometheus")
        assert server.poll() is None, (folder / "log").read_text()
        assert running.ask("status/flags")["storage.tsdb.path"] == str(data), "somebody else answers"
        yield running
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _is_up(running: Prometheus) -> bool:
    try:
        return bool(running.ask("status/runtimeinfo"))
    except OSError:
        time.sleep(0.1)
        return False
