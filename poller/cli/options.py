"""Options and arguments that several commands share. Times are in `poller.cli.times`."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
SinkName = Annotated[str, typer.Argument(metavar="SINK", help="Name of the sink.", show_default=False)]
StreamName = Annotated[str, typer.Argument(metavar="STREAM", help="Stream id.", show_default=False)]
Stream = Annotated[str | None, typer.Option(metavar="ID", help="Only this stream.", show_default=False)]
Account = Annotated[str | None, typer.Option(metavar="NAME", help="Only this account.", show_default=False)]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="Only events of this kind, such as screenshot; may be repeated.",
        show_default=False,
    ),
]
