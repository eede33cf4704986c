"""Bugs of the sinks `s3` and `exec`, and of the store in the sandbox that takes both signatures."""

from .bugs import Bug

STORE = "tests/servers/test_s3.py::"
ANSWERS = "tests/servers/test_s3_answers.py::"
COMMANDS = "tests/integration/sinks/test_exec.py::"

OBJECTS = (
    Bug(
        "a picture is put into the bucket unchecked",
        "poller/sinks/s3/sink.py",
        "content = arrived.picture()",
        'content = b"".join(arrived._pieces)',
        (STORE + "test_a_source_that_is_cut_or_no_whole_picture_leaves_no_object",),
    ),
    Bug(
        "COS's 200 is enough, whatever it says to have stored",
        "poller/sinks/s3/cos_store.py",
        """if (answer.head.get("etag") or "").strip('"') != new.md5.hex():""",
        "if False:",
        (ANSWERS + "test_an_object_that_is_stored_otherwise_is_not_delivered",),
    ),
    Bug(
        "an S3 store's 200 is enough, whatever it says to have stored",
        "poller/sinks/s3/s3_store.py",
        "if tag != new.md5.hex():",
        "if False:",
        (ANSWERS + "test_an_object_that_is_stored_otherwise_is_not_delivered",),
    ),
    Bug(
        "a 200 before the picture was sent is a delivery",
        "poller/sinks/s3/cos_store.py",
        "if answer.status != 200 or answer.early:",
        "if answer.status != 200:",
        (ANSWERS + "test_a_200_before_the_whole_picture_was_sent_is_no_delivery",),
    ),
    Bug(
        "the metadata of an object is not signed",
        "poller/sinks/s3/cos_store.py",
        'headers={"Host": url.host_port_subcomponent or "", **headers}',
        'headers={"Host": url.host_port_subcomponent or ""}',
        (ANSWERS + "test_everything_that_an_object_is_is_signed",),
    ),
    Bug(
        "a percent sign of a key goes out as it is",
        "poller/sinks/s3/cos_store.py",
        "quote(path, safe='/-_.~')",
        "quote(path, safe='/-_.~%')",
        (
            STORE + "test_keys_and_metadata_of_odd_names_come_back_as_they_are[cos]",
            ANSWERS + "test_any_key_comes_back_unchanged_and_can_be_deleted[cos]",
        ),
    ),
    Bug(
        "a wrong clock keeps pictures from COS",
        "poller/sinks/s3/cos_store.py",
        "if answer.status == 403 and",
        "if answer.status == 0 and",
        (ANSWERS + "test_a_wrong_clock_is_corrected_by_the_stores_and_told_where_it_cannot_be",),
    ),
    Bug(
        "an object is deleted in a way that not every store has",
        "poller/sinks/s3/s3_store.py",
        "disable_bulk_delete=True",
        "disable_bulk_delete=False",
        (STORE + "test_check_leaves_nothing[cos_by_s3]",),
    ),
    Bug(
        "a body is stored that is not the one that was signed",
        "poller/sandbox/cos/signature_v4.py",
        "if sha256(content).hexdigest() != signature.payload:",
        "if False:",
        ("tests/sandbox/test_s3_clients.py::test_a_body_is_stored_if_it_is_the_one_that_was_signed",),
    ),
    Bug(
        "what a command left behind goes on",
        "poller/sinks/exec.py",
        "        self._kill(signal.SIGKILL)\n        await self._ended\n",
        "        await self._ended\n",
        (COMMANDS + "test_children_that_a_command_leaves_behind_are_ended",),
    ),
    Bug(
        "a command shares the daemon's group",
        "poller/sinks/exec.py",
        "start_new_session=True,",
        "start_new_session=False,",
        (COMMANDS + "test_children_that_a_command_leaves_behind_are_ended",),
    ),
    Bug(
        "a command inherits the daemon's environment",
        "poller/sinks/exec.py",
        "{**inherited, **settings.environment}",
        "{**os.environ, **settings.environment}",
        (COMMANDS + "test_the_environment_holds_nothing_of_the_daemons_but_ordinary_variables",),
    ),
    Bug(
        "a command gets the raised limit of open files",
        "poller/sinks/exec.py",
        """'ulimit -S -n "$1"; shift; exec "$@"'""",
        """'shift; exec "$@"'""",
        (COMMANDS + "test_a_command_gets_the_limit_of_open_files_that_the_daemon_was_started_with",),
    ),
    Bug(
        "a command that refuses a batch for good gets it again",
        "poller/sinks/exec.py",
        "if code == DEAD:",
        "if code == -DEAD:",
        (COMMANDS + "test_the_exit_code_decides",),
    ),
)
