"""Makes the spool file of today's schema that later versions must be able to open.

    python -m tests.integration.spools.make_fixture

Run it once when a schema is released, by that version's own code, and never again for that schema. It holds 300
events, 40 of them settled by `archive`, 10 waiting for a retry, 5 dead, a reject, and a source's memory.
"""

import asyncio
import gzip
import tempfile
from pathlib import Path

from poller.core.model import Dead, Done, Reject, Retry
from poller.spools.sqlite import SqliteSpool
from poller.spools.sqlite.schema import VERSION
from poller.testing import START, ManualClock, anything, some_reading

FOLDER = Path(__file__).parent / "fixtures"
REJECT = Reject(received_at=START, reason="no JSON", encoding="", body=b"\xff{")


async def fill(file: Path) -> None:
    """What the fixture holds."""
    async with SqliteSpool(
        "spool", SqliteSpool.Settings(type="sqlite", path=file, min_free=0), {}, ManualClock()
    ) as spool:
        for sink in ("archive", "hook"):
            await spool.attach(sink, anything)
        for start in range(0, 300, 50):
            reading = some_reading(*range(start, start + 50), rejects=(REJECT,), memory=b"so far")
            await spool.append("shots", [reading])
        await spool.settle(await spool.claim("archive", 40), [Done()] * 40)
        await spool.settle(await spool.claim("archive", 10), [Retry(after=60, reason="503")] * 10)
        await spool.settle(await spool.claim("archive", 5), [Dead(reason="413")] * 5)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spool.db"
        asyncio.run(fill(file))
        target = FOLDER / f"schema-{VERSION}.db.gz"
        target.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        print(target)


if __name__ == "__main__":
    main()
