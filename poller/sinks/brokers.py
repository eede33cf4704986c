"""What sinks to message brokers share: the CloudEvents modes, names by template, and the check of addresses."""

import re
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ssl import SSLError
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, quote, urlsplit

import msgspec
from pydantic import AfterValidator

from poller.core.errors import PartlyFailed, SinkError, TryLater
from poller.core.model import Batch, Event
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.settings import wrong

Mode = Literal["structured", "binary"]
MODE_DESCRIPTION: Final = (
    "structured: the message is the event as CloudEvents JSON. "
    "binary: the message is its data, and the rest is in headers."
)
STRUCTURED: Final = "application/cloudevents+json"
DATA: Final = "application/json"
FIELDS: Final = ("account", "kind", "stream")


class _Public(msgspec.Struct, frozen=True, gc=False):
    """The parts of an event's public form."""

    id: str
    source: str
    type: str
    time: str
    data: msgspec.Raw
    specversion: str = "1.0"
    subject: str | None = None


_read = msgspec.json.Decoder(_Public).decode


def attributes(event: Event) -> tuple[dict[str, str], bytes]:
    """The CloudEvents attributes of an event, without the content type, and its data as JSON."""
    public = _read(event.encoded)
    found = {
        "specversion": public.specversion,
        "id": public.id,
        "source": public.source,
        "type": public.type,
        "time": public.time,
    }
    if public.subject is not None:
        found["subject"] = public.subject
    return found, bytes(public.data)


def header_value(text: str) -> str:
    """A value for a header that takes only printable ASCII, percent-encoded as the CloudEvents HTTP binding does."""
    return quote(text, safe=_PLAIN)


_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


# ---------------------------------------------------------------- names by template


def _template(text: str) -> str:
    try:
        fields = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError:
        raise wrong("a brace stands for a field, such as {stream}") from None
    if any(form or conversion for _, _, form, conversion in fields):
        raise wrong("a field is written {stream}, without : or !")
    if unknown := [name for _, name, _, _ in fields if name not in FIELDS]:
        raise wrong(f"{{{unknown[0]}}} is no field: there are {', '.join(f'{{{name}}}' for name in FIELDS)}")
    return text


Template = Annotated[str, AfterValidator(_template)]
"""A name with `{account}`, `{kind}` and `{stream}`."""


def fill_in(template: str, event: Event, unsafe: re.Pattern[str]) -> str:
    """The name for an event. Characters that match `unsafe` in its fields become `_`, and an empty field is `_`."""
    stream = event.stream_id if "{stream" in template else ""
    return _filled_in(template, event.account, event.kind, stream, unsafe)


@lru_cache(maxsize=4096)
def _filled_in(template: str, account: str, kind: str, stream: str, unsafe: re.Pattern[str]) -> str:
    fields = {"account": account, "kind": kind, "stream": stream}
    return template.format_map({name: unsafe.sub("_", value) or "_" for name, value in fields.items()})


# ---------------------------------------------------------------- errors

LOGIN_REFUSED: Final = "the server refuses the login: check user and password"
LOST: Final = "connection lost"


def unreachable(error: BaseException | None) -> str:
    """Why a server could not be connected to, from an error of a library or from what caused it."""
    while error is not None:
        if isinstance(error, SSLError):
            return "TLS fails: check the certificates"
        if isinstance(error, TimeoutError):
            return "no answer in time"
        if isinstance(error, OSError):
            return "no server answers"
        error = error.__cause__ or error.__context__
    return LOST


# ---------------------------------------------------------------- addresses


def server_parts(server: str, form: str) -> SplitResult:
    """The parts of a server's URL. `form` is what the error says where no host and port can be read, or where more
    follows the path."""
    try:
        parts = urlsplit(server)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x20\x7f?#]", server):
        raise wrong(f"{form}, with a port from 1 to 65535 if any")
    if "@" in parts.netloc:
        raise wrong("a name and a password do not belong in the URL: use user and password_file")
    return parts


async def check_hosts(resolver: Resolver, guard: AddressGuard, places: Sequence[tuple[str, int]]) -> None:
    """Raise `TryLater` unless every address of these hosts may be connected to, and at least one host is known."""
    unknown: list[str] = []
    for host, port in places:
        try:
            found = await resolver.resolve(host, port)
        except OSError:
            unknown.append(host)
            continue
        for _, _, _, _, target in found:
            if not guard.allows(str(target[0])):
                raise TryLater(f"{target[0]} is not a public address; allow_cidr can permit it")
    if len(unknown) == len(places):
        raise TryLater(f"{unknown[0]}: name not resolved")


def messages(events: Sequence[Event], mode: Mode, prefix: str) -> list[tuple[Mapping[str, str], bytes]]:
    """Headers and body of the message for each event. In binary mode, `prefix` begins the name of a header."""
    if mode == "structured":
        headers = {"content-type": STRUCTURED}
        return [(headers, event.encoded) for event in events]
    found: list[tuple[Mapping[str, str], bytes]] = []
    for event in events:
        named, data = attributes(event)
        found.append(
            ({"content-type": DATA, **{prefix + name: value for name, value in named.items()}}, data)
        )
    return found


def raise_for(batch: Batch, failures: Mapping[str, SinkError]) -> None:
    """Raise what a batch's failures, by the event's id, amount to.

    If no event could be delivered for now, the batch has failed as a whole, so that a sink that is down is paused. Its
    reason is then that of each event, if they differ.
    """
    if len(failures) == len(batch.events) == 1:
        raise next(iter(failures.values()))
    if len(failures) == len(batch.events) and all(isinstance(one, TryLater) for one in failures.values()):
        raise TryLater("; ".join(dict.fromkeys(one.reason for one in failures.values())))
    if failures:
        raise PartlyFailed(failures)
