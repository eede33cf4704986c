"""Apache Kafka as a process: one node in KRaft mode.

Without Java, Maven or the jars (`kafka_jars`), the mock cluster of the client library stands in for it. It has no disk,
cannot be killed, and knows no permissions, so tests that need these are skipped.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import pytest
import trustme
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from tests.patience import PATIENCE
from tests.ports import lasting_port

from .guard import folder_kept
from .kafka_jars import VERSION, NoJarsError, find_jars
from .processes import ServerProcess, free_port, run
from .used import used

PASSWORD: Final = "right-password"
WITHOUT_SESSION: Final = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.INVALID_REPLICATION_FACTOR,
    }
)
"""What is answered while no broker has a session."""
Result = TypeVar("Result")
_JVM: Final = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


class Broker(Protocol):
    """A Kafka to test against, whichever it is."""

    name: str
    real: bool

    @property
    def address(self) -> str: ...


class RealBroker(ServerProcess):
    """Apache Kafka. Listens without a login for the tests, who may do everything, and over TLS with SASL for users.

    Who connects to `behind_box` is sent to `box_port`, where a test may put a middle box.
    """

    name = f"Apache Kafka {VERSION}"
    real = True

    def __init__(self, folder: Path, jars: Path) -> None:
        ports = [free_port() for _ in range(4)]
        super().__init__(
            folder,
            ports[0],
            ["java", *_JVM, "-cp", f"{jars}/*", "kafka.Kafka", str(folder / "server.properties")],
            says=b"Kafka Server started",
        )
        self.secure_port = ports[1]
        self.behind_box, self.box_port = ports[3], lasting_port()
        self.authority_file = folder / "ca.pem"
        (folder / "server.properties").write_text(_properties(folder, ports, self.box_port))
        self._write_certificate()
        self._format(jars)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def secure_address(self) -> str:
        return f"127.0.0.1:{self.secure_port}"

    def _write_certificate(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority_file)
        issued = authority.issue_cert("127.0.0.1")
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        pkcs8 = key.private_bytes(  # Java reads no other form
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(one.bytes() for one in issued.cert_chain_pems)
        (self.folder / "server.pem").write_bytes(pkcs8 + chain)

    def _format(self, jars: Path) -> None:
        cluster, file = "AAAAAAAAAAAAAAAAAAAAAQ", str(self.folder / "server.properties")
        argv = [
            "java",
            *_JVM,
            "-cp",
            f"{jars}/*",
            "kafka.tools.StorageTool",
            "format",
            "-t",
            cluster,
            "-c",
            file,
        ]
        run(argv, cwd=self.folder)

    def describe(self) -> str:
        return self.name


def _properties(folder: Path, ports: Sequence[int], box: int) -> str:
    plain, secure, controller, boxed = ports
    login = "org.apache.kafka.common.security.{module} required"
    plain_login = login.format(module="plain.PlainLoginModule")
    users = " ".join(f'user_{name}="{PASSWORD}"' for name in ("writer", "reader"))
    given = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure},"
        f"BOXED://127.0.0.1:{boxed},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure},"
        f"BOXED://127.0.0.1:{box}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,BOXED:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
        "log.dirs": folder / "data",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / "server.pem",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{plain_login} {users};",
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": login.format(module="scram.ScramLoginModule")
        + ";",
    }
    return "".join(f"{name}={value}\n" for name, value in given.items())


class MockBroker:
    """The mock cluster of the client library, in this process.

    why: the reason for which there is no real one
    """

    name = "librdkafka's mock cluster"
    real = False

    def __init__(self, why: str) -> None:
        self.why = why
        used(f"{self.name} instead of Apache Kafka ({why})")
        self._client = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
        found = self._client.list_topics(timeout=PATIENCE)
        (broker,) = found.brokers.values()
        self.address = f"{broker.host}:{broker.port}"


# ---------------------------------------------------------------- what tests do at the server


def make_topic(broker: Broker, partitions: int = 3, name: str = "", **settings: str) -> str:
    """A new topic; returns its name. In the names of settings, _ stands for a dot."""
    name = name or f"t-{uuid.uuid4().hex[:12]}"
    given = {key.replace("_", "."): value for key, value in settings.items()}
    client = admin(broker)  # its end would end the request
    if not broker.real:  # the mock cluster makes a topic as soon as somebody asks for it
        client.list_topics(name, timeout=PATIENCE)
        return name
    topic = NewTopic(name, partitions, 1, config=given)
    _at_last(lambda: client.create_topics([topic])[name].result(PATIENCE))
    return name


def remove_topic(broker: Broker, name: str) -> None:
    client = admin(broker)
    client.delete_topics([name])[name].result(PATIENCE)


def _at_last(ask: Callable[[], Result]) -> Result:
    """What a broker answers, once its session runs again: it ends where a broker hangs, or a machine is crowded."""
    began = time.monotonic()
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in WITHOUT_SESSION or time.monotonic() - began > PATIENCE:
                raise
            time.sleep(0.1)


def admin(broker: Broker) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.address, "log_level": 0})


def allow_to_write(broker: Broker, user: str, topic: str) -> None:
    """Let a user find, and write to, a topic."""
    rules = [
        AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for operation in (AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    ]
    client = admin(broker)
    for made in client.create_acls(rules).values():
        made.result(PATIENCE)


def add_scram_user(broker: Broker, user: str) -> None:
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    client = admin(broker)
    wanted: list[Any] = [UserScramCredentialUpsertion(user, info, PASSWORD.encode())]
    client.alter_user_scram_credentials(wanted)[user].result(PATIENCE)


class Record:
    """A message of a topic."""

    def __init__(self, message: Any) -> None:
        self.partition: int = message.partition()
        self.offset: int = message.offset()
        self.key: str = (message.key() or b"").decode()
        self.headers: Mapping[str, bytes] = dict(message.headers() or [])
        self.body: bytes = message.value()


def records(broker: Broker, topic: str) -> list[Record]:
    """All messages of a topic, by partition and then offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions
        found: list[Record] = []
        for number in partitions:
            low, high = _at_last(partial(_bounds, consumer, TopicPartition(topic, number)))
            found += _partition(consumer, TopicPartition(topic, number, low), high) if high > low else []
        return found
    finally:
        consumer.close()


def _bounds(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    low, high = consumer.get_watermark_offsets(place, timeout=PATIENCE)
    return low, high


def _partition(consumer: Consumer, place: TopicPartition, end: int) -> list[Record]:
    consumer.assign([place])
    found: list[Record] = []
    while not found or found[-1].offset < end - 1:
        message = consumer.poll(PATIENCE)
        assert message is not None, "the server gives no more messages"
        assert message.error() is None, message.error()
        found.append(Record(message))
    return found


@contextmanager
def open_broker(folder: Path) -> Iterator[RealBroker | MockBroker]:
    """A broker, started."""
    try:
        jars = find_jars()
    except NoJarsError as error:
        yield MockBroker(str(error))
        return
    with folder_kept(folder):
        broker = RealBroker(folder, jars)
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()


def needs_real(broker: Broker) -> RealBroker:
    """The broker if it is a real one; else the test is skipped."""
    if isinstance(broker, MockBroker):
        pytest.skip(f"needs Apache Kafka: {broker.why}; this run uses {broker.name}")
    assert isinstance(broker, RealBroker)
    return broker
