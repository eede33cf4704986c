"""The filter of a sink, from its `only`."""

import fnmatch
import re

from poller.core.model import Event
from poller.core.spool import Wants
from poller.settings import Only


def event_filter(only: Only | None) -> Wants:
    """A predicate for the events that pass the `only` of a sink."""
    if only is None:
        return lambda event: True
    kinds = None if only.kinds is None else frozenset(only.kinds)
    streams = None if only.streams is None else re.compile("|".join(map(fnmatch.translate, only.streams)))

    def wanted(event: Event) -> bool:
        if kinds is not None and event.kind not in kinds:
            return False
        return streams is None or streams.match(event.stream_id) is not None

    return wanted
