"""The sandbox's own streams: files shown in a loop by programs of their own, over RTMP."""

import asyncio
import itertools
import logging
import os
import signal
from pathlib import Path

import aiohttp
import av
import pytest

from poller.sandbox import BadOption, Customer, Options, Sandbox
from poller.sandbox.media.clip import clip
from poller.sandbox.media.showing import NoVideo, check
from poller.sandbox.media.tags import AUDIO, VIDEO
from poller.sandbox.pushers import push_url

from .api_client import ask, listing, play, tell
from .films import RATE, STEP, movie, read
from .on_air import CUSTOMER, messages, on_air, over, until
from .pushes import is_frame, tags_of

B_FRAMES = {"bf": "2", "b_strategy": "0"}


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of numbered frames, with B-frames and sound."""
    return movie(tmp_path_factory.mktemp("clips") / "pattern.mp4", options=B_FRAMES)


def live(sandbox: Sandbox, name: str) -> bool:
    return sandbox.live.find(CUSTOMER.app_id, name) is not None


async def recorded(sandbox: Sandbox, name: str) -> list[Path]:
    """The files of the stream's segments, oldest first."""
    _, found = sandbox.recordings.page(CUSTOMER.app_id, name, offset=0, limit=100)
    return [sandbox.recordings.file(one.vid) for one in found]


def numbers_of(file: Path) -> list[int]:
    """The numbers of all frames, in the order in which they are shown."""
    with av.open(str(file)) as container:
        return [read(frame) for frame in container.decode(video=0)]


def test_a_file_is_shown_again_and_again_without_a_seam(tmp_path: Path) -> None:
    """Of whatever format; and for as long as it is shown, nobody needs its name."""
    files = [movie(tmp_path / f"movie.{kind}", options=B_FRAMES) for kind in ("mp4", "mkv", "flv", "ts")]
    files.append(movie(tmp_path / "mp3.mp4", sound="libmp3lame"))

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        starts = [sandbox.pushers.start(file.suffix[1:], CUSTOMER, file=file) for file in files[:4]]
        await asyncio.gather(*starts, sandbox.pushers.start("mp3", CUSTOMER, file=files[4]))
        for file in files:
            file.unlink()
        pushes = sandbox.live.pushes
        await sandbox.until(lambda: all(push.pictures >= 6 for push in pushes))
        await sandbox.pushers.stop_all()
        for push in pushes:
            await over(sandbox, push.stream_id)
            (segment,) = await recorded(sandbox, push.stream_id)
            check_loop(segment)

    play(tmp_path, scene, interval=0.5)


def check_loop(segment: Path) -> None:
    """All frames of a second again and again, in even steps."""
    tags = [tag for tag in tags_of(segment) if is_frame(tag)]
    for medium, usual in ((VIDEO, STEP), (AUDIO, 24)):
        times = [tag.timestamp for tag in tags if tag.kind == medium]
        steps = [after - before for before, after in itertools.pairwise(times)]
        assert 0 < min(steps) <= max(steps) <= 4 * STEP
        odd = [step for step in steps if abs(step - usual) > 3]
        assert len(odd) <= len(times) * STEP // 1000, "only where the file begins anew"
    shown = numbers_of(segment)[:-4]  # the push ended before frames that are shown before the last
    assert len(shown) > 2 * RATE
    assert shown == [number % RATE for number in range(len(shown))]


def test_a_file_that_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    files = {
        "text": tmp_path / "text",
        "empty": tmp_path / "empty.mp4",
        "missing": tmp_path / "missing.mp4",
        "directory": tmp_path,
        "sound alone": movie(tmp_path / "sound.mp4", codec=None),
        "another codec": movie(tmp_path / "hevc.mp4", codec="libx265"),
        "no times": movie(tmp_path / "raw.h264", sound=None),
    }
    for what, file in files.items():
        with pytest.raises(NoVideo) as refusal:
            check(file)
        assert str(file) in str(refusal.value), what

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        for file in files.values():
            wish = {"start": ["show"], "video": str(file)}
            async with session.post(f"{sandbox.endpoints['control']}/streams", json=wish) as response:
                assert response.status == 400
                assert str(file) in (await response.json())["error"]
        assert sandbox.live.pushes == []

    play(tmp_path, scene)


def test_streams_start_and_stop_at_run_time(
    tmp_path: Path, pattern: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        said = await tell(sandbox, session, "streams", start=["a_b@c#d-1", "other"], video=str(pattern))
        assert [one["stream_id"] for one in said["streams"]] == ["a_b@c#d-1", "other"]
        await sandbox.until(lambda: sandbox.pictures.stored >= 2)
        said = await tell(sandbox, session, "streams", stop=["a_b@c#d-1"])
        assert [one["stream_id"] for one in said["streams"]] == ["other"]
        for wish in ({"start": ["other"]}, {"stop": ["a_b@c#d-1"]}, {"unplug": ["nobody"]}):
            async with session.post(f"{sandbox.endpoints['control']}/streams", json=wish) as response:
                assert response.status == 400
        for verb in ("start", "stop", "unplug", "kick", "disable", "enable"):
            async with session.post(
                f"{sandbox.endpoints['control']}/streams", json={verb: "other"}
            ) as response:
                assert (await response.json())["error"] == f"BadOption: {verb}: 'other' is no list"
        async with session.post(f"{sandbox.endpoints['control']}/enqueue", json={"raw": "other"}) as response:
            assert response.status == 400, "a text is not five messages"
        assert {one.stream_id for one in await messages(sandbox, session)} <= {"a_b@c#d-1", "other"}
        query = listing(Param__s__channel_id="a_b@c#d-1")
        assert (await ask(sandbox, session, query))["output"]["all_count"] == 1

    with caplog.at_level(logging.INFO):
        play(tmp_path, scene, interval=0.5)
    assert "push ended: a_b@c#d-1 of 1234, unpublished" in caplog.text
    assert "push ended: other of 1234, unpublished" in caplog.text, "so it is when the sandbox ends"


def test_the_interval_of_pictures_is_changed_at_run_time(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await tell(sandbox, session, "streams", start=["show"], video=str(pattern))
        await sandbox.until(lambda: sandbox.pictures.stored >= 1)
        assert await tell(sandbox, session, "screenshots", interval=2) == {"interval": 2}
        before = sandbox.pictures.stored
        await sandbox.until(lambda: sandbox.pictures.stored >= before + 3)
        times = [one.at for one in await messages(sandbox, session)][-2:]
        assert times[1] - times[0] == 2
        assert times[1] % 2 == 0
        for wrong in (0, 1.5, "2", True, None, 4_000):
            async with session.post(
                f"{sandbox.endpoints['control']}/screenshots", json={"interval": wrong}
            ) as response:
                assert response.status == 400

    play(tmp_path, scene, interval=1.0)


def test_a_plug_is_pulled_and_put_back(
    tmp_path: Path, pattern: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await tell(sandbox, session, "streams", start=["show"], video=str(pattern))
        await sandbox.until(lambda: sandbox.live.pushes[0].pictures >= 1)
        await tell(sandbox, session, "streams", unplug=["show"])
        await over(sandbox, "show")
        await tell(sandbox, session, "streams", start=["show"], video=str(pattern))
        await sandbox.until(lambda: sandbox.live.pushes[0].pictures >= 1)
        await tell(sandbox, session, "streams", stop=["show"])
        assert len(await recorded(sandbox, "show")) == 2

    with caplog.at_level(logging.INFO):
        play(tmp_path, scene, interval=0.5)
    ends = [one.getMessage().rpartition(" ")[2] for one in caplog.records if "ended" in one.getMessage()]
    assert ends[0] in ("closed", "reset")
    assert ends[1] == "unpublished"


def test_a_pusher_that_was_dropped_can_be_started_again(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await tell(sandbox, session, "streams", start=["show"], video=str(pattern))
        await tell(sandbox, session, "streams", kick=["show"])
        await over(sandbox, "show")
        async with on_air(sandbox, "show"):
            await asyncio.wait_for(sandbox.pushers.stop("show", CUSTOMER), 10)
            assert live(sandbox, "show"), "somebody else's push is left alone"
        await over(sandbox, "show")
        await tell(sandbox, session, "streams", start=["show"], video=str(pattern))
        assert live(sandbox, "show")

    play(tmp_path, scene)


def test_of_two_starts_of_one_name_one_is_refused(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        starts = [sandbox.pushers.start("show", CUSTOMER, file=pattern) for _ in range(2)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        assert sorted(type(one).__name__ for one in outcomes) == ["BadOption", "NoneType"]
        assert len(sandbox.live.pushes) == sandbox.ingest.connections == 1

    play(tmp_path, scene)


def test_a_start_that_is_given_up_leaves_no_program_behind(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        start = asyncio.ensure_future(sandbox.pushers.start("show", CUSTOMER, file=pattern))
        await until(lambda: len(programs(pattern)) == 1)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await until(lambda: not programs(pattern))
        assert not live(sandbox, "show")

    play(tmp_path, scene)


def test_a_pusher_that_stands_still_does_not_outlive_its_successor(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await sandbox.pushers.start("show", CUSTOMER, file=pattern)
        (first,) = programs(pattern)
        os.kill(first, signal.SIGSTOP)
        await over(sandbox, "show")
        await sandbox.pushers.start("show", CUSTOMER, file=pattern)
        await until(lambda: len(programs(pattern)) == 1)
        assert programs(pattern) != [first]

    play(tmp_path, scene, silence=3.0)


def programs(file: Path) -> list[int]:
    """The processes that push this file."""
    return [number for number, line in command_lines().items() if str(file) in line]


def command_lines() -> dict[int, str]:
    """Of every process, by its number."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it is gone
        found[int(entry.parent.name)] = line
    return found


def test_a_push_secret_is_in_no_list_of_processes_and_in_no_log(
    tmp_path: Path, pattern: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    keyed = Customer(push_key="a-push-key-of-ours")

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await tell(sandbox, session, "streams", start=["show"], video=str(pattern))
        await sandbox.until(lambda: sandbox.pictures.stored >= 1)
        lines = command_lines().values()
        assert any("poller.sandbox.push" in line and str(pattern) in line for line in lines)
        for word in ("txSecret", "a-push-key-of-ours", "rtmp://"):
            assert not [line for line in lines if word in line and str(tmp_path) in line]
        await tell(sandbox, session, "streams", disable=["show"])
        await over(sandbox, "show")
        wish = {"start": ["show"], "video": str(pattern)}
        async with session.post(f"{sandbox.endpoints['control']}/streams", json=wish) as response:
            assert response.status == 400
            assert "did not become live" in (await response.json())["error"]

    with caplog.at_level(logging.DEBUG):
        play(tmp_path, scene, interval=0.5, customers=(keyed,))
    captured = capfd.readouterr()
    assert "push of pattern.mp4: " in captured.err, "the refused program's own word"
    for text in (caplog.text, captured.err, captured.out):
        for word in ("txSecret", "a-push-key-of-ours", "rtmp://"):
            assert word not in text


def test_many_streams_at_once_are_all_live_recorded_and_photographed(tmp_path: Path, soak: bool) -> None:
    count = 20 if soak else 3
    clips = tuple(movie(tmp_path / f"{number}.mp4", 10 + number) for number in range(3))

    async def scene() -> None:
        options = Options(
            directory=tmp_path / "box", streams=count, videos=clips, interval=1, upload_delay=(0, 1)
        )
        async with asyncio.timeout(120), Sandbox(options) as sandbox:
            assert [live(sandbox, f"live_{number}") for number in range(1, count + 1)] == [True] * count
            pushes = sandbox.live.pushes
            await sandbox.until(lambda: all(push.pictures >= 2 for push in pushes))
            await sandbox.pushers.stop_all()
            for number in range(1, count + 1):
                await over(sandbox, f"live_{number}")
                (segment,) = await recorded(sandbox, f"live_{number}")
                shown, length = numbers_of(segment), 10 + (number - 1) % 3
                assert shown == [place % length for place in range(len(shown))]
            assert sandbox.screenshots.failed == 0

    asyncio.run(scene())


def test_each_stream_shows_a_pattern_of_its_own_which_is_kept(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await asyncio.gather(*(sandbox.pushers.start(name, CUSTOMER) for name in ("one", "two")))

    play(tmp_path, scene)
    first, second = (tmp_path / "clips" / f"{number}.mp4" for number in (1, 2))
    assert first.read_bytes() != second.read_bytes()
    before = second.stat().st_mtime_ns
    assert clip(second, 2).stat().st_mtime_ns == before
    check(second)


def test_a_push_url_quotes_its_stream_and_names_its_customer() -> None:
    assert push_url("rtmp://h/live", "a@b#c", Customer(biz_id=7)) == "rtmp://h/live/a%40b%23c?bizid=7"


def test_a_name_that_is_live_already_is_not_pushed_by_the_sandbox(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with on_air(sandbox, "show"):
            with pytest.raises(BadOption, match="live already"):
                await sandbox.pushers.start("show", CUSTOMER, file=pattern)

    play(tmp_path, scene)
