"""The page of commands: each with its arguments and options, from the command line itself."""

import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from docs.generate.markdown import block, code, codes, page, plain, table
from poller.cli.app import app


def command_line() -> str:
    """Every command of `poller`."""
    root = typer.main.get_command(app)
    return page(
        "Command line",
        plain(root.help or ""),
        f"{root.epilog} What each command means by them: [exit codes](exit-codes.md).",
        "Every command and group has `--help`. What a command was asked for goes to standard output; the log and all other words go to standard error.",
        *_commands(root, "poller"),
    )


def _commands(command: Any, name: str) -> Iterator[str]:
    inner = {key: one for key, one in getattr(command, "commands", {}).items() if not one.hidden}
    if name != "poller":
        yield f"{'###' if name.count(' ') > 1 else '##'} `{name}`"
        yield from _section(command, name, group=bool(inner))
    else:
        yield from _section(command, name, group=True)
    for key, one in sorted(inner.items()):
        yield from _commands(one, f"{name} {key}")


def _section(command: Any, name: str, *, group: bool) -> Iterator[str]:
    if name != "poller":
        yield "\n\n".join(plain(" ".join(part.split())) for part in (command.help or "").split("\n\n"))
        yield block("text", " ".join((name, *_usage(command.params), *(["COMMAND …"] if group else []))))
    rows = [_row(one) for one in command.params if not getattr(one, "hidden", False)]
    if rows:
        yield table(("argument or option", "value", "default", "what it is"), rows)


def _usage(params: list[Any]) -> Iterator[str]:
    if any(one.opts[0].startswith("-") for one in params):
        yield "[OPTIONS]"
    for one in params:
        if not one.opts[0].startswith("-"):
            name = _name(one) + ("…" if one.nargs != 1 else "")
            yield name if one.required else f"[{name}]"


def _name(param: Any) -> str:
    return str(param.metavar or (param.name or "").upper())


def _row(param: Any) -> tuple[str, ...]:
    option = param.opts[0].startswith("-")
    name = (
        codes([*sorted(param.opts, key=len, reverse=True), *param.secondary_opts])
        if option
        else code(_name(param))
    )
    return name, _value(param), _default(param), plain(param.help or "")


def _value(param: Any) -> str:
    if getattr(param, "is_flag", False):
        return ""
    annotation = param.type_descriptor.annotation
    inner = [one for one in (annotation, *_parts(annotation)) if isinstance(one, type)]
    choices = next((one for one in inner if issubclass(one, Enum)), None)
    if choices is not None:
        return codes(str(one.value) for one in choices)
    literal = next(
        (one for one in (annotation, *_parts(annotation)) if typing.get_origin(one) is typing.Literal), None
    )
    if literal is not None:
        return codes(map(str, typing.get_args(literal)))
    if param.metavar:
        return code(param.metavar)
    words = {Path: "path", int: "number", float: "number", str: "text"}
    return next((words[one] for one in inner if one in words), "text")


def _parts(annotation: object) -> Iterator[object]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, tuple):
        for part in typing.get_args(annotation):
            yield part
            yield from _parts(part)


def _default(param: Any) -> str:
    if param.required:
        return "required"
    default = param.default
    if default in (None, False, (), []) or callable(default):
        return ""
    if isinstance(default, list | tuple):
        return codes(map(str, default))
    return code(str(default.value if isinstance(default, Enum) else default))
