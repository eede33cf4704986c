"""Deliberate bugs in the sinks of message brokers and databases."""

from .bugs import Bug

KAFKA, AMQP, NATS, REDIS, SQL = (
    f"tests/servers/test_{name}.py::" for name in ("kafka", "amqp", "nats", "redis", "sql")
)
LOSS = "test_a_middle_box_that_cuts_loses_or_is_silent_costs_no_event[with_a_loss]"

BROKERS = (
    Bug(
        "one replica confirms for all",
        "poller/sinks/kafka/options.py",
        '        "acks": "all",\n        "enable.idempotence": "true",\n',
        '        "acks": 1,\n        "enable.idempotence": "false",\n',
        (KAFKA + "test_every_request_asks_for_the_confirmation_of_all_replicas_and_knows_its_producer",),
    ),
    Bug(
        "messages that Kafka refused count as delivered",
        "poller/sinks/kafka/producer.py",
        "{id: error.code() for id, error in self._noted if error is not None}",
        "{}",
        (KAFKA + "test_only_the_events_of_a_missing_topic_fail",),
    ),
    Bug(
        "the messages of a stream go to any partition",
        "poller/sinks/kafka/producer.py",
        "event.stream_id or None",
        "event.id",
        (KAFKA + "test_the_events_of_a_stream_are_in_one_partition_in_order",),
    ),
    Bug(
        "a message that Kafka finds too large takes its request along",
        "poller/sinks/kafka/sink.py",
        "        if len(suspects) > 1:",
        "        if len(suspects) > 1000:",
        (KAFKA + "test_a_message_that_is_too_large_dies_alone[30000]",),
    ),
    Bug(
        "a message that no queue takes is confirmed",
        "poller/sinks/amqp/sink.py",
        "mandatory=True",
        "mandatory=False",
        (AMQP + "test_only_the_events_without_a_route_fail",),
    ),
    Bug(
        "the confirmations of RabbitMQ are not awaited",
        "poller/sinks/amqp/connection.py",
        "connection.channel(publisher_confirms=confirms, on_return_raises=confirms)",
        "connection.channel(publisher_confirms=False, on_return_raises=False)",
        (AMQP + "test_a_full_queue_names_those_that_found_no_room",),
    ),
    Bug(
        "messages to RabbitMQ are not persistent, and have no id",
        "poller/sinks/amqp/sink.py",
        "            message_id=event.id,\n            delivery_mode=DeliveryMode.PERSISTENT,\n",
        "",
        (AMQP + "test_messages_are_the_events_in_order_each_with_its_id",),
    ),
    Bug(
        "a connection to RabbitMQ whose packets vanish is used again",
        "poller/sinks/amqp/sink.py",
        "            self._doubted = True\n",
        "",
        (AMQP + LOSS,),
    ),
    Bug(
        "messages to RabbitMQ follow on a channel that it has closed",
        "poller/sinks/amqp/sink.py",
        "        if await is_closing(channel):\n",
        "        if False:\n",
        (
            AMQP + "test_a_channel_that_the_broker_closes_costs_no_connection",
            AMQP + "test_a_batch_suffers_nothing_when_the_broker_closes_the_channel_of_another",
        ),
    ),
    Bug(
        "a message to NATS counts once it is sent",
        "poller/sinks/nats/sink.py",
        "        raise_for(batch, failures)\n",
        "",
        (
            NATS + "test_without_a_stream_the_batch_is_tried_again_later",
            NATS + "test_a_full_stream_names_those_that_found_no_room",
        ),
    ),
    Bug(
        "messages to NATS have no id",
        "poller/sinks/nats/connection.py",
        '{"Nats-Msg-Id": id, **{name:',
        "{**{name:",
        (NATS + "test_a_repeated_batch_is_dropped_by_the_server",),
    ),
    Bug(
        "that NATS may lose what it confirmed is not told",
        "poller/sinks/nats/sink.py",
        "        if not self._settings.synced:\n",
        "        if self._settings.synced:\n",
        (NATS + "test_a_warning_is_logged_unless_the_servers_are_said_to_sync_each_message",),
    ),
    Bug(
        "a stream of NATS in memory gets events",
        "poller/sinks/nats/connection.py",
        "        if info.config.storage == StorageType.MEMORY:\n",
        "        if info.config.storage is None:\n",
        (NATS + "test_a_stream_in_memory_is_refused",),
    ),
    Bug(
        "a stream of NATS is believed to keep its messages for ever",
        "poller/sinks/nats/connection.py",
        "                self._durable.clear()",
        "                pass",
        (NATS + "test_a_stream_that_is_removed_and_made_again_is_used_at_once",),
    ),
    Bug(
        "a connection to NATS whose packets vanish is used again",
        "poller/sinks/nats/sink.py",
        "            connection.doubted = True\n",
        "",
        (NATS + LOSS,),
    ),
    Bug(
        "whether Redis has synced a batch is asked, and not compared",
        "poller/sinks/redis/connection.py",
        "        return not_waited(answer, self._replicas) if self._waits else not_always(answer)\n",
        '        return ""\n',
        (
            REDIS + "test_a_batch_that_the_server_does_not_sync_is_not_done",
            REDIS + "test_replicas_that_have_not_synced_the_events_hold_them_back",
        ),
    ),
    Bug(
        "one bad key of Redis fails the events of all keys",
        "poller/sinks/redis/sink.py",
        "            raise PartlyFailed(failures)\n",
        "            raise next(iter(failures.values()))\n",
        (REDIS + "test_a_key_of_another_type_fails_only_its_own_events",),
    ),
    Bug(
        "a Redis that may drop streams gets events",
        "poller/sinks/redis/connection.py",
        "or never_synced(policy) or evicts(memory)",
        "or never_synced(policy)",
        (REDIS + "test_a_server_that_may_drop_streams_gets_nothing",),
    ),
    Bug(
        "PostgreSQL confirms before its disk has the rows",
        "poller/sinks/sql/postgresql.py",
        "            await connection.execute(_DURABLE)\n",
        "            pass\n",
        (
            "tests/servers/test_sql_table.py::test_commits_wait_for_the_disk_although_the_user_has_it_otherwise[postgresql]",
        ),
    ),
    Bug(
        "an event that comes again keeps the row's old URL",
        "poller/sinks/sql/postgresql.py",
        "DO UPDATE SET url = excluded.url, event = excluded.event\nWHERE kept.url IS DISTINCT FROM excluded.url",
        "DO NOTHING",
        (SQL + "test_a_second_delivery_changes_no_row_and_a_rebuilt_url_changes_its_own[postgresql]",),
    ),
    Bug(
        "a value that does not fit is cut by MariaDB",
        "poller/sinks/sql/mysql.py",
        "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
        "'NO_ENGINE_SUBSTITUTION'",
        (SQL + "test_one_value_that_is_too_long_becomes_one_dead_letter[mariadb]",),
    ),
    Bug(
        "a row that PostgreSQL refuses holds its batch back",
        "poller/sinks/sql/postgresql.py",
        "        found = Rejected(_VALUES.get(code, ",
        "        found = TryLater(_VALUES.get(code, ",
        (SQL + "test_what_the_database_says_of_a_refused_row_holds_nothing_of_the_row[postgresql]",),
    ),
)
