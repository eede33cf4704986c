"""Jobs: how many, how long they are known, what is published, and that a stop waits for the step in hand."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from poller.operations.requests import ControlError, CountChanged, Row, Rows
from poller.web import jobs as module
from poller.web.errors import WebError
from poller.web.jobs import MOST_RUNNING, Jobs
from tests.patience import patiently


def tell(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(patiently(scenario()))


async def steps(count: int, row: Row, gate: asyncio.Event | None = None) -> Rows:
    for _ in range(count):
        if gate is not None:
            await gate.wait()
        yield None
    yield row


async def refused(error: Exception) -> Rows:
    raise error
    yield None


async def ended(job: module.Job) -> None:
    while job.state == "running":
        await asyncio.sleep(0)


def test_a_job_counts_its_steps_and_keeps_the_last_row() -> None:
    async def scenario() -> None:
        heard: list[Any] = []
        async with Jobs(lambda name, content: heard.append((name, content))) as jobs:
            job = jobs.start(
                steps(3, {"purged": 450}), verb="dead purge", role="operate", total=450, step=200
            )
            await ended(job)
            assert (job.done, job.total, job.state, job.row) == (450, 450, "done", {"purged": 450})
            assert jobs.get(job.id) is job
        name, content = heard[-1]
        assert name == "job"
        assert content == {"job": job.id, "done": 450, "total": 450, "state": "done", "error": None}

    tell(scenario)


def test_no_more_than_four_jobs_run_at_once() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        async with Jobs() as jobs:
            some = [jobs.start(steps(1, {}, gate), verb="v", role="operate") for _ in range(MOST_RUNNING)]
            with pytest.raises(WebError, match="4 actions are running") as refused:
                jobs.start(steps(1, {}), verb="v", role="operate")
            assert refused.value.status == 429
            gate.set()
            for job in some:
                await ended(job)
            await ended(jobs.start(steps(1, {}), verb="v", role="operate"))

    tell(scenario)


def test_an_error_of_a_command_ends_its_job_with_its_text_and_a_bug_without() -> None:
    async def scenario() -> None:
        async with Jobs() as jobs:
            for error, text in (
                (CountChanged("8 match now, and not 7", count=8), "8 match now, and not 7"),
                (ControlError("no sink x is configured"), "no sink x is configured"),
                (RuntimeError("secret=abc"), "a bug stopped the work; the log says where"),
            ):
                job = jobs.start(refused(error), verb="dead purge", role="operate", total=7, step=200)
                await ended(job)
                assert (job.state, job.done, str(job.error)) == ("failed", 0, text)

    tell(scenario)


def test_a_stop_waits_for_the_step_in_hand_and_does_not_begin_another() -> None:
    async def scenario() -> None:
        gate, taken = asyncio.Event(), []

        async def work() -> Rows:
            for number in range(3):
                await gate.wait()
                taken.append(number)
                yield None
            yield {}

        jobs = Jobs()
        async with asyncio.TaskGroup() as group:
            await jobs.__aenter__()
            job = jobs.start(work(), verb="dead purge", role="operate", total=600, step=200)
            group.create_task(_open_later(gate))
            await jobs.__aexit__(None, None, None)
        assert taken == [0]
        assert (job.done, job.state, str(job.error)) == (200, "failed", module.STOPPING)
        with pytest.raises(WebError, match="stopping") as refused:
            jobs.start(steps(1, {}), verb="v", role="operate")
        assert refused.value.status == 503

    tell(scenario)


async def _open_later(gate: asyncio.Event) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()


def test_jobs_that_have_ended_are_forgotten_by_age_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Jobs() as jobs:
            first = jobs.start(steps(0, {}), verb="v", role="operate")
            await ended(first)
            for _ in range(module.MOST_KEPT):
                await ended(jobs.start(steps(0, {}), verb="v", role="operate"))
            assert jobs.get(first.id) is None
            last = jobs.start(steps(0, {}), verb="v", role="operate")
            await ended(last)
            assert jobs.get(last.id) is last
            monkeypatch.setattr(module, "KEEP_FOR", -1.0)
            assert jobs.get(last.id) is None

    tell(scenario)
