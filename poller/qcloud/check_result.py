"""What a check of an account found: a state, and the text that goes with it."""

from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

State = TypeVar("State", bound=StrEnum)


class CheckResult(msgspec.Struct, Generic[State], frozen=True):
    """A state, and the platform's or the network's text for it (redacted)."""

    state: State
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.detail}" if self.detail else str(self.state)
