"""What stands around the daemon: the platform, a wire to it, and receivers, all in a thread of their own.

A daemon that is killed takes none of it along, and it goes on while a test waits.
"""

import asyncio
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import msgspec
import pytest
import uvloop
from aiohttp import web

from poller.sandbox import Load, Options, Oracle, Sandbox

PATIENCE: Final = 90.0
"""Seconds for what takes a moment on a machine that has nothing else to do."""
Result = TypeVar("Result")


def until(condition: Callable[[], object], seconds: float = PATIENCE, what: str = "") -> None:
    """Return as soon as the condition holds; fail when it does not within so many seconds.

    It is asked less often the longer it takes, and the more an answer takes: asking costs what the daemon needs to get
    there.
    """
    begun = asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        waited, took = now - begun, now - asked
        assert waited < seconds, f"waited {seconds} s in vain {what}"
        time.sleep(max(min(max(waited / 20, 0.002), 0.1), min(4 * took, 0.5)))
        asked = time.monotonic()


# ---------------------------------------------------------------- a receiver


class Receipt(NamedTuple):
    """One POST that was answered 200: its id, the daemon's life in which it came, what it held."""

    id: str
    life: int
    event_ids: tuple[str, ...]
    files: tuple[str, ...]


class _Data(msgspec.Struct):
    file_name: str
    url: str | None = None


class _Event(msgspec.Struct):
    id: str
    data: _Data


_events = msgspec.json.Decoder(list[_Event] | _Event).decode


class Receiver:
    """A webhook's other end. `mode`: a status to answer, `hang`, or `refuse` (nobody listens)."""

    def __init__(self) -> None:
        self.mode: int | str = 200
        self.refused_files: set[str] = set()
        """A POST that holds one of these gets 422."""
        self.life = 0
        self.attempts = 0
        self.receipts: list[Receipt] = []
        self.headers: list[dict[str, str]] = []
        self.urls: dict[str, str | None] = {}
        """The URL in the newest taken event of each picture's name."""
        self.port = 0
        self._runner = web.ServerRunner(
            web.Server(self._answer, handler_cancellation=True, access_log=None), shutdown_timeout=0.1
        )
        self._site: web.TCPSite | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def files(self) -> Counter[str]:
        """How often each event was taken, by its picture's name."""
        return Counter(name for receipt in list(self.receipts) for name in receipt.files)

    def twice_in_a_life(self) -> list[str]:
        """Events that one process delivered more than once, though each time it was told 200."""
        seen = Counter((receipt.life, id) for receipt in self.receipts for id in receipt.event_ids)
        return [id for (_, id), times in seen.items() if times > 1]

    async def open(self) -> None:
        await self._runner.setup()
        await self.listen()

    async def close(self) -> None:
        await self._runner.cleanup()

    async def listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def turn(self, mode: int | str) -> None:
        """Behave so from now on."""
        if mode == "refuse" and self._site is not None:
            await self._site.stop()
            self._site = None
        elif mode != "refuse" and self._site is None:
            await self.listen()
        self.mode = mode

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.attempts += 1
        self.headers.append(dict(request.headers))
        if self.mode == "refuse" and request.transport is not None:
            request.transport.abort()
        if not isinstance(self.mode, int):
            await asyncio.Event().wait()
        if self.mode != 200:
            return web.Response(status=int(self.mode), headers={"Retry-After": "0.1"})
        found = _events(body)
        events = found if isinstance(found, list) else [found]
        files = tuple(event.data.file_name for event in events)
        if not self.refused_files.isdisjoint(files):
            return web.Response(status=422)
        ids = tuple(event.id for event in events)
        self.urls |= {event.data.file_name: event.data.url for event in events}
        self.receipts.append(Receipt(request.headers["webhook-id"], self.life, ids, files))
        return web.Response()


# ---------------------------------------------------------------- a wire


class Wire:
    """A wire of some length: what the platform says arrives `delay` seconds later.

    So an answer can be on its way, its messages gone from the queue, when the daemon dies.
    """

    def __init__(self, endpoint: str, host: str = "127.0.0.1") -> None:
        parts = urlsplit(endpoint)
        self._host = host
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._path = parts.path
        self.delay = 0.0
        self.delays: deque[float] = deque()
        """Delays of the next answers, before `delay` counts again."""
        self.requests = 0
        self.heard: Callable[[bytes], object] = lambda request: None
        """Called with each request when it is carried."""
        self.held = 0
        """How many answers are held back."""
        self._passable = asyncio.Event()
        self._passable.set()
        self._waiting: set[object] = set()
        self._connections: set[object] = set()
        self._server: asyncio.Server | None = None
        self.endpoint = ""

    @property
    def in_flight(self) -> int:
        """How many requests were carried and not answered yet."""
        return len(self._waiting)

    def hold(self) -> None:
        """Let no answer arrive until `let_pass`."""
        self._passable.clear()

    def let_pass(self) -> None:
        self._passable.set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        self._address = self._server.sockets[0].getsockname()
        self.endpoint = f"http://{self._host}:{self._address[1]}{self._path}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def settled(self) -> None:
        """Return once all that dead processes had asked is answered, and their connections are gone."""
        await _passed_by(self._address)
        while self._connections:
            await asyncio.sleep(0.002)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token, answered = object(), asyncio.Event()
        self._connections.add(token)
        answered.set()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            asking = asyncio.ensure_future(self._ask(token, answered, reader, far_writer))
            telling = asyncio.ensure_future(self._tell(token, answered, far_reader, writer))
            await asyncio.wait({asking, telling}, return_when=asyncio.FIRST_COMPLETED)
            if not telling.done():  # who asked is gone, and the platform has still to take the messages
                waiting = asyncio.ensure_future(answered.wait())
                await asyncio.wait({waiting, telling}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            for pump in (asking, telling):
                pump.cancel()
            await asyncio.gather(asking, telling, return_exceptions=True)
            far_writer.close()
        finally:
            self._waiting.discard(token)
            self._connections.discard(token)
            writer.close()

    async def _ask(
        self, token: object, answered: asyncio.Event, reader: asyncio.StreamReader, far: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(65536):
            self.requests += 1
            self.heard(chunk)
            self._waiting.add(token)
            answered.clear()
            far.write(chunk)

    async def _tell(
        self, token: object, answered: asyncio.Event, far: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await far.read(1 << 20):
            await asyncio.sleep(self.delays.popleft() if self.delays else self.delay)
            self.held += 1
            await self._passable.wait()
            self.held -= 1
            writer.write(chunk)
            await writer.drain()
            self._waiting.discard(token)
            answered.set()


async def _passed_by(address: tuple[str, int]) -> None:
    """Stand in a listener's queue, and return when it was our turn: those before us were let in."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write_eof()
    await reader.read()
    writer.close()


# ---------------------------------------------------------------- the town


class Environment:
    """A running sandbox, a wire to it, and receivers by name."""

    def __init__(self, options: Options, receivers: Sequence[str]) -> None:
        self._options = options
        self._names = receivers
        self._thread = threading.Thread(target=self._run, name="environment", daemon=True)
        self._up = threading.Event()
        self._error: BaseException | None = None
        self._feeding: asyncio.Task[None] | None = None
        self.oracle = Oracle(options.directory)
        self.sandbox: Sandbox
        self.wire: Wire
        self.receivers: dict[str, Receiver] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(PATIENCE)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    @property
    def hook(self) -> Receiver:
        return self.receivers["hook"]

    @property
    def endpoint(self) -> str:
        return str(self.sandbox.endpoints["api"])

    @property
    def pictures(self) -> str:
        """Where a picture's name is appended to."""
        return f"{self.sandbox.endpoints['cos']}/{self._options.customers[0].host_label}"

    @property
    def counts(self) -> Any:
        """The sandbox's counts of polls, dequeues, messages removed."""
        return self.sandbox.platform.queue().counts

    @property
    def depth(self) -> int:
        return self.sandbox.platform.queue().depth

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run something in the town's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def ask(self, question: Callable[[], Result]) -> Result:
        """Call something in the town's loop."""

        async def asked() -> Result:
            return question()

        return self.do(asked())

    def enqueue(self, count: int, **load: Any) -> None:
        self.ask(lambda: self.sandbox.enqueue(Load(count=count, **load)))

    def order(self, fault: str, times: int = 1, **params: Any) -> None:
        """The next calls go wrong in this way."""
        self.ask(lambda: self.sandbox.faults["api"].order(fault, times, **params))

    def settled(self) -> None:
        """Return once the platform has answered all that dead processes had asked of it.

        A request that a process sent just before its end may still wait in a socket, and takes messages later.
        """
        self.do(self._settled())

    async def _settled(self) -> None:
        await self.wire.settled()
        parts = urlsplit(self.endpoint)
        for _ in range(2):  # once to be behind the dead process's connections, once behind what they had sent
            await _passed_by((str(parts.hostname), int(parts.port or 80)))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold answers back on the wire. One at least is there on entry, its messages gone from the queue."""
        self.ask(self.wire.hold)
        try:
            until(lambda: self.wire.held, what="for an answer on its way")
            yield
        finally:
            self.ask(self.wire.let_pass)

    def turn(self, mode: int | str, name: str = "hook") -> None:
        self.do(self.receivers[name].turn(mode))

    @contextmanager
    def feeding(self, depth: int = 3000, **load: Any) -> Iterator[None]:
        """Keep so many messages in the queue, so that every answer is full."""

        async def feed() -> None:
            queue = self.sandbox.platform.queue()
            while True:
                await self.sandbox.until(lambda: queue.depth < depth)
                self.sandbox.enqueue(Load(count=1000, **load))
                await asyncio.sleep(0)

        task = self.ask(lambda: asyncio.ensure_future(feed()))
        try:
            yield
        finally:
            self.ask(task.cancel)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._live())
        except BaseException as error:
            self._error = error
            self._up.set()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            self.sandbox = await stack.enter_async_context(Sandbox(self._options))
            self.wire = Wire(self.endpoint)
            await self.wire.open()
            stack.push_async_callback(self.wire.close)
            for name in self._names:
                self.receivers[name] = Receiver()
                await self.receivers[name].open()
                stack.push_async_callback(self.receivers[name].close)
            self._up.set()
            await self._stop.wait()


@contextmanager
def environment(folder: Path, receivers: Sequence[str] = ("hook",), **options: Any) -> Iterator[Environment]:
    """A town for one test; pictures are there at once unless asked otherwise."""
    options.setdefault("upload_delay", (0.0, 0.0))
    with Environment(Options(directory=folder / "platform", **options), receivers) as standing:
        yield standing


@contextmanager
def counting_port() -> Iterator[tuple[int, list[object]]]:
    """A port that counts who connects, and answers nobody."""
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, address = listener.accept()
                    callers.append(address)
                    connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], callers
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def needs_root(why: str) -> None:
    """Skip at home, fail in CI, unless we are root."""
    if os.geteuid() != 0 and os.environ.get("CI") == "true":
        pytest.fail(f"needs root: {why}")
    if os.geteuid() != 0:
        pytest.skip(f"needs root: {why}")
