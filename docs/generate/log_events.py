"""The page of log events, found in the code; what each means stands in `log_events.yaml`."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from docs.generate import modules
from docs.generate.markdown import code, codes, page, plain, table

MEANINGS: Final = Path(__file__).parents[1] / "log_events.yaml"
LEVELS: Final = ("error", "warning", "info", "debug")
AS_LEVEL: Final = {"exception": "error", "critical": "error"} | {level: level for level in LEVELS}
ALARMS: Final = MEANINGS.parent / "operations" / "alarms"
ELSEWHERE: Final = {"spool_migrated": "[Upgrading](../operations/upgrading.md)"}
"""Events that no alarm is about, each with the page that explains it."""
EVENT_IN_CODE: Final = re.compile("`([a-z]+(?:_[a-z]+)*)`")
EVENT: Final = re.compile(r"[a-z]+(_[a-z]+)*")
ALWAYS: Final = ("event", "level", "timestamp")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Found(NamedTuple):
    """One place that logs an event."""

    event: str
    levels: frozenset[str]
    fields: tuple[str, ...]
    module: str


def log_events() -> str:
    """Each event with its level, its fields, where it is logged and what it means."""
    places, meanings = found(), meant()
    if amiss := sorted(places.keys() ^ meanings.keys()):
        raise LookupError(f"log_events.yaml and the code differ: {', '.join(amiss)}")
    return page(
        "Log events",
        "The log goes to standard error: one JSON object a line, or a console on a terminal (`log.format`). Every line has "
        f"{codes(ALWAYS)}. The names of events and fields are a promise; further fields may come. The last column leads to the "
        "[alarm's page](../operations/index.md), which says what to do.",
        *(part for level in LEVELS for part in _level(level, places, meanings)),
    )


def alarms() -> Mapping[str, str]:
    """The pages of alarms by the event that they name under "Seen as", or by which they say that the alarm ended."""
    pages: dict[str, list[str]] = {}
    for file in sorted(ALARMS.glob("*.md")):
        seen = file.read_text().partition("Seen as:\n")[2].partition("\n## ")[0]
        title = file.read_text().partition("\n# ")[2].partition("\n")[0]
        for line in re.findall("^- log (.*)$", seen, re.MULTILINE):
            for event in EVENT_IN_CODE.findall(line):
                pages.setdefault(event, []).append(f"[{plain(title)}](../operations/alarms/{file.name})")
    return ELSEWHERE | {event: ", ".join(links) for event, links in pages.items()}


def meant() -> Mapping[str, str]:
    """What each event means, in a sentence."""
    meanings = yaml.safe_load(MEANINGS.read_text())
    assert isinstance(meanings, dict)
    return meanings


def _level(level: str, places: Mapping[str, list[Found]], meanings: Mapping[str, str]) -> Iterator[str]:
    yield f"## {level.capitalize()}"
    rows, pages = [], alarms()
    for event, here in sorted(places.items()):
        levels = {one for place in here for one in place.levels}
        if min(levels, key=LEVELS.index) != level:
            continue
        fields = dict.fromkeys(name for place in here for name in place.fields)
        also = f" Also at level {', '.join(sorted(levels - {level}))}." if len(levels) > 1 else ""
        where = codes(sorted({place.module for place in here}))
        rows.append(
            (
                code(event),
                plain(meanings[event]).replace("\\_", "_") + also,
                codes(fields),
                where,
                pages.get(event, ""),
            )
        )
    yield table(("event", "what it means", "fields", "logged by", "alarm"), rows)


# ---------------------------------------------------------------- what the code logs


@cache
def found() -> Mapping[str, list[Found]]:
    """All events that the daemon's modules log, by name."""
    by_name: dict[str, list[Found]] = {}
    for module in modules.names():
        for place in _in_module(module):
            by_name.setdefault(place.event, []).append(place)
    return by_name


def _in_module(module: str) -> Iterator[Found]:
    tree = modules.tree(module)
    bound = {
        word.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "bind"
        for word in node.keywords
        if word.arg
    }
    for function in ast.walk(tree):
        if isinstance(function, Function):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                yield from _logged(call, function, module, sorted(bound))


def _logged(call: ast.Call, function: Function, module: str, bound: list[str]) -> Iterator[Found]:
    levels = frozenset(_levels(call.func, function))
    if not levels or not call.args:
        return
    own_logger = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "self._log"
    by_name = isinstance(call.func, ast.Name) and "self._log" in ast.unparse(function)
    fields = ((*bound,) if own_logger or by_name else ()) + tuple(_fields(call, function))
    together = _together(call, function)
    for event in _texts(call.args[0], function):
        if EVENT.fullmatch(event):
            yield Found(event, frozenset(together.get(event, levels)), fields, module)


def _together(call: ast.Call, function: Function) -> Mapping[str, set[str]]:
    """The level of each of two events, where one condition chooses the event and its level."""
    match call:
        case ast.Call(func=ast.Name(id=name), args=[ast.IfExp(test=test, body=body, orelse=other), *_]):
            for value in _assigned(name, function):
                if isinstance(value, ast.IfExp) and ast.unparse(value.test) == ast.unparse(test):
                    return {
                        text: set(_levels(level, function))
                        for event, level in ((body, value.body), (other, value.orelse))
                        for text in _texts(event, function)
                    }
    return {}


def _levels(called: ast.expr, function: Function) -> Iterator[str]:
    """The levels of a call of a logger, or of a name that stands for one of a logger's methods."""
    match called:
        case ast.Attribute(value=logger, attr=name) if name in AS_LEVEL:
            if re.search(r"(\b|_)log$|get_logger\(", ast.unparse(logger)):
                yield AS_LEVEL[name]
        case ast.Name(id=name):
            for value in _assigned(name, function):
                yield from _levels(value, function)
        case ast.IfExp(body=body, orelse=other):
            yield from _levels(body, function)
            yield from _levels(other, function)


def _texts(node: ast.expr, function: Function) -> Iterator[str]:
    """The texts that an argument may be: a constant, one of a conditional's two, or what a name was given."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=other):
            yield from _texts(body, function)
            yield from _texts(other, function)
        case ast.Name(id=name):
            for value in _assigned(name, function):
                yield from _texts(value, function)


def _fields(call: ast.Call, function: Function) -> Iterator[str]:
    for word in call.keywords:
        if word.arg == "exc_info":
            yield "exception"
        elif word.arg:
            yield word.arg
        elif isinstance(word.value, ast.Name):
            yield from _keys(word.value.id, function)
    if isinstance(call.func, ast.Attribute) and call.func.attr == "exception":
        yield "exception"


def _keys(name: str, function: Function) -> Iterator[str]:
    """The constant keys of a dict that is given with `**`."""
    for value in _assigned(name, function):
        for node in ast.walk(value):
            if isinstance(node, ast.Dict):
                yield from (
                    key.value
                    for key in node.keys
                    if isinstance(key, ast.Constant) and isinstance(key.value, str)
                )


def _assigned(name: str, function: Function) -> Sequence[ast.expr]:
    return _assignments(function).get(name, ())


@cache
def _assignments(function: Function) -> Mapping[str, Sequence[ast.expr]]:
    """What each name is given in a function."""
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values.setdefault(name, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                values.setdefault(name, []).append(value)
    return values
