"""Daemons with one configuration and one spool, each on a machine of its own, and what may happen to them."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.scenario.environment import PATIENCE, Environment, Wire, environment, until
from tests.scenario.rig import Process, Scenario, scenario
from tests.servers.replicas import Replicas, replicas

from . import spool
from .counts import Ending
from .machines import HOST, NETWORK, Machine, machines
from .receivers import HEADER, Names, Receiver, is_refused

LEASE: Final = 6.0
SINKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "any": {},
    "picky": {},
    "ordered": {"order": "stream"},
    "lanes": {"order": "stream", "lanes": 4},
}
"""The sinks, with what they have besides a receiver."""
FAR: Final = 0.02
"""Seconds that an answer of the platform is under way."""
LOOK_EVERY: Final = 0.1
"""Seconds between two questions to the database, which cost what the daemons need."""
LONG: Final = 900.0
"""Seconds in which a backlog is delivered."""
LIFE: Final = "POLLER_LIFE"
"""The variable that has the number of a life, so that all members have the same configuration."""
SESSION_ENDED: Final = "the session of this daemon has ended"


class Member:
    """A machine with its daemons, one after the other. All of them have the same journal."""

    def __init__(self, machine: Machine, daemon: Scenario, wire: Wire) -> None:
        self.machine = machine
        self.daemon = daemon
        self.wire = wire
        self.life = 0
        self.session = 0
        self.is_to_run = False
        self.process: Process

    @property
    def pid(self) -> int:
        return self.process.child.pid


class Over(NamedTuple):
    """How a session ended, as `Ending` says it, and what was unsettled just before."""

    kind: str
    life: int | None
    begin: float
    end: float
    unsettled: spool.Unsettled


class Cluster:
    """The members, the database, and how every session ended so far."""

    def __init__(
        self,
        *,
        place: Environment,
        server: Replicas,
        members: Sequence[Member],
        receivers: dict[str, Receiver],
        names: Names,
        rng: random.Random,
    ) -> None:
        self.place = place
        self.server = server
        self.members = members
        self.receivers = receivers
        self.names = names
        self._over: list[Over] = []
        self._unsettled: spool.Unsettled
        self.happened: Counter[str] = Counter()
        self.caught = 0
        """How many kills met polls in flight."""
        self._rng = rng
        self._lives = 0
        self._ended: set[int] = set()
        """The sessions to whose daemons something happened."""

    # ------------------------------------------------------------ lives

    def start(self, member: Member) -> None:
        """One more life of a member."""
        self._lives += 1
        member.life = self._lives
        member.process = member.daemon.start(**{LIFE: str(member.life)})
        member.is_to_run = True

    def until_up(self, member: Member) -> None:
        """Wait until a member works."""
        member.process.until_running()
        member.session = spool.sessions(self.server)[member.pid]

    def check_alive(self) -> None:
        """No member has ended by itself: nothing has happened to it but an outage of the database."""
        for member in self.members:
            assert not member.is_to_run or member.process.alive, (
                f"the daemon of life {member.life} has ended, and nothing had happened to it",
                member.process.stderr[-3000:],
            )

    def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait until a condition holds, and that nobody ends meanwhile. It may ask the database."""
        end = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < end, f"waited {LONG:.0f} s in vain {what}"
            self.check_alive()
            time.sleep(LOOK_EVERY)

    def _ended_with_its_session(self, member: Member, kind: str, begin: float) -> None:
        """A daemon has to end, because its session has; how it ended is noted."""
        code = member.process.wait()
        assert (code, SESSION_ENDED in member.process.stderr) == (1, True), (
            code,
            member.process.stderr[-3000:],
        )
        self._note(kind, member, begin)

    def _note(self, kind: str, member: Member, begin: float) -> None:
        """A life is over. Returns once all has arrived that it had sent, and all is answered that it had asked."""
        until(lambda: not member.machine.still_sends(), what="for what a dead process had sent")
        self.place.do(member.wire.settled())
        self._over.append(Over(kind, member.life, begin, time.time(), self._unsettled))
        if kind != "stop":
            self._ended.add(member.session)
        self._check_log(member.process)

    def _check_log(self, process: Process) -> None:
        """What went wrong was foreseen, and only sessions were ended to whose daemons something happened."""
        assert "Traceback" not in process.stderr, process.stderr[-3000:]
        assert [line for line in process.log if "exception" in line] == []
        ended = {line["session"] for line in process.said("session_ended")}
        assert ended <= self._ended, f"nothing had happened to the daemons of {ended - self._ended}"

    def _one_of_those_that_poll(self) -> Member:
        """A member with a poll in flight."""
        found: list[Member] = []

        def look() -> bool:
            found[:] = [one for one in self.members if one.wire.in_flight > 0]
            return bool(found)

        until(look, what="for a poll in flight")
        return self._rng.choice(found)

    def _until_replaced(self, member: Member) -> None:
        """Wait until the others have ended the session of a member that gives no sign of life."""
        end = time.monotonic() + PATIENCE
        while member.pid in spool.sessions(self.server):
            assert time.monotonic() < end, "nobody ends the session of a daemon that gives no sign of life"
            time.sleep(LOOK_EVERY)

    # ------------------------------------------------------------ what may happen

    def happen(self, kind: str) -> None:
        """One thing goes wrong, and is mended."""
        what: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "stop": self._stop,
            "cut": self._cut,
            "promotion": self._promote,
            "restart": self._restart,
        }
        self._unsettled = spool.unsettled(self.server)
        what[kind]()
        self.happened[kind] += 1
        self.check_alive()

    def _kill(self) -> None:
        idle = self.happened["kill"] % 4 == 3
        member = self._rng.choice(self.members) if idle else self._one_of_those_that_poll()
        begin = time.time()
        self.caught += member.wire.in_flight > 0
        assert member.process.kill() == -signal.SIGKILL
        self._note("kill", member, begin)
        if self._rng.random() < 0.5:
            self._until_replaced(member)
        self.start(member)
        self.until_up(member)

    def _freeze(self) -> None:
        member = self._rng.choice(self.members)
        begin = time.time()
        member.process.signal(signal.SIGSTOP)
        time.sleep(LEASE)
        self._until_replaced(member)
        member.process.signal(signal.SIGCONT)
        self._ended_with_its_session(member, "freeze", begin)
        self.start(member)
        self.until_up(member)

    def _cut(self) -> None:
        member = self._rng.choice(self.members)
        begin = time.time()
        member.machine.cut()
        time.sleep(LEASE)
        self._until_replaced(member)
        member.machine.join()
        self._ended_with_its_session(member, "cut", begin)
        self.start(member)
        self.until_up(member)

    def _stop(self) -> None:
        member = self._rng.choice(self.members)
        begin = time.time()
        assert member.process.stop() == 0, member.process.stderr[-3000:]
        self._note("stop", member, begin)
        self.start(member)
        self.until_up(member)

    def _promote(self) -> None:
        begin = time.time()
        self.server.fail_over()
        self.server.rebuild()
        self._over.append(Over("promotion", None, begin, time.time(), self._unsettled))

    def _restart(self) -> None:
        begin = time.time()
        self.server.restart()
        self._over.append(Over("restart", None, begin, time.time(), self._unsettled))

    # ------------------------------------------------------------ the end

    def endings(self, numbers: Mapping[str, int]) -> list[Ending]:
        """How every session ended so far. `numbers` has the number of each event of the log, by its picture's name."""
        return [Ending(*one[:4], one.unsettled.numbered(numbers)) for one in self._over]

    def finish(self) -> None:
        """Empty the queue, deliver all, and stop in order.

        Then each member works alone, so that its journal is read in. That takes one more message for each.
        """
        self._settle()
        for member in self.members:
            self._end(member)
        for member in self.members:
            self.start(member)
            self.until_up(member)
            self.place.enqueue(1)  # it is polled once the journal is read
            self.until(lambda: self.place.depth == 0, "for an empty queue")
            last = self.place.oracle.removed()[-1].path
            self.until(partial(self.names.__contains__, last), "for the last message")
            self._settle()
            self._end(member)

    def _settle(self) -> None:
        self.until(lambda: self.place.depth == 0, "for an empty queue")
        self.until(lambda: spool.owed(self.server) == 0, "for all deliveries")

    def _end(self, member: Member) -> None:
        member.is_to_run = False
        assert member.process.stop() == 0, member.process.stderr[-3000:]
        self._check_log(member.process)


@contextmanager
def cluster(folder: Path, shared: Path, rng: random.Random, count: int, pollers: str) -> Iterator[Cluster]:
    """`count` daemons, running. `pollers` is the setting: "one" or "all".

    The calling thread has a network of its own: see `networks.apart`.
    """
    with ExitStack() as stack:
        hosts = stack.enter_context(machines(count))
        place = stack.enter_context(environment(folder, (), listen=f"{HOST}:0"))
        server = stack.enter_context(replicas(shared, host=HOST, admits=NETWORK))
        names = Names()
        receivers = {
            name: Receiver(names, is_refused) if name == "picky" else Receiver(names) for name in SINKS
        }
        for receiver in receivers.values():
            place.do(receiver.open(HOST))
            stack.callback(partial(_close, place, receiver))
        shared_spool = {
            "type": "postgres",
            "dsn": server.dsn,
            "schema": spool.SCHEMA,
            "lease": f"{LEASE:g}s",
            "pollers": pollers,
        }
        members = [
            stack.enter_context(_member(place, shared_spool, receivers, folder, machine)) for machine in hosts
        ]
        found = Cluster(
            place=place,
            server=server,
            members=members,
            receivers=receivers,
            names=names,
            rng=rng,
        )
        for member in members:
            found.start(member)
        for member in members:
            found.until_up(member)
        yield found


def _close(place: Environment, receiver: Receiver) -> None:
    place.do(receiver.close())


@contextmanager
def _member(
    place: Environment,
    shared_spool: Mapping[str, Any],
    receivers: Mapping[str, Receiver],
    folder: Path,
    machine: Machine,
) -> Iterator[Member]:
    """A machine whose daemon has not started. What still runs on it at the end is killed."""
    wire = Wire(place.endpoint, HOST)
    place.do(wire.open())
    wire.delay = FAR
    settings: dict[str, Any] = {
        "endpoint": wire.endpoint,
        "spool": shared_spool,
        "sinks": {name: _sink(name, receiver.url) for name, receiver in receivers.items()},
    }
    with scenario(place, folder / machine.name, **settings) as daemon:
        daemon.network = machine.network
        yield Member(machine, daemon, wire)
    place.do(wire.close())


def _sink(name: str, url: str) -> dict[str, Any]:
    return {
        "type": "webhook",
        "url": url,
        "allow_cidr": [NETWORK],
        "batch": {"max_events": 50},
        "headers": {HEADER: f"${{{LIFE}}}"},
        **SINKS[name],
    }
