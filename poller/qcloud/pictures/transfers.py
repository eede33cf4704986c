"""GETs with libcurl: many at once, in one thread, over connections that stay open. Each connect is guarded.

libcurl is used instead of aiohttp because pictures are small and many. It runs in a thread instead of the
event loop because it takes a third of the CPU when it handles all its transfers together
(tests/bench/download.py).
"""

import asyncio
import os
import re
import select
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Final, NamedTuple, Self

import pycurl

from poller.qcloud.pictures.handle import BadUrl, Handle, ResponseReader, TransferFailed, trust_store
from poller.runtime.outbound import AddressGuard

MOST_IDLE: Final = 256
"""The most handles that are kept for later transfers. Connections are kept separately."""
LONGEST_WAIT: Final = 50
"""The longest wait in milliseconds. libcurl does not report sockets with numbers above 1023: such a socket may have to
wait so long."""
LONGEST_END: Final = 1.0
"""Seconds for the thread to end. libcurl then waits for look-ups, which cannot be aborted and may take minutes."""
_URL: Final = re.compile(r"(https?://[^/?#]*)([^#]*)", re.IGNORECASE | re.ASCII)


class TransferRequest(NamedTuple):
    """A URL, which is sent unchanged, and the reader of its answer."""

    url: str
    answer: ResponseReader


class Transfers:
    """Runs transfers, at most `per_host` at once to one host and port. Others wait for their turn.

    libcurl's own limit is not used, because it counts the waiting as time of connecting.
    """

    def __init__(self, guard: AddressGuard, *, per_host: int, timeout: float) -> None:
        self._worker = _Worker(guard, per_host)
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        self._worker.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await asyncio.to_thread(self._worker.end)

    async def get(self, wishes: Sequence[TransferRequest]) -> list[Exception | None]:
        """Fetch URLs without following redirects; returns the error of each, or None for a complete answer.

        An error is `TimeoutError` after `timeout` seconds (including the wait for a turn), `TransferFailed`,
        `BadUrl`, or the error of the answer's reader. Readers are called in another thread, and may be called
        until shortly after this method has ended. May be cancelled.
        """
        order = _Order(wishes)
        self._worker.tell(order)
        try:
            async with asyncio.timeout(self._timeout):
                await order.filled
        except TimeoutError:
            pass
        finally:
            if order.left:
                order.given_up = True
                self._worker.tell(order)
        return [request.error if request.ended else TimeoutError() for request in order.requests]


class _Request:
    """A request of an order. It has a handle while it runs."""

    def __init__(self, wish: TransferRequest, order: "_Order") -> None:
        found = _URL.match(wish.url)
        self.url, self.answer = wish
        self.origin, target = found.groups() if found else (wish.url, "")
        self.target = target if target.startswith("/") else f"/{target}"
        self.order = order
        self.handle: Handle | None = None
        self.ended = False
        self.error: Exception | None = None


class _Order:
    """The requests of one call of `get`. `left` of them have not ended yet."""

    def __init__(self, wishes: Sequence[TransferRequest]) -> None:
        self.requests = [_Request(wish, self) for wish in wishes]
        self.left = len(self.requests)
        self.given_up = False
        self.loop = asyncio.get_running_loop()
        self.filled: asyncio.Future[None] = self.loop.create_future()
        if not wishes:
            self.filled.set_result(None)

    def end_one(self, request: _Request, error: Exception | None) -> None:
        """End a request. Called in the worker's thread."""
        request.error = error
        request.ended = True
        # request and order refer to each other: a picture must not wait for the garbage collector
        del request.answer
        self.left -= 1
        if not self.left:
            self.loop.call_soon_threadsafe(self._fill)

    def _fill(self) -> None:
        if not self.filled.done():
            self.filled.set_result(None)


class _Worker:
    """The thread that takes orders and lets libcurl work on all their requests together."""

    def __init__(self, guard: AddressGuard, per_host: int) -> None:
        self._guard = guard
        self._per_host = per_host
        self._trusted = trust_store()
        self._inbox: deque[_Order] = deque()
        self._ending = False
        self._idle: list[Handle] = []
        self._running: dict[pycurl.Curl, _Request] = {}
        self._lines: defaultdict[str, deque[_Request]] = defaultdict(deque)
        self._busy: defaultdict[str, int] = defaultdict(int)

    # ------------------------------------------------------------ called from the event loop

    def begin(self) -> None:
        """Start the thread."""
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = Thread(target=self._run, name="transfers", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Abort all transfers. Waits for the thread, but not for names that libcurl is looking up."""
        self._ending = True
        os.eventfd_write(self._bell, 1)
        self._thread.join(LONGEST_END)
        if not self._thread.is_alive():  # else it may still use the bell
            os.close(self._bell)

    def tell(self, order: _Order) -> None:
        """Pass an order to the thread: to begin it, or to abort it if it was given up. Raises `TransferFailed`."""
        if not self._thread.is_alive():
            raise TransferFailed("fetching has ended")
        self._inbox.append(order)
        os.eventfd_write(self._bell, 1)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        self._multi = pycurl.CurlMulti()
        try:
            while not self._ending:
                while self._inbox:
                    self._look_at(self._inbox.popleft())
                if not self._running or not self._work():
                    self._wait()
        finally:
            self._close()

    def _look_at(self, order: _Order) -> None:
        if not order.given_up:
            for request in order.requests:
                self._lines[request.origin].append(request)
        else:
            for request in order.requests:
                if request.handle is not None:
                    self._release(request.handle, request)
        for origin in {request.origin for request in order.requests}:
            self._fill(origin)

    def _fill(self, origin: str) -> None:
        """Start requests to a host, as many as may run at once."""
        line = self._lines[origin]
        while line and self._busy[origin] < self._per_host:
            request = line.popleft()
            if not request.order.given_up:
                self._start(request)
        if not line:
            del self._lines[origin]
            if not self._busy[origin]:
                del self._busy[origin]

    def _start(self, request: _Request) -> None:
        handle = self._idle.pop() if self._idle else Handle(self._guard, self._trusted)
        try:
            handle.prepare(request.url, request.target, request.answer)
        except (ValueError, pycurl.error):
            request.order.end_one(request, BadUrl("not a URL"))
            return
        self._multi.add_handle(handle.curl)
        self._busy[request.origin] += 1
        self._running[handle.curl] = request
        request.handle = handle

    def _release(self, handle: Handle, request: _Request) -> None:
        self._multi.remove_handle(handle.curl)
        del self._running[handle.curl]
        self._busy[request.origin] -= 1
        request.handle = None
        handle.forget()
        if len(self._idle) < MOST_IDLE:
            self._idle.append(handle)

    def _work(self) -> bool:
        """Let libcurl do all that it can without waiting; returns whether a request ended."""
        self._multi.perform()
        freed = set()
        for curl, code in self._done():
            request = self._running[curl]
            assert request.handle is not None
            error = request.handle.failure(code) if code else None
            self._release(request.handle, request)
            request.order.end_one(request, error)
            freed.add(request.origin)
        for origin in freed:
            self._fill(origin)
        return bool(freed)

    def _done(self) -> Iterator[tuple[pycurl.Curl, int]]:
        left = 1
        while left:
            left, whole, failed = self._multi.info_read()
            yield from ((curl, 0) for curl in whole)
            yield from ((curl, code) for curl, code, _ in failed)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if self._running:
            reading, writing, _ = self._multi.fdset()
            for socket in {*reading, *writing}:
                wanted = select.POLLIN if socket in reading else 0
                poll.register(socket, wanted | (select.POLLOUT if socket in writing else 0))
            wait = self._multi.timeout()
            poll.poll(min(wait, LONGEST_WAIT) if wait >= 0 else LONGEST_WAIT)
        else:
            poll.poll()
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def _close(self) -> None:
        """End all requests with an error, so that no caller waits for ever, and release libcurl's resources."""
        orders = {*self._inbox, *(request.order for request in self._running.values())}
        orders |= {request.order for line in self._lines.values() for request in line}
        for order in orders:
            for request in order.requests:
                if request.handle is not None:
                    self._release(request.handle, request)
                if not request.ended and not order.given_up:
                    order.end_one(request, TransferFailed("fetching has ended"))
        for handle in self._idle:
            handle.curl.close()
        self._multi.close()
