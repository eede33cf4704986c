"""The queue of a sandbox that is a process of its own: `kill -9` in the middle of polls, a second one beside it."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.sandbox import Oracle, Removed
from tests.lives import start

from .api_client import signed

PATIENCE = 60.0
"""Seconds for what takes a moment on a machine that has nothing else to do."""


class Child:
    """A sandbox as a process."""

    def __init__(self, directory: Path) -> None:
        said, theirs = os.pipe()
        with open(said) as stdout:
            words = ("sandbox", "--directory", str(directory), "--streams", "0")
            with open(theirs, "wb") as out, open(directory.with_suffix(".err"), "wb") as err:
                self.process = start(words, cwd=directory, stdout=out, stderr=err)
            line = stdout.readline()
        assert line, directory.with_suffix(".err").read_text()
        self.endpoints: dict[str, Any] = json.loads(line)

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE)


@contextmanager
def child(directory: Path) -> Iterator[Child]:
    """A sandbox as a process; killed if it still lives."""
    running = Child(directory)
    try:
        yield running
    finally:
        running.end(signal.SIGKILL)


def test_a_second_sandbox_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with child(tmp_path):
        second = subprocess.run(
            [sys.executable, "-m", "poller", "sandbox", "--directory", str(tmp_path), "--streams", "0"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (second.returncode, second.stdout) == (2, "")
        assert second.stderr == f"sandbox: {tmp_path}: another sandbox is running there\n"
    with child(tmp_path) as third:
        assert third.process.poll() is None, "a kill leaves no lock behind"


class Life:
    """Messages enqueued and polled at the same time, until the process is killed in the middle of it."""

    def __init__(self, number: int, endpoints: dict[str, Any], rng: random.Random) -> None:
        self.answered_n = 0
        self.received: list[str] = []
        self._number = number
        self._endpoints = endpoints
        self._rng = rng

    async def run(self, running: Child) -> None:
        answers = self._rng.randrange(5, 120)

        async def polls(session: aiohttp.ClientSession) -> None:
            nonlocal answers
            while True:
                count = str(self._rng.randint(1, 100))
                url = f"{self._endpoints['api']}?{signed(Param__n__count=count)}"
                async with session.get(url) as response:
                    answer = json.loads(await response.read())
                self.received += [one["pic_url"] for one in answer["output"]["data"]]
                answers -= 1
                if not answers:
                    running.process.kill()

        async def enqueues(session: aiohttp.ClientSession) -> None:
            while True:
                # The width tells lives apart that begin in the same second.
                load = {"count": self._rng.randint(1, 400), "streams": 3, "width": 300 + self._number}
                async with session.post(f"{self._endpoints['control']}/enqueue", json=load) as response:
                    self.answered_n = (await response.json())["last_n"]

        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
            works = [polls(session), polls(session), polls(session), enqueues(session)]
            ended = await asyncio.gather(*works, return_exceptions=True)
        assert all(isinstance(one, aiohttp.ClientError | ConnectionError) for one in ended), ended


@pytest.mark.timeout(1800)
def test_a_kill_loses_nothing_and_numbers_go_on(tmp_path: Path, *, soak: bool) -> None:
    rng, lives = random.Random(1), 100 if soak else 4
    received: list[str] = []
    last_n, last_poll = 0, 0
    doubtful = {0}
    for number in range(lives):
        with child(tmp_path) as running:
            life = Life(number, running.endpoints, rng)
            asyncio.run(life.run(running))
        received += life.received
        removed = Oracle(tmp_path).removed()
        ours = [one for one in removed if one.poll > last_poll]
        assert ours, "the life took nothing"
        _check_life(ours, doubtful)
        doubtful = {one.n for one in ours if one.poll == ours[-1].poll}
        last_poll, last_n = ours[-1].poll, max(last_n, life.answered_n)
    with child(tmp_path) as running:
        state = asyncio.run(_drained(running.endpoints))
    assert state["last_n"] >= last_n
    _check_all(Oracle(tmp_path).removed(), received, state["last_n"])


def _check_life(ours: list[Removed], doubtful: set[int]) -> None:
    """What one life took is in order, without a gap, and begins where the one before ended.

    Or it begins in the last poll before the kill, which was in the log and perhaps not yet in the database.
    """
    numbers = [one.n for one in ours]
    assert all(after == before + 1 for before, after in pairwise(numbers))
    polls = [one.poll for one in ours]
    assert polls == sorted(polls)
    assert numbers[0] in doubtful | {max(doubtful) + 1}


def _check_all(removed: list[Removed], received: list[str], last_n: int) -> None:
    """Enqueued is removed, and what was received is some of that."""
    assert {one.n for one in removed} == set(range(1, last_n + 1))
    assert len({one.path for one in removed}) == last_n
    # An answer goes out after both, so nobody receives a message twice.
    assert len(set(received)) == len(received)
    assert set(received) <= {one.path for one in removed}


async def _drained(endpoints: dict[str, Any]) -> dict[str, Any]:
    """Takes all that is left; returns the customer's state after it."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{endpoints['api']}?{signed()}") as response:
                if not json.loads(await response.read())["output"]["data"]:
                    break
        async with session.get(f"{endpoints['control']}/state") as response:
            state: dict[str, Any] = (await response.json())["customers"]["1234"]
    assert state["depth"] == 0
    return state


def test_an_orderly_stop_keeps_the_exact_numbers(tmp_path: Path) -> None:
    with child(tmp_path) as running:
        asyncio.run(_poll_once(running.endpoints))
        running.end(signal.SIGTERM)
    with child(tmp_path) as running:
        assert asyncio.run(_poll_once(running.endpoints)) == 2


async def _poll_once(endpoints: dict[str, Any]) -> int:
    """Takes a message; returns how many polls there were."""
    async with aiohttp.ClientSession() as session:
        await session.post(f"{endpoints['control']}/enqueue", json={"count": 1})
        await session.get(f"{endpoints['api']}?{signed()}")
        async with session.get(f"{endpoints['control']}/state") as response:
            return int((await response.json())["polls"])
