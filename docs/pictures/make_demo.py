"""Make `demo.svg` from a real run of `poller demo`: what a terminal shows, without the middle of a long list.

    python docs/pictures/make_demo.py              # some 40 seconds
    python docs/pictures/make_demo.py --for 20s

The run's folder is removed at the end.
"""

import argparse
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 84
MOST_LINES = 58
PICTURE = Path(__file__).parent / "demo.svg"
FOLDER = re.compile(r"(/\S*)?/poller-demo-\w+")
FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""Where rich would load a font from; a picture in a page loads nothing."""
LINK = re.compile(r"\x1b\]8;[^\x07\x1b]*(?:\x07|\x1b\\)")


def shown(seconds: str) -> str:
    """What a terminal of this width is sent while the demo runs; raises if the demo fails."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    demo = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "poller", "demo", "--for", seconds],
        stdin=subprocess.DEVNULL,
        stdout=there,
        stderr=there,
        env={**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
    )
    os.close(there)
    text = b"".join(iter(lambda: _read(here), b"")).decode()
    os.close(here)
    if demo.wait() != 0:
        raise SystemExit(f"the demo failed:\n{text}")
    return text.replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side is closed
        return b""


def folders(text: str) -> list[Path]:
    """The temporary folders that the demo named."""
    return [Path(name) for name in {found.group() for found in FOLDER.finditer(text)} if Path(name).is_dir()]


def cut(lines: Sequence[str]) -> list[str]:
    """The beginning, the interruption and the end, where all of it is too much for a picture."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    end = _first("The demo ends its streams", lines)
    pulled = _first("The plug of", lines)
    back = _first("And put back", lines)
    first = _first(" is live", lines)
    return [
        *lines[: first + 2],
        "  …",
        *lines[pulled - 3 : pulled + 3],
        "  …",
        *lines[back : back + 2],
        "  …",
        *lines[end:],
    ]


def _first(words: str, lines: Sequence[str]) -> int:
    """Where the demo says it. It raises if the demo no longer does: the picture would lack its end."""
    return next(n for n, line in enumerate(lines) if words in re.sub(r"\x1b\[[\d;]*m", "", line))


def drawn(text: str) -> str:
    """The text as a picture of a terminal."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    plain = LINK.sub("", FOLDER.sub("/tmp/poller-demo", text))  # noqa: S108 - a name to show
    for line in cut(plain.rstrip("\n").split("\n")):
        console.print(Text.from_ansi(line), soft_wrap=True)
    picture = FONT.sub("", console.export_svg(title="poller demo", unique_id="demo"))
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


def main() -> None:
    """Run the demo and write the picture."""
    words = argparse.ArgumentParser(description="Make demo.svg from a real run of `poller demo`.")
    words.add_argument("--for", dest="seconds", default="30s", help="how long the demo runs")
    text = shown(words.parse_args().seconds)
    try:
        PICTURE.write_text(drawn(text))
    finally:
        for folder in folders(text):
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
