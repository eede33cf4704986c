"""Bugs of the platform in a box."""

from .bugs import Bug

SANDBOX = (
    Bug(
        "an acknowledgement goes to a pusher that has gone",
        "poller/sandbox/rtmp/connection.py",
        "self._acknowledgement = self._loop.call_later(_ACKNOWLEDGE_AFTER, self._acknowledge)",
        "self._send(commands.acknowledgement(self._received))",
        ("tests/sandbox/test_fast_pushes.py::test_a_fast_push_is_whole_however_its_pusher_goes",),
    ),
    Bug(
        "a jump of the clock ends a segment at once",
        "poller/sandbox/media/recorder.py",
        "if self._jumped and (keyframe or not segment.shows):",
        "if self._jumped:",
        ("tests/sandbox/test_recording.py::test_every_frame_after_a_jump_decodes",),
    ),
    Bug(
        "a push gives way to whoever comes",
        "poller/sandbox/live.py",
        "if not same or live.request.quiet() < TAKEN_OVER_AFTER:",
        "if live.request.quiet() < TAKEN_OVER_AFTER:",
        ("tests/sandbox/test_live.py::test_a_stranger_takes_no_push_over",),
    ),
    Bug(
        "what is left of a body stays in the connection",
        "poller/sandbox/listening.py",
        "    if request.content.is_eof():\n",
        "    if True:\n",
        ("tests/sandbox/test_http_edges.py::test_a_refused_upload_that_waits_for_100_is_told_to_close",),
    ),
)
