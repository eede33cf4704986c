"""What may be shown of what is kept."""

import json
from pathlib import Path

import pytest

from poller.cli.tables import ago, shown
from poller.control.place import LONGEST, reachable, socket_path
from poller.operations.masking import mask, public_bytes, public_form
from poller.testing import some_event

SIGNED = (
    "http://b-1.file.myqcloud.com/a.jpg?sign=canary%3D&t=1",
    "https://b.cos.ap.myqcloud.com/a.jpg?q-sign-algorithm=sha1&q-signature=canary",
    "https://b.example.com/x?X-Amz-Signature=canary",
)


@pytest.mark.parametrize("url", SIGNED)
def test_a_signed_url_is_not_shown_and_what_is_shown_is_still_json(url: str) -> None:
    encoded = some_event(1, url=url).encoded
    assert b"canary" in encoded
    found = public_form(encoded)
    assert b"canary" not in found
    event = json.loads(found)
    assert event["data"]["url"].startswith(url.partition("?")[0])
    assert "canary" not in str(public_bytes(encoded, "", []))


def test_an_event_without_a_query_is_shown_as_it_is() -> None:
    assert public_form(some_event(1).encoded) == some_event(1).encoded


def test_keys_and_signatures_in_bytes_are_masked_and_odd_bytes_are_shown_twice() -> None:
    assert public_bytes(b'{"a":"topsecretkey1"}', "", ["topsecretkey1"])["body"] == '{"a":"*************"}'
    found = public_bytes(b"\xffxy", "", [])
    assert (found["body"], found["base64"]) == ("\\xffxy", "/3h5")
    assert "abcd" not in mask("GET /x?sign=abcd failed")


def test_what_is_printed_cannot_steer_a_terminal() -> None:
    assert shown("a\x1b[31mb\u202ec\n") == "a\\x1b[31mb\\u202ec\\n"
    assert (shown(None), shown(0), shown("")) == ("-", "0", "-")
    assert [ago(seconds) for seconds in (None, 5.4, 119, 120, 7200, 200_000)] == [
        None,
        "5s",
        "119s",
        "2m",
        "2h",
        "2d",
    ]


def test_a_sockets_address_is_short_enough_whatever_the_files_path(tmp_path: Path) -> None:
    assert socket_path(tmp_path / "spool.db") == tmp_path / "spool.db.sock"
    folder = tmp_path / ("d" * 200)
    folder.mkdir()
    for name in ("spool.db", "n" * 250):
        path = socket_path(folder / name)
        assert path.parent == folder
        assert path == socket_path(folder / name)
        with reachable(path) as address:
            assert len(address) <= LONGEST
            Path(address).write_text("there")
        assert path.read_text() == "there"
