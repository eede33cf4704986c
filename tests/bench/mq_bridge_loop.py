"""mq-bridge on the way of an event: queue, its own durable store, webhook in batches of 100. A program of its own.

    python -m tests.bench.mq_bridge_loop API_URL HOOK_URL FOLDER file|sqlite

Two routes of mq-bridge's own endpoints, without a line of Python in them. The first polls with a signature that was
made once, splits an answer into messages, and appends them to a file, with an fsync before each acknowledgement
(`file`), or to a table of SQLite (`sqlite`). The second reads there, posts arrays of up to 100 messages, and notes how
far it got. Ends when the queue is empty and the store is posted. Raises `AssertionError` if something is left there.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mq_bridge

from tests.bench.sandbox_queue import target

EACH = 100
BOUNDS = {"batch_size": EACH, "commit_concurrency_limit": 1, "empty_batch_delay_ms": 1}


def queue(api: str) -> dict[str, Any]:
    """The platform's queue as an input."""
    base, path = _parts(target(api))
    path += "&at={cursor}"  # it insists on one; the platform ignores it
    read = {"path": path, "items": "/output/data", "polling_interval_ms": 1}
    return {"http_bulk": {"url": base, "read": read}}


def webhook(url: str) -> dict[str, Any]:
    """The webhook as an output."""
    base, path = _parts(url)
    return {
        "http_bulk": {"url": base, "upsert": {"path": path, "format": "json_array", "max_documents": EACH}}
    }


def _parts(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", f"{parts.path}?{parts.query}".rstrip("?")


def stores(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The store as the output of the first route, and as the input of the second."""
    if kind == "file":
        path = {"path": str(folder / "events"), "format": "raw"}
        (folder / "events").touch()
        follow = {"mode": "group_subscribe", "group_id": "hook"}
        return {"file": {**path, "fsync": "batch"}}, {"file": {**path, **follow}}
    table = {"url": f"sqlite://{folder / 'events'}?mode=rwc", "table": "events"}
    return (
        {"sqlx": {**table, "auto_create_table": True}},
        {"sqlx": {**table, "delete_after_read": True, "polling_interval_ms": 1}},
    )


def left(folder: Path, kind: str) -> int:
    """What is in the store and was not posted: bytes of the file, or rows."""
    if kind == "file":
        return (folder / "events").stat().st_size - int((folder / "events.hook.offset").read_text() or 0)
    with closing(sqlite3.connect(folder / "events")) as db:
        return int(db.execute("SELECT count(*) FROM events").fetchone()[0])


def drain(api: str, hook: str, folder: Path, kind: str) -> None:
    """All of the queue through the store to the webhook."""
    store, stored = stores(folder, kind)
    way_out = {"input": stored, "output": webhook(hook), **BOUNDS}
    way_in = {"input": queue(api), "output": store, **BOUNDS, "exit_on_empty": True}
    taking, giving = mq_bridge.Route.from_config(way_in, "in"), mq_bridge.Route.from_config(way_out, "out")
    taking.start()
    giving.start()
    taking.join()
    giving.stop()
    giving.join()
    rest = mq_bridge.Route.from_config({**way_out, "exit_on_empty": True}, "rest")
    rest.start()
    rest.join()
    assert not left(folder, kind), left(folder, kind)


if __name__ == "__main__":
    drain(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
