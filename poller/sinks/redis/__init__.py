"""The sink `redis`: one entry for each event, in streams of Redis or Valkey.

Delivered
    The server has the entry in its append-only file and has synced the file. `WAITAOF` asks for that (Valkey, and
    Redis since 7.2), and its answer is compared. A server without `WAITAOF` must have `appendfsync always`, which
    `CONFIG GET` proves with each batch. A server that proves neither gets nothing.

Twice
    A stream has no memory of ids, so a repeated event is a second entry. The field `id` is the event's id.

A batch is one round trip over one connection: its entries in their order, then the question for the proof. `MULTI`
does not roll back: a key of another type refuses its own entries, and the rest is kept.
"""

from poller.sinks.redis.settings import RedisSettings
from poller.sinks.redis.sink import Redis

__all__ = ["Redis", "RedisSettings"]
