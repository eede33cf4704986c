"""A pusher of our own.

`echo URL | python -m poller.sandbox.push FILE` is what `ffmpeg -re -stream_loop -1 -i FILE -c copy -f flv URL` does,
where there is no ffmpeg. The URL is read from stdin because it may hold a push secret, which a list of processes would
show. Only H.264 with AAC or MP3 is taken.

A program and not a thread: PyAV holds the interpreter's lock while it connects.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from poller.sandbox.media.showing import NoVideo, PushFailed, push

STOP = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """The program; SIGTERM and SIGINT end the push in an orderly way."""
    if len(sys.argv) != 2:
        print("usage: echo URL | python -m poller.sandbox.push FILE", file=sys.stderr)  # noqa: T201 - usage
        return 2
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)  # they are waited for between two frames
    try:
        push(Path(sys.argv[1]), sys.stdin.readline().strip(), _stopped_within)
    except (NoVideo, PushFailed) as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program's last word
        return 1
    return 0


def _stopped_within(seconds: float) -> bool:
    return signal.sigtimedwait(STOP, seconds) is not None


if __name__ == "__main__":
    sys.exit(main())
