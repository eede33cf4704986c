"""What the demo says: a line for each event, and at the end what became of everything."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from poller.model import Event
from poller.spools.sqlite import SqliteSpool


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was told, and what became of it. `taken` counts messages off the queue, `notified` notifications answered,
    `lost` pictures that were told either way and are neither an event nor in quarantine."""

    taken: int
    notified: int
    events: Counter[str]
    lost: int
    printed: int
    pictures: int
    dead: int
    segments: tuple[Event, ...]

    @property
    def good(self) -> bool:
        """Whether all of it arrived everywhere."""
        arrived = self.printed == self.events.total() and self.pictures == self.events["screenshot"]
        return arrived and self.lost == self.dead == 0


STATES: Final = {"live": "green", "interrupted": "yellow", "disabled": "red"}


def line_of(event: dict[str, Any]) -> str:
    """An event in one line of 80 columns, as rich's markup. Its path is one below the demo's folder."""
    fields, kind = event["data"], event["type"].rpartition(".")[2]
    match kind:
        case "screenshot":
            size = f"{fields['width']}x{fields['height']}"
            said = f"[dim]{size}[/] pictures/{escape(fields['file_name'])}"
        case "channel":
            state = fields["state"]
            said = f"is [{STATES.get(state, 'bold')}]{state}[/]  [dim]from {fields['seen_by']}[/]"
        case "recording":
            name, _ = recording_of(event) or ("", "")
            said = f"recorded [cyan]{fields['duration'] or 0:.0f} s[/]  recordings/{escape(name)}"
        case _:
            said = kind
    return f"[dim]{event['time'][11:19]}[/] {escape(fields['stream_id'])} {said}"


def recording_of(event: dict[str, Any]) -> tuple[str, str] | None:
    """A recording's name, which tells its stream and its start, and that of its file at the platform."""
    fields = event["data"]
    if not event["type"].endswith(".recording") or not fields["url"]:
        return None
    begin = str(fields["start_time"] or "")[11:19].replace(":", "-")
    return f"{fields['stream_id']}_{begin}.flv", Path(fields["url"]).name.replace(".f0.", ".")


def link(folder: Path, name: str, file: str) -> None:
    """Let the recording be found by its name."""
    with suppress(FileExistsError):
        (folder / "recordings" / name).symlink_to(Path("..", "platform", "vod", file))


async def summed_up(folder: Path, printed: set[str]) -> Summary:
    """Read the books of both sides, after both have ended."""
    removed = _told(folder / "platform" / "removed.ndjson")
    notified = _told(folder / "platform" / "notified.ndjson")
    settings = SqliteSpool.Settings(type="sqlite", path=folder / "spool.db")
    async with SqliteSpool("spool", settings, {}) as spool:
        spooled = await spool.recent(1_000_000)
        dead = await spool.dead(1_000_000)
        quarantined = await spool.quarantine_size()
    told = {line["path"] for line in (*removed, *notified) if line["path"]}
    names = {str(event.fields["file_name"]) for event in spooled if event.kind == "screenshot"}
    return Summary(
        taken=len({line["n"] for line in removed}),
        notified=len(notified),
        events=Counter(event.kind for event in spooled),
        lost=max(0, len(told - names) - quarantined),
        printed=len(printed),
        pictures=sum(1 for _ in (folder / "pictures").rglob("*.jpg")),
        dead=len(dead),
        segments=tuple(sorted((e for e in spooled if e.kind == "recording"), key=_by_stream)),
    )


def _told(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _by_stream(event: Event) -> tuple[str, object]:
    return event.stream_id, event.occurred_at


def print_summary(console: Console, summary: Summary, folder: Path) -> None:
    """Two tables, and where the pictures are."""
    console.print()
    console.print(
        _table(
            "What became of everything",
            [
                ("messages taken off the queue", summary.taken),
                ("notifications answered", summary.notified),
                ("screenshots, told by both: events", summary.events["screenshot"]),
                ("channel states: events", summary.events["channel"]),
                ("recordings: events", summary.events["recording"]),
                ("delivered to stdout", summary.printed),
                ("delivered as pictures", summary.pictures),
                ("dead", summary.dead),
                ("lost", summary.lost),
            ],
        )
    )
    console.print(_table("What was recorded", [(e.stream_id, _from_to(e)) for e in summary.segments]))
    for line in sums(summary):
        console.print(line)
    console.print(f"Look at them: {escape(str(folder / 'pictures'))}", soft_wrap=True)


def sums(summary: Summary) -> list[str]:
    """The numbers, added up."""
    events, shots = summary.events, summary.events["screenshot"]
    kinds = f"{shots} screenshots + {events['channel']} states + {events['recording']} recordings"
    rest = max(0, shots - summary.pictures - summary.dead)
    colour = "green" if summary.good else "red"
    return [
        f"{events.total()} events = {kinds}",
        f"{events.total()} events = {summary.printed} printed + {events.total() - summary.printed} not",
        f"[{colour}]{shots} screenshots = {summary.pictures} pictures + {summary.dead} dead + {rest} waiting[/]",
    ]


def _table(title: str, rows: Sequence[tuple[str, object]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for what, said in rows:
        table.add_row(what, str(said))
    return table


def _from_to(event: Event) -> str:
    begin, end = (str(event.fields[name] or "")[11:19] for name in ("start_time", "end_time"))
    return f"{begin} to {end} UTC"
