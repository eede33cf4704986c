"""Pushes video that shows in each frame when it was drawn, and prints a line for each frame.

`echo URL | python -m tests.sandbox.wall_clock SECONDS_PER_GOP`

A line has the frame's time in the stream and what it shows, both in milliseconds.
"""

import sys
import time
from fractions import Fraction

import av
from av.video.stream import VideoStream

from tests.sandbox.films import HEIGHT, WIDTH, drawn

RATE = 10


def main() -> None:
    gop = round(float(sys.argv[1]) * RATE)
    options = {"preset": "ultrafast", "tune": "zerolatency", "sc_threshold": "0", "keyint_min": str(gop)}
    with av.open(sys.stdin.readline().strip(), "w", format="flv") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = gop
        began, number = time.monotonic(), 0
        while True:
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            now = int(time.time() * 1000)
            print(number * 1000 // RATE, now, flush=True)
            frame = drawn(now)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            number += 1


if __name__ == "__main__":
    main()
