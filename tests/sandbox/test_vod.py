"""The recordings' place over real HTTP: whole files, ranges, the customers' own places, and no way out of them."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import uvloop

from poller.sandbox.clock import Clock
from poller.sandbox.database import Database
from poller.sandbox.listening import serve_http
from poller.sandbox.media.recorder import Recorder
from poller.sandbox.media.recordings import Recording, Recordings, later_url, spec_url
from poller.sandbox.options import Customer
from poller.sandbox.vod import RecordingServer
from tests.patience import PATIENCE

from .pushes import push

OURS = Customer(app_id=1234, biz_id=200025724)
THEIRS = Customer(app_id=77, biz_id=200000077, bucket="others")


class Place:
    """A served directory with one recording of each customer."""

    def __init__(self, recordings: Recordings, base: str, session: aiohttp.ClientSession) -> None:
        self.recordings = recordings
        self.base = base
        self.session = session
        self.ours, self.theirs = (newest(recordings, customer) for customer in (OURS, THEIRS))
        self.content = recordings.file(self.ours.vid).read_bytes()

    async def get(
        self, path: str, host: str = "x", *, method: str = "GET", **headers: str
    ) -> tuple[int, bytes, Mapping[str, str]]:
        named = {"Host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, f"{self.base}/{path}", headers=named) as response:
            return response.status, await response.read(), response.headers

    async def raw(self, target: str) -> tuple[int, bytes]:
        """The status and body for a request line as it stands."""
        parts = urlsplit(self.base)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body


def newest(recordings: Recordings, customer: Customer) -> Recording:
    return recordings.page(customer.app_id, "live_1", offset=0, limit=1, newest_first=True)[1][0]


def record(recordings: Recordings, customer: Customer, seconds: float = 20) -> None:
    recorder = Recorder(recordings, customer, "live_1", limit=1800)
    for tag in push(seconds, gop=50, audio=23):
        recorder.tag(*tag)
    recorder.end()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[Callable[[Place], Awaitable[None]]], None]:
    """Runs a scene in a served place, on each kind of loop."""

    async def whole(scene: Callable[[Place], Awaitable[None]]) -> None:
        with Database(tmp_path) as database:
            recordings = Recordings(database, tmp_path / "vod")
            record(recordings, OURS)
            record(recordings, THEIRS)
            server = RecordingServer(recordings, Clock(), (OURS, THEIRS))
            async with (
                asyncio.timeout(PATIENCE),
                serve_http("127.0.0.1:0", server.answer) as base,
                aiohttp.ClientSession(auto_decompress=False) as session,
            ):
                await scene(Place(recordings, base, session))
                assert server.requests > 0

    def run(scene: Callable[[Place], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            unexpected: list[object] = []
            runner.get_loop().set_exception_handler(lambda _, context: unexpected.append(context))
            runner.run(whole(scene))
            assert unexpected == []

    return run


Play = Callable[[Callable[[Place], Awaitable[None]]], None]


def test_a_recording_is_served_whole_and_in_ranges(play: Play) -> None:
    async def scene(place: Place) -> None:
        path, content = place.ours.path_spec, place.content
        status, body, headers = await place.get(path)
        assert (status, body) == (200, content)
        assert headers["Content-Type"] == "video/x-flv"
        assert headers["Content-Length"] == str(place.ours.size) == str(len(content))
        assert headers["Accept-Ranges"] == "bytes"
        assert "Date" in headers
        for asked, cut in [
            ("0-0", slice(0, 1)), ("100-299", slice(100, 300)), ("500-", slice(500, None)), ("-200", slice(-200, None)),
            (f"10-{10 * len(content)}", slice(10, None)),
        ]:  # fmt: skip
            status, body, headers = await place.get(path, Range=f"bytes={asked}")
            assert (status, body) == (206, content[cut])
            start = len(content[: cut.start]) if cut.start >= 0 else len(content) + cut.start
            assert headers["Content-Range"] == f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        status, _, headers = await place.get(path, Range=f"bytes={len(content)}-")
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(content)}")

    play(scene)


def test_head_and_conditions_answer_without_the_content(play: Play) -> None:
    async def scene(place: Place) -> None:
        path = place.ours.path_spec
        status, body, headers = await place.get(path, method="HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(place.ours.size))
        changed = headers["Last-Modified"]
        assert (await place.get(path, If_Modified_Since=changed))[:2] == (304, b"")
        assert (await place.get(path, If_None_Match=headers["ETag"]))[:2] == (304, b"")
        part = await place.get(path, Range="bytes=5-9", If_Range=changed)
        assert part[:2] == (206, place.content[5:10])
        old = await place.get(path, Range="bytes=5-9", If_Range="Mon, 22 Aug 2016 12:00:00 GMT")
        assert old[:2] == (200, place.content)
        assert (await place.get("nothing.f0.flv", method="HEAD"))[:2] == (404, b"")
        assert (await place.get(path, method="PUT"))[0] == 405
        assert (await place.get(path, method="DELETE"))[0] == 405

    play(scene)


def test_a_place_is_named_by_host_or_folder_and_serves_no_other_customers_recordings(play: Play) -> None:
    async def scene(place: Place) -> None:
        async def status(path: str, host: str = "x") -> int:
            return (await place.get(path, host))[0]

        ours, theirs = place.ours.path_spec, place.theirs.path_spec
        assert [await status(path) for path in (ours, theirs)] == [200, 200]
        for host in ("200025724.vod.myqcloud.com", "200025724.VOD.localhost:8080", "200025724.example.com"):
            assert [await status(path, host) for path in (ours, theirs)] == [200, 404]
        assert await status(ours, "200025725.vod.myqcloud.com") == 404
        assert await status(f"200025724/{ours}") == 200
        assert await status(f"200025724/{theirs}") == 404
        assert await status(f"200000077/{theirs}") == 200
        assert await status(f"200000077/{theirs}", "200025724.vod.myqcloud.com") == 404

    play(scene)


def test_the_later_form_is_served_too(play: Play) -> None:
    async def scene(place: Place) -> None:
        url = urlsplit(later_url(place.ours, OURS))
        assert url.netloc == "1234.vod2.myqcloud.com"
        path = url.path.removeprefix("/")
        folder, file_id, _ = path.split("/")
        for host in ("x", url.netloc, "200025724.vod.myqcloud.com"):
            assert (await place.get(path, host))[:2] == (200, place.content)
        assert (await place.get(f"d7a4cabbvodgzp1234/{file_id}/f0.flv"))[0] == 200
        assert (await place.get(path, "77.vod2.myqcloud.com"))[0] == 404
        assert (await place.get(f"d7a4cabbvodgzp77/{file_id}/f0.flv"))[0] == 404
        assert (await place.get(f"{folder}/{place.theirs.file_id}/f0.flv"))[0] == 404
        assert (await place.get(f"{folder}/{file_id}/f0.mp4"))[0] == 404
        assert later_url(place.ours, OURS) == later_url(place.ours, OURS)

    play(scene)


def test_a_proxys_client_names_the_host_in_the_request_line(play: Play) -> None:
    async def scene(place: Place) -> None:
        assert await place.raw(spec_url(place.ours, OURS)) == (200, place.content)
        assert await place.raw(later_url(place.theirs, THEIRS)) != (404, b"")
        assert (await place.raw(spec_url(place.ours, THEIRS)))[0] == 404
        assert (await place.raw(f"{spec_url(place.ours, OURS)}?download=1"))[0] == 200

    play(scene)


def test_what_is_not_there_or_not_finished_is_a_404_that_says_so(play: Play) -> None:
    async def scene(place: Place) -> None:
        status, body, headers = await place.get(f"200025724_{'0' * 32}.f0.flv")
        assert (status, headers["Content-Type"]) == (404, "text/html; charset=utf-8")
        assert b"404 Not Found" in body
        open_one = place.recordings.begin(OURS, "live_1", 1.0)
        place.recordings.part(open_one).write_bytes(b"FLV")
        assert place.recordings.find(vid=open_one) is None
        assert (await place.get(f"{open_one}.f0.flv"))[0] == 404
        for path in ("", f"{place.ours.vid}", f"{place.ours.vid}.f0.mp4", f"{place.ours.vid}.flv"):
            assert (await place.get(path))[0] == 404

    play(scene)


def test_no_path_leads_out_of_the_directory(play: Play) -> None:
    async def scene(place: Place) -> None:
        secret = place.recordings.directory.parent / "secret.f0.flv"
        secret.write_bytes(b"secret")
        vid = place.ours.vid
        for target in (
            "/../secret.f0.flv", "/%2e%2e/secret.f0.flv", "/..%2fsecret.f0.flv", "/200025724/../../secret.f0.flv",
            "/../platform.db", "//etc/passwd", "http://x/../secret.f0.flv", f"/../vod/{vid}.f0.flv",
            f"/{vid}/../{vid}.f0.flv", "/%00.f0.flv", f"/{vid}%00.f0.flv", f"/{vid}.f0.flv%0a", "/" + "9" * 6000,
            "/xvodgzp1234/../f0.flv", "/xvodgzp1234/%2e%2e%2f%2e%2e/f0.flv", "/%ff%fe.f0.flv",
        ):  # fmt: skip
            status, body = await place.raw(target)
            assert status == 404, target
            assert b"secret" not in body

    play(scene)


def test_a_recording_deleted_while_it_is_served_is_sent_to_its_end(play: Play) -> None:
    async def scene(place: Place) -> None:
        large = place.recordings.begin(OURS, "live_1", 1.0)
        content = os.urandom(8 * 2**20)  # more than sockets hold
        place.recordings.part(large).write_bytes(content)
        place.recordings.end(large, 2.0)
        url = f"{place.base}/{large}.f0.flv"
        async with place.session.get(url) as response:
            got = await response.content.readexactly(1000)
            place.recordings.drop(large)
            assert got + await response.read() == content
        async with place.session.get(url) as response:
            assert response.status == 404

    play(scene)


def test_a_listed_recording_whose_file_is_gone_is_a_404(play: Play) -> None:
    async def scene(place: Place) -> None:
        place.recordings.file(place.ours.vid).unlink()
        assert (await place.get(place.ours.path_spec))[0] == 404
        assert (await place.get(place.ours.path_spec, method="HEAD"))[0] == 404

    play(scene)


def test_a_client_that_leaves_half_way_does_no_harm(play: Play) -> None:
    async def scene(place: Place) -> None:
        large = place.recordings.begin(OURS, "live_1", 1.0)
        place.recordings.part(large).write_bytes(bytes(8 * 2**20))
        place.recordings.end(large, 2.0)
        parts = urlsplit(place.base)
        for _ in range(5):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(f"GET /{large}.f0.flv HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readexactly(100)
            writer.transport.abort()
        assert (await place.get(place.ours.path_spec))[:2] == (200, place.content)

    play(scene)


def test_urls_are_those_of_the_document_and_of_later_platforms() -> None:
    recording = Recording(
        vid="200025724_ac92b781a22c4a3e937c9e61c2624af7",
        file_id="9031868222958931071",
        app_id=1234,
        stream_id="s",
        start_time=1.0,
        end_time=2.0,
        size=3,
    )
    assert spec_url(recording, OURS) == (
        "http://200025724.vod.myqcloud.com/200025724_ac92b781a22c4a3e937c9e61c2624af7.f0.flv"
    )
    assert later_url(recording, OURS) == (
        "http://1234.vod2.myqcloud.com/81dc9bdbvodgzp1234/9031868222958931071/f0.flv"
    )
