"""Durations, sizes and rates: their written forms and their values.

A type here accepts the written form from a file. Where settings are built in code, it also accepts the value
itself: a duration as a float of seconds, a size as an int of bytes.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VARIABLE: Final = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"


def wrong(text: str, *, at: str | None = None, echo: bool = False) -> PydanticCustomError:
    """An error with our own text. `at` names a key of the section, if the error belongs to the key.

    With `echo` the message shows the value as written in the file. Never use it for a value that could be a
    secret.
    """
    return PydanticCustomError("poller", "{text}", {"text": text, "at": at, "echo": echo})


def _from_file(info: ValidationInfo) -> bool:
    return info.mode == "json"


def is_number(value: object) -> bool:
    """Whether a value is an int or a float. A boolean is not a number here, although it is an int in Python."""
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---------------------------------------------------------------- durations

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_DURATION_FORM: Final = "a duration is written 250ms, 30s, 5m, 12h or 3d"


def _duration(value: object, info: ValidationInfo) -> float:
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if isinstance(value, str) and (seconds := read_duration(value)) is not None:
        return seconds
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not _from_file(info) and 0 <= value < float("inf"):
            return float(value)
        raise wrong("a bare number has no unit: write 250ms, 30s, 5m, 12h or 3d", echo=True)
    raise wrong(_DURATION_FORM, echo=True)


def read_duration(text: str) -> float | None:
    """The seconds of a duration with a unit, such as `250ms`; None if it is not one."""
    match = _DURATION.fullmatch(text)
    return round(float(match.group(1)) * _SECONDS[match.group(2)], 9) if match else None


def written_duration(seconds: float) -> str:
    """The shortest written form of a duration: 5400.0 is `90m`."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds / _SECONDS[unit])}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0s"


Duration = Annotated[
    float,
    PlainValidator(_duration),
    PlainSerializer(written_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": rf"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d)|0|{VARIABLE})$",
            "minimum": 0,
            "maximum": 0,
            "examples": ["250ms", "30s", "5m", "12h", "3d"],
            "x-written": "duration",
        }
    ),
]
"""Seconds as a float, written `250ms`, `30s`, `5m`, `12h`, `3d`, or `0`."""


def duration_between(low: str, high: str) -> AfterValidator:
    """Bounds for a duration, both included: `Annotated[Duration, duration_between("1s", "1h")]`."""
    bounds = [_read(_DURATION, _SECONDS, text) for text in (low, high)]
    return _between(bounds[0], bounds[1], low, high)


# ---------------------------------------------------------------- sizes

_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE: Final = re.compile(r"([0-9]{1,12})(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)")


def _size(value: object, info: ValidationInfo) -> int:
    if value in (0, "0") and not isinstance(value, bool):
        return 0
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(match.group(1)) * _BYTES[match.group(2)]
    if isinstance(value, int) and not isinstance(value, bool):
        if not _from_file(info) and value > 0:
            return value
        raise wrong("a bare number has no unit: write 64KiB, 20MiB or 1GiB", echo=True)
    raise wrong("a size is written 64KiB, 20MiB, 1GiB, or 500kB, 20MB", echo=True)


def written_size(size: int) -> str:
    """The shortest written form of a size: 20971520 is `20MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


Size = Annotated[
    int,
    PlainValidator(_size),
    PlainSerializer(written_size, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": rf"^([0-9]+(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)|0|{VARIABLE})$",
            "minimum": 0,
            "maximum": 0,
            "examples": ["64KiB", "20MiB", "1GiB"],
            "x-written": "size",
        }
    ),
]
"""Bytes as an int, written `64KiB`, `20MiB`, `1GiB`, or decimal as `500kB`, `20MB`."""


def size_between(low: str, high: str) -> AfterValidator:
    """Bounds for a size, both included: `Annotated[Size, size_between("16MiB", "4GiB")]`."""
    bounds = [_read(_SIZE, _BYTES, text) for text in (low, high)]
    return _between(bounds[0], bounds[1], low, high)


def _read(form: re.Pattern[str], units: dict[str, int] | dict[str, float], text: str) -> float:
    match = form.fullmatch(text)
    assert match is not None, text
    return float(match.group(1)) * units[match.group(2)]


@dataclass(frozen=True)
class Between(AfterValidator):
    """A check of two bounds, with the written forms of both."""

    low: str = ""
    high: str = ""


def _between(lowest: float, highest: float, low: str, high: str) -> Between:
    def check(value: Any) -> Any:
        if not lowest <= value <= highest:
            raise wrong(f"must be between {low} and {high}", echo=True)
        return value

    return Between(check, low, high)


# ---------------------------------------------------------------- rates, and other written forms


class WrittenForm:
    """Base of records with a written form: a file has the form, and code may pass the record itself."""

    PATTERN: str
    EXAMPLES: tuple[str, ...]

    @classmethod
    def parse(cls, value: object) -> Self:
        """The record for a written form; raises `wrong`."""
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, inner: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, inner: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^({cls.PATTERN}|{VARIABLE})$", "examples": list(cls.EXAMPLES)}


_RATE: Final = re.compile(r"([0-9]{1,7})/([0-9]{0,6})(ms|s|m|h|d)")
_RATE_FORM: Final = "a rate is written 20/s, 100/m, 3/h or 1/2s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate(WrittenForm):
    """At most `limit` in any `period` seconds; written `20/s`, `100/m`, `3/h`, `1/2s`."""

    PATTERN = r"[1-9][0-9]*/([1-9][0-9]*)?(ms|s|m|h|d)"
    EXAMPLES = ("20/s", "100/m", "3/h", "1/2s")

    limit: int
    period: float

    def __str__(self) -> str:
        return f"{self.limit}/{re.sub(r'^1(?=[a-z])', '', written_duration(self.period))}"

    @classmethod
    def parse(cls, value: object) -> Self:
        """The rate for a written form. Zero, fractions and a number without a period are refused."""
        if is_number(value):
            raise wrong("a rate needs its period: write 20/s or 100/m", echo=True)
        if not isinstance(value, str):
            raise wrong(_RATE_FORM, echo=True)
        if re.fullmatch(r"[0-9]*\.[0-9]+/.*", value):
            raise wrong("a rate counts whole ones: for one every two seconds write 1/2s", echo=True)
        match = _RATE.fullmatch(value)
        if match is None:
            raise wrong(_RATE_FORM, echo=True)
        limit, period = int(match.group(1)), int(match.group(2) or 1)
        if not limit or not period:
            raise wrong(
                "a rate of nothing would wait for ever: write at least 1, as in 1/s or 1/10m", echo=True
            )
        return cls(limit=limit, period=round(period * _SECONDS[match.group(3)], 9))
