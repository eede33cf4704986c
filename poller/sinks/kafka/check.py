"""Asks whether the topics keep what they confirm, and whether this user may write to them."""

import re
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    ConfigResource,
    ResourceType,
)

from poller.sinks.kafka.answers import code_of, refusal
from poller.sinks.kafka.options import options, silent_logger
from poller.sinks.kafka.settings import KafkaSettings
from poller.sinks.servers import CONNECT_WITHIN

WRITES: Final = frozenset({AclOperation.WRITE, AclOperation.ALL})


def flaws(settings: KafkaSettings, topics: frozenset[str]) -> list[str]:
    """What is wrong with the topics that the template can name. Blocks."""
    pattern = re.compile(re.sub(r"\\\{\w+\\\}", "[A-Za-z0-9._-]+", re.escape(settings.topic)))
    names = sorted(topic for topic in topics if pattern.fullmatch(topic))
    if not names and "{" in settings.topic:
        return [f"no topic matches {settings.topic}"]
    admin = AdminClient(options(settings), logger=silent_logger())
    return [text for name in names or [settings.topic] for text in _flaws_of(admin, name, settings)]


def _flaws_of(admin: AdminClient, topic: str, settings: KafkaSettings) -> Iterator[str]:
    asked: Any = admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=CONNECT_WITHIN
    )
    try:
        about = asked[topic].result()
    except KafkaException as error:
        yield f"topic {topic}: {refusal(code_of(error)).reason}"
        return
    if about.authorized_operations is not None and WRITES.isdisjoint(about.authorized_operations):
        yield f"topic {topic}: this user may not write to the topic"
    least = settings.min_insync_replicas
    if (copies := min(len(one.replicas) for one in about.partitions)) < least:
        yield f"topic {topic} has {copies} replica(s), fewer than min_insync_replicas: {least}"
    yield from _confirms_early(admin, topic, least)


def _confirms_early(admin: AdminClient, topic: str, least: int) -> Iterator[str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    asked: Any = admin.describe_configs([resource], request_timeout=CONNECT_WITHIN)
    try:
        given = int(asked[resource].result()["min.insync.replicas"].value)
    except KafkaException as error:
        reason = KafkaError(code_of(error)).name()
        yield f"topic {topic}: its min.insync.replicas cannot be read ({reason})"
        return
    if given < least:
        yield f"topic {topic} has min.insync.replicas: {given}, fewer than min_insync_replicas: {least}"
