"""Where a new sink starts in the log: a setting with a written form."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from poller.core.moments import FORMS, parse_moment
from poller.settings.units import WrittenForm, wrong

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Start(WrittenForm):
    """The start of a sink as written: `earliest`, `now` or a moment (`parse_moment`)."""

    PATTERN = r"earliest|now|[0-9].*"
    EXAMPLES = ("earliest", "now", "2h", "2026-11-22T10:03:00Z")

    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, value: object) -> Self:
        """The start for a written form."""
        if not isinstance(value, str):
            raise wrong(f"a start is written earliest, now, or as a time: {FORMS}", echo=True)
        start = cls(text=value)
        try:
            start.moment(datetime.now(UTC))
        except ValueError:
            raise wrong(f"a start is written earliest, now, or as a time: {FORMS}", echo=True) from None
        return start

    def moment(self, now: datetime) -> datetime | None:
        """The moment from which on a new sink gets events; None for `now`."""
        if self.text == "now":
            return None
        return _EARLIEST if self.text == "earliest" else parse_moment(self.text, now)


NOW: Final = Start(text="now")
