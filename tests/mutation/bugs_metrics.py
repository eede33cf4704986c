"""Deliberate bugs in the metrics."""

from .bugs import Bug

METRICS = (
    Bug(
        "a picture's age ends at its arrival",
        "poller/pipeline/ingest.py",
        "delays = [now - event.occurred_at for",
        "delays = [event.received_at - event.occurred_at for",
        (
            "tests/unit/pipeline/test_ingest.py::test_each_picture_is_measured_up_to_its_commit_and_other_events_are_not",
        ),
    ),
    Bug(
        "a page that comes again after a crash makes its pictures old",
        "poller/pipeline/ingest.py",
        'pictures=new["screenshot"] > 0',
        "pictures=True",
        (
            "tests/unit/pipeline/test_ingest.py::test_a_page_that_is_read_again_after_a_crash_is_not_measured_twice",
        ),
    ),
    Bug(
        "a stream that ended without a word is an alarm",
        "poller/operations/stream_states.py",
        "    if word == NO_PICTURES and stream.state is None:\n        return SILENT\n",
        "",
        ("tests/unit/operations/test_stream_states.py::test_a_stream_states_in_one_state",),
    ),
    Bug(
        "the number of a state that no stream is in stays",
        "poller/runtime/metrics.py",
        "        self.streams.clear()\n",
        "",
        ("tests/unit/runtime/test_metrics.py::test_a_state_that_is_not_counted_any_more_is_forgotten",),
    ),
)
