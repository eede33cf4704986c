"""Deliberate bugs in what is recorded and counted about events."""

from .bugs import Bug

CONTRACT = "tests/contracts/test_spools.py::TestSqliteSpool::"

BOOKS = (
    Bug(
        "a delivery is not recorded",
        "poller/spools/sqlite/writer.py",
        "        record(self.connection, due)\n",
        "",
        (f"{CONTRACT}test_every_delivery_is_recorded_with_its_time_attempt_and_failures",),
    ),
    Bug(
        "a delivery is counted outside of its settlement",
        "poller/spools/sqlite/writer.py",
        "        count_settled(self.connection, due)\n",
        "",
        (f"{CONTRACT}test_what_is_taken_delivered_dead_and_possibly_lost_is_counted",),
    ),
    Bug(
        "events in the holes of a row count as delivered",
        "poller/spools/delivered.py",
        "        return not self.holes or not self.holes[place // 8] >> place % 8 & 1",
        "        return True",
        ("tests/unit/spools/test_delivered.py::test_rows_cover_exactly_what_was_delivered",),
    ),
    Bug(
        "the delivery of a retried dead letter is lost",
        "poller/spools/sqlite/delivered.py",
        "        connection.executemany(_PUT_AGAIN, again_rows(sink, done))\n",
        "        pass\n",
        (f"{CONTRACT}test_the_delivery_of_a_retried_dead_letter_is_recorded",),
    ),
    Bug(
        "a possible loss is forgotten at the end of the process",
        "poller/spools/sqlite/writer.py",
        "            count_losses(self.connection, losses)\n",
        "",
        (f"{CONTRACT}test_deliveries_and_counts_are_there_after_a_restart",),
    ),
)
