"""A configuration that needs extras, each for a sink or a spool, as far as `check` looks without connecting."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

SINKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "amqp": {"servers": ["amqps://rabbit.example.com:5671"], "exchange": "live", "password": "secret"},
    "kafka": {"servers": ["kafka.example.com:9093"], "topic": "live", "tls": {}},
    "nats": {"servers": ["tls://nats.example.com:4222"], "subject": "live.{kind}"},
    "redis": {"url": "rediss://redis.example.com:6379/0", "key": "live:{kind}"},
    "s3": {"bucket": "live", "access_key": "id", "secret_key": "secret"},
    "sql": {
        "url": "postgresql://db.example.com:5432/live",
        "user": "poller",
        "password": "secret",
        "tls": {},
    },
}
"""The settings of a sink that needs the extra of its name."""
SPOOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "postgres": {"dsn": "postgresql://poller:secret@db.example.com:5432/poller"},
}
"""The same for a spool."""


def configuration(folder: Path, extras: Iterable[str], **more: Any) -> Path:
    """Write a configuration that needs these extras, a line each, and return its path."""
    sinks = {name: {"type": name, **SINKS[name]} for name in extras if name in SINKS}
    spools = [{"type": name, **SPOOLS[name]} for name in extras if name in SPOOLS]
    settings = {
        "accounts": {
            "main": {"app_id": 1234, "key": "k" * 32, "cos": {"bucket": "shots", "app_id": 1250000000}}
        },
        "sources": {"shots": {"type": "screenshot_queue", "account": "main"}},
        "spool": next(iter(spools), {"type": "sqlite", "path": str(folder / "spool.db")}),
        "sinks": {"console": {"type": "stdout"}} | sinks,
        **more,
    }
    file = folder / "poller.yaml"
    file.write_text(json.dumps(settings, indent=2))
    file.chmod(0o644)
    return file
