"""Runs actions apart from the requests that ordered them.

Invariants
    A job continues after its viewer has left. The work between two steps of a job is never cancelled.

Life cycle
    On leaving, each job ends after its current step, and reports that the rest was not done.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Final, Literal, Self

import structlog

from poller.core.errors import PollerError
from poller.operations.requests import Row, Rows
from poller.web.errors import WebError

log = structlog.get_logger("web")

MOST_RUNNING: Final = 4
MOST_KEPT: Final = 100
KEEP_FOR: Final = 600.0
"""Seconds for which a job that has ended can be asked for."""
PUBLISH_EVERY: Final = 0.25
STOPPING: Final = "the daemon is stopping; what was done is done"
BROKEN: Final = "a bug stopped the work; the log says where"

JobState = Literal["running", "done", "failed"]
Publish = Callable[[str, object], None]
"""Sends an event of a name, with its content, to all viewers."""


class Job:
    """One order, and how far it is. `error` is what ended it early, `row` the last row of its answer."""

    def __init__(self, *, verb: str, role: str, total: int, step: int) -> None:
        self.id = secrets.token_hex(8)
        self.verb = verb
        self.role = role
        self.total = total
        self.done = 0
        self.state: JobState = "running"
        self.error: PollerError | None = None
        self.row: Row | None = None
        self.ended_at: float | None = None
        self.underway = asyncio.Event()
        """Set once the first entries were changed, and when the job has ended."""
        self._step = step

    def advance(self) -> None:
        """Note one more step. An order of one step, such as a replay that is counted, shows no part of it."""
        if self._step:
            self.done = min(self.total, self.done + self._step)
            self.underway.set()

    def progress(self) -> dict[str, object]:
        """How far the job is, for all viewers: nothing of its content."""
        return {
            "job": self.id,
            "done": self.done,
            "total": self.total,
            "state": self.state,
            "error": None if self.error is None else str(self.error),
        }

    def describe(self) -> dict[str, object]:
        """The whole job, with the last row of its answer."""
        return {**self.progress(), "action": self.verb, "result": self.row}


class Jobs:
    """The jobs of this process."""

    def __init__(self, publish: Publish = lambda name, content: None) -> None:
        self._publish = publish
        self._jobs: dict[str, Job] = {}
        self._group = asyncio.TaskGroup()
        self._closing = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._closing = True
        await self._group.__aexit__(None, None, None)

    def get(self, id: str) -> Job | None:
        """The job of this id, if it runs or has ended lately."""
        self._forget()
        return self._jobs.get(id)

    def start(self, rows: Rows, *, verb: str, role: str, total: int = 1, step: int = 0) -> Job:
        """Carry out an operator's command. Each None of `rows` stands for a step of `step` entries.

        Raises `WebError`: 429 for too many jobs, 503 while the daemon stops.
        """
        self._forget()
        if self._closing:
            raise WebError(503, STOPPING)
        if sum(job.state == "running" for job in self._jobs.values()) >= MOST_RUNNING:
            raise WebError(429, f"{MOST_RUNNING} actions are running: try again when one of them has ended")
        job = Job(verb=verb, role=role, total=total, step=step)
        self._jobs[job.id] = job
        self._group.create_task(self._run(job, rows))
        return job

    async def _run(self, job: Job, rows: Rows) -> None:
        log.info("action_started", job=job.id, verb=job.verb, role=job.role, count=job.total)
        try:
            await self._work(job, rows)
        except PollerError as error:
            job.error = error
        except Exception:
            log.exception("action_raised", job=job.id, verb=job.verb)
            job.error = PollerError(BROKEN)
        self._end(job)

    async def _work(self, job: Job, rows: AsyncGenerator[Row | None, None]) -> None:
        published = time.monotonic()
        async with aclosing(rows):
            async for row in rows:
                if row is not None:
                    job.row = row
                    continue
                job.advance()
                if self._closing:
                    raise WebError(503, STOPPING)
                if time.monotonic() - published >= PUBLISH_EVERY:
                    published = time.monotonic()
                    self._publish("job", job.progress())

    def _end(self, job: Job) -> None:
        if job.error is None:
            job.state, job.done = "done", job.total
        else:
            job.state = "failed"
        job.ended_at = time.monotonic()
        job.underway.set()
        reason = {} if job.error is None else {"reason": str(job.error)}
        log.info("action_ended", job=job.id, verb=job.verb, role=job.role, done=job.done, **reason)
        self._publish("job", job.progress())

    def _forget(self) -> None:
        now = time.monotonic()
        ended = [job for job in self._jobs.values() if job.ended_at is not None]
        old = [job for job in ended if now - (job.ended_at or now) > KEEP_FOR]
        surplus = ended[: max(0, len(self._jobs) - MOST_KEPT)]
        for job in {*old, *surplus}:
            self._jobs.pop(job.id, None)
