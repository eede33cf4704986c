"""Options and arguments that several commands share. Times are in `poller.cli.times`."""

from collections.abc import Iterable
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
SinkName = Annotated[str, typer.Argument(metavar="SINK", help="Name of the sink.", show_default=False)]
StreamName = Annotated[str, typer.Argument(metavar="STREAM", help="Stream id.", show_default=False)]
Stream = Annotated[str | None, typer.Option(metavar="ID", help="Only this stream.", show_default=False)]
Account = Annotated[str | None, typer.Option(metavar="NAME", help="Only this account.", show_default=False)]


def check_word(given: str, known: Iterable[str], option: str) -> None:
    """A usage error that names the known words, for a word that no event can have.

    Where a source is installed as a plug-in, every word may be right.
    """
    from poller.runtime.plugins import SOURCES, has_foreign

    names = list(known)
    if given not in names and not has_foreign(SOURCES):
        raise typer.BadParameter(f"there is no {given!r}, only {', '.join(names)}", param_hint=option)


def _known_kinds(kinds: list[str] | None) -> list[str] | None:
    from poller.core.model import KINDS

    for kind in kinds or ():
        check_word(kind, sorted(KINDS), "--kind")
    return kinds


Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        callback=_known_kinds,
        help="Only events of this kind, such as screenshot; may be repeated.",
        show_default=False,
    ),
]
