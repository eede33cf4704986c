"""`config.example.yaml` shows every setting, says the code's own defaults, and works as it stands.

How the example is written, and read here: a setting that is off begins with `#` and no blank, deeper lines of
the same comment belong to it; `instead of NAME` in its comment names the sibling it replaces; any other
comment is prose.
"""

import re
import types
import typing
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, cast

import pytest
import yaml
from pydantic.fields import FieldInfo

from poller.runtime import plugins
from poller.settings import (
    AccountSettings,
    AdminSettings,
    JournalSettings,
    LogSettings,
    Section,
    Settings,
    TracingSettings,
    WebSettings,
    load,
)

EXAMPLE: Final = Path(__file__).parents[2] / "config.example.yaml"
TEXT: Final = EXAMPLE.read_text()
ENVIRON: Final = dict.fromkeys(re.findall(r"\$\{([A-Z_]+)\}", TEXT), "whsec_" + "A" * 32)
GROUPS: Final[Mapping[str, plugins.Group]] = {
    "sources": plugins.SOURCES,
    "spool": plugins.SPOOLS,
    "sinks": plugins.SINKS,
}
CORE: Final[Mapping[str, type[Section]]] = {
    "accounts": AccountSettings,
    "journal": JournalSettings,
    "admin": AdminSettings,
    "web": WebSettings,
    "log": LogSettings,
    "tracing": TracingSettings,
}
OURS: Final = "live-screenshot-poller"

Way = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A setting that is off: its lines in the file, what it is called, and what it stands instead of."""

    start: int
    end: int
    indent: str
    name: str
    instead_of: tuple[str, ...]

    def __str__(self) -> str:
        return f"line {self.start + 1}: {self.name}"


def blocks(text: str) -> list[Block]:
    lines, found, i = text.splitlines(), [], 0
    while i < len(lines):
        match = re.match(r"( *)#([A-Za-z_]+):", lines[i])
        start, i = i, i + 1
        if match is None:
            continue
        indent = match.group(1)
        while i < len(lines) and re.match(rf"{indent}#  +\S", lines[i]):
            i += 1
        instead = re.search(r" # instead of ([a-z_]+)(?: and ([a-z_]+))?(?=:|$)", lines[start])
        names = tuple(name for name in instead.groups() if name) if instead else ()
        found.append(Block(start=start, end=i, indent=indent, name=match.group(2), instead_of=names))
    return found


BLOCKS: Final = blocks(TEXT)


def switched_on(block: Block) -> str:
    """The example with one block in use, and without what it stands instead of."""
    lines = TEXT.splitlines()
    for i in range(block.start, block.end):
        lines[i] = lines[i].replace("#", "", 1)
    for name in block.instead_of:
        gone = next(
            (i for i in siblings(lines, block) if lines[i].startswith(f"{block.indent}{name}:")), None
        )
        if gone is not None:
            remove(lines, gone)
    return "\n".join(lines)


def siblings(lines: list[str], block: Block) -> Iterator[int]:
    """Lines of the section that the block is in, but for the block itself."""

    def same(i: int) -> bool:
        return not lines[i].strip() or lines[i].startswith(block.indent)

    for way in (range(block.start - 1, -1, -1), range(block.end, len(lines))):
        for i in way:
            if not same(i):
                break
            yield i


def remove(lines: list[str], i: int) -> None:
    """Blank a setting and all that is in it, and the section that it leaves empty."""
    indent = depth(lines[i])
    lines[i] = ""
    for j in range(i + 1, len(lines)):
        if active(lines[j]) and depth(lines[j]) <= indent:
            break
        lines[j] = ""
    parent = next((j for j in range(i, -1, -1) if active(lines[j]) and depth(lines[j]) < indent), None)
    if parent is None:
        return
    child = next((j for j in range(parent + 1, len(lines)) if active(lines[j])), None)
    if child is None or depth(lines[child]) <= depth(lines[parent]):
        remove(lines, parent)


def active(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def without_comments(text: str) -> str:
    """The same settings. To read the comments takes most of the time that it takes to read a text."""
    return re.sub(r"^ *#.*$|(?<=\S) +# [^\"'\n]*$", "", text, flags=re.MULTILINE)


def loaded(text: str, tmp_path: Path) -> Settings:
    """The settings of a text whose secret files are in `tmp_path`, where they exist."""
    for place in ("/etc/poller/", "/run/credentials/poller.service/"):
        for name in re.findall(re.escape(place) + r"([a-z_.-]+)", text):
            secret = b64encode(sha256(name.encode()).digest()[:24]).decode()  # no two are the same
            content = (
                "postgresql://poller@db.example.com/poller" if name == "spool_dsn" else f"whsec_{secret}"
            )
            (tmp_path / name).write_text(f"{content}\n")
        text = text.replace(place, f"{tmp_path}/")
    file = tmp_path / "poller.yaml"
    file.write_text(text)
    return load(file, ENVIRON)


# ---------------------------------------------------------------- what the code knows


def adapters(key: str) -> Mapping[str, type[Section]]:
    """The settings of every adapter of ours in a group, by type."""
    points = [p for p in entry_points(group=GROUPS[key]) if p.dist is None or p.dist.name == OURS]
    assert points
    return {p.name: cast(Any, plugins.adapter(GROUPS[key], p.name)).Settings for p in points}


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, if it is one."""
    choices = typing.get_args(field.annotation) or (field.annotation,)
    if typing.get_origin(field.annotation) not in (None, types.UnionType, typing.Union):
        return None
    return next((c for c in choices if isinstance(c, type) and issubclass(c, Section)), None)


def written_fields(model: type[Section]) -> dict[str, tuple[str, FieldInfo]]:
    """A section's fields by their names in the file, each with its name in the code."""
    return {field.alias or own: (own, field) for own, field in model.model_fields.items()}


def known(model: type[Section], prefix: str) -> set[str]:
    found = set()
    for name, (_, field) in written_fields(model).items():
        found.add(f"{prefix}.{name}")
        if (inner := section_of(field)) is not None:
            found |= known(inner, f"{prefix}.{name}")
    return found


@cache
def all_models() -> Mapping[str, type[Section]]:
    """Every section that stands on its own, by the name that this test gives it."""
    models = dict(CORE)
    for key in GROUPS:
        models |= {f"{key}.{kind}": model for kind, model in adapters(key).items()}
    return models


def all_known() -> set[str]:
    return set[str]().union(*(known(model, name) for name, model in all_models().items()))


# ---------------------------------------------------------------- what the example shows


def read(text: str) -> Any:
    """What a text says. The parser that is written in C is ten times as fast."""
    return yaml.load(text, yaml.CSafeLoader)


def sections(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Way]]:
    """Each section of a file: its name in `all_models`, what it holds, and the way to it in `Settings`."""
    assert content.keys() <= Settings.model_fields.keys()
    for key, value in content.items():
        if key == "spool":
            yield f"spool.{value['type']}", value, (key,)
        elif key in GROUPS:
            yield from ((f"{key}.{held['type']}", held, (key, name)) for name, held in value.items())
        elif key == "accounts":
            yield from ((key, held, (key, name)) for name, held in value.items())
        else:
            yield key, value, (key,)


def shown(model: type[Section], content: Mapping[str, Any], prefix: str) -> set[str]:
    found = set()
    for name, value in content.items():
        found.add(f"{prefix}.{name}")
        _, field = written_fields(model).get(name, ("", None))
        if field is not None and (inner := section_of(field)) is not None and isinstance(value, dict):
            found |= shown(inner, value, f"{prefix}.{name}")
    return found


def all_shown(text: str) -> set[str]:
    held = sections(read(text))
    return set[str]().union(*(shown(all_models()[name], content, name) for name, content, _ in held))


def wrong_defaults(section: Section, content: Mapping[str, Any], outer: object) -> Iterator[str]:
    """Settings in `content` whose value is not the default that there is; `outer` is the section's own."""
    for name, written in content.items():
        own, _ = written_fields(type(section))[name]
        value, usual = getattr(section, own), default_of(type(section), name, outer)
        if isinstance(value, Section):
            yield from wrong_defaults(value, written, usual)
        elif usual is not None and value != usual:
            yield f"{name}: {written} where the code has {usual}"


def default_of(model: type[Section], name: str, outer: object = None) -> object:
    """A setting's default, which the section around it may have changed; None where there is none."""
    own, field = written_fields(model)[name]
    usual = None if field.is_required() else field.default
    found = getattr(outer, own) if isinstance(outer, Section) else usual
    return None if found in ((), {}) else found


def at(settings: Settings, way: tuple[str, ...]) -> Section:
    found: Any = getattr(settings, way[0])
    return cast(Section, found[way[1]] if len(way) > 1 else found)


# ---------------------------------------------------------------- the tests


def test_the_example_is_accepted_as_it_stands(tmp_path: Path) -> None:
    settings = loaded(TEXT, tmp_path)
    assert set(settings.sinks) == {"console", "archive", "moderation"}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_each_setting_that_is_off_is_accepted_when_it_is_switched_on(block: Block, tmp_path: Path) -> None:
    text = switched_on(block)
    check_defaults(text, loaded(without_comments(text), tmp_path))


def test_every_default_in_the_example_is_the_codes_own(tmp_path: Path) -> None:
    check_defaults(TEXT, loaded(TEXT, tmp_path))


def check_defaults(text: str, settings: Settings) -> None:
    for name, content, way in sections(read(text)):
        assert list(wrong_defaults(at(settings, way), content, None)) == [], name


def test_every_setting_of_the_core_and_of_every_adapter_is_shown_in_its_section() -> None:
    texts = [TEXT, *(switched_on(block) for block in BLOCKS)]
    found = set[str]().union(*map(all_shown, texts))
    assert sorted(all_known() - found) == [], "not in the example"
    assert sorted(found - all_known()) == [], "in the example, and unknown to the code"
    assert len(found) > 60


def test_deleting_a_line_that_shows_a_default_changes_nothing(tmp_path: Path) -> None:
    whole, tried = loaded(TEXT, tmp_path), 0
    for i in default_lines(TEXT):
        lines = TEXT.splitlines()
        remove(lines, i)
        assert loaded(without_comments("\n".join(lines)), tmp_path) == whole, TEXT.splitlines()[i]
        tried += 1
    assert tried > 30


def default_lines(text: str) -> Iterator[int]:
    """Lines that hold one setting which has a default."""
    content, way = read(text), list[tuple[int, str]]()
    models = {where: all_models()[name] for name, _, where in sections(content)}
    for i, line in enumerate(text.splitlines()):
        if not active(line):
            continue
        match = re.fullmatch(r" *([A-Za-z_]+):( +[^ #].*)?.*", line)
        assert match is not None, line
        way = [*(step for step in way if step[0] < depth(line)), (depth(line), match.group(1))]
        names = tuple(name for _, name in way)
        for length in (1, 2):
            model = models.get(names[:length])
            if model is not None and match.group(2) and has_default(model, names[length:]):
                yield i


def has_default(model: type[Section], names: Way) -> bool:
    outer: object = None
    for name in names[:-1]:
        inner = section_of(written_fields(model)[name][1])
        outer = default_of(model, name, outer)
        if inner is None:
            return False
        model = inner
    return default_of(model, names[-1], outer) is not None


def test_no_prose_looks_like_a_setting_and_no_setting_goes_without_a_word() -> None:
    for number, line in enumerate(TEXT.splitlines(), start=1):
        assert not re.match(r" *# ?[A-Za-z_]+:( |$)", line) or re.match(r" *#[A-Za-z_]", line), number
        if active(line) and depth(line) and not line.endswith(":"):
            assert " # " in line, f"line {number} has no comment"
        assert len(line) <= 118, number
        assert "\t" not in line, number
