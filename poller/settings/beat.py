"""The beat of a source: a setting with a written form."""

from dataclasses import dataclass
from typing import Final, Self

from poller.settings.units import WrittenForm, read_duration, written_duration, wrong

SHORTEST: Final = 1.0
LONGEST: Final = 60.0
_FORM: Final = 'a beat is written 10s, from 1s to 60s, or "off"'


@dataclass(frozen=True, kw_only=True, slots=True)
class BeatPeriod(WrittenForm):
    """The period in which messages come in bursts, in seconds; None, written `off`, for none."""

    PATTERN = r"off|[0-9]+(\.[0-9]+)?(ms|s|m)"
    EXAMPLES = ("10s", "off")

    seconds: float | None

    def __str__(self) -> str:
        return "off" if self.seconds is None else written_duration(self.seconds)

    @classmethod
    def parse(cls, value: object) -> Self:
        """The beat for a written form."""
        if value == "off":
            return cls(seconds=None)
        seconds = read_duration(value) if isinstance(value, str) else None
        if seconds is None or not SHORTEST <= seconds <= LONGEST:
            raise wrong(_FORM, echo=True)
        return cls(seconds=seconds)


EVERY_TEN_SECONDS: Final = BeatPeriod(seconds=10.0)
