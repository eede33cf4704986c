"""The program's first lines: signals are heard before anything heavy is imported."""

import sys

from poller.daemon.signals import Stop
from poller.runtime import stderr


def main() -> None:
    """Run the command line; exits with one of `poller.cli.common.Exit`."""
    stop = Stop()
    stop.listen()
    stderr.install()
    from poller.cli import app as cli  # noqa: PLC0415 - after the signals, because it takes half a second

    try:
        cli.main(stop)
    except SystemExit as end:
        stop.ignore()
        sys.exit(end.code)


if __name__ == "__main__":
    main()
