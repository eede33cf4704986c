"""Every sink of ours under the shipped contract, each against a real world."""

import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from poller.core.model import Event, identity, new_event
from poller.sandbox.media.cutting import plain_jpeg
from poller.sinks.download import Download
from poller.sinks.exec import Exec
from poller.sinks.stdout import Stdout
from poller.sinks.webhook import Webhook
from poller.testing import START, SinkContract, SinkWorld

LOOPBACK = ip_network("127.0.0.0/8")


class _Pipe:
    """A pipe whose other end may be closed and opened again behind the same descriptor."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        self._lines: list[str] = []
        self._read_from(reader)

    def _read_from(self, reader: int) -> None:
        self._reader = reader
        self._thread = threading.Thread(target=self._drain, args=(reader,), daemon=True)
        self._thread.start()

    def _drain(self, reader: int) -> None:
        with os.fdopen(reader, "rb") as pipe:
            for line in pipe:
                self._lines.append(json.loads(line)["id"])

    def breaks(self) -> None:
        """Nobody reads any more: the descriptor becomes a pipe whose reader is gone."""
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, self.writer)
        os.close(writer)
        self._thread.join()

    def mends(self) -> None:
        reader, writer = os.pipe()
        os.dup2(writer, self.writer)
        os.close(writer)
        self._read_from(reader)

    def arrived(self) -> Sequence[str]:
        """Close our end, so that the reader has seen all, and open another."""
        reader, writer = os.pipe()
        os.dup2(writer, self.writer)
        os.close(writer)
        self._thread.join()
        self._read_from(reader)
        return list(self._lines)


class TestStdout(SinkContract):
    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        pipe = _Pipe()
        async with Stdout("stdout", Stdout.Settings(type="stdout"), {}, fd=pipe.writer) as sink:
            yield SinkWorld(sink=sink, arrived=pipe.arrived, breaks=pipe.breaks, mends=pipe.mends)
        os.close(pipe.writer)


class _Receiver:
    """A webhook receiver that keeps what it was sent, or answers 503."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.works = True

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = json.loads(await request.read())
        if not self.works:
            return web.Response(status=503)
        self.ids += [event["id"] for event in (body if isinstance(body, list) else [body])]
        return web.Response(status=204)

    def breaks(self) -> None:
        self.works = False

    def mends(self) -> None:
        self.works = True


@asynccontextmanager
async def _listening(answer: object) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(answer))  # type: ignore[arg-type]
    await runner.setup()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    await runner.cleanup()


class TestWebhook(SinkContract):
    max_events = 100

    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        receiver = _Receiver()
        async with _listening(receiver.answer) as url:
            settings = Webhook.Settings.model_validate(
                {
                    "type": "webhook",
                    "url": url + "/hook",
                    "allow_cidr": [LOOPBACK],
                    "batch": {"max_events": self.max_events},
                }
            )
            async with Webhook("hook", settings, {}) as sink:
                yield SinkWorld(
                    sink=sink, arrived=lambda: receiver.ids, breaks=receiver.breaks, mends=receiver.mends
                )


class TestWebhookOfOneEvent(TestWebhook):
    batch_of = 1
    max_events = 1


class TestExec(SinkContract):
    """A command that appends its input to a file, or fails when a file says so."""

    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        kept, broken = folder / "kept", folder / "broken"
        script = f'test ! -e "{broken}" || exit 75; exec cat >> "{kept}"'
        settings = Exec.Settings(type="exec", command=("/bin/sh", "-c", script))
        async with Exec("exec", settings, {}) as sink:
            yield SinkWorld(
                sink=sink,
                arrived=lambda: [json.loads(line)["id"] for line in kept.read_bytes().splitlines()],
                breaks=broken.touch,
                mends=broken.unlink,
            )


class _Bucket:
    """A picture server that has every picture, or answers 503; what arrived is what lies on the disk."""

    def __init__(self, directory: Path) -> None:
        self.works = True
        self.url = ""
        self._jpeg = plain_jpeg(300, 169)
        self._directory = directory
        self._ids: dict[str, str] = {}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self.works:
            return web.Response(status=503)
        return web.Response(body=self._jpeg, content_type="image/jpeg")

    def event(self, number: int) -> Event:
        name = f"room_1700000000_1700000000_{number * 10}_300_169.jpg"
        event = new_event(
            id=identity("screenshot", "main", name),
            kind="screenshot",
            account="main",
            stream_id="room",
            occurred_at=START,
            received_at=START,
            url=f"{self.url}/{name}",
            fields={"file_name": name},
            message=msgspec.Raw(b"{}"),
        )
        self._ids[name] = event.id
        return event

    def arrived(self) -> Sequence[str]:
        stored = [path for path in self._directory.rglob("*.jpg") if path.read_bytes() == self._jpeg]
        return [self._ids[path.name] for path in stored]

    def breaks(self) -> None:
        self.works = False

    def mends(self) -> None:
        self.works = True


class TestDownload(SinkContract):
    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        bucket = _Bucket(folder / "pictures")
        async with _listening(bucket.answer) as bucket.url:
            settings = Download.Settings.model_validate(
                {
                    "type": "download",
                    "directory": folder / "pictures",
                    "allow_hosts": ["127.0.0.1"],
                    "allow_cidr": [LOOPBACK],
                }
            )
            async with Download("archive", settings, {}) as sink:
                yield SinkWorld(
                    sink=sink,
                    arrived=bucket.arrived,
                    breaks=bucket.breaks,
                    mends=bucket.mends,
                    event=bucket.event,
                )


@pytest.mark.parametrize("adapter", [Stdout, Webhook, Download])
def test_an_adapter_brings_its_own_settings(adapter: type) -> None:
    assert adapter.Settings.model_fields["type"]  # type: ignore[attr-defined]
