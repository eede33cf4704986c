"""What the codes of the library and of brokers mean."""

from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from poller.core.errors import Rejected, SinkError, TryLater
from poller.sinks.servers import LOGIN_REFUSED

TOPIC_EXCEPTION: Final[int] = KafkaError.TOPIC_EXCEPTION
TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
NO_TOPIC: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)
NO_PERMISSION: Final = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)
NO_LOGIN: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})


def code_of(error: KafkaException) -> int:
    """The library's code; 0 for none."""
    return int(error.args[0].code()) if error.args and isinstance(error.args[0], KafkaError) else 0


def refusal(code: int) -> SinkError:
    """The error for a code. The library's own text may hold a secret, and is not passed on."""
    if code in TOO_LARGE:
        return Rejected("the message is larger than max_message_bytes, or than the topic allows")
    if code == KafkaError.INVALID_RECORD:
        return Rejected("the topic refuses the message as invalid")
    if code == TOPIC_EXCEPTION:
        return Rejected("a topic cannot have the name that the event gives it")
    known: Mapping[frozenset[int], str] = {
        NO_TOPIC: "there is no such topic",
        NO_PERMISSION: "this user may not write to the topic",
        NO_LOGIN: LOGIN_REFUSED,
        frozenset(
            {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT}
        ): "no server answers",
        frozenset({KafkaError._PARTIAL}): "the cluster has no broker that runs",
        frozenset({KafkaError._UNSUPPORTED_FEATURE}): "the server is too old",
        frozenset({KafkaError._MSG_TIMED_OUT}): "no confirmation in time",
        frozenset({KafkaError._SSL}): "TLS fails: check the certificates",
        frozenset({KafkaError._FATAL}): "the client has given up, and has not said why",
    }
    return TryLater(next((text for codes, text in known.items() if code in codes), KafkaError(code).name()))
