"""Masks signatures and push secrets before anything is stored, logged or shown. Pure.

A value is a secret because of its name. Names are compared without case, separators and escapes. In JSON, the
decoded names and values are checked, also in JSON inside strings, at any depth up to a limit. Anything else (URLs,
forms, bytes that cannot be decoded) is checked by a rule on the text, which recognises every escape of a name.

A picture's own `sign=` inside its URL stays in a message: a private bucket's URL is worth nothing without it.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final

from poller.qcloud.wire.splitting import is_json, unescape

MASK: Final = "***"
_PUSH_WORDS: Final = ("txsecret", "txtime", "streamparam")
_NAMING: Final = frozenset({"key", "name", "k", "n", "field", "param", "parameter"})
"""Members whose value is the name of another member's value: `{"key": "txSecret", "value": …}`."""
_SEPARATORS: Final = "_-. +[]/"
_MOST_NESTED: Final = 5

# ---------------------------------------------------------------- how a character may be written


def spelling_pattern(characters: str) -> str:
    """A pattern for one of these characters: raw, or escaped as in URLs (also repeatedly), JSON or HTML."""
    codes = "|".join(sorted({f"{ord(each):02x}" for each in characters}))
    decimal = "|".join(sorted({str(ord(each)) for each in characters}))
    raw = "".join(re.escape(each) for each in characters)
    entity = rf"&(?:amp;)*+\#(?:x0*+(?:{codes})|0*+(?:{decimal}));"
    return rf"(?:[{raw}]|%(?:25)*+(?:{codes})|(?<!\\)\\++(?:u00|x)(?:{codes})|{entity})"


def _name(word: str) -> str:
    """A pattern for a name, with separators anywhere in it and behind it."""
    between = spelling_pattern(_SEPARATORS) + "*+"
    return "".join(spelling_pattern(each + each.upper()) + between for each in word)


_QUOTE = rf"(?:\\*+[\"']|&quot;|{spelling_pattern(chr(34) + chr(39))})"
_SPACE = rf"(?:\s|{spelling_pattern(' +')})*+"
_IS = rf"(?P<coded>(?!=|:){spelling_pattern('=:')}|&(?:amp;)*+(?:equals|colon);)|(?:=>?|:|>)"
_OPENS = r"(?P<opens>\\*+[\"'])|(?P<coded_opens>%(?:25)*+2[27]|&quot;|(?<!\\)\\++u002[27])"
_INDEX = rf"(?:[0-9]{{1,3}}+{spelling_pattern(_SEPARATORS)}*+)?"
_PUSH: Final = f"(?:{_name('txsecret')}|{_name('txtime')}|{_name('streamparam')}(?:{_name('s')})?){_INDEX}"
_APART = (
    r"(?:(?<![a-z0-9])|(?<=%[0-9a-f]{2})|(?<=%25[0-9a-f]{2})|(?<=%2525[0-9a-f]{2})|(?<=\\u00[0-9a-f]{2}))"
)


class _Rule:
    """A pattern that is compiled when it is first searched for. To compile all takes a quarter of a command's start."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern.encode()

    @cached_property
    def search(self) -> Callable[..., re.Match[bytes] | None]:
        return re.compile(self._pattern).search


def _member(names: str, quoted: str) -> _Rule:
    """A pattern for a name and the separator before its value. Names in `quoted` count only before a quote."""
    return _Rule(
        rf"(?i)(?:(?:{names})(?P<quote>{_QUOTE})?|{_APART}(?:{quoted})(?P<close>{_QUOTE}))"
        rf"{_SPACE}(?:{_IS}){_SPACE}(?:{_OPENS})?"
    )


_PAIRED: Final = _Rule(
    rf"(?i)(?:{_PUSH})(?P<quote>\\*+[\"'])\s*+,\s*+(?:\\*+[\"'][a-z_]{{1,16}}+\\*+[\"']\s*+:\s*+)?"
    rf"(?:{_OPENS})?(?P<close>(?!))?(?P<coded>(?!))?"
)
"""In torn JSON: a secret's name, itself a value, and the text up to the secret beside it."""
_IN_MESSAGE = _member(_PUSH, _name("sign"))
_ANYWHERE = _member(f"{_PUSH}|{_APART}{_name('sign')}", _name("key"))

# ---------------------------------------------------------------- whether there can be anything to mask

_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
_FOLDED = (
    b"txsecret",
    b"txtime",
    b"streamparam",
    b'sign"',
    b"sign'",
    b"sign\\",
    b"sign&",
    b"sign%",
    b"tx%",
    b"stream%",
)
_ESCAPED_LETTER = re.compile(
    rb"%(?:25)*+(?:[46][1-9a-f]|[57][0-9a]|5f|2[de])|\\(?:u00|x)(?:[46][1-9a-f]|[57][0-9af]|2[027bde])|&#"
)


_ODD_LETTER = re.compile(
    rb"\xef[\xb8-\xbd]|\xe2[\x80\x81\x84\x85\x92\x93]|\xc2[\xa0\xad]|\xf0\x9d"
    rb"|\\u(?:f[ef]|20|21|24|00a[0d]|d835)"
)
"""A letter of full width or of another form, or a character that nobody sees, as UTF-8 or as JSON escapes it."""


def may_hold_secret(text: bytes) -> bool:
    """Whether `redact_message` may change something: true too often, never false by mistake. Quick."""
    folded = text.translate(_FOLD, _SEPARATORS.encode())
    if any(word in folded for word in _FOLDED):
        return True
    if (not text.isascii() or b"\\u" in text) and _ODD_LETTER.search(folded) is not None:
        return True
    return (b"%" in text or b"\\" in text or b"&#" in text) and _ESCAPED_LETTER.search(folded) is not None


# ---------------------------------------------------------------- the ways in


def redact(text: bytes, *secrets: str) -> bytes:
    """Mask signatures, push secrets, and each of `secrets`, in bytes for the quarantine or the log.

    Here a `sign=` in a URL is masked too.
    """
    masked = _mask(text, _ANYWHERE)
    for secret in secrets:
        masked = blank(masked, secret)
    return masked


def redact_text(text: str, *secrets: str) -> str:
    """Mask a text as `redact` masks bytes."""
    return redact(text.encode("utf-8", "replace"), *secrets).decode("utf-8", "replace")


def redact_message(message: bytes) -> bytes:
    """Mask the push secret and the notification's signature in one JSON object, which stays valid JSON.

    A `sign=` inside a picture's URL stays: a private bucket's URL is worth nothing without it.
    """
    return _mask(message, _IN_MESSAGE) if may_hold_secret(message) else message


def redact_value(value: object, *secrets: str) -> object:
    """Mask the same in a decoded JSON value, and every one of `secrets`."""
    if isinstance(value, dict):
        beside = _beside(list(value.items()))
        return {
            _inner(_blank_secrets(name, secrets)): MASK
            if hidden or _is_secret(name)
            else redact_value(member, *secrets)
            for hidden, (name, member) in zip(beside, value.items(), strict=True)
        }
    if isinstance(value, list):
        beside = _beside([(None, member) for member in value])
        return [
            MASK if hidden else redact_value(member, *secrets)
            for hidden, member in zip(beside, value, strict=True)
        ]
    return _inner(_blank_secrets(value, secrets)) if isinstance(value, str) else value


def blank(text: bytes, secret: str) -> bytes:
    """Overwrite a secret with asterisks of the same length, in UTF-8 and UTF-16."""
    if not secret:
        return text
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        needle = secret.encode(encoding)
        if needle in text:
            text = text.replace(needle, ("*" * len(secret)).encode(encoding))
    return text


def _blank_secrets(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "*" * len(secret))
    return text


# ---------------------------------------------------------------- decoded names and values

_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(\s*+:\s*+)?|[\[\]{}]', re.DOTALL)
_ANY_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(\s*+:\s*+)?|[\[\]{}]|[^\s,:"\[\]{}]++', re.DOTALL)
_Frame = tuple[int, str | None, list[tuple[str | None, str | None, tuple[int, int]]]]
"""An open object or list: its offset, its name, and its members with their names, texts and offsets."""
_NAMED_BY_VALUE = re.compile(
    r"(?i)\"[^\"a-z]*(?:t[^\"a-z]*x|s[^\"a-z]*t[^\"a-z]*r|\\+u)[^\"]{0,64}\"\s*[,}\]]"
)
"""A value that may be the name of a secret: true too often, never false by mistake."""
_SCALAR = re.compile(rb"[^,\]}\s]*+")
_MARK = re.compile(r"[=:%&\\>]")


def _is_secret(name: str, also: bool = False) -> bool:
    """Whether this names a secret, also as a part of a longer name (`params[txSecret]`)."""
    folded = _fold(name)
    return folded == "sign" or any(word in folded for word in _PUSH_WORDS) or (also and folded == "key")


def _fold(name: str) -> str:
    return "".join(each for each in _without_lookalikes(name) if each.isalnum()).lower()


def _without_lookalikes(text: str) -> str:
    """The text without other scripts' forms of the letters, and without characters that nobody sees."""
    if text.isascii():
        return text
    return _UNSEEN.sub("", unicodedata.normalize("NFKC", text))


_UNSEEN = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0001-\U000e01ef]"
)


def _beside(members: Sequence[tuple[str | None, object]]) -> list[bool]:
    """For each member of one object or list: whether its value is a secret that another member names."""
    naming = [
        isinstance(value, str)
        and len(value) < _LONGEST_NAME
        and _fold(value).removesuffix("s") in _PUSH_WORDS
        and (name is None or _fold(name) in _NAMING)
        for name, value in members
    ]
    if not any(naming):
        return naming
    if members[0][0] is None:
        return [False, *naming[:-1]]
    return [not named for named in naming]


_LONGEST_NAME: Final = 64


def _mask(text: bytes, members: _Rule, level: int = 0) -> bytes:
    """Mask JSON by its names and values, and anything else by the rule on text."""
    if level < _MOST_NESTED and text.lstrip()[:1] in (b"{", b"[", b'"') and _is_decodable(text):
        return _mask_json(text, members, level)
    return _mask_text(text, members)


def _is_decodable(text: bytes) -> bool:
    try:
        text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return is_json(text)


def _mask_json(text: bytes, members: _Rule, level: int) -> bytes:
    """Replace values in place: numbers, order and repeated names of the rest stay as they were written."""
    pieces: list[bytes] = []
    done = 0
    for token in _TOKEN.finditer(text := _mask_beside(text)):
        content, leads = token.groups()
        if token.start() < done or content is None:
            continue
        plain = unescape(content).decode("utf-8", "surrogatepass")
        if (masked := _inner(plain, members, level + 1)) != plain:
            pieces += [text[done : token.start()], json.dumps(masked).encode()]
            done = token.end(1) + 1
        if leads is not None and _is_secret(plain, members is _ANYWHERE):
            pieces += [text[done : token.end()], b'"' + MASK.encode() + b'"']
            done = _value_end(text, token.end())
    return b"".join(pieces) + text[done:]


def _mask_beside(text: bytes) -> bytes:
    """Mask, in place, each secret that a member beside it names."""
    if not _NAMED_BY_VALUE.search(_without_lookalikes(text.decode("utf-8", "surrogatepass"))):
        return text
    pieces: list[bytes] = []
    done = 0
    for start, end in sorted(_spans_beside(text)):
        if start >= done:
            pieces += [text[done:start], b'"' + MASK.encode() + b'"']
            done = end
    return b"".join(pieces) + text[done:]


def _spans_beside(text: bytes) -> Iterator[tuple[int, int]]:
    frames: list[_Frame] = [(0, None, [])]
    name: str | None = None
    for token in _ANY_TOKEN.finditer(text):
        content, leads = token.groups()
        plain = None if content is None else unescape(content).decode("utf-8", "surrogatepass")
        if leads is not None:
            name = plain
            continue
        if token[0] in (b"{", b"["):
            frames.append((token.start(), name, []))
        elif token[0] in (b"}", b"]"):
            start, name, members = frames.pop()
            found = _beside([(member[0], member[1]) for member in members])
            yield from (member[2] for hidden, member in zip(found, members, strict=True) if hidden)
            frames[-1][2].append((name, None, (start, token.end())))
        else:
            frames[-1][2].append((name, plain, token.span()))
        name = None


def _value_end(text: bytes, start: int) -> int:
    if text[start : start + 1] not in (b'"', b"{", b"["):
        found = _SCALAR.match(text, start)
        return found.end() if found else start
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token.group(1) is None:
            depth += 1 if token.group() in (b"{", b"[") else -1
        if depth == 0:
            return token.end() if token.group(1) is None else token.end(1) + 1
    return len(text)


def _inner(text: str, members: _Rule = _IN_MESSAGE, level: int = 0) -> str:
    """Mask a decoded text, which may be a URL, a form, or JSON."""
    plain = _without_lookalikes(text)
    if plain != text and (masked_plain := _inner(plain, members, level)) != plain:
        return masked_plain
    if not _MARK.search(text):
        return text
    inner = text.encode("utf-8", "surrogatepass")
    if members is _IN_MESSAGE and not may_hold_secret(inner):
        return text
    masked = _mask(inner, members, level)
    return text if masked == inner else masked.decode("utf-8", "surrogatepass")


# ---------------------------------------------------------------- the rule on text

_ENDS = rb"[^&\"'\s<>\\,;)]|\\/|\\u(?!00(?:2[0267c]|3[bce]|0a))[0-9a-f]{4}"
_PLAIN_END = re.compile(rb"(?i)(?:" + _ENDS + rb")*+")
_CODED_END = re.compile(rb"(?i)(?:(?!%(?:25)*+(?:2[0267c9]|3[bce]|[57]d|0[ad])|&\#)(?:" + _ENDS + rb"))*+")
_BRACKETS = re.compile(rb"(\\*+)(\")|[\[{]|[\]}]")


def _mask_text(text: bytes, members: _Rule) -> bytes:
    plain = _without_lookalikes(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if plain != text and members.search(plain):
        text = plain
    return _mask_by(members, _mask_by(_PAIRED, text))


def _mask_by(members: _Rule, text: bytes) -> bytes:
    pieces: list[bytes] = []
    done = 0
    while (found := members.search(text, done)) is not None:
        end, mask = _end_in_text(text, found)
        pieces += [text[done : found.end()], mask if end > found.end() else b""]
        done = max(end, found.end())
    return b"".join(pieces) + text[done:]


def _end_in_text(text: bytes, found: re.Match[bytes]) -> tuple[int, bytes]:
    """The end of a value, and the mask that replaces the value."""
    start, mask = found.end(), MASK.encode()
    opens = found["opens"]
    if opens is not None:
        return _quoted_end(text, start, opens), mask
    quote = found["quote"] or found["close"] or b""
    if text[start : start + 1] in (b"{", b"["):
        quote = quote if quote.endswith(b'"') else b'"'
        return _bracket_end(text, start, len(quote) - 1), quote + mask + quote
    coded = found["coded"] or found["coded_opens"]
    ended = (_CODED_END if coded else _PLAIN_END).match(text, start)
    return (ended.end() if ended else start), mask


def _quoted_end(text: bytes, start: int, opens: bytes) -> int:
    """The end of a string that began with these backslashes and this quote. Quotes inside it have more backslashes."""
    escapes, position = len(opens) - 1, start
    while (position := text.find(opens[-1:], position)) >= 0:
        before = position
        while before > start and text[before - 1] == 0x5C:
            before -= 1
        if (position - before) % (2 * (escapes + 1)) == escapes:
            return position - escapes
        position += 1
    return len(text)


def _bracket_end(text: bytes, start: int, escapes: int) -> int:
    depth, within = 0, False
    for token in _BRACKETS.finditer(text, start):
        if token.group(2) is not None:
            within ^= len(token.group(1)) % (2 * (escapes + 1)) == escapes
        elif not within:
            depth += 1 if token.group() in (b"{", b"[") else -1
            if depth == 0:
                return token.end()
    return len(text)
