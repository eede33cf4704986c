"""How long engines with a database keep what they remember, and how much they delete at once."""

from collections.abc import Sequence

PRUNE_STEP = 32
IDS_REMEMBERED = 30 * 86400.0
STREAMS_KEPT = 30 * 86400.0
MEMORY_KEPT = 60 * 86400.0
"""Twice as long as a stream is kept: the memory of a source about a stream that is gone is of no use."""

Stretches = Sequence[tuple[float, float]]
"""Ranges of epoch seconds. A moment outside all of them is old; see `Clock.young`."""
