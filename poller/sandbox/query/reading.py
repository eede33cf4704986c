"""How a query is read: who asks, whether the signature holds, what is asked for."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5

from poller.sandbox.options import Customer

TOO_FREQUENT = 1202
BAD_PARAMETER = 1204
BID_SCREENSHOTS = "100"


class Refused(Exception):
    """The query is answered with an error. `ret` None: one whose number nobody knows."""

    def __init__(self, message: str, ret: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.ret = ret


def signature(key: str, t: str) -> str:
    """Lower-case hex md5 of the key followed by the expiry."""
    return md5(f"{key}{t}".encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Who:
    """By which parameters customers may identify themselves, and which customers there are."""

    id_params: tuple[str, ...]
    customers: Mapping[str, Customer]

    def asks(self, query: Mapping[str, str]) -> Customer:
        """The customer that the query names; that it is really they is still unproven."""
        named = [name for name in self.id_params if name in query]
        word = named[0] if named else self.id_params[0]
        customer = self.customers.get(query.get(word, ""))
        if customer is None:
            raise Refused(f"{word} is invalid")
        return customer


def check_signature(query: Mapping[str, str], customer: Customer, now: float) -> None:
    """Refuses a wrong signature and one that has expired. There is no upper bound on `t`."""
    t = query.get("t", "")
    sign = query.get("sign", "").encode("utf-8", "replace")
    if not hmac.compare_digest(signature(customer.key, t).encode(), sign):
        raise Refused("sign invalid")
    if not re.fullmatch(r"[0-9]{1,18}", t):
        raise Refused("t is invalid", BAD_PARAMETER)
    if int(t) < now:
        raise Refused("time expired")


def asked_count(query: Mapping[str, str]) -> int:
    """How many screenshots Live_Queue_Get is asked for. `Param.ncount` is the document's own slip."""
    if query.get("Param.n.bid") != BID_SCREENSHOTS:
        raise Refused("Param.n.bid is invalid", BAD_PARAMETER)
    text = query.get("Param.n.count", query.get("Param.ncount", "1"))
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 100:
        raise Refused("Param.n.count is invalid", BAD_PARAMETER)
    return int(text)


class Pace:
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
            raise Refused("too frequent", TOO_FREQUENT)
        self._left -= 1
