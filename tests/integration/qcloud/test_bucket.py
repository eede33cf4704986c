"""`check --connect` asks whether an account's bucket is there, and leaves nothing in it."""

import asyncio
import json
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from poller.qcloud.bucket_check import BucketState, check_bucket, judge
from poller.runtime.outbound import AddressGuard
from poller.sandbox import Customer
from tests.commands import poller
from tests.integration.sinks.download.shots import ok, serving
from tests.patience import patiently
from tests.scenario.environment import Environment, environment

HERE = AddressGuard([ip_network("127.0.0.0/8")])
NO_BUCKET = b"<?xml version='1.0'?><Error><Code>NoSuchBucket</Code></Error>"
NO_KEY = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (404, NO_KEY, BucketState.THERE),
        (404, b"", BucketState.THERE),
        (404, b"<html>NoSuchBucket, or not", BucketState.THERE),
        (200, b"a default picture", BucketState.THERE),
        (404, NO_BUCKET, BucketState.NO_BUCKET),
        (404, NO_BUCKET.replace(b"<Code>", b"<Code>\n ").lower(), BucketState.NO_BUCKET),
        (403, b"<Error><Code>AccessDenied</Code></Error>", BucketState.FORBIDDEN),
        (403, NO_BUCKET, BucketState.FORBIDDEN),
        (301, b"", BucketState.UNCLEAR),
        (500, NO_BUCKET, BucketState.UNCLEAR),
        (503, b"", BucketState.UNCLEAR),
    ],
)
def test_an_answer_says_whether_the_bucket_is_there(status: int, body: bytes, state: BucketState) -> None:
    assert judge(status, body).state is state


def test_who_does_not_answer_is_not_reachable() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            gone = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        for base in (gone, "http://no-such-host.invalid/", "http://[::1]:9/"):
            assert (await check_bucket(base, HERE)).state is BucketState.UNREACHABLE
        async with serving(lambda path: b"") as silent:
            assert (await check_bucket(silent.url(""), HERE)).state is BucketState.UNREACHABLE
        async with serving(lambda path: ok(NO_KEY, status="404 Not Found")) as server:
            assert (await check_bucket(server.url(""), HERE)).state is BucketState.THERE
            barred = await check_bucket(server.url(""), AddressGuard())
            assert (barred.state, "not a public address" in str(barred)) == (BucketState.UNREACHABLE, True)
            assert len(server.heads) == 1

    asyncio.run(patiently(main()))


def checked(folder: Path, place: Environment, base_url: str, sink: dict[str, Any]) -> tuple[int, str]:
    good = {"endpoint": place.endpoint, "app_id": Customer().app_id, "key": Customer().key}
    config = {
        "accounts": {"main": {**good, "cos": {"base_url": base_url}}},
        "sources": {"shots": {"type": "screenshot_queue", "account": "main"}},
        "spool": {"type": "memory"},
        "journal": {"size": "16MiB", "path": str(folder / "journal")},
        "sinks": {"out": sink},
    }
    (folder / "poller.yaml").write_text(json.dumps(config))
    shown = poller("check", "-c", str(folder / "poller.yaml"), "--connect")
    return shown.returncode, shown.stdout + shown.stderr


def test_a_bucket_that_is_not_there_fails_the_check_before_a_picture_is_lost(tmp_path: Path) -> None:
    archive = {"type": "download", "directory": str(tmp_path / "pictures"), "allow_cidr": ["127.0.0.0/8"]}
    console = {"type": "stdout"}
    with environment(tmp_path) as place, socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        silent.close()
        wrong = place.pictures.replace(Customer().host_label, "wrong-1250000000")
        for base, sink, code, said in (
            (place.pictures, archive, 0, "account main: pictures: the bucket is there"),
            (place.pictures, {**archive, "allow_cidr": []}, 1, "is not a public address"),
            (wrong, archive, 1, "account main: pictures: there is no such bucket"),
            (nobody, archive, 1, "account main: pictures: not reachable: cannot connect"),
            (place.pictures, console, 0, "account main: pictures: the bucket is there"),
            (nobody, console, 0, "account main: pictures: not reachable"),
        ):
            found = checked(tmp_path, place, base, sink)
            assert (found[0], said in found[1]) == (code, True), (base, sink, found)
        assert place.depth == place.counts.polls == 0
