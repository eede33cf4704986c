"""Times in options."""

from datetime import UTC, datetime

import typer

from poller.core.moments import parse_moment


def moment(text: str, option: str, utc: bool) -> datetime:
    """The moment of an option. Without an offset it is local time, or UTC with `utc`. A bad one is a usage error."""
    try:
        return parse_moment(text, datetime.now(UTC), UTC if utc else None)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
