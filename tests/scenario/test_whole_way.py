"""The whole way: ffmpeg pushes a film, the sandbox photographs it, the daemon downloads and posts the pictures."""

import itertools
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest

from poller.sandbox.live import LivePush

from .clips import film
from .environment import PATIENCE, Environment, environment, until
from .rig import scenario, webhook

__all__ = ["film"]
SIZE = (300, 169)
INTERVAL = 2
RATE = 25


@contextmanager
def pushed(film: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The film in a loop, at its own speed, by Debian's ffmpeg."""
    if shutil.which("ffmpeg") is None:
        missing = "ffmpeg is not installed"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    words = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(film)]
    with subprocess.Popen([*words, "-c", "copy", "-f", "flv", url], stdin=subprocess.DEVNULL) as pusher:
        try:
            yield pusher
        finally:
            pusher.kill()


def greys(file: Path) -> list[bytes]:
    """The frames of a film, or the one of a picture, small and grey."""
    with av.open(str(file)) as source:
        frames = (
            frame.reformat(width=SIZE[0], height=SIZE[1], format="gray") for frame in source.decode(video=0)
        )
        return [b"".join(_rows(bytes(one.planes[0]), one.planes[0].line_size)) for one in frames]


def _rows(plane: bytes, stride: int) -> Iterator[bytes]:
    return (plane[start : start + SIZE[0]] for start in range(0, len(plane), stride))


def difference(one: bytes, other: bytes) -> float:
    """Mean, of every seventh pixel, in grey levels."""
    pairs = list(zip(one[::7], other[::7], strict=True))
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def shown(picture: Path, frames: list[bytes]) -> tuple[int, float]:
    """Which frame of the film a picture is, and how unlike it is."""
    (grey,) = greys(picture)
    return min(((at, difference(grey, frame)) for at, frame in enumerate(frames)), key=lambda found: found[1])


def moments_of(standing: Environment) -> dict[int, int]:
    """The stream's time in milliseconds at which each picture is cut, by the second of the picture.

    So it is known which frame had come by then, also where the machine holds up the pusher or the platform.
    """
    shots, found = standing.sandbox.screenshots, dict[int, int]()
    begin = shots._begin

    def noted(push: LivePush, tick: float) -> None:
        if (footage := push.latest.footage()) is not None:
            found[round(tick)] = footage.now
        begin(push, tick)

    standing.ask(lambda: setattr(shots, "_begin", noted))
    return found


def in_the_cos(standing: Environment, name: str) -> bytes:
    with urllib.request.urlopen(f"{standing.pictures}/{name}", timeout=PATIENCE) as answer:
        return bytes(answer.read())


def test_the_picture_on_disk_is_the_frame_that_was_shown(tmp_path: Path, film: Path) -> None:
    with environment(tmp_path, exact=True, interval=INTERVAL, upload_delay=(0.0, 1.0)) as standing:
        archive = {"type": "download", "directory": str(tmp_path / "pictures"), "allow_cidr": ["127.0.0.0/8"]}
        sinks = {"archive": {**archive, "template": "{name}"}, "hook": webhook(standing)}
        moments = moments_of(standing)
        with (
            scenario(standing, tmp_path / "daemon", sinks=sinks) as scene,
            pushed(film, f"{standing.sandbox.endpoints['rtmp']}/film@7") as pusher,
        ):
            daemon = scene.run()
            until(lambda: len(list((tmp_path / "pictures").glob("*.jpg"))) >= 5)
            pusher.send_signal(signal.SIGINT)
            pusher.wait(PATIENCE)
            until(lambda: not standing.ask(lambda: standing.sandbox.live.pushes))
            assert daemon.stop() == 0
            assert scene.drain() == 0
        pictures = sorted(
            (tmp_path / "pictures").glob("*.jpg"), key=lambda file: int(file.name.split("_")[-3])
        )
        names = [file.name for file in pictures]
        assert set(names) == {one.path for one in standing.oracle.removed()} == set(standing.hook.files)
        for file in pictures:
            assert file.read_bytes() == in_the_cos(standing, file.name)

    frames = greys(film)
    seen = [shown(file, frames) for file in pictures]
    assert max(unlike for _, unlike in seen) < 4, seen
    ticks = [sum(int(name.split("_")[part]) for part in (-5, -3)) for name in names]
    assert not [tick for tick in ticks if tick % INTERVAL], "pictures are taken at multiples of the interval"
    steps = [(moments[later] - moments[earlier]) / 1000 for earlier, later in itertools.pairwise(ticks)]
    apart = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    assert min(abs(step - real) for step, real in zip(steps, apart, strict=True)) < 0.5, "in the calmest step"
    for (first, _), (second, _), step in zip(seen[:-1], seen[1:], steps, strict=True):
        # Half a second: ffmpeg's own pace over the loop's seam.
        off = (second - first - step * RATE) % len(frames)
        assert min(off, len(frames) - off) <= RATE / 2, (seen, ticks, moments)
