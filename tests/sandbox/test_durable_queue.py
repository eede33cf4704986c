"""The queue through restarts, and with a log that was cut: nothing is lost, the order is kept."""

import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.sandbox import POISONS, Answers, Customer, Load, Oracle, Removed, Sandbox
from poller.sandbox.clock import Clock
from poller.sandbox.database import Database
from poller.sandbox.oracle import RemovedLog
from poller.sandbox.query.messages import Said
from poller.sandbox.query.queues import Platform, Queue

from .api_client import ask, ask_bytes, play, tell


@contextmanager
def queue_in(directory: Path, limit: int = 10**6, form: Answers | None = None) -> Iterator[Queue]:
    """One life of a queue, ended in an orderly way."""
    with (
        Database(directory) as database,
        RemovedLog(directory) as log,
        Platform([Customer()], database, log, Clock(), form=form or Answers(), limit=limit) as platform,
    ):
        yield platform.queue()


def said(count: int, first: int = 1) -> list[Said]:
    return [
        Said(stream_id="直播 1", path=f"p{n}.jpg", create_time=1471850187 + n)
        for n in range(first, first + count)
    ]


# ---------------------------------------------------------------- orderly restarts


def test_what_waits_is_still_there_after_a_restart(tmp_path: Path) -> None:
    with queue_in(tmp_path) as queue:
        queue.enqueue(said(2500))
        taken = queue.take(100, poll=queue.next_poll())
    with queue_in(tmp_path) as queue:
        assert (queue.depth, queue.last_n, queue.counts.polls) == (2400, 2500, 1)
        queue.enqueue(said(5, 2501))
        while queue.depth:
            taken += queue.take(70, poll=queue.next_poll())
    assert [one.n for one in taken] == list(range(1, 2506))
    assert [one.path for one in Oracle(tmp_path).removed()] == [one.path for one in said(2505)]


def test_any_bytes_survive_a_restart(tmp_path: Path) -> None:
    bodies = [b"\x00\xff\n{", b"", b"null", bytes(range(256)), b"x" * 100_000]
    with queue_in(tmp_path) as queue:
        for number, body in enumerate(bodies):
            queue.enqueue_raw(body, path=f"raw{number}.jpg" if number else None)
        queue.enqueue_poison(POISONS)
        before = list(queue._messages)
    with queue_in(tmp_path) as queue:
        assert list(queue._messages) == before
        assert [one.body for one in queue.take(5, poll=1)] == bodies


def test_what_waited_takes_the_form_of_the_new_life(tmp_path: Path) -> None:
    with queue_in(tmp_path) as queue:
        queue.enqueue(said(2))
        queue.enqueue_raw(b"[]")
    with queue_in(tmp_path, form=Answers(fields="pic_full_url")) as queue:
        full, _, raw = (one.body for one in queue.take(3, poll=1))
    assert json.loads(full) == {
        "stream_id": "直播 1",
        "pic_full_url": "http://shots-1250000000.file.myqcloud.com/p1.jpg",
        "create_time": 1471850188,
    }
    assert raw == b"[]"
    assert Oracle(tmp_path).removed()[0].pic_url == "http://shots-1250000000.file.myqcloud.com/p1.jpg"


def test_poison_jumps_a_page_that_is_half_taken(tmp_path: Path) -> None:
    with queue_in(tmp_path) as queue:
        queue.enqueue(said(10))
        queue.take(4, poll=1)
        queue.enqueue_poison(["null", "nan"], first=True)
        queue.enqueue_poison(["digits"], first=True)
    with queue_in(tmp_path) as queue:
        assert queue.depth == 9
        queue.take(2, poll=2)
    with queue_in(tmp_path) as queue:
        assert [one.n for one in queue.take(100, poll=3)] == [12, 5, 6, 7, 8, 9, 10]
    assert [one.poison for one in Oracle(tmp_path).removed()][4:7] == ["digits", "null", "nan"]


def test_what_is_given_again_is_given_again_also_after_a_restart(tmp_path: Path) -> None:
    with queue_in(tmp_path) as queue:
        queue.enqueue(said(3))
        queue.enqueue_poison(["nan"])
        first = queue.take(2, poll=1)
        queue.give_again(first)
        queue.give_again(queue.take(2, poll=2))
    with queue_in(tmp_path) as queue:
        again = queue.take(10, poll=3)
        assert [one.n for one in again] == [1, 2, 3, 4]
        assert again[:2] == first
        assert queue.last_n == 4


def test_a_lower_limit_drops_the_oldest_at_the_start(tmp_path: Path) -> None:
    with queue_in(tmp_path) as queue:
        queue.enqueue(said(3000))
    with queue_in(tmp_path, limit=5) as queue:
        assert (queue.depth, queue.counts.dropped) == (5, 2995)
    with queue_in(tmp_path) as queue:
        assert [one.n for one in queue.take(100, poll=1)] == [2996, 2997, 2998, 2999, 3000]


def test_the_limit_can_be_set_at_run_time(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.enqueue(Load(count=50))
        assert await tell(sandbox, session, "queue", limit=20) == {"limit": 20, "depth": 20, "dropped": 30}
        sandbox.enqueue(Load(count=5))
        await ask(sandbox, session)
        assert [one.n for one in sandbox.oracle.removed()] == list(range(36, 56))
        for wish in ({"limit": 0}, {"limit": "many"}, {"limit": True}, {}, {"limit": 5, "customer": 9}):
            async with session.post(f"{sandbox.endpoints['control']}/queue", json=wish) as response:
                assert response.status == 400

    play(tmp_path, scene)


_ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("enqueue"), st.integers(1, 1200)),
        st.tuples(st.just("take"), st.integers(1, 100)),
        st.tuples(st.just("again"), st.integers(1, 100)),
        st.tuples(st.just("jump"), st.integers(1, 3)),
        st.tuples(st.just("limit"), st.sampled_from([1, 50, 999, 1000, 1001, 5000])),
    ),
    max_size=8,
)


class Model:
    """What a queue holds, as a plain list of numbers."""

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()
        self.limit, self.last, self.polls = 10**6, 0, 0

    def check(self, queue: Queue) -> None:
        assert [one.n for one in queue._messages] == list(self.waiting)
        assert (queue.last_n, queue.counts.polls) == (self.last, self.polls)

    def do(self, queue: Queue, act: str, number: int) -> None:
        """The same to both."""
        if act == "enqueue":
            queue.enqueue(said(number))
            self.waiting.extend(self._new(number))
            self._drop()
        elif act == "jump":
            queue.enqueue_poison(POISONS[:number], first=True)
            self.waiting.extendleft(reversed(self._new(number)))
        elif act == "limit":
            queue.set_limit(number)
            self.limit = number
            self._drop()
        else:
            self.polls = queue.next_poll()
            taken = queue.take(number, poll=self.polls)
            wanted = [self.waiting.popleft() for _ in range(min(number, len(self.waiting)))]
            assert [one.n for one in taken] == wanted
            if act == "again":
                queue.give_again(taken)
                self.waiting.extend(wanted)

    def _new(self, number: int) -> range:
        self.last += number
        return range(self.last - number + 1, self.last + 1)

    def _drop(self) -> None:
        while len(self.waiting) > self.limit:
            self.waiting.popleft()


@given(lives=st.lists(_ACTS, min_size=1, max_size=4))
@settings(max_examples=60)
def test_the_queue_on_disk_is_the_queue_in_memory(lives: list[list[tuple[str, int]]]) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        for life in lives:
            with queue_in(Path(folder), model.limit) as queue:
                model._drop()  # what jumped may have gone beyond the limit, which the start sees to
                model.check(queue)
                for act, number in life:
                    model.do(queue, act, number)
                model.check(queue)


def test_a_poisoned_answer_is_the_same_after_a_restart(tmp_path: Path) -> None:
    texts: list[bytes] = []

    async def fill(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.platform.queue().enqueue_poison(POISONS)

    async def take(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        texts.append(await ask_bytes(sandbox, session))

    async def both(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await fill(sandbox, session)
        await take(sandbox, session)

    play(tmp_path / "one", both)
    play(tmp_path / "two", fill)
    play(tmp_path / "two", take)
    assert texts[0] == texts[1]


# ---------------------------------------------------------------- the log


def test_what_could_not_be_logged_stays_in_the_queue(tmp_path: Path) -> None:
    with queue_in(tmp_path) as queue:
        queue.enqueue(said(5))
        queue.take(2, poll=1)
        log = os.dup(queue._log._fd)
        os.close(queue._log._fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            queue.take(2, poll=2)
        os.dup2(log, queue._log._fd)
        os.close(log)
        assert queue.depth == 3
    with queue_in(tmp_path) as queue:
        assert [one.n for one in queue.take(10, poll=3)] == [3, 4, 5]
    assert [one.n for one in Oracle(tmp_path).removed()] == [1, 2, 3, 4, 5]


def test_a_death_between_log_and_database_gives_twice_rather_than_never(tmp_path: Path) -> None:
    """The database of a moment before the take, and the log of after it."""
    life, saved = tmp_path / "life", tmp_path / "saved"
    life.mkdir()
    with queue_in(life) as queue:
        queue.enqueue(said(10))
        queue.take(3, poll=queue.next_poll())
        shutil.copytree(life, saved)
        queue.take(3, poll=queue.next_poll())
    shutil.copy(life / "removed.ndjson", saved)
    with queue_in(saved) as queue:
        assert queue.depth == 7
        queue.take(10, poll=queue.next_poll())
    removed = Oracle(saved).removed()
    assert [one.n for one in removed] == [1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9, 10]
    polls = [one.poll for one in removed]
    assert polls[:6] == [1, 1, 1, 2, 2, 2]
    assert len(set(polls[6:])) == 1
    assert polls[6] > 2, "a number that was given before the death is not given again"


def test_a_line_that_a_kill_cut_is_cut_off_at_the_next_start(tmp_path: Path) -> None:
    with queue_in(tmp_path) as queue:
        queue.enqueue(said(5))
        queue.take(2, poll=1)
    with (tmp_path / "removed.ndjson").open("ab") as file:
        file.write(b'{"n":3,"customer":1234,"str')
    with queue_in(tmp_path) as queue:
        queue.take(2, poll=2)
    assert [one.n for one in Oracle(tmp_path).removed()] == [1, 2, 3, 4]


def test_a_log_that_is_one_cut_line_becomes_empty(tmp_path: Path) -> None:
    (tmp_path / "removed.ndjson").write_bytes(b'{"n":3,"custo')
    with queue_in(tmp_path):
        pass
    assert (tmp_path / "removed.ndjson").read_bytes() == b""


def test_the_log_is_moved_aside_once_its_first_line_is_too_old(tmp_path: Path) -> None:
    with Database(tmp_path) as database, RemovedLog(tmp_path) as log:
        log.forget(time.time() + 1)
        platform = Platform([Customer()], database, log, Clock(), form=Answers(), limit=100)
        with platform:
            queue = platform.queue()
            queue.enqueue(said(9))
            began = time.time()
            queue.take(2, poll=1)
            log.forget(began - 1)
            assert not (tmp_path / "removed.ndjson.old").exists()
            log.forget(time.time() + 1)
            assert (tmp_path / "removed.ndjson").read_bytes() == b""
            queue.take(2, poll=2)
            assert [one.n for one in Oracle(tmp_path).removed()] == [1, 2, 3, 4]
            log.forget(time.time() + 1)
            queue.take(2, poll=3)
            assert [one.n for one in Oracle(tmp_path).removed()] == [3, 4, 5, 6]
    with queue_in(tmp_path) as queue:
        assert (queue.depth, queue.last_n) == (3, 9)


def test_a_start_forgets_what_is_beyond_the_retention(tmp_path: Path) -> None:
    old = Removed(
        n=1, customer=1234, poll=1, fault=None, at=time.time() - 60, stream_id="s", path="p", pic_url="p"
    )
    line = json.dumps({name: getattr(old, name) for name in old.__struct_fields__})
    (tmp_path / "removed.ndjson").write_text(line + "\n")

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert sandbox.oracle.removed() == [old]

    play(tmp_path, scene, retain=3600)
    assert not (tmp_path / "removed.ndjson.old").exists()
    play(tmp_path, scene, retain=30)
    assert (tmp_path / "removed.ndjson.old").exists()
