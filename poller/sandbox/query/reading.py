"""How a query is read: who asks, whether the signature holds, what is asked for."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import md5

from poller.sandbox.names import BEIJING
from poller.sandbox.options import Customer

TOO_FREQUENT = 1202
BAD_PARAMETER = 1204
NEVER_PUSHED = 20601
BID_SCREENSHOTS = "100"


class QueryRefused(Exception):
    """Makes the answer an error. `ret` is None for an error whose number is unknown."""

    def __init__(self, message: str, ret: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.ret = ret


def signature(key: str, t: str) -> str:
    """Lower-case hex md5 of the key followed by the expiry."""
    return md5(f"{key}{t}".encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Who:
    """The customers, and the parameters by which they may identify themselves."""

    id_params: tuple[str, ...]
    customers: Mapping[str, Customer]

    def asks(self, query: Mapping[str, str]) -> Customer:
        """The customer that the query names. Its signature is not checked here."""
        named = [name for name in self.id_params if name in query]
        word = named[0] if named else self.id_params[0]
        customer = self.customers.get(query.get(word, ""))
        if customer is None:
            raise QueryRefused(f"{word} is invalid")
        return customer


def check_signature(query: Mapping[str, str], customer: Customer, now: float) -> None:
    """Refuses a wrong signature and one that has expired. There is no upper bound on `t`."""
    t = query.get("t", "")
    sign = query.get("sign", "").encode("utf-8", "replace")
    if not hmac.compare_digest(signature(customer.key, t).encode(), sign):
        raise QueryRefused("sign invalid")
    if not re.fullmatch(r"[0-9]{1,18}", t):
        raise QueryRefused("t is invalid", BAD_PARAMETER)
    if int(t) < now:
        raise QueryRefused("time expired")


def read_count(query: Mapping[str, str]) -> int:
    """The number of screenshots that a Live_Queue_Get asks for. `Param.ncount` is a slip of the document."""
    if query.get("Param.n.bid") != BID_SCREENSHOTS:
        raise QueryRefused("Param.n.bid is invalid", BAD_PARAMETER)
    text = query.get("Param.n.count", query.get("Param.ncount", "1"))
    return _number("Param.n.count", text, 100)


def read_channel(query: Mapping[str, str]) -> str:
    """The channel that a query names. `Param.n.channel_id` is a slip of the document."""
    channel_id = query.get("Param.s.channel_id", query.get("Param.n.channel_id", ""))
    if not channel_id:
        raise QueryRefused("Param.s.channel_id is invalid", BAD_PARAMETER)
    return channel_id


@dataclass(frozen=True, kw_only=True)
class Files:
    """Which segments Live_Tape_GetFilelist is asked for: those that start in a time (epoch, both ends included)."""

    channel_id: str
    offset: int
    limit: int
    newest_first: bool
    since: float
    until: float


def read_file_query(query: Mapping[str, str]) -> Files:
    """Reads the parameters of Live_Tape_GetFilelist, those of the document and those that came later."""
    channel_id = read_channel(query)
    page_no = _number("Param.n.page_no", query.get("Param.n.page_no", "1"), 10**9 - 1)
    limit = _number("Param.n.page_size", query.get("Param.n.page_size", "10"), 100)
    sort = query.get("Param.s.sort_type", "asc")
    if sort not in ("asc", "desc"):
        raise QueryRefused("Param.s.sort_type is invalid", BAD_PARAMETER)
    since, until = _window(query)
    return Files(
        channel_id=channel_id,
        offset=(page_no - 1) * limit,
        limit=limit,
        newest_first=sort == "desc",
        since=since,
        until=until,
    )


def _window(query: Mapping[str, str]) -> tuple[float, float]:
    """Reads both ends of the time or none. Both lie on one day in Beijing, so less than 24 hours apart."""
    names = ("Param.s.start_time", "Param.s.end_time")
    if not any(name in query for name in names):
        return 0.0, 1e12
    start, end = (_moment(name, query.get(name, "")) for name in names)
    if end < start or start.date() != end.date():
        raise QueryRefused("Param.s.end_time is invalid", BAD_PARAMETER)
    # Dates show whole seconds: the last one is meant up to its end.
    return start.timestamp(), end.timestamp() + 0.999999


def _moment(name: str, text: str) -> datetime:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", text):
        raise QueryRefused(f"{name} is invalid", BAD_PARAMETER)
    try:
        return datetime.fromisoformat(text).replace(tzinfo=BEIJING)
    except ValueError:
        raise QueryRefused(f"{name} is invalid", BAD_PARAMETER) from None


def _number(name: str, text: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise QueryRefused(f"{name} is invalid", BAD_PARAMETER)
    return int(text)


class CallRate:
    """A customer's call rate: a bucket of one second's calls, refilled evenly."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = max(1.0, per_second)
        self._then = 0.0

    def check(self, now: float) -> None:
        """Refuses a call that comes too early. `now` is monotonic."""
        grown = self._left + (now - self._then) * self._per_second
        self._left, self._then = min(grown, max(1.0, self._per_second)), now
        if self._left < 1:
            raise QueryRefused("too frequent", TOO_FREQUENT)
        self._left -= 1
