"""Brokers, databases, buckets and commands: each way in which the other side of a sink fails, for each sink.

A row names tests against the real server. Two tests are the same for all: the shipped contract, and the one of a
middle box, which resets connections, lets their packets vanish, or says nothing.
"""

from collections.abc import Mapping
from typing import Final

from .row import Row, row

REFUSES, HANGS, HALF_FAILS = "refuses", "hangs", "half fails"
IS_FULL, LOSES_CONNECTION, FORGETS_SCHEMA = "is full", "loses its connection", "forgets its schema"
FAULTS: Final = (REFUSES, HANGS, HALF_FAILS, IS_FULL, LOSES_CONNECTION, FORGETS_SCHEMA)

PROMISES: Final[Mapping[str, str]] = {
    REFUSES: "again later, with a reason that holds no secret; what is granted later is used without a restart",
    HANGS: "a delivery ends at its deadline; the next one goes well once the other side does",
    HALF_FAILS: "what was delivered counts; only what failed is tried again, or is a dead letter",
    IS_FULL: "again later; it heals by itself",
    LOSES_CONNECTION: "nothing that was confirmed is lost; a connection whose packets vanish is given up",
    FORGETS_SCHEMA: "again later, with a reason; what is made again is used without a restart",
}
BOX: Final = "test_a_middle_box_that_cuts_loses_or_is_silent_costs_no_event"
CANCELLED: Final = "does_not_hold_a_cancelled_delivery"
KILLED: Final = "loses_nothing_that_was_confirmed"


class _Tests:
    """What a table of one sink is made of."""

    def __init__(self, sink: str, file: str, contract: str) -> None:
        self._sink = sink
        self._file = file
        self._contract = f"{contract}::test_a_broken_world_makes_it_raise_and_it_works_when_repaired"

    def table(self, **given: tuple[str, ...]) -> dict[str, Row]:
        """A row for each fault; a first word of tests says by what is known that the fault came."""
        return {
            fault: self._row(fault, *given[fault.replace(" ", "_").replace("its_", "")]) for fault in FAULTS
        }

    def _row(self, fault: str, fired: str, *tests: str) -> Row:
        also = (self._contract,) if fault == LOSES_CONNECTION else ()
        own = tuple(test if "::" in test else f"{self._file}::{test}" for test in tests)
        return row(f"{self._sink}: {fault}", PROMISES[fault], fired, *own, *also)


CELLS: Final[Mapping[str, Mapping[str, Row]]] = {
    "kafka": _Tests("kafka", "servers/test_kafka.py", "servers/test_kafka.py::TestKafka").table(
        refuses=(
            "the reason; the broker's own users and rights",
            "test_a_user_logs_in_over_tls_and_needs_the_right_to_write",
            "test_a_wrong_password_is_told_without_it",
            "test_a_message_that_is_too_large_dies_alone",
        ),
        hangs=(
            "SIGSTOP; the box holds connections to which nothing was said",
            f"test_a_broker_that_hangs_{CANCELLED}",
            BOX,
        ),
        half_fails=(
            "the failed ids; the records in the topics",
            "test_only_the_events_of_a_missing_topic_fail",
            "test_a_message_that_is_too_large_dies_alone",
        ),
        is_full=(
            "the broker may write no more, and ends",
            "test_a_broker_whose_disk_is_full_gets_each_event_once_it_has_room_and_runs_again",
        ),
        loses_connection=(
            "the broker is killed; the box counts what it struck",
            "test_a_broker_that_is_killed_in_the_midst_leaves_no_gap_and_no_repetition",
            "test_events_pass_the_daemon_and_the_broker_while_both_are_killed",
            BOX,
        ),
        forgets_schema=(
            "the reason, once the client has noticed",
            "test_a_topic_that_is_removed_and_made_again_is_used_without_a_restart",
        ),
    ),
    "amqp": _Tests("amqp", "servers/test_amqp.py", "servers/test_amqp.py::TestAmqp").table(
        refuses=(
            "the reason; the broker's own users and rights",
            "test_check_proves_the_right_to_write_and_leaves_nothing",
            "test_a_wrong_password_is_told_without_it",
            "test_an_unknown_virtual_host_is_told",
            "test_a_message_that_is_too_large_dies_alone",
        ),
        hangs=(
            "SIGSTOP; the box holds connections to which nothing was said",
            f"test_a_broker_that_hangs_{CANCELLED}",
            "test_a_sink_is_closed_although_its_broker_hangs",
            BOX,
        ),
        half_fails=(
            "the failed ids; the messages in the queue",
            "test_only_the_events_without_a_route_fail",
            "test_a_message_that_is_too_large_dies_alone",
        ),
        is_full=(
            "the queue's limit; the broker's own alarm",
            "test_a_full_queue_names_those_that_found_no_room",
            "test_a_broker_whose_disk_is_full_is_told_and_gets_each_event_later",
        ),
        loses_connection=(
            "the broker is killed; the box counts what it struck",
            f"test_a_broker_that_is_killed_in_the_midst_{KILLED}",
            "test_events_pass_the_daemon_and_the_broker_while_both_are_killed",
            BOX,
        ),
        forgets_schema=(
            "the reason",
            "test_an_exchange_and_a_queue_that_are_removed_and_made_again_are_used_at_once",
        ),
    ),
    "nats": _Tests("nats", "servers/test_nats.py", "servers/test_nats.py::TestNats").table(
        refuses=(
            "the reason; the server's own users and rights",
            "test_a_wrong_password_is_told_without_it",
            "test_a_user_who_may_not_publish_to_a_subject_is_told_so_for_that_one",
            "test_a_message_that_is_too_large_dies_alone",
        ),
        hangs=(
            "SIGSTOP; the box holds connections to which nothing was said",
            f"test_a_server_that_hangs_{CANCELLED}",
            BOX,
        ),
        half_fails=(
            "the failed ids; the messages in the stream",
            "test_a_full_stream_names_those_that_found_no_room",
            "test_a_message_that_is_too_large_dies_alone",
        ),
        is_full=("the stream's limit", "test_a_full_stream_names_those_that_found_no_room"),
        loses_connection=(
            "the server is killed; the box counts what it struck",
            f"test_a_server_that_is_killed_in_the_midst_{KILLED}",
            "test_events_pass_the_daemon_and_the_server_while_both_are_killed",
            BOX,
        ),
        forgets_schema=(
            "the reason",
            "test_a_stream_that_is_removed_and_made_again_is_used_at_once",
            "test_without_a_stream_the_batch_is_tried_again_later",
        ),
    ),
    "redis": _Tests("redis", "servers/test_redis.py", "servers/test_redis.py::TestRedis").table(
        refuses=(
            "the reason; the server's own users and rights",
            "test_a_wrong_password_is_told_without_it",
            "test_a_key_that_the_user_may_not_write_fails_only_its_own_events",
            "test_a_server_that_cannot_prove_anything_gets_nothing",
        ),
        hangs=(
            "SIGSTOP; the box holds connections to which nothing was said",
            f"test_a_server_that_hangs_{CANCELLED}",
            BOX,
        ),
        half_fails=(
            "the failed ids; the entries of each key",
            "test_a_key_of_another_type_fails_only_its_own_events",
            "test_a_key_that_the_user_may_not_write_fails_only_its_own_events",
        ),
        is_full=(
            "maxmemory, also reached within a batch",
            "test_a_full_memory_takes_nothing_of_a_batch_until_there_is_room",
            "test_a_memory_that_becomes_full_within_a_batch_takes_nothing_of_it",
        ),
        loses_connection=(
            "the server is killed; the box counts what it struck",
            f"test_a_server_that_is_killed_in_the_midst_{KILLED}",
            "test_events_pass_the_daemon_and_the_server_while_both_are_killed",
            BOX,
        ),
        forgets_schema=(
            "the reason",
            "test_a_key_that_becomes_something_else_and_is_removed_is_a_stream_again",
            "test_an_append_only_file_that_is_given_up_later_is_seen_with_the_next_batch",
        ),
    ),
    "sql": _Tests("sql", "servers/test_sql.py", "servers/test_sql.py::TestSql").table(
        refuses=(
            "the reason; the databases' own users and rights",
            "test_a_wrong_password_is_told_without_it",
            "servers/test_sql_table.py::test_check_prints_the_statement_that_makes_the_table",
            "servers/test_sql_table.py::test_a_read_only_database_is_tried_again_later",
            "test_one_value_that_is_too_long_becomes_one_dead_letter",
        ),
        hangs=(
            "SIGSTOP; the box holds connections to which nothing was said",
            f"test_a_server_that_hangs_{CANCELLED}",
            BOX,
        ),
        half_fails=(
            "the dead letters; the rows",
            "test_one_value_that_is_too_long_becomes_one_dead_letter",
            "test_a_nul_byte_is_a_dead_letter_where_the_database_cannot_store_it",
            "test_a_batch_that_is_larger_than_a_packet_is_halved",
        ),
        is_full=(
            "the database's error code for it, raised by a trigger",
            "test_a_full_disk_is_tried_again_later",
            "test_a_commit_that_fails_is_no_delivery",
        ),
        loses_connection=(
            "the server is killed; the box counts what it struck",
            f"test_a_server_that_is_killed_in_the_midst_{KILLED}",
            "test_events_pass_the_daemon_and_the_server_while_both_are_killed",
            BOX,
        ),
        forgets_schema=(
            "the reason",
            "servers/test_sql_table.py::test_a_table_that_is_dropped_and_made_again_is_used_at_once",
        ),
    ),
    "s3": _Tests("s3", "servers/test_s3_faults.py", "servers/test_s3.py::TestS3").table(
        refuses=(
            "the reason; the store's own keys and rights",
            "test_a_key_that_is_unknown_or_may_not_write_is_told_and_a_right_given_later_is_used",
            "servers/test_s3.py::test_a_wrong_key_is_one_clear_error",
            "servers/test_s3_answers.py::test_every_other_refusal_is_tried_again",
        ),
        hangs=(
            "SIGSTOP; the box holds connections to which nothing was said",
            f"servers/test_s3.py::test_a_store_that_hangs_{CANCELLED}",
            BOX,
        ),
        half_fails=(
            "the failed ids; the objects in the bucket",
            "servers/test_s3.py::test_a_source_that_is_cut_or_no_whole_picture_leaves_no_object",
            "servers/test_s3_answers.py::test_what_no_repetition_makes_good_is_a_dead_letter",
        ),
        is_full=("the store may write no larger file", "test_a_full_store_is_tried_again_later"),
        loses_connection=(
            "the store is killed while it has a part; the box counts what it struck",
            "servers/test_s3.py::test_a_killed_store_keeps_what_a_delivery_confirmed",
            "servers/test_s3_through.py::test_pictures_pass_the_daemon_and_the_store_while_both_are_killed",
            BOX,
        ),
        forgets_schema=(
            "the reason",
            "test_a_bucket_that_is_removed_and_made_again_is_used_at_once",
            "servers/test_s3.py::test_a_missing_bucket_is_one_clear_error",
        ),
    ),
    "exec": _Tests("exec", "integration/sinks/test_exec.py", "contracts/test_sinks.py::TestExec").table(
        refuses=("the exit code", "test_the_exit_code_decides"),
        hangs=(
            "the command has begun",
            "test_a_command_that_hangs_is_ended_with_its_children",
            "test_who_leaves_the_group_and_holds_the_output_does_not_hold_up_the_delivery",
        ),
        half_fails=(
            "the dead letter; what the command has kept",
            "test_a_command_that_refuses_one_event_of_a_batch_gets_all_others",
        ),
        is_full=("the command's own error", "test_a_full_disk_under_a_command_is_tried_again_later"),
        loses_connection=(
            "the command kills itself after its first line",
            "test_a_command_that_is_killed_in_the_midst_gets_the_whole_batch_again",
        ),
        forgets_schema=(
            "the reason",
            "test_a_command_that_is_removed_and_put_back_is_run_without_a_restart",
            "test_a_directory_that_is_gone_is_a_failure_and_no_crash",
        ),
    ),
}

BROKERS: Final = tuple(cell for cells in CELLS.values() for cell in cells.values())
