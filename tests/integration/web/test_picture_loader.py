"""Where the pages' pictures come from: a sink's own file, else a host of the account, and nothing else."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from poller.core.model import Event, ParsedPage, PollOutcome
from poller.daemon.wiring import event_filter
from poller.operations.operator_context import OperatorContext
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import load
from poller.sinks.download import Download
from poller.spools.memory import MemorySpool
from poller.testing import some_change
from poller.web.picture_cache import NoPicture, Picture
from poller.web.picture_loader import LARGEST_FETCHED, PictureLoader
from tests.integration.sinks.download.shots import Server, attempt, jpeg, ok, serving, shot

CONFIG = """
accounts: {main: {app_id: 1, key: abc, cos: {base_url: "http://127.0.0.1/"}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: memory}
sinks:
  console: {type: stdout}
  archive: {type: download, directory: pictures, template: "{stream}/{name}", allow_cidr: [127.0.0.0/8]}
"""
LOCAL = (ip_network("127.0.0.0/8"),)
NAME = "cam1_1_1_1_320_176.jpg"


class World:
    """A spool, a sink that stores pictures, and the loader."""

    def __init__(self, context: OperatorContext, sink: Download, loader: PictureLoader) -> None:
        self.sink = sink
        self.loader = loader
        self._spool = context.spool
        self._numbers: dict[str, int] = {}

    async def add(self, *events: Event) -> int:
        """Append events; the number of the first one."""
        first = self._spool.head
        page = ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL)
        await self._spool.append("shots", [page])
        return first

    async def found(self, event: Event) -> bytes | NoPicture:
        """What the loader finds for an event."""
        if event.id not in self._numbers:
            self._numbers[event.id] = await self.add(event)
        found = await self.loader.load(self._numbers[event.id])
        return found.content if isinstance(found, Picture) else found


@asynccontextmanager
async def world(folder: Path, allow: Any = LOCAL) -> AsyncIterator[World]:
    (folder / "poller.yaml").write_text(CONFIG)
    settings = load(folder / "poller.yaml")
    accounts = {name: Account(name, given) for name, given in settings.accounts.items()}
    async with AsyncExitStack() as stack:
        made = settings.sinks["archive"]
        assert isinstance(made, Download.Settings)
        sink = await stack.enter_async_context(Download("archive", made, accounts))
        spool = await stack.enter_async_context(MemorySpool("spool", MemorySpool.Settings(type="memory"), {}))
        await spool.attach("archive", lambda event: True)
        context = OperatorContext(
            settings=settings,
            spool=spool,
            clock=Clock(),
            metrics=Metrics(),
            source=lambda name: None,
            sink={"archive": sink}.get,
            running=True,
            wants=lambda name: event_filter(settings.sinks[name].only),
            accounts=accounts,
        )
        loader = await stack.enter_async_context(PictureLoader(lambda: context, allow))
        yield World(context, sink, loader)


def refused(found: bytes | NoPicture, status: int, server: Server | None = None) -> NoPicture:
    """The refusal, which names no URL."""
    assert isinstance(found, NoPicture), "a picture"
    assert found.status == status, found
    assert "http://" not in found.text
    assert "cam1" not in found.text
    assert server is None or str(server.port) not in found.text
    return found


# ---------------------------------------------------------------- by a sink's file


async def test_a_stored_picture_is_read_from_its_file_and_no_host_is_asked(tmp_path: Path) -> None:
    async with serving(lambda path: ok(jpeg())) as server, world(tmp_path) as here:
        event = shot(NAME, server.url(NAME))
        assert await attempt(here.sink, event) is None
        asked = len(server.heads)
        assert await here.found(event) == jpeg()
        assert len(server.heads) == asked


def _link(file: Path, secret: Path) -> None:
    file.symlink_to(secret)


def _link_of_the_folder(file: Path, secret: Path) -> None:
    (secret.parent / file.name).write_bytes(secret.read_bytes())
    file.parent.rmdir()
    file.parent.symlink_to(secret.parent)


def _pipe(file: Path, secret: Path) -> None:
    os.mkfifo(file)


def _folder(file: Path, secret: Path) -> None:
    file.mkdir()


def _no_picture(file: Path, secret: Path) -> None:
    file.write_bytes(b"<html>secret</html>")


def _half(file: Path, secret: Path) -> None:
    file.write_bytes(jpeg()[:-100])


@pytest.mark.parametrize("plant", [_link, _link_of_the_folder, _pipe, _folder, _no_picture, _half])
async def test_what_stands_in_a_files_place_is_never_followed_nor_shown(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "elsewhere" / "secret.jpg"
    secret.parent.mkdir()
    secret.write_bytes(jpeg(seed=66))
    async with serving(lambda path: ok(b"", status="500 Broken")) as server, world(tmp_path) as here:
        event = shot(NAME, server.url(NAME))
        file = tmp_path / "pictures" / "cam1" / NAME
        file.parent.mkdir()
        plant(file, secret)
        assert here.sink.path_of(event) == file
        refused(await here.found(event), 502)
        assert len(server.heads) == 1  # as if there were no file


async def test_a_picture_of_several_megabytes_comes_from_the_file_alone(tmp_path: Path) -> None:
    large = jpeg() + bytes(3 * LARGEST_FETCHED)
    async with serving(lambda path: ok(large)) as server, world(tmp_path) as here:
        event = shot(NAME, server.url(NAME))
        refused(await here.found(event), 502, server)
        assert await attempt(here.sink, event) is None
        assert await here.found(event) == large


# ---------------------------------------------------------------- by the host


async def test_a_picture_that_no_sink_has_is_fetched(tmp_path: Path) -> None:
    async with serving(lambda path: ok(jpeg())) as server, world(tmp_path) as here:
        assert await here.found(shot(NAME, server.url(NAME))) == jpeg()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (ok(b"<html><script>alert(1)</script></html>", "Content-Type: image/jpeg"), 502),
        (ok(jpeg()[:-100]), 502),
        (ok(jpeg(), length=10**6), 502),
        (ok(b"", status="500 Broken"), 502),
        (ok(b"", status="403 Forbidden"), 502),
        (ok(b"", "Location: http://127.0.0.1/", status="302 Found"), 502),
        (ok(b"", status="404 Not Found"), 404),
        (b"nonsense\r\n\r\n", 502),
    ],
    ids=["html", "cut", "shorter than said", "500", "403", "redirect", "404", "no http"],
)
async def test_what_is_no_picture_is_refused(tmp_path: Path, answer: bytes, status: int) -> None:
    async with serving(lambda path: answer) as server, world(tmp_path) as here:
        refused(await here.found(shot(NAME, server.url(NAME))), status, server)
        assert len(server.heads) == 1


async def test_a_picture_that_may_still_be_uploaded_is_asked_for_again_soon(tmp_path: Path) -> None:
    async with serving(lambda path: ok(b"", status="404 Not Found")) as server, world(tmp_path) as here:
        why = refused(await here.found(shot(NAME, server.url(NAME), at=datetime.now(UTC))), 425)
        assert (why.retry_after, why.lasts) == (2, 2.0)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:{port}/x.jpg",
        "http://127.0.0.2:{port}/x.jpg",
        "http://127.0.0.1@127.0.0.2:{port}/x.jpg",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{port}/x.jpg",
        None,
    ],
)
async def test_a_host_that_is_not_the_accounts_is_never_asked(tmp_path: Path, url: str | None) -> None:
    async with serving(lambda path: ok(jpeg()), "0.0.0.0") as server, world(tmp_path) as here:
        event = shot(NAME, None if url is None else url.format(port=server.port))
        refused(await here.found(event), 404, server)
        assert server.heads == []


async def test_an_account_that_left_the_configuration_has_no_hosts(tmp_path: Path) -> None:
    async with serving(lambda path: ok(jpeg())) as server, world(tmp_path) as here:
        refused(await here.found(shot(NAME, server.url(NAME), account="former")), 404, server)
        assert server.heads == []


async def test_an_address_that_is_not_public_is_refused_unless_the_setting_permits_it(tmp_path: Path) -> None:
    async with serving(lambda path: ok(jpeg())) as server, world(tmp_path, allow=()) as here:
        why = refused(await here.found(shot(NAME, server.url(NAME))), 502, server)
        assert "allow_cidr can permit it" in why.text
        assert server.heads == []


async def test_a_host_that_hangs_is_given_up(tmp_path: Path) -> None:
    async def never(path: str) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with serving(never) as hung, world(tmp_path) as here:
        refused(await here.found(shot(NAME, hung.url(NAME))), 502, hung)


# ---------------------------------------------------------------- by the number


async def test_a_number_beyond_the_log_may_come_yet_so_that_is_not_remembered(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        found = await here.loader.load(10**17)
        assert isinstance(found, NoPicture)
        assert (found.status, found.lasts) == (404, 0.0)


async def test_only_screenshots_have_pictures(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        refused(await here.found(some_change(1, "live")), 404)
