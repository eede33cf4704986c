"""Sessions, one-time codes and tokens. All of them are in memory, and a restart forgets sessions and codes.

Only hashes of ids and codes are kept and looked up, so that the time of a look-up reveals nothing.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec

LOOK: Final = "look"
OPERATE: Final = "operate"
LIFETIME: Final = 12 * 3600.0
"""Seconds after which a session ends."""
MOST_SESSIONS: Final = 1000
"""The most sessions of one role."""
CODE_LIFETIME: Final = 3600.0
MOST_CODES: Final = 16


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A login. `key` names it inside the process and opens nothing. `until` is in the clock of `Sessions`."""

    key: str
    role: str
    until: float


class Sessions:
    """The logins of now. At the bound on those of a role, the oldest one of it ends, so that viewers end no operator's.

    `ended` is called with the key of a session that ends before its time.
    """

    def __init__(
        self,
        *,
        ended: Callable[[str], None] = lambda key: None,
        now: Callable[[], float] = time.monotonic,
        most: int = MOST_SESSIONS,
    ) -> None:
        self._ended = ended
        self._now = now
        self._most = most
        self._sessions: dict[str, Session] = {}

    def create(self, role: str) -> str:
        """Begin a session. Returns its id, which is the secret of the client."""
        self._forget_old()
        own = [one.key for one in self._sessions.values() if one.role == role]
        if len(own) >= self._most:
            self._end(own[0])
        id = secrets.token_urlsafe(32)
        key = _hash(id)
        self._sessions[key] = Session(key=key, role=role, until=self._now() + LIFETIME)
        return id

    def find(self, id: str) -> Session | None:
        """The session of an id that a client sent."""
        session = self._sessions.get(_hash(id))
        return session if session is not None and session.until > self._now() else None

    def end(self, id: str) -> None:
        """End a session, if there is one with this id."""
        if (key := _hash(id)) in self._sessions:
            self._end(key)

    def _end(self, key: str) -> None:
        del self._sessions[key]
        self._ended(key)

    def _forget_old(self) -> None:
        now = self._now()
        for key in [one.key for one in self._sessions.values() if one.until <= now]:
            del self._sessions[key]


class Codes:
    """Codes that log in once, within an hour. At the bound on their number, the oldest one is dropped."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._codes: dict[str, tuple[str, float]] = {}

    def create(self, role: str) -> str:
        """A new code for this role."""
        while len(self._codes) >= MOST_CODES:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_urlsafe(16)
        self._codes[_hash(code)] = (role, self._now() + CODE_LIFETIME)
        return code

    def take(self, code: str) -> str | None:
        """The role of a code, which is used up by that; None if there is no such code."""
        role, until = self._codes.pop(_hash(code), (None, 0.0))
        return role if until > self._now() else None


class Tokens:
    """The configured tokens; None where there is none."""

    def __init__(self, *, operate: str | None, look: str | None) -> None:
        self._hashes = {
            role: _hash(token) for role, token in ((OPERATE, operate), (LOOK, look)) if token is not None
        }

    @property
    def login(self) -> bool:
        """Whether people have to log in."""
        return bool(self._hashes)

    def role(self, token: str) -> str | None:
        """The role that a token gives. All tokens are compared, each in constant time."""
        given = _hash(token)
        matches = [role for role, known in self._hashes.items() if hmac.compare_digest(given, known)]
        return matches[0] if matches else None


def _hash(secret: str) -> str:
    """Of whatever a client sent: a header may hold bytes that are no UTF-8."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
