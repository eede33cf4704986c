"""Masks signatures and push secrets before anything is stored, logged or shown. Pure.

There is one judgement of what a secret is: the name that it stands under, with case, separators and escapes
folded. JSON is judged by its decoded names and values, however deep it lies inside strings. A rule on the text
itself, which knows every escape of a name, covers what is no JSON: URLs, forms, and bytes that cannot be decoded.

A picture's own `sign=` inside its URL stays in a message: a private bucket's URL is worth nothing without it.
"""

import json
import re
import unicodedata
from typing import Final

from poller.qcloud.splitting import is_json, unescaped

MASK: Final = "***"
_NAMED: Final = frozenset({"sign", "streamparam", "streamparams", "txsecret", "txtime"})
_SEPARATORS: Final = "_-. +[]/"
_MOST_NESTED: Final = 5

# ---------------------------------------------------------------- how a character may be written


def written(characters: str) -> str:
    """A pattern for one of these characters: raw, or escaped as in URLs (also repeatedly), JSON or HTML."""
    codes = "|".join(sorted({f"{ord(each):02x}" for each in characters}))
    decimal = "|".join(sorted({str(ord(each)) for each in characters}))
    raw = "".join(re.escape(each) for each in characters)
    return rf"(?:[{raw}]|%(?:25)*+(?:{codes})|(?<!\\)\\++(?:u00|x)(?:{codes})|&\#(?:x0*+(?:{codes})|0*+(?:{decimal}));)"


def _name(word: str) -> str:
    """A pattern for a name, with separators anywhere in it and behind it."""
    between = written(_SEPARATORS) + "*+"
    return "".join(written(each + each.upper()) + between for each in word)


_QUOTE = rf"(?:\\*+[\"']|&quot;|{written(chr(34) + chr(39))})"
_SPACE = rf"(?:\s|{written(' +')})*+"
_IS = rf"(?P<coded>(?!=|:){written('=:')})|(?:=>?|:)"
_OPENS = r"(?P<opens>\\*+[\"'])|(?P<coded_opens>%(?:25)*+2[27]|&quot;|(?<!\\)\\++u002[27])"
_PUSH: Final = f"{_name('txsecret')}|{_name('txtime')}|{_name('streamparam')}(?:{_name('s')})?"
_APART = (
    r"(?:(?<![a-z0-9])|(?<=%[0-9a-f]{2})|(?<=%25[0-9a-f]{2})|(?<=%2525[0-9a-f]{2})|(?<=\\u00[0-9a-f]{2}))"
)


def _member(names: str, quoted: str) -> re.Pattern[bytes]:
    """A pattern for a name and what leads to its value; the names of `quoted` count only before a quote."""
    pattern = (
        rf"(?i)(?:(?:{names})(?P<quote>{_QUOTE})?|{_APART}(?:{quoted})(?P<close>{_QUOTE}))"
        rf"{_SPACE}(?:{_IS}){_SPACE}(?:{_OPENS})?"
    )
    return re.compile(pattern.encode())


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
    rb"\xef[\xbc\xbd]|\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf"
    rb"|\\u(?:ff[0-5][0-9a-f]|200[b-f]|202[a-e]|206[0-4]|feff)"
)
"""A letter of full width, or a character that nobody sees, as UTF-8 or as JSON escapes it."""


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
    """Mask what signs or opens something, and every one of `secrets`, in bytes meant for quarantine or log.

    Here a `sign=` in a URL is masked too.
    """
    masked = _masked(text, _ANYWHERE)
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
    return _masked(message, _IN_MESSAGE) if may_hold_secret(message) else message


def redact_value(value: object, *secrets: str) -> object:
    """Mask the same in a decoded JSON value, and every one of `secrets`."""
    if isinstance(value, dict):
        return {
            _inner(_without(name, secrets)): MASK if _is_secret(name) else redact_value(member, *secrets)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [redact_value(member, *secrets) for member in value]
    return _inner(_without(value, secrets)) if isinstance(value, str) else value


def blank(text: bytes, secret: str) -> bytes:
    """Overwrite a secret with asterisks of the same length, in UTF-8 and UTF-16."""
    if not secret:
        return text
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        needle = secret.encode(encoding)
        if needle in text:
            text = text.replace(needle, ("*" * len(secret)).encode(encoding))
    return text


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "*" * len(secret))
    return text


# ---------------------------------------------------------------- decoded names and values

_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(\s*+:\s*+)?|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb"[^,\]}\s]*+")
_MARK = re.compile(r"[=:%&\\]")


def _is_secret(name: str, also: bool = False) -> bool:
    if not name.isascii():  # other scripts' forms of the letters, and characters that nobody sees
        name = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    folded = name.translate(_NO_SEPARATORS).lower()
    return folded in _NAMED or (also and folded == "key")


_NO_SEPARATORS = str.maketrans("", "", _SEPARATORS)


def _masked(text: bytes, members: re.Pattern[bytes], level: int = 0) -> bytes:
    """Mask JSON by its names and values, and anything else by the rule on text."""
    if level < _MOST_NESTED and text.lstrip()[:1] in (b"{", b"[", b'"') and _is_decodable(text):
        return _masked_json(text, members, level)
    return _masked_text(text, members)


def _is_decodable(text: bytes) -> bool:
    try:
        text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return is_json(text)


def _masked_json(text: bytes, members: re.Pattern[bytes], level: int) -> bytes:
    """Replace values in place: numbers, order and repeated names of the rest stay as they were written."""
    pieces: list[bytes] = []
    done = 0
    for token in _TOKEN.finditer(text):
        content, leads = token.groups()
        if token.start() < done or content is None:
            continue
        plain = unescaped(content).decode("utf-8", "surrogatepass")
        if leads is not None and _is_secret(plain, members is _ANYWHERE):
            pieces += [text[done : token.end()], b'"' + MASK.encode() + b'"']
            done = _value_end(text, token.end())
        elif (masked := _inner(plain, members, level + 1)) != plain:
            pieces += [text[done : token.start()], json.dumps(masked).encode()]
            done = token.end(1) + 1
    return b"".join(pieces) + text[done:]


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


def _inner(text: str, members: re.Pattern[bytes] = _IN_MESSAGE, level: int = 0) -> str:
    """Mask a decoded text: it may be a URL, a form, or JSON of its own."""
    if not _MARK.search(text):
        return text
    inner = text.encode("utf-8", "surrogatepass")
    if members is _IN_MESSAGE and not may_hold_secret(inner):
        return text
    masked = _masked(inner, members, level)
    return text if masked == inner else masked.decode("utf-8", "surrogatepass")


# ---------------------------------------------------------------- the rule on text

_ENDS = rb"[^&\"'\s<>\\,;)]|\\/|\\u(?!00(?:2[0267c]|3[bce]|0a))[0-9a-f]{4}"
_PLAIN_END = re.compile(rb"(?i)(?:" + _ENDS + rb")*+")
_CODED_END = re.compile(rb"(?i)(?:(?!%(?:25)*+(?:2[0267c9]|3[bce]|[57]d|0[ad])|&\#)(?:" + _ENDS + rb"))*+")
_BRACKETS = re.compile(rb"(\\*+)(\")|[\[{]|[\]}]")


def _masked_text(text: bytes, members: re.Pattern[bytes]) -> bytes:
    pieces: list[bytes] = []
    done = 0
    while (found := members.search(text, done)) is not None:
        end, mask = _end_in_text(text, found)
        pieces += [text[done : found.end()], mask if end > found.end() else b""]
        done = max(end, found.end())
    return b"".join(pieces) + text[done:]


def _end_in_text(text: bytes, found: re.Match[bytes]) -> tuple[int, bytes]:
    """Where a value ends, and what stands for it."""
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
    """Where a string ends that began with these backslashes and this quote; quotes within it have more of them."""
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
