"""Live streams: on the tick, in the right shape, cut from real video."""

import asyncio
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import aiohttp
import av
import pytest
from av.video.frame import VideoFrame

from poller.sandbox import BadOption, Naming, Options, Sandbox
from poller.sandbox.media.clip import clip, encode, picture_of
from poller.sandbox.media.cutting import NoVideo, height_for, look_at, picture
from poller.sandbox.names import Shot, path_of
from poller.sandbox.streams import Screenshots

from .asking import ask, play, tell


@pytest.fixture(scope="session")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default clip, encoded once."""
    return clip(tmp_path_factory.mktemp("clips") / "1.mp4", 1)


def decoded(jpeg: bytes) -> VideoFrame:
    with av.open(io.BytesIO(jpeg), "r") as container:
        return next(container.decode(video=0))


def brightness(frame: VideoFrame) -> int:
    """Of the picture's middle."""
    luma = frame.planes[0]
    return bytes(luma)[luma.line_size * (frame.height // 2) + frame.width // 2]


def greys(count: int, width: int, height: int) -> Iterator[VideoFrame]:
    """Frames that grow brighter by ten."""
    half = bytes([128]) * (width // 2 * (height // 2))
    for number in range(count):
        yield picture_of([bytes([20 + 10 * number]) * (width * height), half, half], width, height)


@pytest.mark.parametrize(
    ("width", "height", "aspect", "expected"),
    [
        (1280, 720, Fraction(1), 169),
        (640, 360, Fraction(1), 169),
        (640, 480, Fraction(1), 225),
        (720, 1280, Fraction(1), 533),
        (300, 300, Fraction(1), 300),
        (720, 576, Fraction(64, 45), 169),
        (720, 576, Fraction(16, 15), 225),
        (960, 540, Fraction(1), 169),
        (544, 960, Fraction(1), 529),
    ],
)
def test_the_height_follows_the_videos_shape(
    width: int, height: int, aspect: Fraction, expected: int
) -> None:
    assert height_for(300, width, height, aspect) == expected


@pytest.mark.parametrize(
    ("width", "height", "aspect", "expected"),
    [(320, 180, Fraction(1), 169), (720, 576, Fraction(64, 45), 169), (180, 320, Fraction(1), 533)],
)
def test_a_picture_has_the_shape_of_its_file(
    tmp_path: Path, width: int, height: int, aspect: Fraction, expected: int
) -> None:
    file = tmp_path / "shape.mp4"
    encode(file, greys(5, width, height), width, height, rate=5, aspect=aspect)
    frame = decoded(picture(look_at(file), 0.0, 300))
    assert (frame.width, frame.height) == (300, expected)


def test_a_picture_is_the_frame_of_its_moment_and_the_video_loops(tmp_path: Path) -> None:
    file = tmp_path / "greys.mp4"
    encode(file, greys(20, 64, 64), 64, 64, rate=5)
    video = look_at(file)
    assert video.duration == pytest.approx(4.0, abs=0.01)
    seen = [brightness(decoded(picture(video, moment, 64))) for moment in (0.1, 1.1, 2.5, 3.9, 4.1, 406.5)]
    # The decoder's limited range is stretched to the picture's full range.
    expected = [(20 + 10 * frame - 16) * 255 / 219 for frame in (0, 5, 12, 19, 0, 12)]
    assert seen == pytest.approx(expected, abs=4)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a video")
    with pytest.raises(NoVideo):
        look_at(tmp_path / "text")
    with pytest.raises(NoVideo):
        look_at(tmp_path / "missing")


def test_ticks_are_multiples_of_the_absolute_clock() -> None:
    rules = Screenshots(interval=10, width=300, naming=Naming())
    assert [rules.next_tick(now) for now in (1471850187.0, 1471850190.0, 1471850199.9)] == [
        1471850190,
        1471850200,
        1471850200,
    ]
    assert Screenshots(interval=0.5, width=300, naming=Naming()).next_tick(7.3) == 7.5


def test_names_follow_the_two_grammars() -> None:
    shot = Shot(stream_id="3891_a-b", push=1473645700, task=1473645701, at=1473645788, width=300, height=169)
    assert path_of(shot, Naming()) == "3891_a-b_1473645700_1473645701_88_300_169.jpg"
    assert path_of(shot, Naming(grammar="B")) == "3891_a-b-screenshot-10-03-08-300x169.jpg"
    by_date = Naming(grammar="B", folder="{date}")
    assert path_of(shot, by_date) == "2016-09-12/3891_a-b-screenshot-10-03-08-300x169.jpg"


def test_grammar_b_below_a_second_is_refused() -> None:
    with pytest.raises(BadOption):
        Options(directory=Path("x"), interval=0.5, naming=Naming(grammar="B"))


def test_live_streams_are_photographed_and_the_pictures_differ(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await sandbox.until(lambda: sandbox.pictures.stored >= 6)
        sandbox.streams.stop_all()
        messages = (await ask(sandbox, session))["output"]["data"]
        assert {one["stream_id"] for one in messages} == {"live_1", "live_2"}
        names = [one["pic_url"] for one in messages]
        assert len(set(names)) == len(names)
        for removed in sandbox.oracle.removed():
            assert removed.path is not None
            _, _, push, _, offset, width, height = removed.path.removesuffix(".jpg").split("_")
            assert abs(time.time() - int(push) - int(offset)) < 20
            assert (width, height) == ("300", "169")
        bodies = [sandbox.pictures.content("shots-1250000000", name) for name in names]
        there = [body for body in bodies if body is not None]
        assert len(there) >= 6
        assert len(set(there)) > 1
        assert {(frame.width, frame.height) for frame in map(decoded, there)} == {(300, 169)}

    play(tmp_path, scene, streams=2, interval=0.5, videos=(pattern,))


def test_ticks_of_a_second_fall_on_whole_multiples(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await sandbox.until(lambda: sandbox.platform.queue().depth == 1)
        late = time.time() % 2
        assert late < 1, "the message is out at the shot"
        await ask(sandbox, session)
        (removed,) = sandbox.oracle.removed()
        assert removed.create_time is not None
        assert removed.create_time % 2 == 0

    play(tmp_path, scene, streams=1, interval=2, videos=(pattern,))


def test_streams_start_and_stop_at_run_time(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        said = await tell(sandbox, session, "streams", start=["a_b", "c"], video=str(pattern))
        assert [one["stream_id"] for one in said["streams"]] == ["a_b", "c"]
        await sandbox.until(lambda: sandbox.pictures.stored >= 2)
        said = await tell(sandbox, session, "streams", stop=["a_b"])
        assert [one["stream_id"] for one in said["streams"]] == ["c"]
        async with session.post(f"{sandbox.endpoints['control']}/streams", json={"start": ["c"]}) as response:
            assert response.status == 400
        async with session.post(
            f"{sandbox.endpoints['control']}/streams", json={"start": ["d"], "video": "/nowhere"}
        ) as response:
            assert response.status == 400

    play(tmp_path, scene, interval=0.5)


def test_the_last_picture_of_a_stopped_stream_still_comes(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await sandbox.until(lambda: sandbox.platform.queue().depth == 1)
        sandbox.streams.stop("live_1")
        assert sandbox.pictures.stored == 0, "it was stopped too late to show anything"
        await sandbox.until(lambda: sandbox.pictures.stored == 1)

    play(tmp_path, scene, streams=1, interval=0.5, videos=(pattern,))


def test_a_stream_whose_video_vanishes_ends_the_sandbox_loudly(tmp_path: Path, pattern: Path) -> None:
    vanishing = tmp_path / "vanishing.mp4"
    vanishing.write_bytes(pattern.read_bytes())

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        vanishing.unlink()
        await sandbox.until(lambda: False)

    with pytest.raises(ExceptionGroup):
        play(tmp_path, scene, streams=1, interval=0.5, videos=(vanishing,))


def test_an_exception_inside_leaves_the_sandbox_as_it_is(tmp_path: Path, pattern: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        play(tmp_path, scene, streams=1, videos=(pattern,))


def test_each_stream_shows_a_pattern_of_its_own(tmp_path: Path, pattern: Path) -> None:
    other = clip(tmp_path / "2.mp4", 2)
    assert picture(look_at(other), 1.0, 300) != picture(look_at(pattern), 1.0, 300)
    before = other.stat().st_mtime_ns
    assert clip(other, 2).stat().st_mtime_ns == before


def test_the_program_says_where_it_listens_and_ends_on_a_signal(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from poller.sandbox import Options, main; "
        "sys.exit(main(Options(directory=Path(sys.argv[1]))))"
    )

    async def whole() -> None:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=os.getcwd()
        )
        assert program.stdout is not None
        async with asyncio.timeout(15):
            said = json.loads(await program.stdout.readline())
            assert said["api"].endswith("/common_access")
            assert (said["vod"], said["rtmp"]) == (None, None)
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{said['control']}/state") as response,
            ):
                assert (await response.json())["polls"] == 0
            program.send_signal(signal.SIGTERM)
            assert await program.wait() == 0

    asyncio.run(whole())
