"""How pictures are named: the platform's two file-name grammars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from poller.sandbox.options import Naming

BEIJING = timezone(timedelta(hours=8))


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One picture being taken: of which stream, when, how large. Times are epoch seconds."""

    stream_id: str
    push: int
    task: int
    at: int
    width: int
    height: int


def path_of(shot: Shot, naming: Naming) -> str:
    """The picture's path in its bucket, without a leading slash."""
    name = _grammar_a(shot) if naming.grammar == "A" else _grammar_b(shot)
    folder = naming.folder.strip("/")
    if "{date}" in folder:
        folder = folder.replace("{date}", _beijing(shot.at).strftime("%Y-%m-%d"))
    return f"{folder}/{name}" if folder else name


def _grammar_a(shot: Shot) -> str:
    offset = shot.at - shot.push
    return f"{shot.stream_id}_{shot.push}_{shot.task}_{offset}_{shot.width}_{shot.height}.jpg"


def _grammar_b(shot: Shot) -> str:
    clock = _beijing(shot.at).strftime("%H-%M-%S")
    return f"{shot.stream_id}-screenshot-{clock}-{shot.width}x{shot.height}.jpg"


def _beijing(moment: int) -> datetime:
    return datetime.fromtimestamp(moment, BEIJING)
