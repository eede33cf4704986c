"""Signs requests with the keys of one bucket, by the store's clock where ours is wrong."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from poller.qcloud.cos.signature import authorization
from poller.qcloud.wire.skew import epoch_of

NOTICEABLE: Final = 30.0
"""Seconds between the store's clock and ours beyond which a refused request is signed by the store's clock."""


class Signer:
    """A pair of keys, and how far the store's clock is ahead of ours."""

    def __init__(self, secret_id: str, secret_key: str, *, now: Callable[[], float] = time.time) -> None:
        self._secret_id = secret_id
        self._secret_key = secret_key
        self._now = now
        self._ahead = 0.0

    def sign(
        self, method: str, path: str, *, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> str:
        """The `Authorization` header of a request with this decoded path. All `headers` and `params` are signed."""
        return authorization(
            secret_id=self._secret_id,
            secret_key=self._secret_key,
            method=method,
            path=path,
            params=params or {},
            headers=headers,
            now=self._now() + self._ahead,
        )

    @property
    def ahead(self) -> float:
        """Seconds by which the store's clock is taken to be ahead of ours."""
        return self._ahead

    def corrects_clock(self, date: str | None, *, signed: float) -> bool:
        """Whether to sign again what was refused with this `Date`, because the store's clock is another one.

        `signed` is what `ahead` was when the refused request was signed. Other requests may have corrected it since.
        """
        there = epoch_of(date)
        ahead = 0.0 if there is None else there - self._now()
        if there is None or abs(ahead - signed) < NOTICEABLE:
            return False
        self._ahead = ahead
        return True
