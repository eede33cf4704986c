"""Adapters for these tests: a distribution of its own, installed by putting a folder on the path.

They declare the settings that the project's own adapters have, under the same types, so that the cases in
`bad_configurations.py` hold for both.
"""

from importlib.metadata import entry_points
from pathlib import Path

MODULE = '''
"""A few adapters, of which only the settings matter."""

from typing import Annotated

from pydantic import Field

from poller.core.ports import Sink as Port
from poller.settings import (
    BatchSettings, Cidr, Duration, FilePath, Only, Secret, SecretFile, Section, SinkSettings, Size,
    SourceSettings, SpoolSettings, TlsSettings, Url, duration_between,
)


class Adapter:
    async def __aenter__(self): ...
    async def __aexit__(self, *error): ...
    async def ready(self): ...
    async def fetch(self): ...
    def read(self, page, memory): ...
    async def check_writable(self): ...
    async def append(self, source, readings): ...
    async def claim(self, sink, limit, linger=0.0): ...
    async def settle(self, batch, outcomes): ...


class Sink(Adapter):
    async def deliver(self, batch): ...


class Spool(Adapter):
    async def attach(self, sink, wants, ordered=False): ...


class Queue(Adapter):
    class Settings(SourceSettings):
        """A queue."""

        queue_id: int | None = None
        count: int = Field(default=100, ge=1, le=100, description="How many.")
        min_delay: Annotated[Duration, duration_between("10ms", "1h")] = 0.25
        max_delay: Duration = 5.0
        max_in_flight: int = Field(default=4, ge=1, le=64)


class Memory(Spool):
    Settings = SpoolSettings


class Sqlite(Spool):
    class Settings(SpoolSettings):
        """A file."""

        path: FilePath = Field(description="Where the file is.")


class Console(Sink):
    class Settings(SinkSettings):
        """Lines."""

        batch: BatchSettings = BatchSettings(max_events=100)


class Hook(Sink):
    class Settings(SinkSettings):
        """A POST."""

        url: Url
        secret: Secret | None = None
        secret_file: SecretFile | None = None
        secrets: tuple[Secret, ...] = ()
        headers: dict[str, Secret] = {}
        allow_cidr: tuple[Cidr, ...] = ()
        tls: TlsSettings | None = None
        proxy: Url | None = None


class Pictures(Sink):
    class Settings(SinkSettings):
        """Files."""

        directory: FilePath
        template: str = "{stream}"
        allow_hosts: list[str] | None = None
        max_bytes: Size = 20971520
        sidecar: bool = False
        only: Only | None = Only(kinds=("screenshot",))


class Bare:
    """No settings at all."""


class Mute(Adapter):
    Settings = SinkSettings


class Inherits(Port):
    """The port's own `deliver` is there, and delivers nothing."""

    Settings = SinkSettings


class Misspelt(Sink):
    deliver = "later"
    Settings = SinkSettings


class Foreign(Sink):
    class Settings(Section):
        """Not a sink's."""

        type: str
'''

BROKEN_MODULE = '"""Needs what is not installed."""\n\nimport a_broker_that_is_not_installed\n'
RAISING_MODULE = '"""Raises when it is imported."""\n\nraise RuntimeError("two\\nlines")\n'

OWN = {
    "poller.sources": {"screenshot_queue": "Queue"},
    "poller.spools": {"memory": "Memory", "sqlite": "Sqlite"},
    "poller.sinks": {"stdout": "Console", "webhook": "Hook", "download": "Pictures"},
}
STRANGE = """[poller.sinks]
strange_bare = strange_adapters:Bare
strange_foreign = strange_adapters:Foreign
strange_number = strange_adapters:__name__
strange_nothing = strange_adapters:Nothing
strange_broker = strange_broken:Broker
strange_raising = strange_raising:Raising
strange_mute = strange_adapters:Mute
strange_inherits = strange_adapters:Inherits
strange_misspelt = strange_adapters:Misspelt
strange_complete = strange_adapters:Hook
"""
METADATA = """Metadata-Version: 2.1
Name: {name}
Version: 1.0
Provides-Extra: all
Provides-Extra: broker
Requires-Dist: a-broker-that-is-not-installed; extra == "all"
Requires-Dist: a-compiler-that-is-not-installed; extra == "all"
Requires-Dist: a-broker-that-is-not-installed; extra == "broker"
"""


def install(folder: Path) -> None:
    """Write a distribution with every adapter of `OWN` that no installed one offers."""
    (folder / "settings_test_adapters.py").write_text(MODULE)
    lines = []
    for group, classes in OWN.items():
        missing = {name: kind for name, kind in classes.items() if not entry_points(group=group, name=name)}
        lines += [
            f"[{group}]",
            *(f"{name} = settings_test_adapters:{kind}" for name, kind in missing.items()),
        ]
    _register(folder, "settings-test-adapters", "\n".join(lines))


def install_strange(folder: Path) -> None:
    """Write a distribution of adapters that cannot be used, and one that can."""
    (folder / "strange_adapters.py").write_text(MODULE)
    (folder / "strange_broken.py").write_text(BROKEN_MODULE)
    (folder / "strange_raising.py").write_text(RAISING_MODULE)
    _register(folder, "strange-adapters", STRANGE)


def _register(folder: Path, name: str, points: str) -> None:
    about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(METADATA.format(name=name))
    (about / "entry_points.txt").write_text(points)
