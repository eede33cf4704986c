"""The meaning of a YAML scalar: its type, its variables, and its traps.

Traps
    YAML 1.1 reads `0123` as 83, `1:30` as 90 and `no` as false. Other readers differ, and people are
    surprised. A plain scalar that two readers would read differently is refused.

Variables
    `${NAME}` is replaced inside values. That happens after parsing, so that a variable cannot add YAML. `$$`
    is a dollar. Any other dollar stands for itself, except that a whole value `$NAME` is refused as a slip.

    After replacing, a plain scalar gets a type as usual, and is never a trap. Digits that a number would not
    be written with, such as `0123`, stay text.
"""

import re
from collections.abc import Mapping
from typing import Final

MAX_DIGITS: Final = 18

# ---------------------------------------------------------------- variables

HALF: Final = re.compile("[\ud800-\udfff]")
"""Half a character (a lone surrogate): the rest of bytes that were not UTF-8, or of an escape that was cut."""

_DOLLAR: Final = re.compile(r"\$(?:\$|\{([^}]*)(\}?))")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BARE_NAME: Final = re.compile(r"\$[A-Z_][A-Z0-9_]*")


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """The text with its variables replaced, and what is wrong with them, if anything. The latter shows no values."""
    if _BARE_NAME.fullmatch(text):
        return text, "$NAME is not replaced: write ${NAME}, or $$NAME for the text itself"
    wrong: list[str] = []

    def replace(match: re.Match[str]) -> str:
        name, closed = match.group(1), match.group(2)
        if name is None:
            return "$"
        problem = _variable_problem(name, closed, environ)
        wrong.extend([problem] if problem else [])
        return "" if problem else environ[name]

    expanded = _DOLLAR.sub(replace, text)
    return expanded, wrong[0] if wrong else None


def _variable_problem(name: str, closed: str, environ: Mapping[str, str]) -> str | None:
    if not closed:
        return "${ is never closed: write ${NAME}, or $${ for the text itself"
    if not _NAME.fullmatch(name):
        return "between ${ and } stands a variable's name and nothing else: letters, digits and _"
    if name not in environ:
        return f"the environment variable {name} is not set"
    if HALF.search(environ[name]):
        return f"the environment variable {name} is not UTF-8"
    return None


# ---------------------------------------------------------------- plain scalars


def scalar_value(text: str) -> object:
    """The value of a plain scalar. Digits are a number only if the number is written in exactly this form."""
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    if re.fullmatch(r"-?(0|[1-9][0-9]*)", text) and text != "-0" and len(text) <= MAX_DIGITS:
        return int(text)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]+", text) and repr(float(text)) == text:
        return float(text)
    return text


_NUMBER: Final = "readers differ on a number written like this: write plain decimals, or put text in quotes"
_BOOLEAN: Final = "some readers take this for a boolean: write true or false, or put it in quotes"
_OCTAL: Final = "some readers take a leading zero for octal: write it without, or put it in quotes"
_BASE: Final = "write the number in decimal, or put it in quotes"
_SIXTY: Final = "some readers take this for base 60: write a time as 90s, or put it in quotes"
_ENDLESS: Final = "infinity and NaN are refused: write a number"
_DATE: Final = "some readers take this for a date: put it in quotes"
_EXPONENT: Final = "write the number out without an exponent, or put it in quotes"
TRAPS: Final = (
    (r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", _BOOLEAN),
    (r"[-+]?0[0-9_]+", _OCTAL),
    (r"[-+]?0(x[0-9a-fA-F_]+|o[0-7_]+|b[01_]+)", _BASE),
    (r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?", _SIXTY),
    (r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN", _ENDLESS),
    (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?", _DATE),
    (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+", _EXPONENT),
)


def trap(text: str) -> str | None:
    """What is wrong with a plain scalar that readers of YAML read differently; None if nothing. It shows no values."""
    for pattern, remedy in TRAPS:
        if re.fullmatch(pattern, text, re.DOTALL):
            return remedy
    looks_numeric = re.fullmatch(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)", text)
    if looks_numeric and isinstance(scalar_value(text), str):
        return _NUMBER
    return None
