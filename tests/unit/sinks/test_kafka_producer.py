"""What the errors of a producer that has given up say."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from poller.sinks.kafka import producer as module
from poller.sinks.kafka.answers import refusal
from poller.sinks.kafka.producer import KafkaProducer, Message
from poller.testing import some_event


def given_up() -> Any:
    """A producer whose library refuses each message, and has not said why yet."""

    def produce(*message: object, **more: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))

    one: Any = KafkaProducer({})
    one._library, one._producer = one._producer, SimpleNamespace(produce=produce)
    return one


async def sent_by(one: Any) -> str:
    """Why an event was not sent."""
    event = some_event(1)
    try:
        failures = await one.send([Message(event, "live", [], b"{}")])
    finally:
        one._producer = one._library
        await one.close()
    return str(refusal(failures[event.id]))


async def test_the_reason_may_come_after_the_refusal_of_a_message() -> None:
    one = given_up()
    error = KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, "no right", True)
    asyncio.get_running_loop().call_later(0.1, one._note_error, error)
    assert await sent_by(one) == "this user may not write to the topic"


async def test_a_reason_that_never_comes_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPLAINED_WITHIN", 0.1)
    assert await sent_by(given_up()) == "the client has given up, and has not said why"
