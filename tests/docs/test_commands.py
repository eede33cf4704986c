"""Every configuration and every command in the hand-written documents works.

What a block is stands in a comment above it:

- `configuration`: `poller check` accepts it as it stands
- `part of a configuration`: `poller check` accepts it together with the README's
- `customers`: `poller sandbox` accepts it
- `scrape configuration`, `part of a scrape configuration`: `tests/observability/` gives them to Prometheus
- `needs a plug-in`: a setting of an adapter that is not ours
- `run`: all of its commands are run beside a sandbox and a daemon; of other blocks those of `poller` that end alone
- `run: sandbox`: the same, against a sandbox's control port
- `beside a database`: `tests/servers/test_guide.py` runs it beside a PostgreSQL
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.commands import Ended, poller
from tests.ports import lasting_port

ROOT: Final = Path(__file__).parents[2]
WRITTEN: Final = ("guide", "operations", "internals", "decisions")
"""The folders of `docs` that are written by hand."""
FILES: Final = (
    ROOT / "README.md",
    ROOT / "docs" / "figures.md",
    *sorted(file for folder in WRITTEN for file in (ROOT / "docs" / folder).rglob("*.md")),
)
BIN: Final = Path(sys.executable).parent
BLOCK: Final = re.compile(r"^(?:<!-- ([^\n]+) -->\n)?```([a-z]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND: Final = re.compile(r"(?:^|[ /])poller((?: [a-z]+)+)(?= |$)([^|&>#]*)")
LASTING: Final = ("run", "drain", "demo", "sandbox", "tap", "top")
"""Commands that other tests run."""
SECRETS: Final = {
    **dict.fromkeys(
        ("QCLOUD_LIVE_KEY", "CALLBACKS_KEY", "CALLBACKS_PATH", "COS_SECRET_ID", "COS_SECRET_KEY"), "k" * 32
    ),
    "WEBHOOK_SECRET": "whsec_" + "A" * 32,
    "PAGES_PORT": "9481",
    "DAEMON": "one",
}
PATIENCE: Final = 60.0
SCRAPED: Final = ("scrape configuration", "part of a scrape configuration")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a document."""

    file: Path
    line: int
    marker: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for file in FILES:
        text = file.read_text()
        for match in BLOCK.finditer(text):
            marker, language, inside = match.groups()
            line = text.count("\n", 0, match.start()) + 1
            block = Block(file=file, line=line, marker=marker or "", language=language, text=inside)
            found += [block] if language in languages else []
    return found


def marked(*markers: str) -> list[Block]:
    return [block for block in blocks("yaml", "sh") if block.marker in markers]


def lines(block: Block) -> list[str]:
    """A block's commands, one each, without what says where `poller` is installed."""
    text = block.text.replace("\\\n", " ").replace(".venv/bin/poller", "poller")
    text = text.replace("/opt/poller/bin/poller", "poller")
    return [line for line in text.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    return {**os.environ, **SECRETS, "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "200"}


def shell(command: str, folder: Path) -> Ended:
    """Run a command line; in this process where it is nothing but a command of `poller`."""
    words = shlex.split(command, comments=True)
    if words[0] == "poller" and not re.search(r"[|&;<>$`*]", command):
        return poller(*words[1:], folder=folder, **SECRETS)
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


# ---------------------------------------------------------------- configurations


def merged(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with a part's settings in place of its own; an adapter's section is replaced whole."""
    if "type" in part:
        return dict(part)
    found = dict(base)
    if "key_file" in part:
        found.pop("key", None)
    for name, value in part.items():
        inner = found.get(name)
        found[name] = (
            merged(inner if isinstance(inner, dict) else {}, value) if isinstance(value, dict) else value
        )
    return found


def in_folder(text: str, folder: Path) -> str:
    """The text with the places of a service or a container below a folder, and its secret files there."""
    for place in ("/run/credentials/poller.service/", "/run/secrets/", "/etc/poller/"):
        for name in re.findall(re.escape(place) + r"([a-z_.-]+)", text):
            secret = sha256(name.encode()).hexdigest()[:32]  # no two are the same
            dsn = "postgresql://poller@db.example.com/poller"
            (folder / name).write_text(f"{dsn if name == 'spool_dsn' else secret}\n")
        text = text.replace(place, f"{folder}/")
    return text.replace("/var/lib/poller/", f"{folder}/")


def whole(block: Block) -> str:
    if block.marker == "configuration":
        return block.text
    (first,) = (one for one in marked("configuration") if one.file.name == "README.md")
    return yaml.safe_dump(merged(yaml.safe_load(first.text), yaml.safe_load(block.text)))


@pytest.mark.parametrize("block", marked("configuration", "part of a configuration"), ids=str)
def test_a_configuration_is_accepted(block: Block, tmp_path: Path) -> None:
    (tmp_path / "poller.yaml").write_text(in_folder(whole(block), tmp_path))
    checked = shell("poller check -c poller.yaml", tmp_path)
    assert checked.returncode == 0, checked.stderr


def test_every_configuration_says_what_it_is() -> None:
    known = {"configuration", "part of a configuration", "customers", "needs a plug-in", *SCRAPED}
    assert [str(block) for block in blocks("yaml") if block.marker not in known] == []
    assert len(marked("configuration", "part of a configuration")) >= 10


def test_every_mark_is_one_that_is_read() -> None:
    known = {"", "run", "run: sandbox", "beside a database", "first command", "second command"}
    assert [str(block) for block in blocks("sh") if block.marker not in known] == []


# ---------------------------------------------------------------- commands


@cache
def help_of(command: str) -> str:
    """What a command says of itself; fails if there is no such command."""
    said = shell(f"poller {command} --help", ROOT)
    assert said.returncode == 0, said.stderr
    return said.stdout


def commands_in(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of `poller` in a block, each with its options."""
    for line in lines(block):
        for words, rest in COMMAND.findall(line):
            yield words.strip(), re.findall(r"(?<= )--?[a-z][a-z-]*", f" {rest}")


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_a_command_and_its_options_exist(block: Block) -> None:
    for command, options in commands_in(block):
        known = help_of(_without_arguments(command))
        assert [option for option in options if not re.search(rf"{option}\b", known)] == [], command


def _without_arguments(command: str) -> str:
    """`pause archive` is the command `pause`; groups have one word more."""
    words = command.split()
    return " ".join(words[: 2 if words[0] in ("dead", "quarantine", "spool") else 1])


def runnable(block: Block) -> list[str]:
    if block.marker.startswith("run"):
        return lines(block)
    alone = [line for line in lines(block) if line.startswith("poller ")]
    return [
        line
        for line in alone
        if line.split()[1] not in LASTING and not re.search(r" [A-Z_]{4,}( |$)", line.partition("#")[0])
    ]


@dataclass(frozen=True, kw_only=True)
class Running:
    """A sandbox and a daemon that polls it, and where they listen."""

    folder: Path
    control: str
    admin: str

    def does(self, line: str) -> Ended:
        line = line.replace("/etc/poller/", "").replace("127.0.0.1:8083", self.control)
        return shell(line.replace("127.0.0.1:9464", self.admin), self.folder)


@contextmanager
def process(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / f"{words[0]}.log").open("w") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "poller", *words],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield started
    finally:
        started.terminate()
        started.communicate(timeout=PATIENCE)


def wait_until_ready(admin: str) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(f"http://{admin}/readyz", timeout=PATIENCE):
            return
        time.sleep(0.05)
    pytest.fail("the daemon did not get ready")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, admin = tmp_path_factory.mktemp("docs"), f"127.0.0.1:{lasting_port()}"
    with ExitStack() as stack:
        box = stack.enter_context(process(folder, "sandbox", "--directory", "box", "--streams", "0"))
        assert box.stdout is not None
        places = json.loads(box.stdout.readline())
        (guide,) = (one for one in marked("configuration") if one.file.name == "sandbox.md")
        text = guide.text.replace("http://127.0.0.1:8080/common_access", places["api"])
        text = text.replace("http://127.0.0.1:8081", places["cos"]).replace("127.0.0.1:9480", "127.0.0.1:0")
        (folder / "poller.yaml").write_text(f"{text}admin: {{listen: {admin}}}\n")
        stack.enter_context(process(folder, "run"))
        control = places["control"].removeprefix("http://")
        found = Running(folder=folder, control=control, admin=admin)
        wait_until_ready(admin)
        yield found


def commands_to_run() -> Iterator[Any]:
    """Each command once, as the block has it in which it stands first."""
    seen = set[str]()
    for block in blocks("sh"):
        for line in runnable(block):
            words = tuple(shlex.split(line.replace("/etc/poller/", ""), comments=True))
            if (key := shlex.join(words)) not in seen:
                seen.add(key)
                yield pytest.param(line, id=f"{block} {' '.join(words[:3])}")


@pytest.mark.parametrize("line", [*commands_to_run()])
def test_a_command_works(line: str, running: Running) -> None:
    program = line.split(maxsplit=1)[0]
    if shutil.which(program, path=environment()["PATH"]) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{program} is not installed")
    done = running.does(line)
    found_nothing = (
        re.search(r" (retry|purge|trace) ", line)
        and re.search(r"^(purged|read|retried) +0$|: unknown: ", done.stdout, re.M)
    ) or (" replay " in line and "no events match" in done.stderr)
    # another document's command may have switched a fault of the sandbox on, and no stream is pushed
    cannot = re.search(
        r"cannot be listed without keys|127\.0\.0\.1: HTTP 404|no stream room-7 is known", done.stderr
    )
    assert done.returncode == (1 if found_nothing or cannot else 0), done.stdout + done.stderr


@pytest.mark.parametrize("block", marked("customers"), ids=str)
def test_the_sandbox_takes_these_customers(block: Block, tmp_path: Path) -> None:
    (tmp_path / "customers.yaml").write_text(block.text)
    words = ("sandbox", "--directory", "box", "--streams", "0", "--customers", "customers.yaml")
    with process(tmp_path, *words) as box:
        assert box.stdout is not None
        assert "api" in json.loads(box.stdout.readline())


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_the_documents_imports_what_there_is(block: Block) -> None:
    code = compile(block.text, str(block), "exec")
    if find_spec("poller.api") is None:
        pytest.skip("there is no poller.api yet")
    if "my_package" not in block.text:
        exec(code, {"__name__": "documented"})


def test_the_readme_is_short_and_leads_to_what_there_is() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_has_one_title_and_leads_to_what_there_is() -> None:
    made_elsewhere = ("reference", "promises.md")
    for file in FILES[1:]:
        outside = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert len(re.findall(r"^# ", outside, re.MULTILINE)) == 1, file
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", outside):
            place = (file.parent / link).resolve()
            generated = place.relative_to(ROOT / "docs").parts[0] in made_elsewhere
            assert place.exists() or generated, f"{file}: {link}"


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    wanted = {re.split(r"[\[>=<]", name)[0] for name in (*project["dependencies"], *extras)} - {
        project["name"]
    }
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs/decisions/dependencies.md").read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.sub(r" \(.*\)", "", row).split(", ")} - {"package", "---"}
    assert told == wanted


def test_files_that_the_documents_name_are_there() -> None:
    named = {
        name
        for file in FILES
        for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)(?:::\w+)?`", file.read_text())
    }
    places = [ROOT, *(ROOT / "poller" / part for part in ("", "pipeline", "sandbox", "web"))]
    missing = {name for name in named if not any((place / name).exists() for place in places)}
    if not (ROOT / "poller" / "pipeline").is_dir():
        pytest.skip("the packages are about to move to where the documents say")
    assert missing == set()


def test_the_glossary_stays_short() -> None:
    rows = re.findall(r"^\| (?!term|---)", (ROOT / "docs/internals/glossary.md").read_text(), re.MULTILINE)
    assert 20 < len(rows) <= 30
