"""The platform in a box, on the command line."""

import dataclasses
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic_core import PydanticCustomError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(text: str) -> float:
    number = text.rstrip("".join(_UNITS))
    try:
        seconds = float(number) * _UNITS[text.removeprefix(number) or "s"]
    except (KeyError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise typer.BadParameter(f"{text!r} is no duration such as 250ms, 10, 30s, 30m or 15d")
    return seconds


def _pair(text: str) -> tuple[float, float]:
    """`MIN-MAX`, or one for both; a MIN without a unit has MAX's."""
    low, dash, high = text.rpartition("-")
    if dash and low[-1:].isdigit():
        low += high.removeprefix(high.rstrip("".join(_UNITS)))
    pair = _seconds(low if dash else high), _seconds(high)
    if pair[0] > pair[1]:
        raise typer.BadParameter(f"{text!r} is not MIN-MAX")
    return pair


def _fault(text: str) -> tuple[str, float]:
    name, _, probability = text.partition("=")
    try:
        return name, float(probability or 1.0)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not NAME=P") from None


def _named(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


WHERE, MEDIA, FORMS, FAULTS = "Where it listens", "Streams", "How it answers", "What goes wrong"


def sandbox(
    directory: Annotated[
        Path, typer.Option(metavar="DIR", help="Where it keeps everything.", show_default=False)
    ],
    customers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A YAML list of customers; see docs/guide/sandbox.md.", show_default=False
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The query interface.", rich_help_panel=WHERE)
    ] = "127.0.0.1:0",
    rtmp_listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Pushes. Default: a free port.", rich_help_panel=WHERE),
    ] = None,
    cos_listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Pictures. Default: a free port.", rich_help_panel=WHERE),
    ] = None,
    vod_listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Recordings. Default: a free port.", rich_help_panel=WHERE),
    ] = None,
    control_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The control port, which trusts whoever reaches it. Default: a free port of 127.0.0.1.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    streams: Annotated[
        int, typer.Option(min=0, help="Streams it pushes to itself from the start.", rich_help_panel=MEDIA)
    ] = 4,
    video: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="H.264 video for them; may be repeated. Default: a test pattern.",
            show_default=False,
            rich_help_panel=MEDIA,
        ),
    ] = None,
    interval: Annotated[
        str,
        typer.Option(metavar="DURATION", help="Between two pictures of a stream.", rich_help_panel=MEDIA),
    ] = "10s",
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Pictures of the very frame, not of the keyframe before.", rich_help_panel=MEDIA
        ),
    ] = False,
    upload_delay: Annotated[
        str,
        typer.Option(
            metavar="MIN-MAX", help="Until a picture can be fetched, random.", rich_help_panel=MEDIA
        ),
    ] = "0-15s",
    segment: Annotated[
        str, typer.Option(metavar="DURATION", help="No recording is longer.", rich_help_panel=MEDIA)
    ] = "30m",
    retain: Annotated[
        str, typer.Option(metavar="DURATION", help="How long all is kept.", rich_help_panel=MEDIA)
    ] = "15d",
    era: Annotated[
        str, typer.Option(metavar="YEAR", help="2016, 2017, 2018 or today.", rich_help_panel=FORMS)
    ] = "2016",
    empty: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="What is said when nothing is there: object, array, null, missing, 10003.",
            rich_help_panel=FORMS,
        ),
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Any other property of the answers' form; may be repeated. A wrong NAME lists them.",
            show_default=False,
            rich_help_panel=FORMS,
        ),
    ] = None,
    rate_limit: Annotated[
        float | None,
        typer.Option(metavar="CALLS", help="A second and customer; beyond it 1202.", rich_help_panel=FORMS),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=P",
            help="A fault of the interfaces and its probability; may be repeated. A wrong NAME lists them.",
            show_default=False,
            rich_help_panel=FAULTS,
        ),
    ] = None,
    cos_fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=P", help="Of the picture host.", show_default=False, rich_help_panel=FAULTS
        ),
    ] = None,
    upload_fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=P", help="Of a picture's upload.", show_default=False, rich_help_panel=FAULTS
        ),
    ] = None,
    callback_fault: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=P", help="Of a notification.", show_default=False, rich_help_panel=FAULTS),
    ] = None,
    queue_limit: Annotated[
        int,
        typer.Option(min=1, help="Messages a queue holds; the oldest are dropped.", rich_help_panel=FAULTS),
    ] = 1_000_000,
    clock_offset: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How far its clock is ahead.", rich_help_panel=FAULTS),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Fixes every random choice.", rich_help_panel=FAULTS)] = 0,
) -> None:
    """The platform in a box; one JSON line on stdout says where each part listens."""
    platform = the_platform()
    try:
        answers, naming = platform.era(era)
        said = [_named(text) for text in answer or ()] + ([("empty", empty)] if empty else [])
        faults = dict(_fault(text) for text in fault or ())
        options = platform.Options(
            directory=directory,
            customers=_customers(platform, customers),
            listen=listen,
            rtmp_listen=rtmp_listen,
            cos_listen=cos_listen,
            vod_listen=vod_listen,
            control_listen=control_listen,
            streams=streams,
            videos=tuple(video or ()),
            interval=_seconds(interval),
            exact=exact,
            upload_delay=_pair(upload_delay),
            segment=_seconds(segment),
            retain=_seconds(retain),
            answers=platform.formed(answers, said),
            naming=naming,
            rate_limit=rate_limit,
            faults=faults,
            query_faults={name: p for name, p in faults.items() if name in platform.QUERY_FAULTS},
            cos_faults=dict(_fault(text) for text in cos_fault or ()),
            upload_faults=dict(_fault(text) for text in upload_fault or ()),
            callback_faults=dict(_fault(text) for text in callback_fault or ()),
            queue_limit=queue_limit,
            clock_offset=clock_offset,
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(platform.main(options))


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
        for name in sorted(map(str, one.keys() - known)):  # a key in a wrong place may be a secret
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
    """The file's values, and the same as they are written; no error holds a line of the file."""
    try:
        text = file.read_text("utf-8-sig")
        return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)  # noqa: S506 - it makes texts only
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file}: not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise typer.BadParameter(f"{file}: not YAML that can be read{where}") from None


def _secrets(one: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """A customer with its secrets as they are written, so that one of digits stays what it is."""
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


def the_platform() -> Any:
    """The sandbox's package, imported only by those who use it; ends the program if PyAV is missing."""
    try:
        return importlib.import_module("poller.sandbox")
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        typer.echo("the sandbox needs PyAV: pip install 'live-screenshot-poller[sandbox]'", err=True)
        raise typer.Exit(1) from None
