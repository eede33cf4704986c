"""The JSON Schema of the configuration, for editors, with the settings of all installed adapters."""

from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, Literal, cast

from pydantic import Field, create_model
from pydantic.json_schema import GenerateJsonSchema

from poller.runtime import plugins
from poller.settings.fields import Name
from poller.settings.sections import Section, Settings, SinkSettings, SourceSettings, SpoolSettings
from poller.settings.units import WrittenForm, written_duration, written_size

WRITTEN: Final = {"duration": written_duration, "size": written_size}


def schema() -> dict[str, Any]:
    """The schema, without adapters that cannot be imported (for example because an extra is not installed)."""
    sources = _adapters(plugins.SOURCES, SourceSettings)
    sinks = _adapters(plugins.SINKS, SinkSettings)
    model = create_model(
        "Configuration",
        __base__=Settings,
        sources=(dict[Name, sources], _field("sources")),  # type: ignore[valid-type]  # built from what is installed
        spool=(_adapters(plugins.SPOOLS, SpoolSettings), Field(description=_field("spool").description)),
        sinks=(dict[Name, sinks], _field("sinks")),  # type: ignore[valid-type]  # the same
    )
    found = model.model_json_schema(schema_generator=_Generator)
    return {"$schema": GenerateJsonSchema.schema_dialect, **cast(dict[str, Any], _written_defaults(found))}


class _Generator(GenerateJsonSchema):
    """Writes defaults in their written form."""

    def encode_default(self, dft: Any) -> Any:
        return str(dft) if isinstance(dft, WrittenForm) else super().encode_default(dft)


def _field(name: str) -> Any:
    return Settings.model_fields[name]


def _adapters(group: plugins.Group, base: type[Section]) -> Any:
    """One type for all adapters of a group: a union that is discriminated by `type`."""
    models = [model for name in plugins.types(group) for model in _adapter(group, name, base)]
    if len(models) < 2:
        return models[0] if models else base
    return Annotated[reduce(or_, models), Field(discriminator="type")]


def _adapter(group: plugins.Group, name: str, base: type[Section]) -> list[type[Section]]:
    try:
        found: object = cast(Any, plugins.adapter(group, name)).Settings
    except plugins.BrokenPlugin:
        return []
    if not (isinstance(found, type) and issubclass(found, base)):
        return []
    word = (Literal[name], Field(description=base.model_fields["type"].description))
    model = cast(
        type[Section],
        create_model(f"{group.rpartition('.')[2]}_{name}", __base__=found, type=cast(Any, word)),
    )
    model.__doc__ = found.__doc__
    return [model]


def _written_defaults(found: object) -> object:
    """The schema with defaults of durations and sizes in their written form, where pydantic left bare numbers."""
    if isinstance(found, list):
        return [_written_defaults(item) for item in found]
    if not isinstance(found, dict):
        return found
    whole: dict[str, Any] = {key: _written_defaults(value) for key, value in found.items()}
    written = WRITTEN.get(whole.pop("x-written", ""))
    if written is not None and isinstance(whole.get("default"), int | float):
        whole["default"] = written(whole["default"])
    return whole
