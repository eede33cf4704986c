"""The page of settings: every key of every section, also those of each adapter that is installed with the program."""

import re
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic.fields import FieldInfo

from docs.generate.markdown import code, codes, page, plain, table
from poller.runtime import plugins
from poller.settings import Section, Settings, schema
from poller.settings.units import Between, written_duration

EXAMPLE: Final = Path(__file__).parents[2] / "config.example.yaml"
OFF: Final = re.compile(r"^( *)#(?=(?:  +)?[A-Za-z_]+:(?: |$))", re.MULTILINE)
"""The sign before a setting that the example has as a comment."""
GROUPS: Final[Mapping[str, tuple[plugins.Group, str]]] = {
    "sources": (plugins.SOURCES, "source"),
    "spool": (plugins.SPOOLS, "spool"),
    "sinks": (plugins.SINKS, "sink"),
}
WRITTEN: Final = {"size": "KiB|", "rate": "[1-9][0-9]*/", "duration": "(ms|s|m|h|d)|0", "URL": "https?"}
"""What a value is called, by a part of its pattern."""
UNITS: Final = (
    "- **duration**: `250ms`, `30s`, `5m`, `12h`, `3d`, or `0`\n"
    "- **size**: `64KiB`, `20MiB`, `1GiB`, or decimal as `500kB`, `20MB`\n"
    "- **rate**: a number for each period: `20/s`, `100/m`, `3/h`, `1/2s`\n"
    "- **path**: relative to the configuration file\n"
    "- `${NAME}` is replaced by an environment variable, in any value; `$$` is a dollar"
)


def configuration() -> str:
    """Every setting with its type, default, bounds and an example."""
    return page(
        "Configuration",
        "One YAML file. `poller check -c FILE` names every mistake in it with its line and column, and a daemon starts with no file "
        "that has one. `poller schema` prints its JSON Schema for editors. `config.example.yaml` shows all settings as one file.",
        "## How values are written",
        UNITS,
        *_parts(),
    )


def _parts() -> Iterator[str]:
    found, text = _schema(), EXAMPLE.read_text()
    off = yaml.safe_load(OFF.sub(r"\1", text))
    shown = _merged(off, yaml.safe_load(text))
    for name, field in Settings.model_fields.items():
        yield f"## `{name}`"
        yield (field.description or "") + ("" if field.is_required() else " It may be left out.")
        if name in GROUPS:
            entries = _spools(text) if name == "spool" else list(shown[name].values())
            yield from _adapters(name, found, entries)
        else:
            model = next(_models(field.annotation))
            here: Any = shown.get(name)
            keyed = name == "accounts"
            if keyed:
                yield "Under a name of your own for each:"
                here = next(iter(here.values()))
            yield from _section(
                f"{name}.NAME" if keyed else name, model, found["$defs"][model.__name__], here
            )


@cache
def _schema() -> dict[str, Any]:
    """The schema of all settings, made once: that takes longer than all the rest of the page."""
    return schema()


def _spools(text: str) -> list[Any]:
    """Every spool that the example file shows. There is one key for all of them, so YAML alone keeps the last."""
    blocks = re.findall(r"^spool:.*\n(?:[ #].*\n)*", OFF.sub(r"\1", text), re.MULTILINE)
    return [yaml.safe_load(block)["spool"] for block in blocks]


def _merged(off: Any, on: Any) -> Any:
    """What the example file says, and below it what it has as comments."""
    if not (isinstance(off, dict) and isinstance(on, dict)):
        return on
    return {**off, **{key: _merged(off.get(key), value) for key, value in on.items()}}


def _adapters(name: str, found: Mapping[str, Any], entries: list[Any]) -> Iterator[str]:
    group, word = GROUPS[name]
    if name != "spool":
        yield f"Under a name of your own for each {word}. The key `type` says which of these it is:"
    for type_ in plugins.types(group):
        adapter = plugins.adapter(group, type_)
        if not adapter.__module__.startswith("poller."):
            continue
        model: type[Section] = adapter.Settings  # type: ignore[attr-defined]  # `plugins.adapter` has looked
        same = [one for one in entries if one["type"] == type_]
        here = {
            key: value for one in reversed(same) for key, value in one.items()
        }  # the first one's values count
        place = name if name == "spool" else f"{name}.NAME"
        yield f"### {word} `{type_}`"
        yield from _section(place, model, found["$defs"][f"{group.rpartition('.')[2]}_{type_}"], here)


def _section(place: str, model: type[Section], found: Mapping[str, Any], shown: object) -> Iterator[str]:
    """A section's table, with the keys of the sections in it below their own."""
    rows = list(_rows("", model, found, shown if isinstance(shown, dict) else {}))
    yield table((f"key of `{place}`", "type", "default", "bounds", "example", "what it is"), rows)


def _rows(
    above: str, model: type[Section], found: Mapping[str, Any], shown: Mapping[str, Any]
) -> Iterator[tuple[str, ...]]:
    for own, field in model.model_fields.items():
        name = field.alias or own
        said: Mapping[str, Any] = found["properties"].get(name, {})
        description = plain(field.description or "").replace("\\*", "*")
        inner = next(_models(field.annotation), None)
        if inner is not None:
            yield code(above + name), "section", "", "", "", description
            below = _schema()["$defs"].get(inner.__name__) or inner.model_json_schema()
            here: Any = shown.get(name)
            whole = _with_defaults(below, said.get("default"))
            yield from _rows(f"{above}{name}.", inner, whole, here if isinstance(here, dict) else {})
            continue
        kind = _kind(field, said)
        default, example = _default(field, said, kind), _example(said, shown.get(name))
        yield code(above + name), kind, default, _bounds(field, said), example, description


def _with_defaults(found: Mapping[str, Any], default: object) -> Mapping[str, Any]:
    """A section's schema with the defaults that the section above gives it."""
    if not isinstance(default, dict):
        return found
    properties = {
        name: said | ({"default": default[name]} if name in default else {})
        for name, said in found["properties"].items()
    }
    return {**found, "properties": properties}


def _models(annotation: object) -> Iterator[type[Section]]:
    """The sections in a type, such as `VodSettings | None` or `Mapping[Name, AccountSettings]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def _one(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a value that is there, of "this or null"."""
    ways = [way for way in said.get("anyOf", ()) if way.get("type") != "null"]
    return ways[0] if len(ways) == 1 else said


def _kind(field: FieldInfo, said: Mapping[str, Any]) -> str:
    one = _one(said)
    if "enum" in one:
        return "one of " + codes(map(str, one["enum"]))
    if "const" in one:
        return "text"
    if one.get("type") == "array":
        return f"list of {_kind(field, one['items'])}"
    if one.get("type") == "object":
        return "section"
    pattern = str(one.get("pattern", ""))
    written = next((word for word, part in WRITTEN.items() if part in pattern), None)
    return written or _plain_kind(field, one)


def _plain_kind(field: FieldInfo, one: Mapping[str, Any]) -> str:
    words = repr(field.annotation) + repr(field.metadata)
    if "SecretStr" in words:
        return "path" if one.get("type") == "string" else "secret text"
    if "Path" in words:
        return "path"
    known = {"integer": "number", "number": "number", "boolean": "true or false"}
    return known.get(str(one.get("type")), "text")


def _default(field: FieldInfo, said: Mapping[str, Any], kind: str) -> str:
    if field.is_required() or "const" in said:
        return "required"
    value = said.get("default")
    if kind == "list of duration" and isinstance(value, list):
        value = [written_duration(one) for one in value]
    return "none" if value in (None, [], {}) else code(_written(value))


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_quoted(one, '[{}]') for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_quoted(one, '[{}]')}" for key, one in value.items()) + "}"
    return _quoted(value, "- {}")


def _quoted(value: object, place: str) -> str:
    """A value as it can be written at this place in YAML: in quotes if it would be read as something else."""
    if not isinstance(value, str):
        return _written(value) if isinstance(value, bool | list | dict) else str(value)
    try:
        plain_enough = yaml.safe_load(place.format(value)) == [value]
    except yaml.YAMLError:
        plain_enough = False
    return value if plain_enough else f'"{value}"'


def _example(said: Mapping[str, Any], shown: object) -> str:
    """What the example file has, else the default, else what the type offers."""
    if shown is not None:
        return code(_written(shown))
    default = said.get("default")
    if default not in (None, [], {}):
        return code(_written(default))
    one = _one(said)
    many = one.get("type") == "array"
    examples = (one["items"] if many else one).get("examples")
    value = examples[0] if examples else one.get("const")
    return "" if value is None else code(f"[{value}]" if many else str(value))


def _bounds(field: FieldInfo, said: Mapping[str, Any]) -> str:
    for bound in _metadata(field.annotation, field.metadata):
        if isinstance(bound, Between):
            return f"{bound.low} to {bound.high}"
    one = _one(said)
    if one.get("type") not in ("integer", "number", "array"):
        return ""
    low, high = one.get("minimum", one.get("minItems")), one.get("maximum", one.get("maxItems"))
    unit = " of them" if one["type"] == "array" else ""
    if low is not None and high is not None:
        return f"{low} to {high}{unit}"
    return f"{low} or more{unit}" if low is not None else f"at most {high}{unit}" if high is not None else ""


def _metadata(annotation: object, found: typing.Iterable[object]) -> Iterator[object]:
    yield from found
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, tuple):
        yield from getattr(annotation, "__metadata__", ())
        for part in typing.get_args(annotation):
            yield from _metadata(part, ())
