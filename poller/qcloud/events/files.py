"""Parses an answer to `Live_Tape_GetFilelist`: recorded segments, in all known forms of rows. Pure."""

import re
from datetime import datetime
from typing import Final

import msgspec

from poller.core.model import PollOutcome
from poller.qcloud.events.channels import NEVER_PUSHED
from poller.qcloud.events.channels import whole as whole_number
from poller.qcloud.wire.messages import UnreadableMessage, compact, created_at
from poller.qcloud.wire.redaction import redact_message
from poller.qcloud.wire.replies import Verdict, judge_answer, open_output
from poller.qcloud.wire.urls import locate

INTERFACE: Final = "Live_Tape_GetFilelist"
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_LIST = re.compile(rb'"file_list"\s*:\s*\[')
_NO_DATE: Final = ("", "0", "0000-00-00 00:00:00")
_LARGEST: Final = 10**15


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded segment. Missing values are empty strings or None. Times are aware UTC. `message` is one line.

    `end` is None for a segment that is not finished.
    """

    vid: str
    file_id: str
    url: str
    stream_id: str
    start: datetime | None
    end: datetime | None
    duration: float | None
    file_format: str
    file_size: int | None
    message: bytes


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """One page: its segments, rows that are none, each with the reason, and the total over all pages if told."""

    segments: tuple[Segment, ...] = ()
    rejects: tuple[tuple[str, bytes], ...] = ()
    total: int | None = None

    @property
    def rows(self) -> int:
        """How many rows the page had, readable or not."""
        return len(self.segments) + len(self.rejects)


class _Output(msgspec.Struct, gc=False):
    all_count: int | float | str | None = None
    file_list: list[msgspec.Raw] | None = None


_outputs = msgspec.json.Decoder(list[_Output] | _Output | None).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_scalar = msgspec.json.Decoder(str | int | float | None).decode


def recording_key(file_id: str | None, vid: str | None, url: str | None) -> str:
    """What fixes a recorded segment, listed or pushed (docs/wire.md, section 3); empty when nothing is said.

    `file_id`, else `vid`, else the URL's path.
    """
    return file_id or vid or (locate(url, None).path if url else "")


def duration_of(stated: float | None, start: datetime | None, end: datetime | None) -> float | None:
    """The duration of a segment in seconds: as reported, which may differ from end - start; otherwise end - start."""
    if stated is not None or start is None or end is None:
        return stated
    return max(0.0, (end - start).total_seconds())


def id_or_empty(id: str | None) -> str:
    """An id; empty for the 0 that the platform writes where it has none."""
    return "" if id in (None, "0") else str(id)


def read_files(body: bytes, encoding: str, *, status: int, whole: bool) -> tuple[FileList | None, Verdict]:
    """Read an answer: the page (None if it is none), and what the poll came to; `FULL` is a good answer.

    "No rows", and what is said of a channel that was never pushed, is an empty page. Never raises.
    """
    answer, output = open_output(body, encoding)
    verdict = judge_answer(answer, status=status, whole=whole and not answer.cut, asked=1)
    good = Verdict(outcome=PollOutcome.FULL)
    if verdict.outcome is PollOutcome.EMPTY or (whole and answer.ret in NEVER_PUSHED):
        return _page(output), good
    if whole and status == 200 and b'"file_list"' in answer.text and (page := _pieces(answer.text)).rows:
        return page, good  # a damaged row made the whole invalid JSON; the other rows can be read
    return None, verdict


def _page(output: bytes) -> FileList:
    try:
        found = _outputs(output) if output else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _pieces(output)
    outputs = found if isinstance(found, list) else [found] if found is not None else []
    rows = [bytes(row) for one in outputs for row in one.file_list or ()]
    totals = [total for one in outputs if (total := whole_number(one.all_count)) is not None]
    return _file_list(rows, totals[0] if totals else None)


def _file_list(rows: list[bytes], total: int | None) -> FileList:
    segments: list[Segment] = []
    rejects: list[tuple[str, bytes]] = []
    for row in rows:
        try:
            segments.append(read_row(row))
        except UnreadableMessage as error:
            rejects.append((f"recording: {error}", row))
    return FileList(segments=tuple(segments), rejects=tuple(rejects), total=total)


def _pieces(text: bytes) -> FileList:
    """The rows of a list that is not valid JSON as a whole: its objects, found by their brackets."""
    begin = _LIST.search(text)
    if begin is None:
        return FileList()
    rows, depth, start = list[bytes](), 0, 0
    for token in _TOKEN.finditer(text, begin.end()):
        if token.group() in (b"{", b"["):
            start = token.start() if depth == 0 else start
            depth += 1
        elif token.group() in (b"}", b"]"):
            depth -= 1
            if depth < 0:
                break
            if depth == 0:
                rows.append(text[start : token.end()])
    return _file_list(rows, None)


def read_row(raw: bytes) -> Segment:
    """Read one row; `UnreadableMessage` when it names no recording or its end is no date."""
    line = redact_message(compact(raw))
    try:
        members = _members(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableMessage("not an object") from None
    row = {name: _text(value) for name, value in members.items()}
    url = row.get("record_file_url", "")
    segment = Segment(
        vid=id_or_empty(row.get("vid")),
        file_id=id_or_empty(row.get("file_id")) or id_or_empty(row.get("record_file_id")),
        url=url if re.match(r"https?://[^/]", url, re.IGNORECASE | re.ASCII) else "",
        stream_id=row.get("stream_id", ""),
        start=_date(row.get("start_time", "")),
        end=_date(row.get("end_time", "")),
        duration=_number(row.get("duration", "")),
        file_format=_format(url, row.get("file_format", "")),
        file_size=_size(row.get("file_size", "")),
        message=line,
    )
    if not (segment.vid or segment.file_id or segment.url):
        raise UnreadableMessage("names no recording")
    if segment.end is None and row.get("end_time", "") not in _NO_DATE:
        raise UnreadableMessage("its end is no date")
    return segment


def _text(raw: msgspec.Raw) -> str:
    """A scalar as text; nothing for null, and for what is no scalar."""
    try:
        value = _scalar(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return "" if value is None else str(value).strip()


def _date(text: str) -> datetime | None:
    return None if text in _NO_DATE else created_at(text)


def _number(text: str) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < _LARGEST else None


def _size(text: str) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _format(url: str, written: str) -> str:
    """By the URL's ending, else as written if that is a word: the meaning of the numbers is not documented."""
    ending = re.search(r"\.(flv|mp4|m3u8|aac|hls)(?:[?#]|$)", url, re.IGNORECASE | re.ASCII)
    if ending is not None:
        return ending.group(1).lower()
    return written.lower() if written.isalpha() else ""
