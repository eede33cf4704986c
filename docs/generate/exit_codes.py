"""The page of exit codes."""

from typing import Final

from docs.generate.markdown import page, table
from poller.cli.common import Exit

MEANING: Final = {
    Exit.DONE: (
        "What was asked for is done. A daemon that was stopped by SIGTERM or SIGINT exits with it too.",
        "nothing",
    ),
    Exit.FAILED: (
        "It could not be done; the last line of the log, or of stderr, says why. A daemon that ends with it loses nothing: what it "
        "took in is on disk, and its next start goes on there.",
        "the unit starts the daemon again; `failed` in the log names the reason",
    ),
    Exit.USAGE: (
        "The command line is wrong: an unknown command or option, or a value that cannot be read.",
        "`poller COMMAND --help`",
    ),
    Exit.BAD_CONFIGURATION: (
        "The configuration cannot be used. Every finding is reported with its line and column, and nothing was polled.",
        "fix the file; the unit does not start the daemon again before that",
    ),
}

COMMANDS: Final = (
    ("`poller run`", "0 after a stop, 1 when it ended by itself, 78"),
    ("`poller drain`", "0 only if every delivery was done; 1 says what is left"),
    ("`poller check`", "0, or 78; with `--connect` 1 when a part cannot be opened or the platform refuses"),
    ("`poller spool check`", "0, or 1 with what is wrong"),
    ("`show`, `retry`, `purge`", "1 when nothing matched, or nothing could be done"),
    ("`list`", "0 also when there is nothing to list"),
    (
        "`status`, `pause`, `resume`, `reload`",
        "1 when the name is not configured, or the daemon did not answer",
    ),
)


def exit_codes() -> str:
    """Each exit code, and what each command means by it."""
    assert set(MEANING) == set(Exit)
    return page(
        "Exit codes",
        table(("code", "what it means", "what to do"), ((str(int(one)), *MEANING[one]) for one in Exit)),
        "A process that is ended by a signal has no code of its own; a shell shows 128 and the signal's number (137 after `kill -9`).",
        "## By command",
        table(("command", "codes"), COMMANDS),
    )
