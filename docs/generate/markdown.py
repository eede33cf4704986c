"""Tables and texts in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Final

MADE: Final = "<!-- Made by `python -m docs.generate`: do not edit. -->\n\n"


def page(title: str, *parts: str) -> str:
    """A page: its title, and its parts with a blank line between them."""
    return MADE + "\n\n".join((f"# {title}", *(part.strip("\n") for part in parts if part))) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; texts may hold anything but line breaks."""
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or " "


def code(text: str) -> str:
    """Text as code; empty stays empty."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}" if text else ""


def codes(texts: Iterable[str]) -> str:
    """Texts as code, with commas between them."""
    return ", ".join(code(text) for text in texts)


def block(language: str, text: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def plain(text: str) -> str:
    """A text whose stars, angle brackets and underscores mean themselves."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
