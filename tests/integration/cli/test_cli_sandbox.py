"""The platform in a box on the command line, as a program beside others."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

import pytest

from tests import lives
from tests.commands import Ended, poller
from tests.patience import PATIENCE

KEY = "5d41402abc4b2a76b9719d911017c592"
ONE, TWO = "1" + "a" * 31, "2" + "b" * 31


def refused(*words: str) -> Ended:
    """A sandbox that ends by itself."""
    return poller("sandbox", *words)


def in_turn(folder: Path, calls: list[list[str]]) -> list[tuple[int, str]]:
    """Exit code and words of sandboxes that end by themselves, one after the other."""
    ended = [poller("sandbox", "--directory", str(folder), *words, COLUMNS="1000") for words in calls]
    return [(done.returncode, " ".join((done.stdout + done.stderr).split())) for done in ended]


class Box:
    """A sandbox that runs."""

    def __init__(self, child: subprocess.Popen[bytes] | lives.Life, stdout: IO[str]) -> None:
        self.child = child
        self.stdout = stdout
        self.places: dict[str, str] = json.loads(stdout.readline())


@contextmanager
def box(folder: Path, *words: str, forked: bool = True) -> Iterator[tuple[Box, dict[str, str]]]:
    """A sandbox, and where it says it listens. It is the true command with `forked=False`."""
    said, theirs = os.pipe()
    with open(said) as stdout:
        with open(theirs, "wb") as out, open(os.dup(2), "wb") as err:
            words = ("sandbox", "--directory", str(folder), *words)
            child = lives.start(words, cwd=Path.cwd(), stdout=out, stderr=err, forked=forked)
        try:
            started = Box(child, stdout)
            yield started, started.places
        finally:
            child.kill()
            child.wait(PATIENCE)


def got(url: str, wish: dict[str, Any] | None = None) -> bytes:
    """The answer's body; with a wish it is a POST of that."""
    body = None if wish is None else json.dumps(wish).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=PATIENCE) as response:
        return bytes(response.read())


def asked(places: dict[str, str], interface: str, app_id: int = 1234, key: str = KEY, **words: str) -> Any:
    """What that interface answers."""
    t = str(int(time.time()) + 60)
    sign = md5(f"{key}{t}".encode()).hexdigest()
    query = {"cmd": str(app_id), "interface": interface, "t": t, "sign": sign}
    query |= {name.replace("__", "."): value for name, value in words.items()}
    return json.loads(got(f"{places['api']}?{urlencode(query)}"))


def recorded(places: dict[str, str], app_id: int = 1234, key: str = KEY) -> Any:
    """The list of the first stream's segments."""
    return asked(places, "Live_Tape_GetFilelist", app_id, key, Param__s__channel_id="live_1")["output"]


def queued(places: dict[str, str], **who: Any) -> list[dict[str, Any]]:
    """The messages of the queue, once there are some."""
    found: list[dict[str, Any]] = []

    def some() -> bool:
        answer = asked(places, "Live_Queue_Get", Param__n__bid="100", Param__n__count="100", **who)
        found.extend(answer["output"]["data"])
        return bool(found)

    until(some)
    return found


def until(true: Callable[[], bool], deadline: float = PATIENCE) -> None:
    """Polls another process, which rings no bell."""
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_there(url: str) -> bool:
    try:
        return bool(got(url))
    except urllib.error.HTTPError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_sandbox_says_where_it_listens_and_ends_on_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    with box(tmp_path, "--streams", "1", "--interval", "500ms", forked=False) as (running, places):
        assert set(places) == {"api", "cos", "vod", "rtmp", "control", "directory"}
        assert places["directory"] == str(tmp_path)
        (stream,) = json.loads(got(f"{places['control']}/state"))["streams"]
        assert stream["stream_id"] == "live_1"
        assert queued(places)[0]["stream_id"] == "live_1"
        running.child.send_signal(number)
        assert running.child.wait(PATIENCE) == 0
        assert running.stdout.read() == "", "one line, and no more"


def test_the_options_reach_the_platform(tmp_path: Path) -> None:
    customers = tmp_path / "customers.yaml"
    customers.write_text(
        f"- {{app_id: 7, key: {ONE}, bucket: first, biz_id: 70}}\n"
        f"- {{app_id: 8, key: {TWO}, bucket: second, push_key: secret}}\n"
    )
    words = ("--customers", str(customers), "--streams", "1", "--interval", "1s", "--upload-delay", "0-100ms")
    more = ("--era", "2018", "--answer", "ret=string", "--segment", "1s", "--exact")
    with box(tmp_path / "box", *words, *more) as (_, places):
        (first, *_) = queued(places, app_id=7, key=ONE)
        assert "pic_full_url" in first
        assert "-screenshot-" in first["pic_full_url"]
        path = first["pic_full_url"].split("/", 3)[3]
        until(lambda: is_there(f"{places['cos']}/first-1250000000/{path}"))
        nothing = asked(places, "Live_Queue_Get", 8, TWO, Param__n__bid="100")
        assert (nothing["ret"], nothing["output"]["data"]) == ("0", [])
        until(lambda: recorded(places, 7, ONE)["all_count"] >= 2)
        row = recorded(places, 7, ONE)["file_list"][0]
        assert row["record_file_url"].startswith("http://7.vod2.")


@pytest.mark.parametrize(
    ("era", "count", "total"),
    [
        ((), str, int),
        (("--era", "2016"), str, int),
        (("--era", "2017"), int, int),
        (("--era", "2018"), int, int),
        (("--era", "today"), int, int),
        (("--answer", "count=int"), int, int),
        (("--answer", "all_count=string"), str, str),
    ],
)
def test_the_total_of_segments_is_a_number_unless_a_string_is_asked_for(
    tmp_path: Path, era: tuple[str, ...], count: type, total: type
) -> None:
    with box(tmp_path, "--streams", "0", *era) as (_, places):
        nothing = asked(places, "Live_Queue_Get", Param__n__bid="100")["output"]["count"]
        assert (nothing, type(nothing)) == (count(0), count)
        assert recorded(places)["all_count"] == total(0)
        assert type(recorded(places)["all_count"]) is total


def test_the_documents_own_example_is_answered(tmp_path: Path) -> None:
    with box(tmp_path, "--streams", "0") as (_, places):
        for app_id in (3, 1234):
            said = asked(places, "Live_Queue_Get", app_id, Param__n__bid="100", Param__n__count="10")
            assert said["ret"] == 0, said
        assert asked(places, "Live_Queue_Get", 4, Param__n__bid="100")["message"] == "cmd is invalid"


BAD_KEYS = {
    "too short": "{app_id: 1, key: 5d41402abc4b2a76b9719d911017c59}",
    "too long": "{app_id: 1, key: 5d41402abc4b2a76b9719d911017c5921}",
    "32 letters but 33 bytes": f"{{app_id: 1, key: é{'a' * 31}}}",
    "empty": "{app_id: 1, key: ''}",
    "missing value": "{app_id: 1, key: }",
    "a mark that nobody sees": f'{{app_id: 1, key: "\\uFEFF{ONE[3:]}"}}',
    "YAML that is broken": "{app_id: 1, key: '5d41402abc4b2a76b9719d911017c592}",
}


def test_a_customers_key_that_has_not_32_bytes_is_a_finding_that_does_not_repeat_it(tmp_path: Path) -> None:
    files = []
    for number, text in enumerate(BAD_KEYS.values()):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(f"- {{app_id: 77, key: {TWO}}}\n- {text}\n")
    said = in_turn(tmp_path / "box", [["--customers", str(file)] for file in files])
    for what, file, (code, text) in zip(BAD_KEYS, files, said, strict=True):
        assert code == 2, (what, text)
        assert str(file) in text, (what, text)
        assert ("customer 2: " in text) or what == "YAML that is broken", (what, text)
        assert not any(part in text for part in ("5d41402", "1234567890", "aaaaaa")), (what, text)


def test_a_sandbox_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with box(tmp_path, "--streams", "1", "--interval", "500ms", "--upload-delay", "0") as (running, places):
        taken = queued(places)
        until(lambda: json.loads(got(f"{places['control']}/state"))["depth"] > 0)
        until(lambda: any(file.stat().st_size > 10_000 for file in (tmp_path / "vod").glob("*")))
        running.child.kill()
        running.child.wait(PATIENCE)
    until(lambda: not any(str(tmp_path) in line for line in command_lines()), 30)
    with box(tmp_path, "--streams", "0") as (_, places):
        waiting = queued(places)
        for one in (*taken, *waiting):
            assert got(f"{places['cos']}/shots-1250000000/{one['pic_url']}")[:2] == b"\xff\xd8"
        assert not {one["pic_url"] for one in taken} & {one["pic_url"] for one in waiting}
        said = asked(places, "Live_Channel_GetStatus", Param__s__channel_id="live_1")
        assert said["output"][0]["status"] == 0
        (row,) = recorded(places)["file_list"]
        assert got(f"{places['vod']}/{row['vid']}.f0.flv")[:3] == b"FLV"


def command_lines() -> list[str]:
    """Of every process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it is gone
    return found


def test_a_second_sandbox_of_a_directory_is_refused(tmp_path: Path) -> None:
    with box(tmp_path, "--streams", "0"):
        second = refused("--directory", str(tmp_path), "--streams", "0")
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr == f"sandbox: {tmp_path}: another sandbox is running there\n"


def test_an_option_of_the_sandbox_that_makes_no_sense_is_a_usage_error(tmp_path: Path) -> None:
    odd = tmp_path / "customers.yaml"
    odd.write_text("- {app_id: 1, kee: x}")
    twice = tmp_path / "twice.yaml"
    twice.write_text("- {app_id: 1}\n- {app_id: 1}")
    cases = [
        (["--interval", "soon"], "'soon' is no duration"),
        (["--interval", "0"], "interval: 0.0 is not above 0"),
        (["--interval", "inf"], "'inf' is no duration"),
        (["--interval", "5 weeks"], "is no duration"),
        (["--interval", "0.5", "--era", "2018"], "grammar B cannot tell"),
        (["--upload-delay", "15-1"], "'15-1' is not MIN-MAX"),
        (["--upload-delay", "1s-x"], "'x' is no duration"),
        (["--segment", "0s"], "segment: 0.0 is not above 0"),
        (["--retain", "-1d"], "retain"),
        (["--fault", "latency=often"], "'latency=often' is not NAME=P"),
        (["--answer", "colour=red"], "'colour' is none of the answers' output, file_list"),
        (["--answer", "gzip"], "'gzip' is not NAME=VALUE"),
        (["--answer", "gzip=perhaps"], "is none of true, false"),
        (["--empty", "nothing"], "is none of object, array, null, missing, 10003"),
        (["--era", "1999"], "is none of 2016, 2017, 2018"),
        (["--listen", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["--rtmp-listen", "127.0.0.1:99999"], "is not HOST:PORT"),
        (["--customers", "/nowhere.yaml"], "No such file"),
        (["--customers", str(odd)], "kee"),
        (["--customers", str(twice)], "two have the same app_id"),
        (["--streams", "-1"], "streams"),
    ]
    answers = in_turn(tmp_path / "box", [words for words, _ in cases])
    for (words, why), (code, said) in zip(cases, answers, strict=True):
        assert (code, why in said) == (2, True), (words, code, said)
    assert not (tmp_path / "box").exists()


@pytest.mark.parametrize("option", ["--fault", "--cos-fault", "--upload-fault"])
def test_a_fault_that_is_not_known_lists_those_that_are(tmp_path: Path, option: str) -> None:
    shown = refused("--directory", str(tmp_path), option, "gremlins=0.5")
    assert shown.returncode == 2
    known = {"--fault": "too_frequent", "--cos-fault": "wrong_checksum", "--upload-fault": "lost"}[option]
    assert "'gremlins' is none of the faults" in shown.stderr
    assert known in shown.stderr
    assert "Traceback" not in shown.stderr


def test_without_pyav_the_sandbox_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['av'] = None; from poller.__main__ import main; "
        f"sys.argv = ['poller', 'sandbox', '--directory', {str(tmp_path / 'box')!r}]; main()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert shown.returncode == 1
    assert "live-screenshot-poller[sandbox]" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--video", __file__), 2, f"sandbox: {__file__}: "),
        (("--streams", "0", "--rtmp-listen", "192.0.2.1:1935"), 1, "sandbox: [Errno 99] "),
    ],
)
def test_a_sandbox_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = refused("--directory", str(tmp_path), *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_a_clock_that_could_show_no_date_and_a_limit_that_is_none_are_refused(tmp_path: Path) -> None:
    wrong = [("clock-offset", text) for text in ("1e300", "-1e12", "nan", "inf")]
    wrong += [("rate-limit", text) for text in ("-1", "nan", "inf")]
    calls = [["--streams", "0", f"--{option}={text}"] for option, text in wrong]
    for (option, _), (code, words) in zip(wrong, in_turn(tmp_path, calls), strict=True):
        assert code == 2
        assert f"{option}: ".replace("-", "_") in words.replace("-", "_")
