"""RabbitMQ as a process: Debian's package, with a node name, ports, files and an `epmd` of its own."""

import asyncio
import base64
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trustme
from aio_pika import connect
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from tests.patience import PATIENCE

from .processes import ServerProcess, cannot_start, free_port

PROGRAM: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PASSWORD: Final = "right-password"
ANSWERS_WITHIN: Final = 3.0
"""Seconds after which a queue that says nothing is asked over another channel."""
TAKEN_AT_ONCE: Final = 500
LARGEST: Final = 65_536
"""Bytes of a message that the broker takes."""
RIGHTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "admin": (".*", ".*", ".*"),
    "writer": ("", ".*", ""),
    "reader": ("", "", ".*"),
}
"""For each user: what it may configure, write and read."""
_LAUNCH: Final = 'epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" & exec "$0"'
"""An `epmd` that the broker starts would stay behind."""


class Rabbit(ServerProcess):
    """A broker of one node."""

    environ: Mapping[str, str]

    def __init__(self, folder: Path) -> None:
        if not PROGRAM.exists():
            cannot_start("needs rabbitmq-server: .ci/packages")
        self.secure_port = free_port()
        self.authority_file = folder / "ca.pem"
        super().__init__(
            folder, free_port(), ["/bin/sh", "-c", _LAUNCH, str(PROGRAM)], says=b"startup complete"
        )
        self.environ = {**os.environ, **_environ(folder)}
        self._write_certificate()
        (folder / "plugins").write_text("[].\n")
        (folder / "definitions.json").write_text(json.dumps(_definitions()))
        (folder / "rabbitmq.conf").write_text(self._settings())

    def describe(self) -> str:
        return "RabbitMQ"

    @property
    def address(self) -> str:
        return f"amqp://127.0.0.1:{self.port}"

    def _settings(self) -> str:
        given = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "listeners.ssl.1": f"127.0.0.1:{self.secure_port}",
            "ssl_options.cacertfile": self.authority_file,
            "ssl_options.certfile": self.folder / "server.pem",
            "ssl_options.keyfile": self.folder / "server.pem",
            "load_definitions": self.folder / "definitions.json",
            "max_message_size": LARGEST,
            "disk_free_limit.absolute": "1MB",
            "log.console": "true",
            "log.file": "false",
        }
        return "".join(f"{name} = {value}\n" for name, value in given.items())

    def _write_certificate(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority_file)
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")


def _environ(folder: Path) -> dict[str, str]:
    return {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(free_port()),
        "RABBITMQ_NODENAME": f"t{free_port()}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
    }


def _definitions() -> dict[str, Any]:
    salt = b"salt"
    hashed = base64.b64encode(salt + hashlib.sha256(salt + PASSWORD.encode()).digest()).decode()
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            {
                "name": name,
                "password_hash": hashed,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for name in RIGHTS
        ],
        "permissions": [
            {"user": name, "vhost": "/", "configure": configure, "write": write, "read": read}
            for name, (configure, write, read) in RIGHTS.items()
        ],
    }


def control(server: Rabbit, *words: str) -> None:
    """Run a command of `rabbitmqctl`."""
    argv = [str(PROGRAM.with_name("rabbitmqctl")), "-n", server.environ["RABBITMQ_NODENAME"], *words]
    done = subprocess.run(
        argv, env=server.environ, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@asynccontextmanager
async def channel_to(server: Rabbit) -> AsyncIterator[AbstractChannel]:
    """A channel of a user who may do everything."""
    connection = await connect(host="127.0.0.1", port=server.port, login="admin", password=PASSWORD)
    async with connection, connection.channel() as channel:
        yield channel


async def make_queue(
    server: Rabbit, queue: str, *, exchange: str = "", key: str = "#", **arguments: Any
) -> None:
    """A durable queue, a quorum queue if nothing else is said. In the names of arguments, _ stands for a dash."""
    given = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    async with channel_to(server) as channel:
        made = await channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum", **given})
        if exchange:
            await channel.declare_exchange(exchange, "topic", durable=True)
            await made.bind(exchange, key)


async def empty(server: Rabbit, queue: str) -> None:
    async with channel_to(server) as channel:
        await (await channel.get_queue(queue)).purge()


async def messages_of(server: Rabbit, queue: str) -> list[AbstractIncomingMessage]:
    """All messages of a queue, which is empty afterwards. It would give them back in another order."""
    found: list[AbstractIncomingMessage] = []
    silent = 0
    while silent < PATIENCE / ANSWERS_WITHIN:
        before = len(found)
        try:  # a quorum queue that has no leader yet, after a start, does not answer, and never will on this channel
            async with asyncio.timeout(ANSWERS_WITHIN), channel_to(server) as channel:
                taken = await channel.get_queue(queue)
            if not taken.declaration_result.message_count:
                return found
            await _take(server, queue, taken.declaration_result.message_count, found)
        except TimeoutError:
            silent = silent + 1 if len(found) == before else 0
    raise AssertionError("the queue does not answer")


async def _take(server: Rabbit, queue: str, count: int, found: list[AbstractIncomingMessage]) -> None:
    """Take so many messages off a queue, in their order."""
    async with channel_to(server) as channel:
        await channel.set_qos(TAKEN_AT_ONCE)
        taken = await channel.get_queue(queue, ensure=False)
        async with taken.iterator(timeout=ANSWERS_WITHIN) as messages:
            async for message in messages:
                found.append(message)
                await message.ack()
                count -= 1
                if not count:
                    return
