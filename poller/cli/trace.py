"""The command `trace`: what happened to one event."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poller.cli.client import request, show_each
from poller.cli.common import Config, Exit
from poller.cli.options import Account, Json
from poller.cli.times import At, Utc, moment, show_time

if TYPE_CHECKING:
    from poller.control import Row

When = Callable[[Any], str]

NOT_THERE = {
    "pruned": "{id}: pruned: the event is not retained any more, its id is remembered",
    "unknown": "{id}: unknown: no such event was taken in the last 30 days",
}
HAPPENED = {"screenshot": "taken", "gap": "began"}
"""What the time of an event is; of any other kind the event happened."""
UNREAD = "no daemon runs: answers that a crash left in the journal are read at the next start"

Of = Annotated[
    str,
    typer.Argument(
        metavar="ID|FILE|STREAM",
        help="The id of an event, the file name, path or URL of a picture, or a stream id with --at.",
        show_default=False,
    ),
]


def trace(
    context: typer.Context,
    config: Config,
    of: Of,
    at: At = None,
    account: Account = None,
    utc: Utc = False,
    json: Json = False,
) -> None:
    """Show what happened to one event: where it came from, and what became of it at every sink.

    Exit codes: 0 the event is retained, 1 it is not (pruned or unknown), 2 wrong usage, 78 bad configuration.
    """
    from poller.core.selection import Selection

    stream = None if at is None else of
    asked = request(
        "trace",
        selection=Selection(account=account, stream=stream),
        event="" if stream else of,
        at=None if at is None else moment(at, "--at", utc),
    )

    def show(row: "Row") -> None:
        typer.echo("\n".join(lines(row, of, utc)))

    rows = show_each(context.obj, config, asked, json, show)
    if any(row["state"] != "stored" for row in rows):
        raise typer.Exit(Exit.FAILED)


def lines(row: "Row", of: str, utc: bool) -> Iterator[str]:
    """A trace for people."""
    from poller.cli.tables import shown

    when = partial(show_time, utc=utc)
    gone = NOT_THERE.get(str(row["state"]))
    yield gone.format(id=shown(row["id"] or of)) if gone else f"{shown(row['kind'])} {shown(row['id'])}"
    facts = {
        "note": row.get("running") is False and UNREAD,
        "stream": row["stream"] and f"{row['stream']} of account {row['account']}",
        "file name": row["file_name"],
        HAPPENED.get(str(row["kind"]), "happened"): row["taken_at"] and when(row["taken_at"]),
        "polled": row["polled"] and _describe_poll(row["polled"], when),
        "stored": row["received_at"]
        and f"received {when(row['received_at'])}, number {row['number'] or '-'}",
    }
    for name, fact in facts.items():
        if fact:
            yield f"  {name:<10} {shown(fact)}"
    sinks: Any = row["sinks"]
    for sink in sinks:
        name = f"{shown(sink['sink']):<10}"
        for line in _describe_sink(sink, when):
            yield f"  {name} {shown(line)}"
            name = " " * len(name)


def _describe_poll(origin: Any, when: When) -> str:
    asked = f"asked {when(origin['asked_at'])}, " if origin["asked_at"] else ""
    source = f"by {origin['source']}" if origin["source"] else "by an earlier version"
    about = f" about {origin['about']}" if origin["about"] else ""
    outcome = f", {origin['outcome']}" if origin["outcome"] else ""
    return f"{source}{about}: {asked}answered {when(origin['received_at'])}{outcome}, {origin['events']} new events"


def _describe_sink(sink: Any, when: When) -> Iterator[str]:
    yield _describe_outcome(sink, when)
    for failed in sink["failed"]:
        yield f"tried {when(failed['at'])}: {failed['reason']}"  # also where only a wait was asked for
    if sink.get("file"):
        yield f"file {sink['file']}{'' if sink['present'] else ' (not there)'}"


def _describe_outcome(sink: Any, when: When) -> str:
    if sink["state"] == "delivered":
        again = f", {sink['deliveries']} times" if sink["deliveries"] > 1 else ""
        return f"delivered {when(sink['at'])}, attempt {sink['attempt']}, within {sink['took']:.3g} s{again}"
    said = str(sink["state"])
    if sink["due"]:
        said += f", next attempt {when(sink['due'])}"
    if sink["deliveries"]:
        said += ", although it was delivered before"
    return f"{said}: {sink['reason']}" if sink["reason"] else said
