"""`poller sandbox`: a local server that behaves like the platform."""

import dataclasses
import importlib
import math
from collections.abc import Callable, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic_core import PydanticCustomError

from poller.cli.common import fail, option, with_options

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str, option: str) -> float:
    """The seconds of a duration. A number without a unit means seconds."""
    number = text.rstrip("".join(_UNITS))
    try:
        found = float(number) * _UNITS[text.removeprefix(number) or "s"]
    except (KeyError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise typer.BadParameter(
            f"{text!r} is no duration such as 250ms, 10, 30s, 30m or 15d", param_hint=option
        )
    return found


def _seconds(param: typer.CallbackParam, value: str) -> float:
    return seconds(value, param.opts[0])


def _pair(param: typer.CallbackParam, value: str) -> tuple[float, float]:
    """Both durations of `MIN-MAX`. A single duration is both. A MIN without a unit has the unit of MAX."""
    low, dash, high = value.rpartition("-")
    if dash and low[-1:].isdigit():
        low += high.removeprefix(high.rstrip("".join(_UNITS)))
    pair = _seconds(param, low if dash else high), _seconds(param, high)
    if pair[0] > pair[1]:
        raise typer.BadParameter(f"{value!r} is not MIN-MAX", param_hint=param.opts[0])
    return pair


def _fault(text: str) -> tuple[str, float]:
    name, _, probability = text.partition("=")
    try:
        return name, float(probability or 1.0)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not NAME=P") from None


def _split_pair(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


# ---------------------------------------------------------------- the options, by the names of the sandbox's settings


def _address(name: str, said: str, default: str = "a free port") -> Parameter:
    return option(name, str | None, None, "HOST:PORT", said, show_default=default)


def _duration(name: str, default: str, said: str, read: Callable[..., Any] = _seconds) -> Parameter:
    return option(name, str, default, "DURATION", said, callback=read)


def _faults(name: str, spelled: str, said: str) -> Parameter:
    return option(name, list[str] | None, None, "NAME=P", said, spelled, show_default=False)


def _panel(title: str, *options: Parameter) -> tuple[Parameter, ...]:
    for one in options:
        one.default.rich_help_panel = title
    return options


FAULTS = ("faults", "cos_faults", "upload_faults", "callback_faults")
OPTIONS = (
    option(
        "directory",
        Path,
        ...,
        "DIR",
        "Folder for everything that the sandbox keeps.",
        file_okay=False,
        show_default=False,
    ),
    option(
        "customers",
        Path | None,
        None,
        "FILE",
        "YAML list of customers; see docs/guide/sandbox.md.",
        show_default="one customer, 1234",
    ),
    *_panel(
        "Where it listens",
        option(
            "listen",
            str,
            "127.0.0.1:0",
            "HOST:PORT",
            "Address of the signed interfaces; port 0 is a free one.",
        ),
        _address("rtmp_listen", "Address for RTMP pushes."),
        _address("cos_listen", "Address of the pictures."),
        _address("vod_listen", "Address of the recordings."),
        _address(
            "control_listen",
            "Address of the control port, which trusts every caller.",
            "a free port of 127.0.0.1",
        ),
    ),
    *_panel(
        "Streams",
        option("streams", int, 4, "N", "Number of streams that the sandbox pushes to itself.", min=0),
        option(
            "videos",
            list[Path] | None,
            None,
            "FILE",
            "H.264 video for these streams; may be repeated.",
            "--video",
            exists=True,
            dir_okay=False,
            show_default="a test pattern",
        ),
        _duration("interval", "10s", "Time between two pictures of a stream."),
        option(
            "exact",
            bool,
            False,
            None,
            "Take each picture at its exact frame, not at the keyframe before.",
            "--exact",
        ),
        _duration(
            "upload_delay", "0-15s", "Time until a picture can be fetched: random, from MIN-MAX.", _pair
        ),
        _duration("segment", "30m", "Longest segment of a recording."),
        _duration("retain", "15d", "Time after which pictures and recordings are deleted."),
    ),
    *_panel(
        "How it answers",
        option("era", str, "2016", "YEAR", "Form of answers and notifications: 2016, 2017, 2018 or today."),
        option(
            "empty",
            str | None,
            None,
            "FORM",
            "Answer of an empty queue: object, array, null, missing or 10003.",
            show_default="as in --era",
        ),
        option(
            "answer",
            list[str] | None,
            None,
            "NAME=VALUE",
            "Another property of the answers' form; may be repeated. A wrong NAME prints the names.",
            show_default=False,
        ),
        option(
            "rate_limit",
            float | None,
            None,
            "N",
            "Calls a second for each customer; further calls get error 1202.",
            show_default="no limit",
        ),
    ),
    *_panel(
        "What goes wrong",
        _faults(
            "faults",
            "--fault",
            "Fault of the signed interfaces, with its probability P from 0 to 1; may be repeated. "
            "A wrong NAME prints the names.",
        ),
        _faults("cos_faults", "--cos-fault", "The same for the picture host."),
        _faults("upload_faults", "--upload-fault", "The same for the upload of a picture."),
        _faults("callback_faults", "--callback-fault", "The same for a notification."),
        option(
            "queue_limit", int, 1_000_000, "N", "Messages that a queue holds; older ones are dropped.", min=1
        ),
        _duration("clock_offset", "0s", "How far the sandbox's clock is ahead."),
        option("seed", int, 0, "N", "Seed of every random choice."),
    ),
)


def sandbox(**given: Any) -> None:
    """Run the platform in a box, to develop without the cloud.

    One JSON line on stdout says where each part listens. The log goes to stderr.
    """
    platform = import_sandbox()
    try:
        options = _settings(platform, **given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(platform.main(options))


with_options(sandbox, OPTIONS)


def _settings(
    platform: Any,
    *,
    customers: Path | None,
    videos: list[Path] | None,
    era: str,
    empty: str | None,
    answer: list[str] | None,
    **others: Any,
) -> Any:
    answers, naming = platform.era(era)
    said = [_split_pair(text) for text in answer or ()] + ([("empty", empty)] if empty else [])
    faults = {name: dict(map(_fault, others.pop(name) or ())) for name in FAULTS}
    queries = {name: p for name, p in faults["faults"].items() if name in platform.QUERY_FAULTS}
    return platform.Options(
        customers=_customers(platform, customers),
        videos=tuple(videos or ()),
        answers=platform.change_form(answers, said),
        naming=naming,
        query_faults=queries,
        **faults,
        **others,
    )


_SECRETS = ("key", "push_key", "secret_id", "secret_key", "callback_key")


def _customers(platform: Any, file: Path | None) -> Sequence[Any]:
    if file is None:
        return (platform.Customer(),)
    from poller.settings.findings import close

    found, written = _customers_read(file)
    known = {item.name for item in dataclasses.fields(platform.Customer)}
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise typer.BadParameter(f"{file}: not a list of mappings (- app_id: …)")
    for number, one in enumerate(found, 1):
        for name in sorted(map(str, one.keys() - known)):  # not its value, which may be a secret
            near = close(name, known)
            named = f" {name}{near}" if near else f" (known: {', '.join(sorted(known))})"
            raise typer.BadParameter(f"{file}: customer {number} has an unknown setting{named}")
    pairs = enumerate(zip(found, written, strict=True), 1)
    return tuple(_customer(platform, file, number, *pair) for number, pair in pairs)


def _customer(
    platform: Any, file: Path, number: int, settings: dict[str, Any], written: dict[str, Any]
) -> Any:
    try:
        return platform.Customer(**_secrets(settings, written))
    except (TypeError, ValueError) as error:
        reason = str(error).removeprefix("Customer.__init__() got an ")
        raise typer.BadParameter(f"{file}: customer {number}: {reason}") from None


def _customers_read(file: Path) -> tuple[Any, Any]:
    """The values in the file, parsed and as strings. No error contains a line of the file, which may hold secrets."""
    try:
        text = file.read_text("utf-8-sig")
        return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)  # noqa: S506 - makes strings only
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file}: not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise typer.BadParameter(f"{file}: not YAML that can be read{where}") from None


def _secrets(one: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """The settings of a customer, with its secrets as strings: a secret of digits must not become a number."""
    from poller.settings.fields import visible

    found = dict(one)
    for name in _SECRETS:
        if one.get(name) is None:
            continue
        text = written[name]
        if not isinstance(text, str):
            raise ValueError(f"{name}: is no text")
        try:
            found[name] = visible(text)
        except PydanticCustomError as error:
            raise ValueError(f"{name}: {error.message()}") from None
    return found


def import_sandbox() -> Any:
    """Import the package of the sandbox, only for commands that need it. Ends the program if PyAV is missing."""
    try:
        importlib.import_module("poller.sandbox.sandbox")  # the package imports it when it is asked for
        return importlib.import_module("poller.sandbox")
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        fail("poller: the sandbox needs PyAV: pip install 'live-screenshot-poller[sandbox]'")
