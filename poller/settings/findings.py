"""Turns pydantic's errors into findings: with a place in the file, in our own words, without secrets."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from poller.settings.yaml import (
    BROKEN,
    GLUED,
    NO_BLANK,
    START,
    Finding,
    MappingNode,
    Node,
    Path,
    ScalarNode,
    SequenceNode,
    TextPosition,
)

MESSAGES: Final = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of names to values",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list: [one, two]",
    "missing": "is missing",
    "model_type": "must be a mapping of settings to values",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be text",
    "too_long": "takes at most {max_length}",
    "too_short": "needs at least {min_length}",
    "tuple_type": "must be a list: [one, two]",
}
ECHOED: Final = frozenset(
    {
        "bool_type",
        "greater_than",
        "greater_than_equal",
        "int_type",
        "less_than",
        "less_than_equal",
        "literal_error",
    }
)
MAX_ECHO: Final = 40
MAPPINGS: Final = frozenset({"dict_type", "model_type", "model_attributes_type"})
_LITERAL: Final = re.compile("'([^']*)'")


def findings_of(error: ValidationError, model: type[BaseModel], root: Node, prefix: Path) -> list[Finding]:
    """One finding for each path. Errors that follow from an earlier finding are left out."""
    found: dict[Path, Finding] = {}
    for detail in error.errors(include_url=False):
        if not _said_already(detail, root, prefix):
            finding = _finding(detail, model, root, prefix)
            found.setdefault(finding.path, finding)
    return list(found.values())


def _said_already(detail: ErrorDetails, root: Node, prefix: Path) -> bool:
    """Whether an error follows from another finding: from a value that was refused, or from an unusable item."""
    if detail["type"] == "extra_forbidden":
        return str(detail["loc"][-1]).startswith(BROKEN)
    if isinstance(detail["input"], str) and detail["input"].startswith(BROKEN):
        return True
    node = find(root, _real(root, prefix + detail["loc"]))
    if detail["type"] == "too_short" and isinstance(node, MappingNode | SequenceNode):
        least: int = detail["ctx"]["min_length"]
        return len(node.entries if isinstance(node, MappingNode) else node.items) >= least
    return False


def close(word: str, known: Iterable[str]) -> str:
    """`, did you mean …?` with the closest known word; empty if no word is close."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    near = near or [name for name in names if len(word) > 2 and (word in name or name in word)]
    return f", did you mean {near[0]}?" if near else ""


def _finding(detail: ErrorDetails, model: type[BaseModel], root: Node, prefix: Path) -> Finding:
    context, loc = detail.get("ctx", {}), detail["loc"]
    path = _real(root, prefix + loc)
    node = find(root, path)
    if detail["type"] in {"missing", "extra_forbidden"}:
        path = prefix + loc
        place = key_place(root, path)
    elif context.get("at"):
        path = (*path, context["at"])
        place = value_place(root, path)
    elif loc[-1:] == ("[key]",) or (isinstance(node, MappingNode) and section_at(model, loc)):
        place = key_place(root, path)
    else:
        place = value_place(root, path)
    return Finding(place=place, path=path, text=_text(detail, section_at(model, loc[:-1]), node))


# ---------------------------------------------------------------- places


def find(node: Node | None, path: Path) -> Node | None:
    """The node that a path leads to, if it is in the file."""
    for part in path:
        match node:
            case MappingNode() if part in node.entries:
                node = node.entries[str(part)][1]
            case SequenceNode() if isinstance(part, int) and part < len(node.items):
                node = node.items[part]
            case _:
                return None
    return node


def key_place(root: Node, path: Path) -> TextPosition:
    """The place of a key. For a missing key: the key of the section that lacks it."""
    if not path:
        return START
    parent = find(root, path[:-1])
    if isinstance(parent, MappingNode) and path[-1] in parent.entries:
        return parent.entries[str(path[-1])][0]
    node = find(root, path)
    return node.place if node is not None else key_place(root, path[:-1])


def value_place(root: Node, path: Path) -> TextPosition:
    """The place of a value. For a missing value: the key of the section that lacks it."""
    node = find(root, path)
    return node.place if node is not None else key_place(root, path)


def _real(root: Node, path: Path) -> Path:
    """The path without pydantic's own words in it (a union's branches, `[key]`)."""
    real: Path = ()
    for part in path:
        real = (*real, part) if find(root, (*real, part)) is not None else real
    return real


# ---------------------------------------------------------------- texts


def section_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The class of the section at a path inside `model`; None if the path leads to no section."""
    annotation: object = model
    for part in loc:
        current = _section_class(annotation)
        if current is not None:
            field = current.model_fields.get(str(part))
            annotation = field.annotation if field is not None else None
        else:
            annotation = _item_type(annotation)
    return _section_class(annotation)


def _section_class(annotation: object) -> type[BaseModel] | None:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _options(annotation: object) -> list[object]:
    """The branches of a union without annotations; for any other type, the type itself."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _options(arguments[0])
    if origin in (Union, UnionType):
        return [bare for argument in arguments for bare in _options(argument)]
    return [annotation]


def _item_type(annotation: object) -> object:
    """The type of the items of a list, or of the values of a mapping."""
    for option in _options(annotation):
        origin, arguments = get_origin(option), get_args(option)
        if isinstance(origin, type) and arguments:
            return arguments[-1] if issubclass(origin, Mapping) else arguments[0]
    return None


def _text(detail: ErrorDetails, section: type[BaseModel] | None, node: Node | None) -> str:
    context = detail.get("ctx", {})
    text = _message(detail, context, section, node)
    if detail["input"] is None and detail["type"] != "extra_forbidden":
        return f"has no value: {text}"
    if detail["type"] in MAPPINGS and isinstance(node, ScalarNode) and node.plain and GLUED.match(node.text):
        return f"{text}: {NO_BLANK}"
    if isinstance(node, ScalarNode) and (context.get("echo") or detail["type"] in ECHOED):
        written = node.text if len(node.text) <= MAX_ECHO else node.text[:MAX_ECHO] + "…"
        meant = close(node.text, _LITERAL.findall(context["expected"])) if "expected" in context else ""
        return f"{text}, not '{written}'{meant}"
    return text


def _message(
    detail: ErrorDetails, context: Mapping[str, Any], section: type[BaseModel] | None, node: Node | None
) -> str:
    kind = detail["type"]
    if kind == "poller":
        return str(context["text"])
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        known = sorted(section.model_fields) if section is not None else []
        key = str(detail["loc"][-1])
        return "unknown setting" + (close(key, known) or f" (known here: {', '.join(known)})")
    if kind == "literal_error":
        return "must be " + str(context["expected"]).replace("'", "")
    if kind == "string_type" and isinstance(node, ScalarNode):
        return "must be text: put it in quotes"
    return MESSAGES[kind].format_map(context) if kind in MESSAGES else detail["msg"]
