"""The output of the demo: a line for each event, and a summary at the end."""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from poller.core.model import Event
from poller.core.selection import ALL_EVENTS
from poller.operations.log_steps import steps
from poller.spools.sqlite import SqliteSpool


@dataclass(frozen=True, kw_only=True)
class Row:
    """The counts of one kind of event: reports by the queue and by notification, events, and deliveries."""

    kind: str
    queue: int | None
    """Messages removed from the queue; None for a kind that the queue does not have."""
    notified: int
    events: int
    printed: int
    stored: int | None
    """Pictures in the folder; None for a kind without pictures."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of the demo. `lost` counts the pictures that were reported, by the queue or by a notification, and are
    neither an event nor in quarantine."""

    rows: tuple[Row, ...]
    lost: int
    dead: int
    cut_short: bool
    """Whether the daemon or the sandbox ended by itself."""
    segments: tuple[Event, ...]

    @property
    def good(self) -> bool:
        """Whether every event arrived everywhere."""
        arrived = all(row.printed == row.events and row.stored in (None, row.events) for row in self.rows)
        return arrived and self.lost == self.dead == 0 and not self.cut_short


STATES: Final = {"live": "green", "interrupted": "yellow", "disabled": "red"}


def line_of(event: dict[str, Any], folder: Path) -> str:
    """An event in one line of rich markup. It fits 80 columns if the folder is directly below /tmp."""
    fields, kind = event["data"], event["type"].rpartition(".")[2]
    match kind:
        case "screenshot":
            name, _ = picture_of(event) or ("", "")
            said = escape(str(folder / "pictures" / name))
        case "channel":
            state = fields["state"]
            said = f"is [{STATES.get(state, 'bold')}]{state}[/]  [dim]from {fields['seen_by']}[/]"
        case "recording":
            name, _ = recording_of(event) or ("", "")
            path = escape(str(folder / "recordings" / name))
            minutes, seconds = divmod(round(fields["duration"] or 0), 60)
            said = f"[cyan]{minutes}:{seconds:02}[/] {path}"
        case _:
            said = kind
    return f"[dim]{event['time'][11:19]}[/] {escape(fields['stream_id'])} {said}"


def picture_of(event: dict[str, Any]) -> tuple[str, str] | None:
    """Two names of a picture: a readable name with its stream and time, and the name of its file in the archive."""
    if not event["type"].endswith(".screenshot"):
        return None
    fields = event["data"]
    return f"{fields['stream_id']}_{event['time'][11:19].replace(':', '-')}.jpg", fields["file_name"]


def recording_of(event: dict[str, Any]) -> tuple[str, str] | None:
    """Two names of a recording: a readable name with its stream and start, and the name of its file at the platform."""
    fields = event["data"]
    if not event["type"].endswith(".recording") or not fields["url"]:
        return None
    begin = str(fields["start_time"] or "")[11:19].replace(":", "-")
    return f"{fields['stream_id']}_{begin}.flv", Path(fields["url"]).name.replace(".f0.", ".")


def link(folder: Path, event: dict[str, Any]) -> None:
    """Make a link with a readable name to the picture or the recording of an event."""
    for found, names, files in (
        (picture_of(event), "pictures", "archive"),
        (recording_of(event), "recordings", "platform/vod"),
    ):
        if found is not None:
            with suppress(FileExistsError):
                (folder / names / found[0]).symlink_to(Path("..", files, found[1]))


async def summarize(folder: Path, printed: set[str], *, cut_short: bool) -> Summary:
    """Compare the records of the sandbox and of the daemon, after both have ended."""
    removed = _lines(folder / "platform" / "removed.ndjson")
    notified = _lines(folder / "platform" / "notified.ndjson")
    settings = SqliteSpool.Settings(type="sqlite", path=folder / "spool.db")
    async with SqliteSpool("spool", settings, {}) as spool:
        spooled = [event async for step in steps(spool, ALL_EVENTS) for _, event in step]
        dead = await spool.dead(1_000_000)
        quarantined = await spool.quarantine_size()
    reported = {line["path"] for line in (*removed, *notified) if line["path"]}
    names = {str(event.fields["file_name"]) for event in spooled if event.kind == "screenshot"}
    return Summary(
        rows=_rows(
            queue=len({line["n"] for line in removed}),
            notified=Counter(NOTIFIED.get(line["event_type"], "other") for line in notified),
            events=Counter(_kind(event) for event in spooled),
            printed=Counter(_kind(event) for event in spooled if event.id in printed),
            stored=sum(1 for _ in (folder / "archive").glob("*.jpg")),
        ),
        lost=max(0, len(reported - names) - quarantined),
        dead=len(dead),
        cut_short=cut_short,
        segments=tuple(sorted((e for e in spooled if e.kind == "recording"), key=_by_stream)),
    )


NOTIFIED: Final = {0: "channel", 1: "channel", 100: "recording", 200: "screenshot"}
"""The kind of event that each type of notification brings."""
KINDS: Final = {
    "screenshot": "screenshots",
    "channel": "changes of state",
    "recording": "recordings",
    "other": "others",
}


def _kind(event: Event) -> str:
    return event.kind if event.kind in KINDS else "other"


def _rows(
    *, queue: int, notified: Counter[str], events: Counter[str], printed: Counter[str], stored: int
) -> tuple[Row, ...]:
    """A row for each kind. The row of other kinds is left out if it is empty."""
    return tuple(
        Row(
            kind=kind,
            queue=queue if kind == "screenshot" else None,
            notified=notified[kind],
            events=events[kind],
            printed=printed[kind],
            stored=stored if kind == "screenshot" else None,
        )
        for kind in KINDS
        if kind != "other" or notified[kind] or events[kind]
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _by_stream(event: Event) -> tuple[str, object]:
    return event.stream_id, event.occurred_at


def print_summary(console: Console, summary: Summary, folder: Path) -> None:
    """Print two tables, the verdict, and the path of the folder."""
    console.print()
    console.print(_deliveries(summary.rows))
    console.print("An event that the queue and a notification both report is delivered once.")
    console.print()
    console.print(_recording_table(summary.segments))
    for line in verdict(summary):
        console.print(line)
    console.print(f"Look at the pictures: {escape(str(folder / 'pictures'))}", soft_wrap=True)
    console.print("You may delete the folder of this demo:")
    console.print(f"  rm -r {escape(shlex.quote(str(folder)))}", soft_wrap=True)


def verdict(summary: Summary) -> list[str]:
    """The lines that say that everything arrived, or else what is missing."""
    events = sum(row.events for row in summary.rows)
    shots = sum(row.events for row in summary.rows if row.stored is not None)
    unprinted = events - sum(row.printed for row in summary.rows)
    unstored = shots - sum(row.stored or 0 for row in summary.rows)
    if summary.good:
        return [
            f"[green]All events were printed ({events}), and all screenshots are stored as pictures ({shots}).[/]",
            "[green]Nothing was lost, and there is no dead letter.[/]",
        ]
    counts = {
        "events not printed": unprinted,
        "screenshots not stored": unstored,
        "dead letters": summary.dead,
        "lost": summary.lost,
        "processes that ended too early (named above)": int(summary.cut_short),
    }
    missing = [f"[red]  {what}: {count}[/]" for what, count in counts.items() if count]
    return ["[red]Not everything arrived:[/]", *missing]


def _deliveries(rows: Sequence[Row]) -> Table:
    """The table of all kinds; its last line holds the sums."""
    table = Table(title="What became of everything", title_justify="left", show_footer=True)
    table.add_column("", footer="all")
    for title, name in COLUMNS.items():
        column = [getattr(row, name) for row in rows]
        total = str(sum(count or 0 for count in column))
        table.add_column(title, footer=total, justify="right")
    for row in rows:
        counts = [getattr(row, name) for name in COLUMNS.values()]
        table.add_row(KINDS[row.kind], *("-" if count is None else str(count) for count in counts))
    return table


COLUMNS: Final = {
    "from the\nqueue": "queue",
    "from noti-\nfications": "notified",
    "\nevents": "events",
    "events\nprinted": "printed",
    "pictures\nstored": "stored",
}


def _recording_table(segments: Sequence[Event]) -> Table:
    table = Table(title="What was recorded", title_justify="left", show_header=False)
    for event in segments:
        table.add_row(event.stream_id, _from_to(event))
    return table


def _from_to(event: Event) -> str:
    begin, end = (str(event.fields[name] or "")[11:19] for name in ("start_time", "end_time"))
    return f"{begin} to {end} UTC"
