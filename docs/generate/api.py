"""The page of `poller.api`: what an author of a source, spool or sink imports."""

import ast
import enum
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Final

from pydantic import BaseModel

from docs.generate.markdown import block, code, page

NAME: Final = "poller.api"
ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
FIELD: Final = re.compile(r"^([a-z_]+(?:, [a-z_]+)*): +(?=\S)(.*)$", re.MULTILINE)


def api() -> str:
    """Each name that the module exports, with its signature and what its docstring says."""
    if importlib.util.find_spec(NAME) is None:
        return page(f"`{NAME}`", "This version has no such module: the ports are in `poller.core.ports`.")
    module = importlib.import_module(NAME)
    return _formatted(
        page(
            f"`{NAME}`",
            inspect.getdoc(module) or "",
            "What is listed here keeps its names and its meaning until the next major version.",
            *(part for name in sorted(module.__all__) for part in _entry(module, name)),
        )
    )


def _formatted(text: str) -> str:
    """The page with its blocks of code as `just lint` wants them."""
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--quiet",
        "--stdin-filename",
        "docs/reference/api.md",
        "-",
    ]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own tool


def _entry(module: ModuleType, name: str) -> Iterator[str]:
    found: object = getattr(module, name)
    yield f"## `{name}`"
    if isinstance(found, ModuleType):
        yield inspect.getdoc(found) or ""
        return
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        yield block("python", f"{name} = {ADDRESS.sub('', repr(found))}" if _is_plain(found) else name)
        return
    yield block("python", _signature(name, found))
    yield _as_list(_docstring(found))
    if inspect.isclass(found):
        yield from _members(found)


def _is_plain(found: object) -> bool:
    return isinstance(found, str | int | float | bytes | frozenset | tuple)


def _docstring(found: object) -> str:
    """Its own docstring; not the one that a dataclass or a model makes up, or that a base has."""
    text = found.__dict__.get("__doc__") if inspect.isclass(found) else getattr(found, "__doc__", None)
    return (
        inspect.cleandoc(text)
        if isinstance(text, str) and not text.startswith(f"{getattr(found, '__name__', '')}(")
        else ""
    )


def _as_list(text: str) -> str:
    """A docstring whose lines `field:  what it is` are a list: Markdown would join them to one paragraph."""
    return FIELD.sub(lambda line: f"- {', '.join(map(code, line[1].split(', ')))}: {line[2]}", text)


def _members(found: type) -> Iterator[str]:
    if issubclass(found, enum.Enum):
        yield ", ".join(f"`{one.name}`" for one in found)
        return
    lines = []
    for name, value in sorted(vars(found).items()):
        if name.startswith("_") or inspect.isclass(value) or name in inspect.get_annotations(found):
            continue
        if inspect.isroutine(value):
            first = _docstring(value).split("\n\n")[0]
            lines.append(f"- {code(_signature(name, value))}: {' '.join(first.split())}")
        elif isinstance(value, property):
            lines.append(
                f"- {code(name)}: {' '.join((inspect.getdoc(value) or '').split(chr(10) * 2)[0].split())}"
            )
    yield "\n".join(lines)


def _signature(name: str, found: object) -> str:
    """A class or a function as its source declares it, without what it does."""
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]  # type: ignore[arg-type]  # has a source, or not
    except (OSError, TypeError):
        return name
    if isinstance(node, ast.ClassDef):
        return _class(node, issubclass(found, BaseModel) if inspect.isclass(found) else False)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _function(node)
    return name


def _class(node: ast.ClassDef, model: bool) -> str:
    """Its bases, its fields, and how it is built; a setting's default stands in the configuration's reference."""
    bases = ", ".join(map(ast.unparse, (*node.bases, *node.keywords)))
    lines = [f"class {node.name}({bases}):" if bases else f"class {node.name}:"]
    for part in node.body:
        match part:
            case ast.AnnAssign(target=ast.Name(id=field), annotation=kind, value=value) if field[0] != "_":
                default = "" if value is None or model else f" = {ast.unparse(value)}"
                lines.append(f"    {field}: {_kind(kind)}{default}")
            case ast.FunctionDef(name="__init__"):
                lines.append(f"    {_function(part)}: ...")
    return "\n".join(lines) if len(lines) > 1 else f"{lines[0]} ..."


def _kind(annotation: ast.expr) -> str:
    """A type as it is written; of `Annotated[Duration, …]` the first part."""
    match annotation:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return ast.unparse(first)
    return ast.unparse(annotation)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{word} {node.name}({ast.unparse(node.args)}){returns}"
