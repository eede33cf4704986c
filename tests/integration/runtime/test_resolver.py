"""Names are resolved apart for each part of the process."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from poller.runtime.resolver import MOST_LOOKUPS, Resolver
from tests.patience import patiently

real = socket.getaddrinfo


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The C library waits for ever for names in .silent."""
    asked: list[str] = []
    end = threading.Event()

    def ask(host: str, *args: Any, **more: Any) -> Any:
        if str(host).endswith(".silent") and not int(more.get("flags", 0)) & socket.AI_NUMERICHOST:
            asked.append(host)
            end.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    try:
        yield asked
    finally:
        end.set()


def test_names_that_are_never_resolved_delay_no_other_part(silent: list[str]) -> None:
    async def run() -> None:
        sinks = [Resolver() for _ in range(40)]
        waiting = [asyncio.ensure_future(sink.resolve(f"hook{n}.silent", 80)) for n, sink in enumerate(sinks)]
        while len(silent) < len(sinks):
            await asyncio.sleep(0.001)
        await Resolver().resolve("localhost", 80)
        assert not any(one.done() for one in waiting), "it waited for none of them"
        for one in waiting:
            one.cancel()

    asyncio.run(patiently(run()))


def test_who_asks_for_the_same_name_waits_for_the_same_look_up_and_few_names_are_looked_up_at_once(
    silent: list[str],
) -> None:
    async def run() -> None:
        resolver = Resolver()
        same = [asyncio.ensure_future(resolver.resolve("hook.silent", 80)) for _ in range(50)]
        others = [asyncio.ensure_future(resolver.resolve(f"{n}.silent", 80)) for n in range(1, MOST_LOOKUPS)]
        while len(silent) < MOST_LOOKUPS:
            await asyncio.sleep(0.001)
        with pytest.raises(socket.gaierror, match="too many names"):
            await resolver.resolve("one-more.silent", 80)
        for one in same + others:
            one.cancel()
        assert len(silent) == MOST_LOOKUPS

    asyncio.run(patiently(run()))


async def test_an_address_is_used_again_for_a_while_and_a_failure_is_not() -> None:
    resolver = Resolver()
    first = await resolver.resolve("localhost", 80)
    assert await resolver.resolve("localhost", 80) is first
    for _ in range(2):
        with pytest.raises(OSError):  # noqa: PT011 - the C library has many words for it
            await resolver.resolve("no-such-name.invalid", 80)
