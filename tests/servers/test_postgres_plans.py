"""How the server answers what a daemon asks of a long log: by an index, from where it needs the rows on.

The server itself writes the plan of each statement, with the rows that it looked at (`auto_explain`).
"""

import ast
import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from poller.core.model import Dead, Done, Outcome, ParsedPage, PollOutcome, Retry
from poller.core.selection import Selection
from poller.core.spool import anything
from poller.spools.delivered import LONGEST_ROW
from poller.spools.pages import checksum
from poller.spools.postgres import PostgresSpool, page_sizes
from poller.spools.rows import epoch, lines
from poller.testing.factories import elsewhere, some_event
from tests.patience import patiently
from tests.servers.databases import Database, postgres
from tests.servers.postgres_spools import dsn_of, schema_of, spool_of

ENGINE: Final = Path(page_sizes.__file__).parent
ROWS: Final = 40_000
"""Rows of each large table, as of a spool in which much is retained."""
BEGIN: Final = ROWS - 50
"""Where the sinks are."""
MOST: Final = LONGEST_ROW + 1_000
"""The most rows of a large table that one statement may look at: a delivery has at most that number of events."""
LARGE: Final = ("page", "dead_ahead", "delivered", "seen", "seen_at")
"""The tables that grow with the log. Of shares, each daemon has a few."""
READS_ALL: Final = page_sizes._SUM
"""The first look at the size reads all of the log."""
BY_RANGE: Final = re.compile(
    rf"\b(FROM|UPDATE|JOIN|USING) ({'|'.join(LARGE)})\b.*\b(first|last|upto|number|token)\b( *[<>]| BETWEEN)",
    re.DOTALL,
)
PLANS: Final = re.compile(rb"plan:\n((?:\t.*\n)+)")
EXPLAIN: Final = {
    "session_preload_libraries": "auto_explain",
    "log_statement": "none",
    "auto_explain.log_min_duration": 0,
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
}


@pytest.fixture
def server(shared: Path) -> Iterator[Database]:
    with postgres(shared, **EXPLAIN) as found:
        yield found


# ---------------------------------------------------------------- the statements of the engine


def statements() -> list[re.Pattern[str]]:
    """Each statement of the engine that looks at a range of a large table, or the part of it that is written in one
    place."""
    found = []
    for file in sorted(ENGINE.glob("*.py")):
        if file.name != "moving.py":  # a move reads each table once, from its beginning to its end
            found += [
                pattern_of(text) for text in texts(ast.parse(file.read_text())) if BY_RANGE.search(text)
            ]
    return found


def texts(tree: ast.AST) -> Iterator[str]:
    """The texts of a module. What is put into one is `{}`."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def pattern_of(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("{}"))), re.DOTALL)


# ---------------------------------------------------------------- a long log


async def fill(server: Database, folder: Path) -> None:
    """A log of `ROWS` pages, and as many rows in the other tables."""
    blob, at = lines([some_event(1)]), epoch(datetime.now(UTC) - timedelta(days=1))
    link = await asyncpg.connect(dsn_of(server), server_settings={"search_path": schema_of(folder)})
    each = f"generate_series(1, {ROWS}) AS n"
    await link.execute(
        "INSERT INTO page SELECT n, n, $2 + n, $2 + n, 'shots', '', n, 'full', 'screenshot', n, n, $3, $1"
        f" FROM {each}",
        blob,
        at,
        checksum(blob),
    )
    await link.execute(f"UPDATE log SET head = {ROWS + 1}")
    await link.execute(f"INSERT INTO dead_ahead SELECT 'old' || n % 20, n FROM {each}")
    await link.execute(
        f"INSERT INTO delivered (sink, at, first, last, holes, attempt, took_ms, history)"
        f" SELECT 'old', $1, n, n, '', 1, 1, '' FROM {each}",
        at,
    )
    await link.execute(f"INSERT INTO seen SELECT n, n FROM {each}")
    await link.execute(f"INSERT INTO seen_at OVERRIDING SYSTEM VALUE SELECT n, n FROM {each}")
    await link.execute(f"SELECT setval('seen_at_token_seq', {ROWS})")
    await link.execute(f"UPDATE sink SET position = {BEGIN} WHERE position IS NOT NULL")
    await link.execute("ANALYZE")
    await link.close()


async def attach(spool: PostgresSpool, *, shares: int, lanes: int) -> None:
    """Attach two sinks, each with its number of lanes; 0: not in order."""
    for sink, count in (("shares", shares), ("lanes", lanes)):
        spool.divide(sink, max(1, count))
        await spool.attach(sink, anything, ordered=count > 0)


async def tell(spool: PostgresSpool) -> None:
    """What a daemon does with a log, far from its beginning."""
    await attach(spool, shares=0, lanes=2)
    for sink in ("shares", "lanes"):
        batch = await spool.claim(sink, 3)
        outcomes: list[Outcome] = [Done(), Dead(reason="bad"), Retry(after=60, reason="busy")]
        await spool.settle(batch, outcomes[: len(batch.events)])
    events = [some_event(n) for n in range(ROWS, ROWS + 4)]
    for some, provisional in ((events, True), ([elsewhere(event) for event in events], False)):
        await spool.append(
            "shots",
            [ParsedPage(events=tuple(some), rejects=(), outcome=PollOutcome.FULL, provisional=provisional)],
        )
    await ask(spool, ROWS // 2)
    await replay(spool)
    await attach(spool, shares=2, lanes=0)
    await spool.prune()
    await spool._prune_early()


async def ask(spool: PostgresSpool, number: int) -> None:
    """What operators ask."""
    await spool.backlog("shares")
    await spool.progress(number, some_event(1).id, some_event(1))
    await spool.origin(number)
    await spool.deliveries(number, some_event(1).id)
    await spool.number_at(datetime.now(UTC))
    await spool._capacity.measure()
    for newest_first in (False, True):
        await spool.scan(Selection(stream="none"), number - 2_000, 10, newest_first=newest_first)


async def replay(spool: PostgresSpool) -> None:
    planned = await spool.replays.plan("shares", Selection())
    with spool.replays.keep(planned):
        await spool.replays.order(planned, 0, frozenset())


# ---------------------------------------------------------------- what the server did


def plans(log: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each statement, with its plan."""
    for found in PLANS.findall(log):
        plan = json.loads(found.replace(b"\n\t", b"\n"))
        yield plan["Query Text"], plan["Plan"]


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def looked_at(node: Mapping[str, Any]) -> int:
    """How many rows a scan read, whether it used them or not."""
    kinds = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return int(sum(node.get(kind, 0) for kind in kinds) * node.get("Actual Loops", 0))


def scans(seen: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each look at a large table, with its statement."""
    for text, plan in seen:
        for node in nodes(plan):
            if "Scan" in node["Node Type"] and node.get("Relation Name") in LARGE and READS_ALL not in text:
                yield text, node


def is_short(node: Mapping[str, Any]) -> bool:
    return node["Node Type"] != "Seq Scan" and looked_at(node) <= MOST


def test_no_statement_looks_at_a_long_log_from_its_beginning(tmp_path: Path, server: Database) -> None:
    async def scenario() -> bytes:
        async with spool_of(server, tmp_path) as spool:
            await attach(spool, shares=0, lanes=2)
        await fill(server, tmp_path)
        before = len(server.log())
        async with spool_of(server, tmp_path, retain="90d") as spool:
            await tell(spool)
        return server.log()[before:]

    seen = list(plans(asyncio.run(patiently(scenario()))))
    too_long = [
        (node["Node Type"], looked_at(node), text) for text, node in scans(seen) if not is_short(node)
    ]
    assert not too_long, "\n".join(map(str, too_long))
    asked = [text for text, _ in seen]
    assert [one.pattern for one in statements() if not any(map(one.search, asked))] == []
    assert len(statements()) >= 13
