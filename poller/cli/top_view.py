"""What `poller top` shows: from the daemon's answers and the keys to lines. Pure.

Invariant: no line holds a character that could control the terminal; colours are rich's.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.cells import cell_len
from rich.text import Text

from poller.cli.tables import ago, shown
from poller.cli.times import show_times

Answer = Mapping[str, Any]
"""One answer to `top` (`poller.operations.look`)."""
KEPT: Final = 11
"""The answers over which rates are measured: those of ten seconds."""
SORTS: Final = ("name", "backlog", "events/s", "oldest")
GOOD: Final = frozenset({"polling", "stands by", "receiving", "serving", "writable"})
HELP: Final = (
    "q       quit",
    "s       sort sinks by name, backlog, events/s or age of the oldest event",
    "/       show only sources and sinks with this text in their names;",
    "        Enter keeps it, Esc ends it",
    "?       this help; any key leaves it",
    "Ctrl-Z  back to the shell, until fg",
    "",
    "events/s, polls/s    over the last ten seconds",
    "backlog              events that the sink has not had yet",
    "oldest               how long the oldest of them has waited",
)
ESCAPE: Final = "\x1b"
_KEYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "q": {"quit": True},
    "/": {"typing": True, "filter": ""},
    "?": {"help": True},
    ESCAPE: {"filter": ""},
}
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the keys have chosen. `typing` means that keys go into the filter."""

    sort: str = SORTS[0]
    filter: str = ""
    typing: bool = False
    help: bool = False
    quit: bool = False


def press(view: View, key: str) -> View:
    """The view after a key."""
    changes: dict[str, Any] = dict(_KEYS.get(key, {}))
    if view.typing:
        changes = _type(view, key)
    elif view.help:
        changes = {"help": False}
    elif key == "s":
        changes = {"sort": SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)]}
    return msgspec.structs.replace(view, **changes)


def _type(view: View, key: str) -> dict[str, Any]:
    if key in "\r\n":
        return {"typing": False}
    if key == ESCAPE:
        return {"typing": False, "filter": ""}
    if key in "\x7f\b":
        return {"filter": view.filter[:-1]}
    return {"filter": view.filter + key} if key.isprintable() else {}


# ---------------------------------------------------------------- rates


class Rates:
    """The last answers of one daemon, for how much a count grows a second."""

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque(maxlen=KEPT)

    def add(self, answer: Answer) -> None:
        """Take an answer. Those of an earlier process do not count any more."""
        if self._answers and self._answers[-1]["pid"] != answer["pid"]:
            self._answers.clear()
        self._answers.append(answer)

    def of(self, count: str, name: str = "") -> float | None:
        """How much a count, or its part of this name, has grown a second; None before the second answer."""
        if len(self._answers) < 2:
            return None
        first, last = self._answers[0], self._answers[-1]
        seconds = last["at"] - first["at"]
        grown = _count(last, count, name) - _count(first, count, name)
        return max(0.0, grown) / seconds if seconds > 0 else None


def _count(answer: Answer, count: str, name: str) -> float:
    found = answer[count]
    return _number(found.get(name) if name else found)


# ---------------------------------------------------------------- lines


def lines(answer: Answer, rates: Rates, view: View, size: tuple[int, int], trouble: str = "") -> list[Text]:
    """The screen, from top to bottom. `trouble` says why the answer is an old one."""
    width, height = size
    if view.help:
        body = [Text(line) for line in HELP]
    else:
        body = [*_summary(answer, rates, trouble), Text(), *_sources(answer, rates, view), Text()]
        body += _sinks(answer, rates, view)
    if len(body) > height - 1:
        left = len(body) - (height - 2)
        body = [
            *body[: height - 2],
            Text(f"… {left} more lines: a larger window or / shows them", style="dim"),
        ]
    body += [Text()] * (height - 1 - len(body))
    return [_crop(line, width) for line in (*body[: height - 1], _foot(view))]


def _crop(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


def _foot(view: View) -> Text:
    if view.typing:
        return Text(
            f"/{shown(view.filter) if view.filter else ''}▏  Enter keeps the filter, Esc ends it",
            style="bold",
        )
    kept = f"  filter: {shown(view.filter)} (Esc ends it)" if view.filter else ""
    return Text(f"q quit  s sort: {view.sort}  / filter  ? help{kept}", style="dim")


def _summary(answer: Answer, rates: Rates, trouble: str) -> Iterator[Text]:
    spool, journal = answer["spool"], answer["journal"]
    if trouble:
        yield Text(f"not live: {shown(trouble)}", style="bold red")
    state = Text("ready", style="green") if answer["ready"] else Text("not ready", style="bold yellow")
    yield Text(f"poller {answer['version']}, pid {answer['pid']}, ").append_text(state)
    grown = _rate(rates.of("head"))
    path = shown(spool["path"] or spool["type"])
    yield Text(
        f"spool    {_size(spool['bytes'])}, {shown(spool['quarantined'])} quarantined, {grown} events/s in  {path}"
    )
    if journal:
        oldest = "" if journal["oldest"] is None else f", the oldest for {ago(journal['oldest'])}"
        yield Text(f"journal  {_size(journal['bytes'])} not yet in the spool{oldest}")
    for word, style in (("reasons", "yellow"), ("notes", "")):
        for text in answer[word]:
            yield Text(shown(show_times(text, utc=False)), style=style)


def _sources(answer: Answer, rates: Rates, view: View) -> list[Text]:
    rows = [
        (
            shown(one["name"]),
            shown(one["type"]),
            shown(one["state"]),
            _rate(rates.of("polled", one["name"])),
            shown(ago(one["last_answer"])),
            shown(one["trouble"] or ""),
        )
        for one in sorted(answer["sources"], key=lambda one: str(one["name"]))
        if view.filter.lower() in str(one["name"]).lower()
    ]
    return _table(("source", "type", "state", "polls/s", "answer", "trouble"), rows, numbers={3, 4})


def _sinks(answer: Answer, rates: Rates, view: View) -> list[Text]:
    found = [
        {**one, "events/s": rates.of("delivered", one["name"])}
        for one in answer["sinks"]
        if view.filter.lower() in str(one["name"]).lower()
    ]
    rows = [
        (
            shown(one["name"]),
            shown(one["state"]),
            shown(one["backlog"]),
            _rate(one["events/s"]),
            shown(ago(one["oldest"])),
            shown(one["retrying"]),
            shown(one["dead"]),
            shown(one["why"] or one["last_error"] or ""),
        )
        for one in _in_order(found, view.sort)
    ]
    head = ("sink", "state", "backlog", "events/s", "oldest", "retrying", "dead", "why")
    return _table(head, rows, numbers={2, 3, 4, 5, 6})


def _in_order(sinks: Sequence[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    if sort == "name":
        return sorted(sinks, key=lambda one: str(one["name"]))
    return sorted(sinks, key=lambda one: (-_number(one[sort]), str(one["name"])))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> list[Text]:
    """Columns as wide as their widest cell, numbers to the right. An unusual state is yellow."""
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    state = head.index("state")
    found = []
    for number, row in enumerate((head, *rows)):
        line = Text(style="bold" if number == 0 else "")
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            style = "yellow" if number and column == state and cell not in GOOD else ""
            padding = " " * (width - cell_len(cell))
            line.append(padding + cell if column in numbers else cell + padding, style=style)
            line.append("  ")
        line.rstrip()
        found.append(line)
    return found


def _number(value: Any) -> float:
    return 0.0 if value is None else float(value)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _size(count: float) -> str:
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
