"""Opens a queue answer, whatever form it has, and says what the poll came to. Pure.

The forms are those of docs/wire.md, section 2, alone and mixed. Messages found in any body are messages, whatever
the status, content type, `ret` or cut.
"""

import re

import msgspec

from poller.core.model import PollOutcome
from poller.qcloud.wire.bodies import Opened, open_body
from poller.qcloud.wire.excerpts import excerpt
from poller.qcloud.wire.messages import UnreadableMessage, compact
from poller.qcloud.wire.redaction import may_hold_secret, redact_message
from poller.qcloud.wire.splitting import Split, is_json, split

_CALL = re.compile(rb"\A[\s\0]*+[\w.$]{1,64}\s*+\((.*)\)\s*;?[\s\0]*\Z", re.DOTALL)
_RET = re.compile(rb'"ret"\s*:\s*"?(-?[0-9]{1,9})(?:\.0*)?"?\s*[,}]')
_RETCODE = re.compile(rb'"retcode"\s*:\s*"?(-?[0-9]{1,9})(?:\.0*)?"?\s*[,}]')
_SAID = re.compile(rb'"(?:message|errmsg)"\s*:\s*"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_OUTPUT = re.compile(rb'"output"\s*:\s*')
_LONGEST_TEXT = 4096
_ORDINARY_LENGTH = 700

# The documented codes and texts; the texts' numbers are unknown (docs/wire.md, section 2, "errors").
_TOO_FREQUENT = 1202
_NOT_ENABLED = (1000, 1001)
_NO_ROWS = 10003
_EXPIRED = re.compile(r"time\s+expired|sign(ature)?\s+(is\s+)?expired", re.IGNORECASE)
_FREQUENT = re.compile(r"too\s+(frequent|many\s+requests)|(frequency|rate)\s+limit", re.IGNORECASE)
_REFUSED = re.compile(
    r"(cmd|appid)\s+(is\s+)?invalid|sign(ature)?\s+(is\s+)?invalid|not\s+(enabled|allowed)", re.IGNORECASE
)
_NOTHING = re.compile(r"no\s+rows?\b", re.IGNORECASE)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer holds: messages as one-line JSON objects, and rejects as bytes with a reason.

    `readable` tells that it is an answer of the platform's kind; `ret` and `said` are its word; `cut` that
    its end is missing. `size` counts the messages, readable or not.
    """

    messages: tuple[bytes | msgspec.Raw, ...] = ()
    rejects: tuple[tuple[str, bytes], ...] = ()
    size: int = 0
    ret: int | None = None
    said: str = ""
    readable: bool = False
    cut: bool = False
    text: bytes = b""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a poll, the platform's text for it (redacted), and whether the signature was too old."""

    outcome: PollOutcome
    detail: str = ""
    expired: bool = False


class _Output(msgspec.Struct, gc=False):
    data: list[msgspec.Raw] | None = None


class _Envelope(msgspec.Struct, gc=False):
    ret: int | float | str | None = None
    retcode: int | float | str | None = None
    message: str | None = None
    errmsg: str | None = None
    output: _Output | list[msgspec.Raw] | None = None
    data: list[msgspec.Raw] | None = None


_NOT_THERE = msgspec.Raw(b"")
"""msgspec 0.22 decodes nothing but null into `Raw | None`."""


class _Said(msgspec.Struct, gc=False):
    ret: msgspec.Raw = _NOT_THERE
    retcode: msgspec.Raw = _NOT_THERE
    message: msgspec.Raw = _NOT_THERE
    errmsg: msgspec.Raw = _NOT_THERE
    output: msgspec.Raw = _NOT_THERE
    data: msgspec.Raw = _NOT_THERE


class _Boxed(msgspec.Struct, gc=False):
    output: msgspec.Raw = _NOT_THERE


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_boxed = msgspec.json.Decoder(_Boxed).decode
_decode_output = msgspec.json.Decoder(_Output).decode
_decode_said = msgspec.json.Decoder(_Said).decode


def open_answer(body: bytes, encoding: str = "") -> Reply:
    """Open an answer's bytes; never raises, whatever they are."""
    opened = open_body(body, encoding)
    if not opened.text.strip():
        return Reply(cut=not opened.whole)
    return _parse_whole(opened) or _parse_pieces(opened)


def open_output(body: bytes, encoding: str = "") -> tuple[Reply, bytes]:
    """Open an answer that holds no queue messages: the platform's word, and its `output` (empty without one).

    Never raises, whatever the bytes are; the output is one JSON value as it came, or begins like one if it was cut.
    """
    opened = open_body(body, encoding)
    call = _CALL.match(opened.text)
    text = call.group(1) if call else opened.text
    ret, said, readable = _words(text)
    if not readable and not said:
        said = text[:_LONGEST_TEXT].decode("utf-8", "replace")
    cut = not opened.whole or (text.lstrip()[:1] in (b"{", b"[") and not is_json(text))
    answer = Reply(ret=ret, said=said, readable=readable, cut=cut, text=opened.text)
    return answer, _output_of(text)


def _output_of(text: bytes) -> bytes:
    try:
        return bytes(_decode_boxed(text).output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _OUTPUT.search(text)
        return text[found.end() :] if found else b""


def is_complete(body: bytes, encoding: str = "") -> bool:
    """Whether a body is one whole JSON value: the only sign that an answer without a length came whole."""
    opened = open_body(body, encoding)
    return opened.whole and is_json(opened.text)


def judge_answer(answer: Reply, *, status: int, whole: bool, asked: int, odd: str = "") -> Verdict:
    """Class a poll by its HTTP status, what it held and what the platform said.

    An answer that did not come whole is uncertain whatever it says: messages may have gone with its end. `odd` is
    part of the detail.
    """
    verdict = _judge(answer, status, whole, asked)
    if not odd:
        return verdict
    detail = f"{verdict.detail or f'HTTP {status}'}, odd head: {odd}"
    return Verdict(outcome=verdict.outcome, detail=detail, expired=verdict.expired)


def _judge(answer: Reply, status: int, whole: bool, asked: int) -> Verdict:
    if status == 0 and not answer.text:
        return Verdict(outcome=PollOutcome.UNCERTAIN, detail="no answer")
    if not whole or answer.cut:
        return Verdict(outcome=PollOutcome.UNCERTAIN, detail=f"HTTP {status}, answer cut")
    if answer.size:
        full = answer.size >= asked
        return Verdict(outcome=PollOutcome.FULL if full else PollOutcome.PARTIAL)
    return _judge_words(answer, status)


def _judge_words(answer: Reply, status: int) -> Verdict:
    said, ret = answer.said, answer.ret
    shown = said or ("" if answer.readable else answer.text[:_LONGEST_TEXT].decode("utf-8", "replace"))
    detail = _detail(status, ret, shown)
    if _EXPIRED.search(said):
        return Verdict(outcome=PollOutcome.REFUSED, detail=detail, expired=True)
    if ret == _TOO_FREQUENT or status == 429 or _FREQUENT.search(said):
        return Verdict(outcome=PollOutcome.THROTTLED, detail=detail)
    if ret in _NOT_ENABLED or status in (401, 403) or _REFUSED.search(said):
        return Verdict(outcome=PollOutcome.REFUSED, detail=detail)
    if answer.readable and status == 200 and (ret in (None, 0, _NO_ROWS) or _NOTHING.search(said)):
        return Verdict(outcome=PollOutcome.EMPTY)
    return Verdict(outcome=PollOutcome.FAILED, detail=detail)


def _detail(status: int, ret: int | None, said: str) -> str:
    words = [f"HTTP {status}"] if status != 200 else []
    if ret is not None:
        words.append(f"ret {ret}")
    if said:
        words.append(excerpt(said, longest=200))
    return ", ".join(words) or "unreadable answer"


# ---------------------------------------------------------------- valid answers: one decode


def _parse_whole(opened: Opened) -> Reply | None:
    text = opened.text
    try:
        text.decode()
        if b"\n" in text.strip():
            text = msgspec.json.format(text, indent=-1)
        envelope = _decode(text)
        found = _messages_of(envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not _accounts_for(found, text):
        return None
    messages, rejects = _check_messages(text, found)
    ret, said = _envelope_words(envelope)
    return Reply(
        messages=messages,
        rejects=rejects,
        size=len(found),
        ret=ret,
        said=said,
        readable=ret is not None or envelope.output is not None or envelope.data is not None,
        cut=not opened.whole,
        text=opened.text,
    )


def _accounts_for(found: list[msgspec.Raw], text: bytes) -> bool:
    """Whether the messages account for every picture in the text, and each message is an object of its own."""
    names, full = text.count(b'"pic_url"'), text.count(b'"pic_full_url"')
    if max(names, full) > len(found) or names + full < len(found):
        return False
    if text.count(b"[") > 1 and any(bytes(raw)[:1] != b"{" for raw in found):
        return False
    return bool(found) or not (b"pic_" in text or b"stream_id" in text)


def _messages_of(envelope: _Envelope) -> list[msgspec.Raw]:
    output = envelope.output
    if isinstance(output, _Output):
        found = output.data or []
    else:
        found = []
        for raw in output or ():
            inner = _decode_output(raw).data if b'"data"' in bytes(raw) else None
            found.extend([raw] if inner is None else inner)
    return found + envelope.data if envelope.data else found


def _check_messages(
    text: bytes, found: list[msgspec.Raw]
) -> tuple[tuple[bytes | msgspec.Raw, ...], tuple[tuple[str, bytes], ...]]:
    """Check the messages one by one, but only if the page shows that one of them may be unfit."""
    brackets = text.count(b"{") + text.count(b"[")
    secret = may_hold_secret(text)
    odd = brackets > 2 * len(found) + 32 or len(text) > _ORDINARY_LENGTH * (len(found) + 1)
    if not (odd or secret or b"\r" in text or b"null" in text):
        return tuple(found), ()
    return _check_each([bytes(raw) for raw in found], secret)


def _envelope_words(envelope: _Envelope) -> tuple[int | None, str]:
    ret, retcode = _code(envelope.ret), _code(envelope.retcode)
    said = "; ".join(word for word in (envelope.message, envelope.errmsg) if word)
    return ret or (ret if retcode is None else retcode), said[:_LONGEST_TEXT]


# ---------------------------------------------------------------- damaged answers: message by message


def _parse_pieces(opened: Opened) -> Reply:
    text = opened.text
    call = _CALL.match(text)
    inner = call.group(1) if call else text
    parts = split(inner)
    found = [*parts.messages, *_strays(parts.rest)]
    messages, rejects = _check_each(found, may_hold_secret(inner))
    ret, said, readable = _words(parts.rest)
    if not readable and not parts.messages and not said:
        said = inner[:_LONGEST_TEXT].decode("utf-8", "replace")
    begins = inner.lstrip()[:1]
    cut = not opened.whole or (not parts.closed and (bool(parts.messages) or begins in (b"{", b"[", b'"')))
    return Reply(
        messages=messages,
        rejects=rejects + _leftovers(parts, cut),
        size=len(found),
        ret=ret,
        said=said,
        readable=readable,
        cut=cut,
        text=text,
    )


def _strays(rest: bytes) -> list[bytes]:
    """The scalars in places of messages. A scalar is no message, but it must not vanish."""
    try:
        listed = _messages_of(_decode(rest))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [bytes(raw) for raw in listed if bytes(raw)[:1] not in (b"n", b"[", b"{")]


def _leftovers(parts: Split, cut: bool) -> tuple[tuple[str, bytes], ...]:
    """The bytes outside messages and intact envelopes. Empty without any message: then the whole page is a reject."""
    if not parts.messages:
        return ()
    reason = "the rest of a cut answer" if cut else "the rest of a damaged answer"
    whole = () if is_json(parts.rest) else (parts.rest,)
    return tuple((reason, piece) for piece in whole + parts.torn)


def _check_each(
    found: list[bytes], secret: bool
) -> tuple[tuple[bytes | msgspec.Raw, ...], tuple[tuple[str, bytes], ...]]:
    messages: list[bytes | msgspec.Raw] = []
    rejects: list[tuple[str, bytes]] = []
    for raw in found:
        if raw == b"null":
            continue
        try:
            line = compact(_out_of_string(raw))
            messages.append(redact_message(line) if secret else line)
        except UnreadableMessage as error:
            rejects.append((str(error), raw))
    return tuple(messages), tuple(rejects)


def _out_of_string(raw: bytes) -> bytes:
    if raw[:1] != b'"':
        return raw
    try:
        content = msgspec.json.decode(raw, type=str).encode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return raw
    return content if content[:1] == b"{" else raw


def _words(rest: bytes) -> tuple[int | None, str, bool]:
    """Find the platform's `ret` and text in an envelope, broken or not, from which the messages were taken."""
    try:
        said = _decode_said(rest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _words_of_broken(rest)
    ret, retcode = _code(_value(said.ret)), _code(_value(said.retcode))
    words = "; ".join(str(word) for word in (_value(said.message), _value(said.errmsg)) if word)
    readable = ret is not None or bool(said.output) or bool(said.data)
    return ret or (ret if retcode is None else retcode), words[:_LONGEST_TEXT], readable


def _words_of_broken(rest: bytes) -> tuple[int | None, str, bool]:
    ret = _RET.search(rest) or _RETCODE.search(rest)
    words = [word.decode("utf-8", "replace") for word in _SAID.findall(rest)[:2] if word]
    return (int(ret.group(1)) if ret else None), "; ".join(words)[:_LONGEST_TEXT], ret is not None


def _value(raw: msgspec.Raw) -> int | float | str | None:
    try:
        value: int | float | str | None = msgspec.json.decode(raw, type=int | float | str | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value


def _code(value: float | str | None) -> int | None:
    try:
        return None if value is None else int(float(value))
    except (ValueError, OverflowError):
        return None
