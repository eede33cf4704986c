"""Everything that can go wrong on the way from the platform, in a mix by seed, under load: the books balance."""

import random
from pathlib import Path
from typing import Any

import pytest

from poller.sandbox import Removed

from .environment import Environment, environment, until
from .rig import Books, Process, by_poll, scenario

Order = tuple[str, dict[str, Any]]
CUTS = ("cut", "cut_chunked", "cut_close")
NOT_WHOLE = {*CUTS, "reset_before", "reset_after", "reset_headers", "close", "hang", "endless", "bomb"}
WHOLE = ["duplicate", "duplicate_later", "reorder", "wrong_ret", "wrong_type", "poison"]
GOOD = {"latency", "duplicate", "duplicate_later", "reorder", "poison"}
TAKES_AND_DIES = ["reset_after", "reset_headers", "close"]
TAKES_NOTHING = ["reset_before", "status", "redirect", "html", "text", "too_frequent"]


def schedule(rng: random.Random, polls: int) -> list[Order]:
    """What befalls each of so many polls, the first ones first."""
    orders = [one(rng) for _ in range(polls)]
    rare: list[Order] = [
        ("endless", {"size": 6 << 20}),
        ("bomb", {"size": 20 << 20}),
        ("drip", {"seconds": 0.0}),
        ("status", {"status": 502, "takes": True}),
    ]
    for place, order in zip(rng.sample(range(polls), len(rare)), rare, strict=True):
        orders[place] = order
    for place in range(2, polls):  # three answers in a row that hold nothing would slow polling for minutes
        if not {order[0] for order in orders[place - 2 : place + 1]} & GOOD:
            orders[place - (orders[place] in rare)] = "latency", {"seconds": 0.0}
    return orders


def one(rng: random.Random) -> Order:
    kind = rng.random()
    if kind < 0.35:
        return "latency", {"seconds": rng.choice((0.0, 0.0, 0.05))}
    if kind < 0.6:
        return rng.choice(CUTS), {"offset": rng.randrange(9000)}
    if kind < 0.75:
        return rng.choice(WHOLE), {}
    if kind < 0.9:
        return rng.choice(TAKES_AND_DIES), {}
    name = rng.choice(TAKES_NOTHING)
    return name, {"status": rng.choice((400, 403, 404, 500, 503))} if name == "status" else {}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (2, 3, 4, 5))])
def test_what_a_broken_connection_takes_is_counted_and_nothing_else_is_missing(
    tmp_path: Path, seed: int, soak: bool
) -> None:
    polls = 1000 if soak else 100
    orders = schedule(random.Random(seed), polls)
    with (
        environment(tmp_path, seed=seed) as place,
        scenario(place, tmp_path, source={"max_delay": "10ms"}) as daemon,
    ):
        for name, params in orders:
            place.order(name, **params)
        place.enqueue(100 * polls)
        process = daemon.run()
        api = place.sandbox.faults["api"]
        until(lambda: api.ordered == 0 and place.depth == 0, 600 if soak else 90)
        _polls_are_dequeues(place, process)
        uncertain = process.metric("polls_total", outcome="uncertain")
        fired = sum(times for name, times in api.fired.items() if name in NOT_WHOLE)
        assert uncertain == fired > polls / 5
        assert process.stop() == 0
        assert daemon.drain() == 0
        books = daemon.books()
        salvaged, lost = _uncertain_only(books, orders)
        assert set(place.hook.files) == set(books.spooled) == set(daemon.printed()[0] + daemon.printed()[1])
        assert place.hook.twice_in_a_life() == []
        assert place.hook.files.total() == len(books.spooled), "duplicates of the platform are stored once"
    print(
        f"\nfaults, seed {seed}: removed={len(books.removed)} polls={place.counts.polls} not whole={fired}"
        f" lost in them={lost} salvaged from cuts={salvaged} quarantined={len(books.quarantine)}"
    )
    assert len(books.removed) >= 1000
    assert salvaged > 0


def _polls_are_dequeues(place: Environment, process: Process) -> None:
    """Requests at the server are polls of ours: nobody below repeats one."""

    def same() -> bool:
        before = place.counts.polls
        ours = process.metric("polls_total")
        return bool(ours == before == place.counts.polls)

    until(same, 30, "for polls made to equal requests received")


def _uncertain_only(books: Books, orders: list[Order]) -> tuple[int, int]:
    """Only polls whose answer was not whole lack messages, and of a cut answer only what the cut hit."""
    books.check_once()
    spooled, salvaged = set(books.spooled), 0
    lost = books.lost()
    assert {one.fault for one in lost} <= NOT_WHOLE
    for poll, messages in by_poll(books.removed).items():
        fault = messages[0].fault
        if fault not in CUTS:
            continue
        assert orders[poll - 1][0] == fault
        whole = _before(messages, orders[poll - 1][1]["offset"])
        missing = [name for name in whole if name not in spooled]
        assert missing == [], (
            f"{fault} of poll {poll}: {len(missing)} of {len(whole)} whole messages not saved"
        )
        salvaged += len(whole)
    return salvaged, len(lost)


def _before(messages: list[Removed], offset: int) -> list[str]:
    """The messages that end before the cut, in the platform's plainest form of answer."""
    end = len('{"ret":0,"message":"return successfully!","output":{"count":,"data":[') + len(
        str(len(messages))
    )
    found = []
    for one in messages:
        end += len(f'{{"stream_id":"{one.stream_id}","pic_url":"{one.pic_url}"}}')
        if one.path is not None and one.poison is None and end <= offset:
            found.append(one.path)
        end += 1
    return found
