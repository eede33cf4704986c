"""The settings of the s3 sink: where a bucket is, and what cannot work."""

from typing import Any

import pytest

from poller.sinks.s3 import S3Settings
from poller.sinks.s3.settings import Place

KEY = {"access_key": "a", "secret_key": "b"}
BASE = {"type": "s3", "bucket": "live-1250000000"}


@pytest.mark.parametrize(
    ("wrong", "at", "text"),
    [
        ({}, "access_key", "is missing"),
        ({"access_key": "a"}, "secret_key", "is missing"),
        ({**KEY, "bucket": "a/b"}, "bucket", "pattern"),
        ({**KEY, "signature": "cos"}, "region", "COS needs region or endpoint"),
        ({**KEY, "signature": "v2"}, "signature", "'s3' or 'cos'"),
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any], at: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        S3Settings.model_validate({**BASE, **wrong})


COS = {"region": "ap-guangzhou", "signature": "cos"}


@pytest.mark.parametrize(
    ("more", "url", "path", "host", "port"),
    [
        ({}, "https://HOST", "", "live-1250000000.s3.us-east-1.amazonaws.com", 443),
        (COS, "https://HOST", "", "live-1250000000.cos.ap-guangzhou.myqcloud.com", 443),
        (
            {"endpoint": "https://cos.ap-guangzhou.myqcloud.com/"},
            "https://HOST",
            "",
            "live-1250000000.cos.ap-guangzhou.myqcloud.com",
            443,
        ),
        ({"endpoint": "http://oss.example:8080"}, "http://HOST:8080", "", "live-1250000000.oss.example", 8080),
        ({"endpoint": "http://minio:9000", "path_style": True}, "http://HOST:9000", "/live-1250000000", "minio", 9000),
        (
            {"endpoint": "https://gate/store/", "path_style": True},
            "https://HOST/store",
            "/store/live-1250000000",
            "gate",
            443,
        ),
    ],
)  # fmt: skip
def test_the_bucket_is_part_of_the_host_unless_the_path_has_it(
    more: dict[str, Any], url: str, path: str, host: str, port: int
) -> None:
    found = S3Settings.model_validate({**BASE, **KEY, **more}).place()
    assert found == Place(url=url.replace("HOST", host), path=path, host=host, port=port)
