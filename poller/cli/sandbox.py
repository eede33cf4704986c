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


def seconds(text: str, option: str) -> float:
    """The seconds of a duration; a number without a unit is in seconds."""
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


def _pair(text: str, option: str) -> tuple[float, float]:
    """`MIN-MAX`, or one for both; a MIN without a unit has MAX's."""
    low, dash, high = text.rpartition("-")
    if dash and low[-1:].isdigit():
        low += high.removeprefix(high.rstrip("".join(_UNITS)))
    pair = seconds(low if dash else high, option), seconds(high, option)
    if pair[0] > pair[1]:
        raise typer.BadParameter(f"{text!r} is not MIN-MAX", param_hint=option)
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
        Path,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Folder for everything that the sandbox keeps.",
            show_default=False,
        ),
    ],
    customers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML list of customers; see docs/guide/sandbox.md.",
            show_default="one customer, 1234",
        ),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the signed interfaces; port 0 is a free one.",
            rich_help_panel=WHERE,
        ),
    ] = "127.0.0.1:0",
    rtmp_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address for RTMP pushes.",
            rich_help_panel=WHERE,
            show_default="a free port",
        ),
    ] = None,
    cos_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the pictures.",
            rich_help_panel=WHERE,
            show_default="a free port",
        ),
    ] = None,
    vod_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the recordings.",
            rich_help_panel=WHERE,
            show_default="a free port",
        ),
    ] = None,
    control_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the control port, which trusts every caller.",
            rich_help_panel=WHERE,
            show_default="a free port of 127.0.0.1",
        ),
    ] = None,
    streams: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Number of streams that the sandbox pushes to itself.",
            rich_help_panel=MEDIA,
        ),
    ] = 4,
    video: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="H.264 video for these streams; may be repeated.",
            rich_help_panel=MEDIA,
            show_default="a test pattern",
        ),
    ] = None,
    interval: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="Time between two pictures of a stream.", rich_help_panel=MEDIA
        ),
    ] = "10s",
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Take each picture at its exact frame, not at the keyframe before.",
            rich_help_panel=MEDIA,
        ),
    ] = False,
    upload_delay: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Time until a picture can be fetched: random, from MIN-MAX.",
            rich_help_panel=MEDIA,
        ),
    ] = "0-15s",
    segment: Annotated[
        str, typer.Option(metavar="DURATION", help="Longest segment of a recording.", rich_help_panel=MEDIA)
    ] = "30m",
    retain: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Time after which pictures and recordings are deleted.",
            rich_help_panel=MEDIA,
        ),
    ] = "15d",
    era: Annotated[
        str,
        typer.Option(
            metavar="YEAR",
            help="Form of answers and notifications: 2016, 2017, 2018 or today.",
            rich_help_panel=FORMS,
        ),
    ] = "2016",
    empty: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="Answer of an empty queue: object, array, null, missing or 10003.",
            rich_help_panel=FORMS,
            show_default="as in --era",
        ),
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another property of the answers' form; may be repeated. A wrong NAME prints the names.",
            show_default=False,
            rich_help_panel=FORMS,
        ),
    ] = None,
    rate_limit: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Calls a second for each customer; further calls get error 1202.",
            rich_help_panel=FORMS,
            show_default="no limit",
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=P",
            help="Fault of the signed interfaces, with its probability P from 0 to 1; may be repeated. "
            "A wrong NAME prints the names.",
            show_default=False,
            rich_help_panel=FAULTS,
        ),
    ] = None,
    cos_fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=P",
            help="The same for the picture host.",
            show_default=False,
            rich_help_panel=FAULTS,
        ),
    ] = None,
    upload_fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=P",
            help="The same for the upload of a picture.",
            show_default=False,
            rich_help_panel=FAULTS,
        ),
    ] = None,
    callback_fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=P", help="The same for a notification.", show_default=False, rich_help_panel=FAULTS
        ),
    ] = None,
    queue_limit: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Messages that a queue holds; older ones are dropped.",
            rich_help_panel=FAULTS,
        ),
    ] = 1_000_000,
    clock_offset: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="How far the sandbox's clock is ahead.", rich_help_panel=FAULTS
        ),
    ] = "0s",
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of every random choice.", rich_help_panel=FAULTS)
    ] = 0,
) -> None:
    """Run the platform in a box, to develop without the cloud.

    One JSON line on stdout says where each part listens. The log goes to stderr.
    """
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
            interval=seconds(interval, "--interval"),
            exact=exact,
            upload_delay=_pair(upload_delay, "--upload-delay"),
            segment=seconds(segment, "--segment"),
            retain=seconds(retain, "--retain"),
            answers=platform.formed(answers, said),
            naming=naming,
            rate_limit=rate_limit,
            faults=faults,
            query_faults={name: p for name, p in faults.items() if name in platform.QUERY_FAULTS},
            cos_faults=dict(_fault(text) for text in cos_fault or ()),
            upload_faults=dict(_fault(text) for text in upload_fault or ()),
            callback_faults=dict(_fault(text) for text in callback_fault or ()),
            queue_limit=queue_limit,
            clock_offset=seconds(clock_offset, "--clock-offset"),
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
