"""The program's first lines: signals are heard before anything heavy is imported."""

import sys

from poller.stop import Stop


def main() -> None:
    """Run the command line; exits with one of `poller.cli.Exit`."""
    stop = Stop()
    stop.listen()
    from poller import cli  # noqa: PLC0415 - after the signals, because it takes a second

    sys.exit(cli.main(stop))


if __name__ == "__main__":
    main()
