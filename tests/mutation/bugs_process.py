"""Deliberate bugs in what belongs to the process: whose spool it is, where its files are, who reads its log."""

from .bugs import Bug

ONE_SPOOL = "tests/scenario/test_one_spool.py::"
UNREAD = "tests/service/test_unread_log.py::"

PROCESS = (
    Bug(
        "the path of the spool is taken as it is written",
        "poller/settings/fields.py",
        "return Path(os.path.realpath(_path(value, info)))",
        "return _path(value, info)",
        (
            ONE_SPOOL
            + "test_a_daemon_on_another_name_of_a_spool_is_refused_and_commands_reach_the_one_that_runs",
        ),
    ),
    Bug(
        "a spool with several hard links is opened",
        "poller/runtime/durable_files.py",
        "(links := found.st_nlink) > 1",
        "(links := found.st_nlink) > 9",
        (
            # beside no running daemon, the one with the bug would run on and the test wait for its end
            ONE_SPOOL + "test_a_spool_with_a_second_hard_link_is_refused_with_the_remedy[True]",
        ),
    ),
    Bug(
        "the database itself is not locked",
        "poller/spools/sqlite/file_locks.py",
        "self._file = open_locked(self._path, self._what)",
        "self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)",
        (ONE_SPOOL + "test_the_database_itself_is_locked_and_not_only_a_name_beside_it",),
    ),
    Bug(
        "nobody looks whether the spool is still at its path",
        "poller/pipeline/storage_watch.py",
        "            self._report(found)\n",
        "            self._report(None)\n",
        (
            "tests/scenario/test_storage_moved.py::test_when_the_spools_files_are_no_longer_at_their_paths_nothing_more"
            "_is_polled_and_the_reason_is_said[folder_renamed]",
        ),
    ),
    Bug(
        "a log line that cannot be written ends the thread that writes",
        "poller/runtime/stderr.py",
        "        except OSError:\n            self._cut",
        "        except KeyError:\n            self._cut",
        (UNREAD + "test_each_line_that_a_closed_pipe_refuses_is_counted",),
    ),
)
