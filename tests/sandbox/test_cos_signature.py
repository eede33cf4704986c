"""Signatures of COS's XML interface: known answers, and every altered part refused."""

from dataclasses import replace
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from poller.sandbox.cos import signature
from poller.sandbox.cos.errors import CosRefused
from poller.sandbox.cos.signature import Asked

# Made with Tencent's cos-python-sdk-v5 1.9.44, its clock at 1480932352, for the host below.
SECRET_KEY = "a secret of 2016"
NOW = 1480932352
HOST = "shots-1250000000.cos.ap-beijing.myqcloud.com"
PUT = Asked(
    method="PUT",
    path="/直播/a b+c.jpg",
    params=[],
    headers={
        "host": HOST,
        "content-type": "image/jpeg",
        "content-length": "5",
        "x-cos-meta-who": "a&b=c d",
        "user-agent": "not signed",
    },
)
PUT_SIGNED = (
    "q-sign-algorithm=sha1&q-ak=AKIDsandbox&q-sign-time=1480932292;1480939492&q-key-time=1480932292;1480939492"
    "&q-header-list=content-length;content-type;host;x-cos-meta-who&q-url-param-list="
    "&q-signature=9de3102911df04e236d8f765c6523cfdf89ee225"
)
LIST = Asked(
    method="GET",
    path="/",
    params=parse_qsl(
        "prefix=a+b%2F&delimiter=%2F&marker=&max-keys=10&Encoding-Type=url", keep_blank_values=True
    ),
    headers={"host": HOST},
)
LIST_SIGNED = (
    "q-sign-algorithm=sha1&q-ak=AKIDsandbox&q-sign-time=1480932292;1480939492&q-key-time=1480932292;1480939492"
    "&q-header-list=host&q-url-param-list=delimiter;encoding-type;marker;max-keys;prefix"
    "&q-signature=f66b25aaff397cf52bf3a53435153acf6cacc5a0"
)
PRESIGNED = (
    "http://shots-1250000000.cos.ap-beijing.myqcloud.com/x/y.jpg?q-sign-algorithm=sha1&q-ak=AKIDsandbox"
    "&q-sign-time=1480932292%3B1480939492&q-key-time=1480932292%3B1480939492&q-header-list=host"
    "&q-url-param-list=response-content-type&q-signature=3228b90c26a5ebf14b2cd7941a3cdd89b86514dd"
    "&response-content-type=text%2Fplain%3B+a%3Db"
)


def refusal(
    authorization: str, asked: Asked, *, key: str = SECRET_KEY, now: float = NOW
) -> CosRefused | None:
    """How a signed request is refused, if it is."""
    try:
        signed = signature.read(authorization, asked.params)
        assert signed is not None
        signature.check(signed, key, [asked], now)
    except CosRefused as refused:
        return refused
    return None


def code(authorization: str, asked: Asked, **more: str | float) -> str | None:
    found = refusal(authorization, asked, **more)  # type: ignore[arg-type]  # the two are of these types
    return None if found is None else found.code


def test_the_platforms_own_documented_example_is_right() -> None:
    # https://www.tencentcloud.com/document/product/436/7778, "Examples", upload of an object
    asked = Asked(
        method="PUT",
        path="/exampleobject(腾讯云)",
        params=[],
        headers={
            "date": "Thu, 16 May 2019 06:45:51 GMT",
            "host": "examplebucket-1250000000.cos.ap-beijing.myqcloud.com",
            "content-type": "text/plain",
            "content-length": "13",
            "content-md5": "mQ/fVh815F3k6TAUm8m0eg==",
            "x-cos-acl": "private",
            "x-cos-grant-read": 'uin="100000000011"',
        },
    )
    authorization = (
        "q-sign-algorithm=sha1&q-ak=AKIDQjz3ltompVjBni5LitkWHFlFpwkn9U5q&q-sign-time=1557989151;1557996351"
        "&q-key-time=1557989151;1557996351&q-header-list=content-length;content-md5;content-type;date;host;"
        "x-cos-acl;x-cos-grant-read&q-url-param-list=&q-signature=3b8851a11a569213c17ba8fa7dcf2abec6935172"
    )
    assert code(authorization, asked, key="BQYIM75p8x0iWVFSIgqEKwFprpRSVHlz", now=1557989151.5) is None


def test_what_the_sdk_signs_is_right() -> None:
    assert code(PUT_SIGNED, PUT) is None
    assert code(LIST_SIGNED, LIST) is None


def presigned() -> Asked:
    parts = urlsplit(PRESIGNED)
    params = parse_qsl(parts.query, keep_blank_values=True)
    return Asked(method="GET", path=parts.path, params=params, headers={"host": HOST})


def test_a_url_may_carry_the_signature_in_either_way() -> None:
    assert code("", presigned()) is None
    within = replace(PUT, params=parse_qsl(f"sign={quote(PUT_SIGNED, safe='')}"))
    assert code("", within) is None


def test_a_request_without_signature_is_told_from_a_signed_one() -> None:
    assert signature.read("", [("t", "1499678069"), ("sign", "b17971b51ba0fe5916ddcd96692e9fb3")]) is None


@pytest.mark.parametrize(
    "altered",
    [
        replace(PUT, method="GET"),
        replace(PUT, path="/直播/a b-c.jpg"),
        replace(PUT, path="直播/a b+c.jpg"),
        *(
            replace(PUT, headers={**PUT.headers, name: "6"})
            for name in ("content-length", "host", "x-cos-meta-who")
        ),
        replace(PUT, headers={name: value for name, value in PUT.headers.items() if name != "content-type"}),
    ],
)
def test_a_request_that_was_altered_does_not_match(altered: Asked) -> None:
    found = refusal(PUT_SIGNED, altered)
    assert found is not None
    assert (found.code, found.status) == ("SignatureDoesNotMatch", 403)


@pytest.mark.parametrize("name", ["prefix", "delimiter", "marker", "max-keys", "Encoding-Type"])
def test_a_parameter_that_was_altered_or_taken_away_does_not_match(name: str) -> None:
    other = [(key, "7" if key == name else value) for key, value in LIST.params]
    less = [(key, value) for key, value in LIST.params if key != name]
    assert code(LIST_SIGNED, replace(LIST, params=other)) == "SignatureDoesNotMatch"
    assert code(LIST_SIGNED, replace(LIST, params=less)) == "SignatureDoesNotMatch"


def test_what_is_not_listed_as_signed_may_change() -> None:
    assert code(PUT_SIGNED, replace(PUT, headers={**PUT.headers, "user-agent": "x"})) is None
    assert code(LIST_SIGNED, replace(LIST, params=[*LIST.params, ("t", "1")])) is None


@pytest.mark.parametrize(
    ("part", "by"),
    [
        ("q-signature=9de3", "q-signature=9de4"),
        ("q-signature=9de3102911df04e236d8f765c6523cfdf89ee225", "q-signature="),
        ("q-signature=9de3", "q-signature=é9de3"),
        ("q-sign-time=1480932292", "q-sign-time=1480932291"),
        ("q-key-time=1480932292;1480939492", "q-key-time=1480932292;1490939492"),
        ("content-type;host", "host"),
        ("content-type;host", "content-type;host;user-agent"),
        ("content-type;host", "content-type;host;x-cos-acl"),
        ("q-url-param-list=", "q-url-param-list=prefix"),
    ],
)
def test_a_signature_that_was_altered_does_not_match(part: str, by: str) -> None:
    altered = PUT_SIGNED.replace(part, by)
    assert altered != PUT_SIGNED
    assert code(altered, PUT) == "SignatureDoesNotMatch"


def test_another_key_does_not_match() -> None:
    found = refusal(PUT_SIGNED, PUT, key="another secret")
    assert found is not None
    assert found.code == "SignatureDoesNotMatch"
    told = found.xml("/a&b", "77").decode()
    assert "<FormatString>put\n/直播/a b+c.jpg\n\ncontent-length=5&amp;content-type=image%2Fjpeg&amp;" in told
    assert "<StringToSign>sha1\n1480932292;1480939492\n" in told
    assert "<Resource>/a&amp;b</Resource>" in told
    assert "another secret" not in told


def test_a_signature_holds_for_its_time_only() -> None:
    assert code(PUT_SIGNED, PUT, now=1480939492) is None
    late = refusal(PUT_SIGNED, PUT, now=1480939493)
    assert late is not None
    assert (late.code, late.message, late.status) == ("AccessDenied", "Request has expired", 403)
    assert code(PUT_SIGNED, PUT, now=1480932291) == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer x",
        "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=y",
        PUT_SIGNED.replace("algorithm=sha1", "algorithm=md5"),
        PUT_SIGNED.replace("q-key-time", "q-time"),
        PUT_SIGNED.replace(";1480939492&q-key", "&q-key"),
        PUT_SIGNED.replace("1480932292;", "٣;"),
    ],
)
def test_what_is_no_signature_of_cos_is_denied(authorization: str) -> None:
    assert code(authorization, PUT) == "AccessDenied"
