"""One command of an operator: sent to the running daemon, or carried out on the spool file if none runs."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import msgspec
import typer

from poller.cli.common import code_of, fail, settings_of, stored_of
from poller.core.errors import PollerError, StorageLocked
from poller.daemon.signals import Stop

if TYPE_CHECKING:
    from poller.control import Request, Row
    from poller.settings import Settings

T = TypeVar("T")

STARTING = 5.0
"""Seconds for which a daemon may lock the spool without listening, because it is starting or stopping."""
AGAIN = 0.2
WITH_SECRETS = ("reload", "backfill")
"""The commands that need the whole configuration."""


def request(verb: str, chosen: Mapping[str, Any] = MappingProxyType({}), **more: Any) -> "Request":
    """What the words of a command come to: what it chooses, and other members of the request."""
    from poller.control import Request, Verb
    from poller.core.model import Filter

    ids = frozenset(chosen.get("ids") or ()) or None
    return Request(verb=Verb(verb), chosen=Filter(**{**chosen, "ids": ids}), **more)


def chosen_request(verb: str, everything: bool, chosen: Mapping[str, Any], **more: Any) -> "Request":
    """The request for a command that must not hit all entries by mistake.

    A usage error if nothing is chosen, unless `everything` is set.
    """
    if not everything and not any(value is not None and value != [] for value in chosen.values()):
        raise typer.BadParameter("choose some by ids or options, or all with --all")
    return request(verb, chosen, **more)


# ---------------------------------------------------------------- printing


def list_rows(
    stop: Stop, config: Path, asked: "Request", json: bool, columns: Sequence[str], utc: bool
) -> None:
    """Print the rows as a table. If there is none, a message goes to stderr, and the exit code is still 0."""
    rows = fetch_rows(stop, config, asked)
    found = _print_json(rows) if json else _print_table(list(rows), columns, utc)
    if not found:
        typer.echo(_no_rows_message(asked), err=True)


def show_rows(stop: Stop, config: Path, asked: "Request", json: bool, utc: bool) -> None:
    """Print every field of each row; exit 1 if there is no row."""
    rows = fetch_rows(stop, config, asked)
    _end(_print_json(rows) if json else _print_fields(rows, utc), _no_rows_message(asked))


def act(
    stop: Stop,
    config: Path,
    asked: "Request",
    json: bool,
    counted: str | None = None,
    utc: bool = False,
) -> None:
    """Carry out the request and print the result; exit 1 if the field named by `counted` is 0."""
    rows = list(fetch_rows(stop, config, asked))
    _print_json(iter(rows)) if json else _print_fields(iter(rows), utc)
    left = any(row.get("left") for row in rows)
    why = "nothing could be done: see why" if left else _no_rows_message(asked)
    _end(all(row.get(counted, 1) for row in rows) if counted else True, why)


def show_each(
    stop: Stop, config: Path, asked: "Request", json: bool, show: Callable[["Row"], None]
) -> list["Row"]:
    """Print each row as soon as it arrives: as JSON, or by `show`. Returns the rows."""
    rows = []
    for row in fetch_rows(stop, config, asked):
        (_print_row if json else show)(row)
        rows.append(row)
    return rows


def show_all(
    stop: Stop, config: Path, asked: "Request", json: bool, show: Callable[[list["Row"]], None]
) -> list["Row"]:
    """Print the whole answer: a JSON object a row, or by `show`. Returns the rows."""
    rows = list(fetch_rows(stop, config, asked))
    _print_json(iter(rows)) if json else show(rows)
    return rows


def ask_reload(stop: Stop, config: Path, json: bool, *, dry: bool) -> None:
    """Reload and print each change in one line. With `dry`, only print."""
    for row in fetch_rows(stop, config, request("reload", dry=dry)):
        if json:
            _print_row(row)
            continue
        changes = cast(list[str], row["changes"])
        for change in changes or ["nothing changes"]:
            typer.echo(change)


def ask_status(stop: Stop, config: Path, json: bool, utc: bool) -> None:
    """Print the state of all parts."""

    def show(row: "Row") -> None:
        from poller.cli.tables import print_status

        print_status(row, utc)

    show_each(stop, config, request("status"), json, show)


def print_one(row: "Row", json: bool) -> None:
    """Print one row: as JSON, or every field on a line of its own."""
    _print_json(iter([row])) if json else _print_fields(iter([row]), utc=False)


def _print_json(rows: Iterator["Row"]) -> bool:
    found = False
    for row in rows:
        _print_row(row)
        found = True
    return found


def _print_row(row: "Row") -> None:
    """Print a row as JSON; on a terminal without a character that could control it."""
    from poller.cli.tables import safe

    text = msgspec.json.encode(row)
    typer.echo(safe(text.decode()) if sys.stdout.isatty() else text)


def _print_table(rows: Sequence["Row"], columns: Sequence[str], utc: bool) -> bool:
    from poller.cli.tables import print_table
    from poller.cli.times import row_for_people

    if rows:
        print_table([row_for_people(row, utc) for row in rows], columns)
    return bool(rows)


def _print_fields(rows: Iterator["Row"], utc: bool) -> bool:
    from poller.cli.tables import print_fields
    from poller.cli.times import row_for_people

    found = False
    for row in rows:
        if found:
            typer.echo("")
        print_fields(row_for_people(row, utc))
        found = True
    return found


def _no_rows_message(asked: "Request") -> str:
    """The message for an answer without rows."""
    if asked.verb.value.startswith("replay"):
        return "no replays"
    what = "dead letters" if asked.verb.value.startswith("dead") else "rejects in quarantine"
    everything = asked.chosen == type(asked.chosen)()
    return f"no {what}" if everything else f"no {what} that match"


def _end(good: bool, why: str) -> None:
    if not good:
        fail(why)


# ---------------------------------------------------------------- asking the daemon or the spool file


def ask_rows(stop: Stop, config: Path, asked: "Request") -> list["Row"]:
    """The rows of the answer, for a command that goes on after a failure. Raises `PollerError` or `OSError`."""
    settings = stored_of(config)
    stop.give_back()
    return list(_ask(settings, asked))


def fetch_rows(stop: Stop, config: Path, asked: "Request") -> Iterator["Row"]:
    """The rows of the answer. A failure is one line on stderr and the exit code of the error."""
    settings = settings_of(config) if asked.verb.value in WITH_SECRETS else stored_of(config)
    stop.give_back()  # a signal may end the command at any time: each step is durable on its own
    try:
        yield from _ask(settings, asked)
    except (PollerError, OSError) as error:
        fail_with(error)


def fail_with(error: PollerError | OSError) -> NoReturn:
    """Say on stderr, with times as people read them, why a command failed, and exit."""
    from poller.cli.times import show_times

    fail(f"poller: {show_times(str(error), utc=False)}", code_of(error))


def _ask(settings: "Settings", asked: "Request") -> Iterator["Row"]:
    from poller.control import ask

    return ask_either(settings, lambda path: ask(path, asked), lambda: offline_rows(settings, asked))


def offline_rows(settings: "Settings", asked: "Request") -> Iterator["Row"]:
    """The rows of the answer from a stopped daemon's file."""
    with asyncio.Runner() as runner:
        yield from _each(runner, _do_offline(settings, asked))


def ask_either(
    settings: "Settings", online: Callable[[Path], Iterator[T]], offline: Callable[[], Iterator[T]]
) -> Iterator[T]:
    """The answer of the running daemon, by the path of its socket, or that of the spool file if no daemon runs."""
    from poller.control import ControlError, NotRunning
    from poller.daemon.wiring import control_path

    path, until = control_path(settings), time.monotonic() + STARTING
    while True:
        try:
            yield from online(path)
            return
        except NotRunning:
            pass
        try:
            yield from offline()
            return
        except StorageLocked as error:
            if time.monotonic() > until:
                raise ControlError(f"{error}, and does not listen at {path}") from None
        time.sleep(AGAIN)


async def _do_offline(settings: "Settings", asked: "Request") -> AsyncGenerator["Row", None]:
    from poller.cli.offline import open_offline
    from poller.control import answer

    async with open_offline(settings) as context, aclosing(answer(context, asked)) as rows:
        async for row in rows:
            if row is not None:
                yield row


def _each(runner: asyncio.Runner, rows: AsyncGenerator["Row", None]) -> Iterator["Row"]:
    """The rows as they come, from a loop that runs only while a row is awaited. The spool is closed in any case."""

    async def following() -> "Row | None":
        return await anext(rows, None)

    try:
        while (row := runner.run(following())) is not None:
            yield row
    finally:
        runner.run(rows.aclose())
