"""What engines with tables share for a move: records in the table `meta`, rows in portions, and keys in blobs."""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from poller.core.moving import Move, SpoolMoved, Standing
from poller.spools.rows import Row, blob_of, reads_back

MOVED: Final = "moved"
MOVING: Final = "moving"
ARRIVED: Final = "arrived"
"""Rows of `meta`: the records of a move (`core.moving.Standing`)."""
RECORDS: Final = (MOVED, MOVING, ARRIVED)
MOST_ROWS: Final = 2_000
MOST_BYTES: Final = 1 << 20
"""A portion ends with the row that reaches one of these."""
KEY_SIZE: Final = 8

_move = msgspec.json.Decoder(Move)


def record_of(move: Move) -> bytes:
    """A record, as it is stored."""
    return msgspec.json.encode(move)


@reads_back
def standing_of(stored: Mapping[str, bytes], *, factor: bytes | None, empty: bool) -> Standing:
    """The standing of a spool, by its records, its secret factor, and whether it is empty."""
    found = {name: _move.decode(blob_of(stored[name])) for name in RECORDS if name in stored}
    return Standing(spool="" if factor is None else identity(factor), empty=empty, **found)


def refuse(what: str, stored: Mapping[str, bytes]) -> None:
    """Raise `SpoolMoved` for a spool that is not in force, by its records. `what` names the spool."""
    if (refusal := standing_of(stored, factor=None, empty=False).refusal) is not None:
        raise SpoolMoved(f"{what}: {refusal}")


def identity(factor: bytes) -> str:
    """The public identity of a spool's content, derived from its secret factor. It moves with the content."""
    return hashlib.blake2b(factor, digest_size=8, person=b"moved").hexdigest()


def in_portions(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in portions, so that a few MiB are in memory at once."""
    some, size = list[Row](), 0
    for row in rows:
        some.append(row)
        size += size_of(row)
        if len(some) == MOST_ROWS or size >= MOST_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def size_of(row: Row) -> int:
    """The bytes of a row's blobs and text, roughly."""
    return sum(len(value) for value in row if isinstance(value, bytes | str))


def pack(keys: Sequence[int]) -> bytes:
    """The keys of ids as one blob."""
    return struct.pack(f">{len(keys)}q", *keys)


@reads_back
def unpack(packed: object) -> tuple[int, ...]:
    """The keys in a blob. A last key that is cut is left out."""
    whole = blob_of(packed)
    return struct.unpack(f">{len(whole) // KEY_SIZE}q", whole[: len(whole) // KEY_SIZE * KEY_SIZE])
