"""Good configurations mean what they say, no secret is shown, nothing but `BadConfiguration` is raised."""

import json
import os
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from poller.core.errors import BadConfiguration
from poller.settings import (
    AccountSettings,
    AdminSettings,
    BatchSettings,
    BeatPeriod,
    Cidr,
    Duration,
    Listen,
    Only,
    Rate,
    Secret,
    Section,
    Settings,
    SinkSettings,
    Size,
    load,
    load_stored,
)
from poller.sources.screenshot_queue import ScreenshotQueueSettings

from .bad_configurations import CANARY, CASES, GOOD

FULL = """\
accounts:
  main:
    endpoint: http://fcgi.video.qcloud.com/common_access
    app_id: 1234
    app_id_param: appid
    key: ${KEY}
    cos: {bucket: shots, app_id: 1250000000}
    vod: {biz_id: 200025724}
    rate: 10/2s
    proxy: http://proxy.example.com:3128
    tls: {ca_file: ca.pem}
  second: {app_id: "0077", key_file: key, cos: {base_url: "http://pictures.example.com/"}}
sources:
  screenshots: {type: screenshot_queue, account: main, min_delay: 500ms, max_delay: 10s, count: 50}
spool: {type: sqlite, path: spool.db, retain: 2d}
journal: {path: /var/lib/poller/journal, size: 1GiB}
sinks:
  console: {type: stdout}
  archive: {type: download, directory: "${FOLDER}/pictures", only: {streams: ["room-*"]}, max_bytes: 500kB}
  moderation:
    type: webhook
    url: https://moderation.example.com/hook
    secrets: ["${HOOK}", whsec_b2xkLXNlY3JldC1vbGQtc2VjcmV0LW9sZC1zZWNyZXQ=]
    headers: {X-Tenant: 42}
    allow_cidr: [10.0.0.0/8, fd00::/8]
    timeout: 250ms
    concurrency: 8
    rate: 100/m
    give_up_after: 12h
    batch: {max_events: 100, max_wait: 1.5s}
admin: {listen: "[::1]:0", token: "$$${KEY}"}
log: {level: debug, format: json}
"""


HOOK = "whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldy1zZWNyZXQ="
ENVIRON = {"KEY": CANARY, "FOLDER": "/srv", "HOOK": HOOK}


def write(folder: Path, text: str) -> Path:
    path = folder / "poller.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def full(tmp_path: Path) -> Settings:
    (tmp_path / "ca.pem").write_text("a certificate")
    (tmp_path / "key").write_text(f"{CANARY}\r\n")
    return load(write(tmp_path, FULL), ENVIRON)


def test_the_smallest_configuration_has_the_documented_defaults(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "\n".join(GOOD.values())), {})
    account, sink = settings.accounts["main"], settings.sinks["out"]
    assert account.endpoint == "http://fcgi.video.qcloud.com/common_access"
    assert (account.app_id, account.app_id_param, account.key_value) == (1234, "cmd", "k")
    assert account.rate == Rate(limit=20, period=1.0)
    assert (sink.timeout, sink.give_up_after) == (30.0, 3 * 86400.0)
    assert settings.spool.retain == 86400.0
    assert (settings.journal.path, settings.journal.size) == (None, 64 * 2**20)
    assert settings.admin is None
    assert (settings.log.level, settings.log.format) == ("info", "auto")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("10s", 10.0), ("10000ms", 10.0), ("1s", 1.0), ("1m", 60.0), ("2.5s", 2.5), ('"off"', None)],
)
def test_a_beat_is_a_period_or_off(tmp_path: Path, written: str, seconds: float | None) -> None:
    lines = GOOD | {6: f"  shots: {{type: screenshot_queue, account: main, beat: {written}}}"}
    source = load(write(tmp_path, "\n".join(lines.values())), {}).sources["shots"]
    assert isinstance(source, ScreenshotQueueSettings)
    assert source.beat == BeatPeriod(seconds=seconds), "a reload compares periods, not how they are written"


def test_an_account_is_read_as_written(full: Settings, tmp_path: Path) -> None:
    main, second = full.accounts["main"], full.accounts["second"]
    assert main.key_value == CANARY
    assert main.rate == Rate(limit=10, period=2.0)
    assert main.tls is not None
    assert main.tls.ca_file == tmp_path / "ca.pem"
    assert main.vod is not None
    assert main.vod.biz_id == 200025724
    assert (second.app_id, second.key_value) == ("0077", CANARY)
    assert second.cos is not None
    assert second.cos.base_url == "http://pictures.example.com/"


def test_a_sink_is_read_by_its_own_settings(full: Settings) -> None:
    hook = full.sinks["moderation"]
    assert hook.batch == BatchSettings(max_events=100, max_wait=1.5)
    assert hook.rate == Rate(limit=100, period=60.0)
    assert (hook.timeout, hook.give_up_after, hook.concurrency) == (0.25, 43200.0, 8)
    written = hook.model_dump()
    assert list(written["allow_cidr"]) == [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
    assert full.sinks["archive"].model_dump()["max_bytes"] == 500_000


def test_relative_paths_start_at_the_file_and_variables_stand_anywhere_in_a_value(
    full: Settings, tmp_path: Path
) -> None:
    assert full.spool.model_dump()["path"] == tmp_path / "spool.db"
    assert full.sinks["archive"].model_dump()["directory"] == Path("/srv/pictures")
    assert full.journal.path == Path("/var/lib/poller/journal")


def test_relative_paths_are_absolute_also_when_the_file_is_named_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "\n".join({**GOOD, 7: "spool: {type: sqlite, path: spool.db}"}.values()))
    monkeypatch.chdir(tmp_path)
    assert load("poller.yaml", {}).spool.model_dump()["path"] == tmp_path / "spool.db"


def test_two_dollars_are_one(full: Settings) -> None:
    assert full.admin is not None
    assert full.admin.token_value == "$" + CANARY
    assert full.admin.listen == Listen(host="::1", port=0)


def test_a_dollar_on_its_own_is_itself(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "\n".join({**GOOD, 4: "    key: pa$word$"}.values())), {})
    assert settings.accounts["main"].key_value == "pa$word$"


@pytest.mark.parametrize(
    "value", ["0123", "1:30", "1e5", "12345", "1.50", "no", "2024-01-02", "a: b # c", "'", "*x"]
)
def test_a_secret_from_the_environment_is_taken_to_the_letter(value: str, tmp_path: Path) -> None:
    settings = load(write(tmp_path, "\n".join({**GOOD, 4: "    key: ${KEY}"}.values())), {"KEY": value})
    assert settings.accounts["main"].key_value == value


def test_a_variable_is_typed_where_it_stands_plain(tmp_path: Path) -> None:
    text = "\n".join({**GOOD, 9: "  out:\n    type: stdout\n    concurrency: ${N}"}.values())
    assert load(write(tmp_path, text), {"N": "7"}).sinks["out"].concurrency == 7


def test_a_part_of_a_section_leaves_the_adapters_own_defaults_for_the_rest(full: Settings) -> None:
    assert full.sinks["archive"].only == Only(kinds=("screenshot",), streams=("room-*",))


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert load(write(tmp_path, "\ufeff" + "\n".join(GOOD.values())), {}).sinks


def test_a_file_that_is_not_there_is_one_finding(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as caught:
        load(tmp_path / "none.yaml")
    assert caught.value.findings == (
        f"{tmp_path}/none.yaml:1:1: file: cannot be read: No such file or directory",
    )


def test_a_folder_instead_of_a_file_is_one_finding(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as caught:
        load(tmp_path, {})
    assert caught.value.findings == (f"{tmp_path}:1:1: file: cannot be read: Is a directory",)


def test_no_secret_is_in_any_text_of_the_settings(full: Settings) -> None:
    shown = [
        repr(full),
        str(full),
        full.model_dump_json(),
        repr(full.model_dump()),
        repr(full.accounts["main"]),
    ]
    assert not any(secret in text for text in shown for secret in (CANARY, "whsec_"))


def test_no_secret_is_in_what_a_refused_configuration_leaves_behind(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as caught:
        load(write(tmp_path, FULL), ENVIRON)
    error: BaseException | None = caught.value
    assert caught.value.findings
    while error is not None:
        assert CANARY not in repr(error)
        error = error.__cause__ or error.__context__


def test_settings_cannot_be_changed_and_a_changed_secret_makes_them_unequal(
    full: Settings, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError):
        full.log.level = "error"  # type: ignore[misc]  # what the test is about
    path = tmp_path / "poller.yaml"
    assert load(path, ENVIRON) == full
    (tmp_path / "key").write_text("another")
    assert load(path, ENVIRON) != full


def test_settings_are_built_in_code_with_the_values_themselves() -> None:
    sink = SinkSettings(
        type="x", timeout=0.5, rate=Rate(limit=1, period=2.0), batch=BatchSettings(max_wait=1)
    )
    assert (sink.timeout, sink.batch.max_wait) == (0.5, 1.0)
    assert AdminSettings(listen=Listen(host="127.0.0.1", port=0)).listen.port == 0
    account = AccountSettings.model_validate({"app_id": 1, "key": "k", "rate": "1/2s"})
    assert account.rate == Rate(limit=1, period=2.0)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("12h", 43200),
        ("3d", 259200),
        ("1.5s", 1.5),
        (0, 0),
        ("0", 0),
    ],
)
def test_durations_are_seconds(written: object, seconds: float) -> None:
    assert TypeAdapter(Duration).validate_python(written) == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("64KiB", 65536),
        ("20MiB", 20971520),
        ("1GiB", 2**30),
        ("500kB", 500_000),
        ("20MB", 20_000_000),
        ("7B", 7),
    ],
)
def test_sizes_are_bytes(written: str, size: int) -> None:
    assert TypeAdapter(Size).validate_python(written) == size


@pytest.mark.parametrize(
    ("written", "limit", "period"),
    [("20/s", 20, 1.0), ("100/m", 100, 60.0), ("3/h", 3, 3600.0), ("1/2s", 1, 2.0), ("5/100ms", 5, 0.1)],
)
def test_rates_are_a_limit_and_a_period(written: str, limit: int, period: float) -> None:
    rate = TypeAdapter(Rate).validate_python(written)
    assert (rate, str(rate)) == (Rate(limit=limit, period=period), written)


@pytest.mark.parametrize(
    ("written", "loopback"),
    [
        ("127.0.0.1:0", True),
        ("[::1]:9464", True),
        ("localhost:80", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
    ],
)
def test_listening_addresses_know_whether_they_are_loopback(written: str, loopback: bool) -> None:
    listen = TypeAdapter(Listen).validate_python(written)
    assert (listen.loopback, str(listen)) == (loopback, written)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("now", None),
        ("earliest", datetime.min.replace(tzinfo=UTC)),
        ("2h", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T03:04:05+08:00", datetime(2026, 11, 21, 19, 4, 5, tzinfo=UTC)),
        ("2026-11-22 10:03:00.5Z", datetime(2026, 11, 22, 10, 3, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_start_is_a_moment_by_the_clock_of_the_first_attachment(
    written: str, moment: datetime | None, tmp_path: Path
) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text(
        "accounts: {main: {app_id: 1, key: k}}\nsources: {shots: {type: screenshot_queue, account: main}}\n"
        f"spool: {{type: memory}}\nsinks: {{out: {{type: stdout, start: '{written}'}}}}\n"
    )
    start = load(path).sinks["out"].start
    assert start.moment(datetime(2026, 11, 22, 12, tzinfo=UTC)) == moment
    assert load_stored(path).sinks["out"].start == start
    assert str(start) == written


def test_what_people_write_comes_back_as_written() -> None:
    class Everything(Section):
        duration: Duration
        size: Size
        rate: Rate
        listen: Listen
        network: Cidr
        secret: Secret

    written = {
        "duration": "90m",
        "size": "20MiB",
        "rate": "1/2s",
        "listen": "127.0.0.1:1",
        "network": "10.0.0.0/8",
    }
    dumped = json.loads(Everything.model_validate({**written, "secret": CANARY}).model_dump_json())
    assert dumped == {**written, "secret": "**********"}


fuzz = hypothesis_settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
PIECES = sorted({line for case in CASES for line in case.text.decode("utf-8", "ignore")[:2000].splitlines()})


def only_findings(folder: Path, content: bytes) -> None:
    path = folder / "fuzz.yaml"
    path.write_bytes(content)
    findings = findings_in(path)
    assert all(line.startswith(f"{path}:") and line.isprintable() and CANARY not in line for line in findings)


def findings_in(path: Path) -> tuple[str, ...]:
    try:
        load(path, {"CANARY": CANARY})
    except BadConfiguration as error:
        return error.findings or ("nothing said",)
    return ()


@fuzz
@given(content=st.binary(max_size=400))
def test_any_bytes_are_settings_or_findings(content: bytes, tmp_path: Path) -> None:
    only_findings(tmp_path, content)


@fuzz
@given(text=st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore")))
def test_any_text_is_settings_or_findings(text: bytes, tmp_path: Path) -> None:
    only_findings(tmp_path, text)


@fuzz
@given(lines=st.lists(st.sampled_from(PIECES), max_size=12), cut=st.integers(0, 300))
def test_any_mixture_of_good_and_bad_lines_is_settings_or_findings(
    lines: list[str], cut: int, tmp_path: Path
) -> None:
    only_findings(tmp_path, "\n".join(lines).encode()[: -cut or None])


def test_reading_takes_the_environment_of_the_process_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "A_KEY_OF_THIS_TEST", "abc")
    settings = load(write(tmp_path, "\n".join({**GOOD, 4: "    key: ${A_KEY_OF_THIS_TEST}"}.values())))
    assert settings.accounts["main"].key_value == "abc"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "http://cdn.example.com",
        "//cdn.example.com",
        "cdn.example.com/",
        "cdn.example.com/shots",
        "cdn.example.com:443",
        "*.example.com",
        "*",
        "user@cdn.example.com",
        "cdn.example.com.",
        ".example.com",
        "a..example.com",
        "-a.example.com",
        "cdn example.com",
        "cdn.example.com\n",
        "bücher.example",
        "ｃdn.example.com",
        "\u212aube.example",
        "127.1",
        "256.0.0.1",
        "[::1]",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
        7,
        None,
    ],
)
def test_what_is_no_host_name_is_refused_among_an_accounts_own_hosts(host: object) -> None:
    with pytest.raises(ValidationError, match=r"written as in URLs|not an IP address"):
        AccountSettings.model_validate({"app_id": 1, "key": "k", "hosts": [host]})


def test_an_accounts_own_hosts_are_lower_case_once_read() -> None:
    given = {"app_id": 1, "key": "k", "hosts": ["CDN.Example.COM", "img_1.example", "127.0.0.1", "localhost"]}
    read = AccountSettings.model_validate(given)
    assert read.hosts == ("cdn.example.com", "img_1.example", "127.0.0.1", "localhost")


@pytest.mark.parametrize(
    ("sources", "sinks"),
    [
        ("shots: {type: screenshot_queue, account: main}", "out: {type: stdout}"),
        (
            "pushed: {type: callbacks, account: main, key: k, path: /a-path-that-nobody-guesses}",
            "out: {type: download, directory: d, allow_hosts: [cdn.example.com]}",
        ),
    ],
)
def test_an_account_without_cos_will_do_where_no_bare_name_has_to_be_fetched(
    tmp_path: Path, sources: str, sinks: str
) -> None:
    text = f"accounts: {{main: {{app_id: 1, key: k}}}}\nsources:\n  {sources}\nspool: {{type: memory}}\n"
    assert load(write(tmp_path, f"{text}sinks:\n  {sinks}\n")).accounts["main"].cos is None
