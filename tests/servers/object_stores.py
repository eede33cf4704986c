"""Object stores as processes, what other people's clients read in them, and hosts of pictures.

`moto` is moto's server, which keeps everything in memory. `cos_by_s3` and `cos` are the sandbox's store, which keeps
everything on the disk and compares signatures: that of Amazon, and that of COS.
"""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from urllib.parse import unquote

import boto3
import msgspec
from aiohttp import web
from botocore.config import Config
from qcloud_cos import CosConfig, CosS3Client
from qcloud_cos.cos_exception import CosServiceError

from poller.core.model import Event, identity, new_event
from poller.sandbox.media.cutting import plain_jpeg
from poller.sinks.s3 import S3
from poller.testing import START
from tests import lives
from tests.patience import PATIENCE

from .guard import guard
from .processes import ServerProcess, free_port, needs

LOOPBACK: Final = "127.0.0.0/8"
JPEG: Final = plain_jpeg(300, 169)
KINDS: Final = ("moto", "cos_by_s3", "cos")
SECRET: Final = "sandbox"
READ_LATE: Final = ("TMPDIR", "MOTO_S3_", "PYTEST_CURRENT_TEST")
"""How variables begin that moto's server reads when it runs."""


class Found(NamedTuple):
    """An object as another client reads it. Names of metadata come without their prefix."""

    content: bytes
    type: str
    metadata: dict[str, str]


class Store:
    """A store with one bucket. It can be killed and started again, or hang."""

    bucket = ""
    signature = "s3"
    persists = True
    """Whether it has what it confirmed after it was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Settings of a sink that may write to it."""
        return {
            "type": "s3",
            "bucket": self.bucket,
            "signature": self.signature,
            "region": "ap-shanghai",
            "endpoint": self.url,
            "path_style": True,
            "access_key": "AKIDsandbox",
            "secret_key": SECRET,
            "allow_cidr": [LOOPBACK],
            **more,
        }

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def frozen(self) -> AbstractContextManager[None]:
        """The store hangs for so long."""
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def list_keys(self) -> list[str]:
        raise NotImplementedError

    def get(self, key: str) -> Found:
        raise NotImplementedError


class MotoProcess(ServerProcess):
    """moto's server, forked from a warm process: its imports take most of a second."""

    def _begin(self, log: IO[bytes]) -> "subprocess.Popen[bytes] | lives.Life":
        warm, environ = lives.warm("tests.servers.moto_server", READ_LATE), self.environ or os.environ
        if not warm.fits(environ):
            return super()._begin(log)
        with open(os.devnull, "rb") as nothing:
            files = [nothing.fileno(), log.fileno(), log.fileno()]
            life = warm.start(self._argv[1:], cwd=self.folder, environ=environ, files=files)
        guard().watch(life.pid)
        return life


class Moto(Store):
    """moto's server, read with boto3. It compares no signature."""

    bucket = "live-pictures"
    persists = False

    def __init__(self, folder: Path, **environ: str) -> None:
        super().__init__(folder)
        program = needs("moto_server", "pip install 'moto[s3]' flask flask-cors")
        self.process = MotoProcess(folder, self.port, [program, "-H", "127.0.0.1", "-p", str(self.port)])
        self.process.environ = {**os.environ, "TMPDIR": str(folder), **environ}
        self._clients: dict[str, Any] = {}

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.stop()

    def frozen(self) -> AbstractContextManager[None]:
        return self.process.frozen()

    def start(self) -> None:
        self.process.start()
        self.make_bucket()

    def make_bucket(self) -> None:
        self.client().create_bucket(
            Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": "ap-shanghai"}
        )

    def remove_bucket(self) -> None:
        self.client().delete_bucket(Bucket=self.bucket)

    def list_keys(self) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def get(self, key: str) -> Found:
        found = self.client().get_object(Bucket=self.bucket, Key=key)
        return Found(found["Body"].read(), found["ContentType"], found["Metadata"])

    def client(self, service: str = "s3") -> Any:
        """The client of a service. It is made once: that takes longer than to list some keys."""
        if service not in self._clients:
            self._clients[service] = self._new_client(service)
        return self._clients[service]

    def _new_client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="ap-shanghai",
            aws_access_key_id="AKIDsandbox",
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )


class SandboxStore(Store):
    """The sandbox's store, read with Tencent's own SDK."""

    bucket = "shots-1250000000"

    def __init__(self, folder: Path, signature: str, *options: str) -> None:
        super().__init__(folder)
        self.signature = signature
        self._prefix = "x-cos-meta-" if signature == "cos" else "x-amz-meta-"
        self._options = options
        self._life: Any = None
        self._sdk: Any = None

    def start(self) -> None:
        at = ["--cos-listen", f"127.0.0.1:{self.port}", "--directory", str(self.folder / "kept")]
        with (self.folder / "store.log").open("ab") as log:
            words = ["sandbox", *at, "--streams", "0", *self._options]
            self._life = lives.start(words, cwd=self.folder, stdout=log, stderr=log)
        began = time.monotonic()
        while not self._answers():
            assert self._life.poll() is None, (self.folder / "store.log").read_text()[-2000:]
            assert time.monotonic() - began < PATIENCE, "the store is not ready"
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self._life.kill()
        self._life.wait(PATIENCE)
        self._life = None

    def stop(self) -> None:
        if self._life is not None:
            self.kill()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self._life.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._life.pid, signal.SIGCONT)

    def list_keys(self) -> list[str]:
        keys: list[str] = []
        marker = ""
        while True:
            page = self._client().list_objects(Bucket=self.bucket, MaxKeys=1000, Marker=marker)
            keys += [one["Key"] for one in page.get("Contents", [])]
            if page["IsTruncated"] == "false":
                return keys
            marker = page["NextMarker"]

    def get(self, key: str) -> Found:
        try:
            found = self._client().get_object(Bucket=self.bucket, Key=key)
        except CosServiceError as error:
            raise AssertionError(f"{key}: {error.get_error_code()}") from None
        start = len(self._prefix)
        told = {name.lower(): value for name, value in found.items() if isinstance(value, str)}
        metadata = {name[start:]: value for name, value in told.items() if name.startswith(self._prefix)}
        return Found(found["Body"].get_raw_stream().read(), told["content-type"], metadata)

    def _client(self) -> Any:
        """A client that knows the store by COS's names and reaches it as a proxy."""
        if self._sdk is None:
            logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL)  # it logs what it raises
            config = CosConfig(
                SecretId="AKIDsandbox",
                SecretKey=SECRET,
                Scheme="http",
                Endpoint="cos.ap-shanghai.myqcloud.com",
                Proxies={"http": self.url},
            )
            self._sdk = CosS3Client(config, retry=0)
        return self._sdk


@contextmanager
def running(kind: str, folder: Path, *options: str) -> Iterator[Store]:
    """A store of this kind, started, with an empty bucket. `options` are the sandbox's."""
    signature = "cos" if kind == "cos" else "s3"
    store = Moto(folder) if kind == "moto" else SandboxStore(folder, signature, *options)
    try:
        store.start()
        yield store
    finally:
        store.stop()


# ---------------------------------------------------------------- pictures


@dataclass
class Host:
    """A picture host on a free port: what it answers to a path, by default a picture."""

    url: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        name = request.path[1:]
        body = self.bodies.get(name, JPEG)
        if name in self.cut:
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(body=body, content_type="image/jpeg", headers=self.headers.get(name))

    def event(self, number: int, *, stream: str = "room", name: str = "") -> Event:
        """An event whose picture this host has. `name` is as it stands in the URL."""
        name = name or f"room_1700000000_1700000000_{number * 10}_300_169.jpg"
        return new_event(
            id=identity("screenshot", "main", unquote(name)),
            kind="screenshot",
            account="main",
            stream_id=stream,
            occurred_at=START,
            received_at=START,
            url=f"{self.url}/{name}",
            fields={"file_name": name},
            message=msgspec.Raw(b"{}"),
        )


@asynccontextmanager
async def pictures() -> AsyncIterator[Host]:
    """A host of pictures."""
    host = Host()
    runner = web.ServerRunner(web.Server(host.answer))
    await runner.setup()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await web.SockSite(runner, listener).start()
        yield host
        await runner.cleanup()


def sink_to(store: Store, host: Host | None, **more: Any) -> S3:
    """A sink that fetches from this host, if there is one, and writes to this store."""
    hosts = [] if host is None else [host.url.removeprefix("http://")]
    settings = store.settings(allow_hosts=hosts)
    settings["allow_cidr"] = [ip_network(LOOPBACK)]
    return S3("bucket", S3.Settings.model_validate({**settings, **more}), {})
