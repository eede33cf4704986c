"""Requests signed in Amazon's way, version 4, in headers and presigned URLs; the bucket is in the path or the host."""

import asyncio
import time
from hashlib import sha256
from hmac import new
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import boto3
import obstore
import pytest
from botocore.config import Config
from obstore.store import S3Store
from yarl import URL

from poller.sandbox import Sandbox

from .api_client import play

BUCKET = "shots-1250000000"
KEY = "2026-11-22/a b+c&d/直播#@~.jpg"
CONTENT = bytes(range(256)) * 20
ID, SECRET, REGION = "AKIDsandbox", "sandbox", "ap-shanghai"
ALGORITHM = "AWS4-HMAC-SHA256"


def sign(secret: str, day: str, moment: str, canonical: str) -> str:
    """The signature, written a second time."""
    scope = f"{day}/{REGION}/s3/aws4_request"
    text = f"{ALGORITHM}\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (day, REGION, "s3", "aws4_request", text):
        key = new(key, part.encode(), sha256).digest()
    return key.hex()


def presigned(
    base: str, path: str, *, secret: str = SECRET, who: str = ID, at: float = 0, expires: int = 60
) -> URL:
    now = time.gmtime(time.time() + at)
    day, moment = time.strftime("%Y%m%d", now), time.strftime("%Y%m%dT%H%M%SZ", now)
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{who}/{day}/{REGION}/s3/aws4_request",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": "host",
    }
    said = urlencode(sorted(query.items()), quote_via=quote, safe="~")
    raw = quote(path, safe="/~")
    canonical = f"GET\n{raw}\n{said}\nhost:{urlsplit(base).netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    return URL(f"{base}{raw}?{said}&X-Amz-Signature={sign(secret, day, moment, canonical)}", encoded=True)


def authorized(
    host: str,
    path: str,
    *,
    secret: str = SECRET,
    who: str = ID,
    at: float = 0,
    method: str = "GET",
    payload: str = sha256(b"").hexdigest(),
) -> dict[str, str]:
    now = time.gmtime(time.time() + at)
    day, moment = time.strftime("%Y%m%d", now), time.strftime("%Y%m%dT%H%M%SZ", now)
    signed = {"host": host, "x-amz-content-sha256": payload, "x-amz-date": moment}
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    names = ";".join(signed)
    canonical = f"{method}\n{quote(path, safe='/~')}\n\n{lines}\n{names}\n{signed['x-amz-content-sha256']}"
    credential = f"{who}/{day}/{REGION}/s3/aws4_request"
    value = sign(secret, day, moment, canonical)
    said = f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={value}"
    return {**signed, "Authorization": said}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another secret": ({"secret": "other"}, "SignatureDoesNotMatch"),
    "nobody": ({"who": "AKIDnobody"}, "InvalidAccessKeyId"),
    "too old": ({"at": -3600.0}, "AccessDenied|RequestTimeTooSkewed"),
    "of the future": ({"at": 3600.0}, "RequestTimeTooSkewed"),
}


def test_a_read_signed_in_the_s3_way_is_answered(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put(BUCKET, KEY, CONTENT)
        base = str(sandbox.endpoints["cos"])
        path, virtual = f"/{BUCKET}/{KEY}", f"{BUCKET}.cos.{REGION}.myqcloud.com"
        async with session.get(presigned(base, path)) as response:
            assert (response.status, await response.read()) == (200, CONTENT)
        for host, one in ((urlsplit(base).netloc, path), (virtual, f"/{KEY}")):
            url = URL(f"{base}{quote(one, safe='/~')}", encoded=True)
            async with session.get(url, headers=authorized(host, one)) as response:
                assert (response.status, await response.read()) == (200, CONTENT)
        async with session.head(
            URL(f"{base}{quote(path, safe='/~')}", encoded=True),
            headers=authorized(urlsplit(base).netloc, path, method="HEAD"),
        ) as response:
            assert response.status == 200
        async with session.get(
            f"{base}/{BUCKET}/", headers=authorized(urlsplit(base).netloc, f"/{BUCKET}/")
        ) as response:
            assert (response.status, b"ListBucketResult" in await response.read()) == (200, True)

    play(tmp_path, scene)


@pytest.mark.parametrize("what", BAD)
def test_an_s3_signature_that_is_wrong_is_refused_though_the_bucket_is_public(
    tmp_path: Path, what: str
) -> None:
    how, expected = BAD[what]

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put(BUCKET, "a", CONTENT)
        base = str(sandbox.endpoints["cos"])
        async with session.get(presigned(base, f"/{BUCKET}/a", **how)) as response:
            refused = [(response.status, await response.text())]
        sent = authorized(urlsplit(base).netloc, f"/{BUCKET}/a", **how)
        async with session.get(f"{base}/{BUCKET}/a", headers=sent) as response:
            refused.append((response.status, await response.text()))
        for status, said in refused:
            assert status == 403
            assert any(f"<Code>{code}</Code>" in said for code in expected.split("|")), said

    play(tmp_path, scene)


@pytest.mark.parametrize(
    "header",
    [
        ALGORITHM,
        f"{ALGORITHM} Credential=x, SignedHeaders=host, Signature=1",
        f"{ALGORITHM} Credential={ID}/20160822/r/s3/aws4_request, SignedHeaders=host",
        f"{ALGORITHM} Credential={ID}/20160822/r/s3/aws4_request, SignedHeaders=host, Signature=1",
        f"{ALGORITHM} Credential={ID}/20160822/r/ec2/aws4_request, SignedHeaders=host, Signature=1",
    ],
)
def test_an_s3_signature_that_makes_no_sense_is_refused_in_words(tmp_path: Path, header: str) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        url = f"{sandbox.endpoints['cos']}/{BUCKET}/a"
        async with session.get(url, headers={"Authorization": header}) as response:
            assert response.status in (400, 403)
            assert "<Code>" in await response.text()

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("payload", "how", "status", "code"),
    [
        (sha256(b"x").hexdigest(), {}, 200, ""),
        ("UNSIGNED-PAYLOAD", {}, 200, ""),
        (sha256(b"y").hexdigest(), {}, 400, "XAmzContentSHA256Mismatch"),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", {}, 501, "NotImplemented"),
        ("", {}, 501, "NotImplemented"),
        (sha256(b"x").hexdigest(), {"secret": "other"}, 403, "SignatureDoesNotMatch"),
        (sha256(b"x").hexdigest(), {"method": "GET"}, 403, "SignatureDoesNotMatch"),
    ],
)
def test_a_body_is_stored_if_it_is_the_one_that_was_signed(
    tmp_path: Path, payload: str, how: dict[str, str], status: int, code: str
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        base = str(sandbox.endpoints["cos"])
        sent = authorized(urlsplit(base).netloc, f"/{BUCKET}/a", payload=payload, **{"method": "PUT", **how})  # type: ignore[arg-type]
        async with session.put(f"{base}/{BUCKET}/a", headers=sent, data=b"x") as response:
            assert (response.status, f"<Code>{code}</Code>" in await response.text()) == (status, bool(code))
        assert sandbox.pictures.content(BUCKET, "a") == (b"x" if status == 200 else None)

    play(tmp_path, scene)


def test_nothing_is_deleted_without_a_signature_and_with_one_it_is(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put(BUCKET, "a", CONTENT)
        base = str(sandbox.endpoints["cos"])
        async with session.delete(f"{base}/{BUCKET}/a") as response:
            assert response.status == 403
        assert sandbox.pictures.content(BUCKET, "a") == CONTENT
        sent = authorized(urlsplit(base).netloc, f"/{BUCKET}/a", method="DELETE")
        async with session.delete(f"{base}/{BUCKET}/a", headers=sent) as response:
            assert response.status == 204
        assert sandbox.pictures.content(BUCKET, "a") is None

    play(tmp_path, scene)


def test_boto3_and_obstore_store_objects_with_their_metadata(tmp_path: Path) -> None:
    def write(base: str) -> None:
        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
        named = {"region_name": REGION, "aws_access_key_id": ID, "aws_secret_access_key": SECRET}
        client = boto3.client("s3", endpoint_url=base, config=config, **named)
        client.put_object(
            Bucket=BUCKET, Key=f"boto3/{KEY}", Body=CONTENT, ContentType="image/jpeg", Metadata={"who": "a"}
        )
        store = S3Store(
            BUCKET,
            endpoint=base,
            region=REGION,
            access_key_id=ID,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )
        attributes = {"Content-Type": "image/jpeg", "who": "b"}
        obstore.put(store, f"obstore/{KEY}", CONTENT, attributes=attributes, use_multipart=False)
        found = client.get_object(Bucket=BUCKET, Key=f"obstore/{KEY}")
        assert (found["Body"].read(), found["ContentType"], found["Metadata"]) == (
            CONTENT,
            "image/jpeg",
            {"who": "b"},
        )
        client.delete_object(Bucket=BUCKET, Key=f"obstore/{KEY}")

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await asyncio.to_thread(write, str(sandbox.endpoints["cos"]))
        assert sandbox.pictures.content(BUCKET, f"boto3/{KEY}") == CONTENT
        assert sandbox.pictures.content(BUCKET, f"obstore/{KEY}") is None

    play(tmp_path, scene)
