"""Parses YAML for a configuration: every value has its place, and every trap is a finding with a remedy.

Anchors, aliases, merge keys, tags, duplicate keys and second documents are refused.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import yaml

from poller.settings.scalars import HALF, expand, scalar_value, trap

BROKEN: Final = "\N{REPLACEMENT CHARACTER} not usable: a finding says why"
"""Replaces an unusable value in the result of `values`. It has a finding already and needs no other."""

MAX_DEPTH: Final = 24

Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPosition:
    """A place in the file. Lines and columns count from 1."""

    line: int
    column: int


START: Final = TextPosition(line=1, column=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A fault in the file. `path` leads to it, and is empty for a fault of the whole file."""

    place: TextPosition
    path: Path
    text: str

    def line(self, file: str) -> str:
        """The finding as one line of text."""
        return one_line(
            f"{file}:{self.place.line}:{self.place.column}: {dotted_path(self.path)}: {self.text}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalarNode:
    """A single value as written; `plain` is false for quoted and block scalars."""

    place: TextPosition
    text: str
    plain: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MappingNode:
    """A mapping: its keys in order, each with its place and its value."""

    place: TextPosition
    entries: Mapping[str, tuple[TextPosition, "Node"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceNode:
    """A list."""

    place: TextPosition
    items: tuple["Node", ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenNode:
    """A node that was refused. A finding says why."""

    place: TextPosition


Node = ScalarNode | MappingNode | SequenceNode | BrokenNode


def one_line(text: str) -> str:
    """The text with its unprintable characters escaped: newlines, control characters, half characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def dotted_path(path: Path) -> str:
    """`sinks.archive.allow_hosts[0]`; the whole file is `file`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".") or "file"


# ---------------------------------------------------------------- text to nodes


def parse(text: str) -> tuple[Node | None, list[Finding]]:
    """The root node of the only document, and the findings. None for an empty file, and after an error of syntax."""
    findings: list[Finding] = []
    at: list[Path] = [()]
    try:
        return _Composer(text, findings, at).document(), findings
    except yaml.MarkedYAMLError as error:
        place, remedy = _syntax(error, text)
        findings.append(Finding(place=place, path=at[-1], text=remedy))
    except yaml.reader.ReaderError as error:
        wrong = "a character that does not print: remove it, or escape it in double quotes"
        findings.append(Finding(place=place_at(text, error.position), path=(), text=wrong))
    except _TooDeep as error:
        wrong = f"nested deeper than {MAX_DEPTH} levels"
        findings.append(Finding(place=error.place, path=(), text=wrong))
    except (ValueError, OverflowError):  # PyYAML passes on what chr() and int() raise, without a mark
        findings.append(Finding(place=START, path=at[-1], text="an escape or a number in it is out of range"))
    return None, findings


def place_at(text: str, index: int) -> TextPosition:
    """The place of the character with this index."""
    line = text.count("\n", 0, index)
    return TextPosition(line=line + 1, column=index - (text.rfind("\n", 0, index) + 1) + 1)


class _TooDeep(Exception):
    def __init__(self, place: TextPosition) -> None:
        super().__init__()
        self.place = place


class _Composer:
    """Builds nodes from the parser's events. `at[-1]` is the path that is being read, for errors of syntax."""

    def __init__(self, text: str, findings: list[Finding], at: list[Path]) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._findings = findings
        self._at = at

    def document(self) -> Node | None:
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        root = self._node(self._next(), ())
        self._next()
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            self._find(_place(after), (), "a second document starts here: one file, one document")
        return root

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _find(self, place: TextPosition, path: Path, text: str) -> None:
        self._findings.append(Finding(place=place, path=path, text=text))

    def _node(self, event: yaml.Event, path: Path) -> Node:
        self._at[-1] = path
        place = _place(event)
        if len(path) > MAX_DEPTH:
            raise _TooDeep(place)
        if isinstance(event, yaml.AliasEvent):
            self._find(place, path, ALIAS)
            return BrokenNode(place=place)
        refused = self._refuse(event, place, path)
        node = self._content(event, place, path)
        return BrokenNode(place=place) if refused else node

    def _refuse(self, event: yaml.Event, place: TextPosition, path: Path) -> bool:
        if getattr(event, "tag", None) is not None:
            self._find(place, path, TAG)
            return True
        if getattr(event, "anchor", None) is not None:
            self._find(place, path, ANCHOR)
        return False

    def _content(self, event: yaml.Event, place: TextPosition, path: Path) -> Node:
        if isinstance(event, yaml.MappingStartEvent):
            return MappingNode(place=place, entries=self._entries(path))
        if isinstance(event, yaml.SequenceStartEvent):
            return SequenceNode(place=place, items=self._items(path))
        assert isinstance(event, yaml.ScalarEvent)
        if HALF.search(event.value):
            self._find(place, path, "half a character (a lone surrogate): write the whole one")
            return BrokenNode(place=place)
        return ScalarNode(place=place, text=event.value, plain=not event.style)

    def _items(self, path: Path) -> tuple[Node, ...]:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return tuple(items)

    def _entries(self, path: Path) -> dict[str, tuple[TextPosition, Node]]:
        entries: dict[str, tuple[TextPosition, Node]] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key, place = self._key(event, path), _place(event)
            value = self._node(self._next(), (*path, key or "?"))
            if key is None:
                entries[f"{BROKEN} ({len(entries)})"] = (place, BrokenNode(place=place))
            elif key in entries:
                first = entries[key][0].line
                self._find(place, (*path, key), f"the same key twice (first on line {first}): remove one")
            else:
                entries[key] = (place, value)
        return entries

    def _key(self, event: yaml.Event, path: Path) -> str | None:
        node = self._node(event, (*path, "?"))
        if isinstance(node, BrokenNode):
            return None
        wrong = _key_trap(node)
        if wrong is not None:
            self._find(node.place, path, wrong)
            return None
        assert isinstance(node, ScalarNode)
        return node.text


def _place(event: yaml.Event) -> TextPosition:
    assert isinstance(event.start_mark, yaml.Mark)
    return _mark(event.start_mark)


def _mark(mark: yaml.Mark) -> TextPosition:
    return TextPosition(line=mark.line + 1, column=mark.column + 1)


def _key_trap(node: Node) -> str | None:
    if not isinstance(node, ScalarNode):
        return "a key is one word of text, not a list or a mapping: brackets or braces in it need quotes"
    if node.plain and GLUED.match(node.text):
        return NO_BLANK
    if node.plain and node.text == "<<":
        return "merge keys are refused: write the settings out"
    if node.plain and (trap(node.text) or not isinstance(scalar_value(node.text), str)):
        return "a key is text, and this one is read as something else: put it in quotes"
    if "${" in node.text:
        return "variables are replaced in values, not in keys: write the name out"
    return None


NO_BLANK: Final = "a blank is missing after the colon"
GLUED: Final = re.compile(r"[ \t-]*([A-Za-z_][A-Za-z0-9_-]*):[^\s/:]")
"""`name:value` without a blank, which YAML reads as one word."""


def _find_glued(text: str, line: int) -> TextPosition | None:
    """The place of a `name:value` on a line (from 0), or on the last line with content above it."""
    lines = text.split("\n")[: line + 1]
    content = [n for n, one in enumerate(lines) if one.strip() and not one.lstrip().startswith("#")]
    for number in reversed(content[-2:]):
        if match := GLUED.match(lines[number]):
            return TextPosition(line=number + 1, column=match.end(1) + 1)
    return None


ALIAS: Final = "aliases are refused: write the value out, or put it in quotes if the * is part of it"
ANCHOR: Final = "anchors are refused: write each value out, or put it in quotes if the & is part of it"
TAG: Final = "tags are refused: remove it, or put the value in quotes if the ! is part of it"
QUOTE: Final = "a value cannot begin with this character: put the value in quotes"
MISTAKES: Final = (
    (r"'\\t' that cannot start", "a tab: indent and separate with spaces"),
    ("that cannot start any token", QUOTE),
    ("tag handle", TAG),
    ("mapping values are not allowed", "a second ': ' in one line, or a wrong indentation: quote or align"),
    ("unexpected end of stream", "a quote is opened here and never closed"),
    ("unknown escape character", "an unknown escape after a backslash: use single quotes, or write \\\\"),
)


_IPV6: Final = re.compile(r"\[[0-9a-fA-F.]*:[0-9a-fA-F.]*:[0-9a-fA-F.:]*\]")


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[TextPosition, str]:
    """The place and the remedy of an error of syntax, without the value: it could be a secret."""
    mark = error.problem_mark or error.context_mark
    problem, context = error.problem or "not YAML", error.context or ""
    if mark is None:
        return START, f"YAML syntax: {problem}"
    if text[max(mark.index - 1, 0) : mark.index + 1] == "${":
        return place_at(text, mark.index - 1), 'inside {…} or […] a variable needs quotes: "${NAME}"'
    bracket = _IPV6.search(text, text.rfind("\n", 0, mark.index) + 1)
    if bracket is not None and bracket.start() <= mark.index + 1:
        return place_at(text, bracket.start()), 'an IPv6 address needs quotes: "[::1]:9464"'
    for part, remedy in (("an alias", ALIAS), ("an anchor", ANCHOR), ("a tag", TAG)):
        if part in context and error.context_mark is not None:
            return _mark(error.context_mark), remedy
    if (glued := _find_glued(text, mark.line)) is not None:
        return glued, NO_BLANK
    opened = "unexpected end of stream" in problem and error.context_mark is not None
    found = next((remedy for part, remedy in MISTAKES if re.search(part, problem)), f"YAML syntax: {problem}")
    return _mark(error.context_mark if opened and error.context_mark else mark), found


# ---------------------------------------------------------------- nodes to values


def values(root: Node, environ: Mapping[str, str]) -> tuple[object, list[Finding]]:
    """The value of a node, and findings. Values are dicts, lists, text, numbers, booleans, None, or `BROKEN`."""
    findings: list[Finding] = []
    return _value(root, (), environ, findings), findings


def _value(node: Node, path: Path, environ: Mapping[str, str], findings: list[Finding]) -> object:
    match node:
        case MappingNode():
            entries = node.entries.items()
            return {key: _value(child, (*path, key), environ, findings) for key, (_, child) in entries}
        case SequenceNode():
            return [_value(child, (*path, i), environ, findings) for i, child in enumerate(node.items)]
        case BrokenNode():
            return BROKEN
    if "$" not in node.text:
        wrong = trap(node.text) if node.plain else None
        value = node.text if wrong or not node.plain else scalar_value(node.text)
    else:
        text, wrong = expand(node.text, environ)
        value = scalar_value(text) if node.plain else text
    if wrong is None:
        return value
    findings.append(Finding(place=node.place, path=path, text=wrong))
    return BROKEN
