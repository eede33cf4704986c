"""Decides the path of a picture below the directory, from the template and an event. Pure.

Invariants
    Every value from outside is percent-encoded, except for letters, digits and `_-.@#=+,`. The result is
    ASCII without separators. It can be decoded, and different values have different results. The encoding
    never gives `~`, so a name with an added `~` and hash never equals a name without.
"""

import difflib
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from poller.core.model import Event, identity

USUAL_KIND: Final = "screenshot"
PLACEHOLDERS: Final = ("date", "hour", "time", "account", "kind", "stream", "name", "id")
OPEN: Final = frozenset({"account", "stream", "name"})
"""The placeholders of variable length: with two of them in one part, different values could give the same text."""
LONGEST_PART: Final = 200
"""The most bytes in the name of a folder or file. The limit of file systems is 255, and `.json` may be added."""
LONGEST_LITERAL: Final = 100
LONGEST_ENDING: Final = 16
TAG: Final = 16
"""Hex digits of a hash: enough to make a second name with the same hash infeasible to find."""
EMPTY: Final = "%empty"
"""Replaces an empty value. The encoding never gives it, because its hex digits are upper case."""

_KEPT: Final = re.compile(r"[A-Za-z0-9_@#=+,]([A-Za-z0-9_.@#=+,-]*[A-Za-z0-9_@#=+,-])?")
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.@#=+,")
_SPELLED: Final = tuple(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256))
_LITERAL: Final = re.compile(r"[A-Za-z0-9_@=+,.-]*")
_RESERVED: Final = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?", re.IGNORECASE | re.ASCII)
_HEX: Final = re.compile(r"[0-9a-f]{32}")
_BEIJING: Final = timedelta(hours=8)


class PicturePath(msgspec.Struct, frozen=True, kw_only=True):
    """A picture's folders below the directory, outermost first, and its file name."""

    folders: tuple[str, ...]
    name: str


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Makes the paths of pictures, from a checked template that is split at slashes and placeholders.

    In each part, literal texts (which may be empty) and placeholders alternate, beginning and ending with a
    text. `lone` means that all events come from one account. `folds` means that the disk ignores case in
    names.
    """

    parts: tuple[tuple[str, ...], ...]
    lone: bool = True
    folds: bool = False

    def uses(self, placeholder: str) -> bool:
        """Whether the template contains this placeholder."""
        return any(placeholder in part[1::2] for part in self.parts)

    def place(self, event: Event, path: str) -> PicturePath:
        """The place of an event's picture. `path` is the decoded path of its URL.

        Two events with different ids never get the same place.
        """
        values = self._values(event, path)
        made = [self._part(part, values) for part in self.parts]
        return PicturePath(folders=tuple(made[:-1]), name=made[-1])

    def _values(self, event: Event, path: str) -> dict[str, str]:
        when = event.occurred_at.astimezone(UTC)
        return {
            "date": f"{when.year:04}-{when.month:02}-{when.day:02}",
            "hour": f"{when.hour:02}",
            "time": f"{when.year:04}{when.month:02}{when.day:02}T{when.hour:02}{when.minute:02}{when.second:02}",
            "account": self._folder_value(event.account),
            "kind": self._folder_value(event.kind),
            "stream": self._folder_value(event.stream_id),
            "name": self._name_value(event, path),
            "id": encode_value(event.id),
        }

    def _folder_value(self, raw: str) -> str:
        value = encode_value(raw)
        return f"{value}~{_digest(raw)}" if self._twins(value) else value

    def _name_value(self, event: Event, path: str) -> str:
        folders, _, raw = path.rpartition("/")
        name = encode_value(raw)
        if self.uses("id"):
            return name
        folder = folders.rpartition("/")[2]
        if self._fixes(event, folder, raw) and not self._twins(name) and not name.lower().endswith(".json"):
            return name
        return with_tag(name, event.id[:TAG] if _HEX.fullmatch(event.id) else _digest(event.id))

    def _fixes(self, event: Event, folder: str, name: str) -> bool:
        # The id is a hash of the event's identity. If the file name alone gives that hash, no other event of
        # the account and kind has the name. So does a date folder with the name, if the template has the date.
        if not (self.lone or self.uses("account")) or not (event.kind == USUAL_KIND or self.uses("kind")):
            return False
        if event.id == identity(event.kind, event.account, name):
            return True
        dated = self.uses("date") and folder == _beijing_date(event.occurred_at)
        return dated and event.id == identity(event.kind, event.account, f"{folder}/{name}")

    def _twins(self, value: str) -> bool:
        return self.folds and value != value.lower()

    def _part(self, part: tuple[str, ...], values: dict[str, str]) -> str:
        text = "".join(values[piece] if index % 2 else piece for index, piece in enumerate(part))
        if len(text) > LONGEST_PART:
            text = _cut(text)
        if _RESERVED.fullmatch(text):
            return f"%{ord(text[0]):02X}{text[1:]}"
        return text


# ---------------------------------------------------------------- the template


def parse_template(text: str) -> tuple[tuple[str, ...], ...]:
    """Split a template into parts; raises `ValueError`, whose text says what is wrong with the template."""
    parts = tuple(tuple(re.split(r"\{([^{}]*)\}", part)) for part in text.split("/"))
    names = [name for part in parts for name in part[1::2]]
    for name in names:
        if name not in PLACEHOLDERS:
            raise ValueError(_unknown(name))
    for part in parts:
        _check_part(part, with_id="id" in names)
    if "name" not in names and "id" not in names:
        raise ValueError("must hold {name} or {id}, or every picture would get the same name")
    return parts


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, PLACEHOLDERS, n=1)
    if close:
        return f"unknown placeholder {{{name}}}, did you mean {{{close[0]}}}?"
    return f"unknown placeholder {{{name}}}: there are " + ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)


def _check_part(part: tuple[str, ...], *, with_id: bool) -> None:
    literals, names = part[0::2], part[1::2]
    whole = "".join(literals)
    if not whole and not names:
        raise ValueError("holds an empty part: no slash at either end, no two in a row")
    if not _LITERAL.fullmatch(whole):
        raise ValueError("between placeholders and slashes only letters, digits and _@=+,.- may stand")
    if literals[0][:1] in {".", "-"}:
        raise ValueError("no part may begin with a dot or a dash")
    if len(whole) > LONGEST_LITERAL:
        raise ValueError(f"a part's own text may be {LONGEST_LITERAL} characters long")
    if len(OPEN.intersection(names)) > 1 and not with_id:
        raise ValueError("{account}, {stream} and {name} each need a part of their own (or add {id})")


# ---------------------------------------------------------------- names


def encode_value(value: str) -> str:
    """The value with `%XX` for every unsafe byte, for a leading dot or dash, and for a dot at the end."""
    if _KEPT.fullmatch(value):
        return value
    spelled = [_SPELLED[byte] for byte in value.encode("utf-8", "surrogatepass")]
    if not spelled:
        return EMPTY
    if spelled[0] in {".", "-"}:
        spelled[0] = f"%{ord(spelled[0]):02X}"
    if spelled[-1] == ".":
        spelled[-1] = "%2E"
    return "".join(spelled)


def with_tag(name: str, tag: str) -> str:
    """The name with `~` and a tag before its ending."""
    stem, ending = _split(name)
    return f"{stem}~{tag}{ending}"


def _cut(text: str) -> str:
    # only the end of the stem is cut, and never within a %XX, so that the rest can be decoded
    stem, ending = _split(text)
    room = LONGEST_PART - len(ending) - 1 - TAG
    return re.sub(r"%[0-9A-F]?\Z", "", stem[:room]) + f"~{_digest(text)}{ending}"


def _split(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending) if stem and len(ending) < LONGEST_ENDING else (name, "")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=TAG // 2).hexdigest()


def _beijing_date(when: datetime) -> str:
    try:
        return f"{(when.astimezone(UTC) + _BEIJING).date()}"
    except OverflowError:
        return ""
