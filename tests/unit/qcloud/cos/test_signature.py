"""Our signatures against the platform's own SDK, and against the sandbox's reading of them."""

import time
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qcloud_cos import CosConfig
from qcloud_cos.cos_auth import CosS3Auth

from poller.qcloud.cos.signature import EARLY, LIFETIME, authorization, encoded
from poller.sandbox.cos import signature as sandbox

ID, KEY = "AKIDsandbox", "a secret of 2016"
HOST = "shots-1250000000.cos.ap-beijing.myqcloud.com"
NOW = 1480932352
text = st.text(st.characters(codec="utf-8"), max_size=40)


def ours(params: dict[str, str], now: float = NOW) -> str:
    return authorization(
        secret_id=ID,
        secret_key=KEY,
        method="GET",
        path="/",
        params=params,
        headers={"host": HOST},
        now=now,
    )


def theirs(params: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    config = CosConfig(Region="ap-beijing", SecretId=ID, SecretKey=KEY)
    request = SimpleNamespace(method="GET", headers={}, url=f"https://{HOST}/")
    CosS3Auth(config, "", params, expire=LIFETIME)(request)
    return str(request.headers["Authorization"])


@pytest.mark.parametrize(
    "params",
    [
        {"prefix": "room-7_1471850187_", "max-keys": "1000", "encoding-type": "url"},
        {"prefix": "3891_@v_tls#3pfnm5fw35qt_1471850187_", "marker": "3891_@v_tls#3_1_2", "delimiter": "/"},
        {"prefix": "直播 a+b&c=d%2F~", "encoding-type": "url", "Marker": "x"},
        {},
    ],
)
def test_the_signature_is_that_of_the_platforms_own_sdk(
    params: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ours(params) == theirs(params, monkeypatch)


@given(prefix=text, marker=text)
@settings(max_examples=200, deadline=None)
def test_any_prefix_and_marker_arrive_as_they_were_signed(prefix: str, marker: str) -> None:
    params = {"prefix": prefix, "marker": marker}
    query = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in params.items())
    arrived = parse_qsl(urlsplit(f"https://{HOST}/?{query}").query, keep_blank_values=True)
    asked = sandbox.Asked(method="GET", path="/", params=arrived, headers={"host": HOST})
    signed = sandbox.read(ours(params), arrived)
    assert signed is not None
    sandbox.check(signed, KEY, [asked], NOW)
    assert dict(arrived) == params


def test_the_signature_holds_a_little_before_and_ten_minutes_after() -> None:
    period = f"{NOW - EARLY};{NOW + LIFETIME}"
    assert f"q-sign-time={period}&q-key-time={period}" in ours({})


def test_the_key_is_not_in_the_header() -> None:
    assert KEY not in ours({"prefix": "x"})
