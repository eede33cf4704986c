"""Which URLs are fetched at all: one reading of a URL, one list of hosts, and no request to anybody else."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from poller.core.errors import PartlyFailed, Rejected
from poller.qcloud.pictures.hosts import host_list, vet
from poller.sinks.download import DownloadSettings
from tests.integration.sinks.download.shots import attempt, download, jpeg, ok, serving, shot

ALLOWED = host_list(["shots.example.com", "*.pics.example.com", "[::1]", "127.0.0.1:8080"])

NOT_ALLOWED = [
    "http://evil.example/{p}",
    "http://example.com/{p}",
    "http://shots.example.com.evil.example/{p}",
    "http://evilshots.example.com/{p}",
    "http://pics.example.com/{p}",
    "http://evilpics.example.com/{p}",
    "http://shots.example.com./{p}",
    "http://shots.example.com@127.0.0.1:{port}/{p}",
    "http://shots.example.com:80@127.0.0.1:{port}/{p}",
    "http://user:secret@shots.example.com/{p}",
    "http://@shots.example.com/{p}",
    "http://127.0.0.1:{port}@shots.example.com/{p}",
    "http://127.0.0.1:{port}\\@shots.example.com/{p}",
    "http://shots.example.com\\@127.0.0.1:{port}/{p}",
    "http://127.0.0.1:{port}#@shots.example.com/{p}",
    "http://127.0.0.1:{port}?@shots.example.com/{p}",
    "http://127.0.0.1:{port}/@shots.example.com/{p}",
    "http://127.0.0.1:{port}/{p}",
    "http://127.0.0.1:{port}",
    "HTTP://127.0.0.1:{port}/{p}",
    "http://127.1:{port}/{p}",
    "http://127.0.1:{port}/{p}",
    "http://2130706433:{port}/{p}",
    "http://0x7f000001:{port}/{p}",
    "http://0x7f.0.0.1:{port}/{p}",
    "http://0x7f.1:{port}/{p}",
    "http://0177.0.0.1:{port}/{p}",
    "http://017700000001:{port}/{p}",
    "http://127.000.000.001:{port}/{p}",
    "http://127.0.0.1.:{port}/{p}",
    "http://0:{port}/{p}",
    "http://0.0.0.0:{port}/{p}",
    "http://localhost:{port}/{p}",
    "http://LOCALHOST:{port}/{p}",
    "http://localhost.:{port}/{p}",
    "http://localhost.localdomain:{port}/{p}",
    "http://ip6-localhost:{port}/{p}",
    "http://[::ffff:127.0.0.1]:{port}/{p}",
    "http://[::ffff:7f00:1]:{port}/{p}",
    "http://[::127.0.0.1]:{port}/{p}",
    "http://[0:0:0:0:0:0:0:1]:{port}/{p}",
    "http://[::1%25lo]:{port}/{p}",
    "http://[::1%lo]:{port}/{p}",
    "http://[64:ff9b::7f00:1]:{port}/{p}",
    "http://[::]:{port}/{p}",
    "http://①②⑦.⓪.⓪.①:{port}/{p}",
    "http://127。0。0。1:{port}/{p}",
    "http://ｌｏｃａｌｈｏｓｔ:{port}/{p}",
    "http://shots。example.com:{port}/{p}",
    "http://shots.example.com\u200b:{port}/{p}",
    "http://127.0.0.1%2f@shots.example.com:{port}/{p}",
    "http://127%2e0%2e0%2e1:{port}/{p}",
    "http://%31%32%37.0.0.1:{port}/{p}",
    "http://127.0.0.1:{port}\t/{p}",
    "http://127.0.0.1\n:{port}/{p}",
    "ht\ntp://127.0.0.1:{port}/{p}",
    " http://127.0.0.1:{port}/{p}",
    "\0http://127.0.0.1:{port}/{p}",
    "http:/127.0.0.1:{port}/{p}",
    "http:127.0.0.1:{port}/{p}",
    "http:///127.0.0.1:{port}/{p}",
    "http:\\\\127.0.0.1:{port}\\{p}",
    "//127.0.0.1:{port}/{p}",
    "/{p}",
    "{p}",
    "",
    "http://",
    "http://:{port}/{p}",
    "https://127.0.0.1:{port}/{p}",
    "ftp://127.0.0.1:{port}/{p}",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET",
    "unix:///run/x.sock",
    "data:image/jpeg;base64,/9j/",
    "javascript:alert(1)",
    "view-source:http://127.0.0.1:{port}/{p}",
    "http+unix://%2Frun%2Fx.sock/{p}",
    "http://127.0.0.1:{port}:80/{p}",
    "http://127.0.0.1:+{port}/{p}",
    "http://127.0.0.1:{port}0000000/{p}",
    "http://shots.example.com:99999/{p}",
    "http://shots.example.com/{p} HTTP/1.1\r\nHost: evil",
    "http://shots.example.com/é",
    "http://shots.example.com/\ud800",
    "http://shots.example.com/%zz",
    "http://" + "a" * 64 + ".pics.example.com/{p}",
    "http://.pics.example.com/{p}",
    "http://a..pics.example.com/{p}",
    "http://-a.pics.example.com/{p}",
    "http://169.254.169.254/latest/meta-data/",
    "http://shots.example.com/" + "a" * 9000,
]


async def test_no_url_whose_host_is_not_allowed_makes_a_request(tmp_path: Path) -> None:
    assert len(set(NOT_ALLOWED)) >= 60

    settings = {
        "allow_hosts": ["shots.example.com", "*.pics.example.com"],
        "allow_cidr": ["0.0.0.0/0", "::/0"],
    }
    async with (
        serving(lambda path: ok(jpeg()), "0.0.0.0") as server,
        download(tmp_path, **settings) as sink,
    ):
        for number, form in enumerate(NOT_ALLOWED):
            url = form.replace("{port}", str(server.port)).replace(
                "{p}", "secret-a_1_1_1_1_1.jpg?sign=secret"
            )
            event = shot(f"{number}.jpg", url)
            error = await attempt(sink, event)
            assert isinstance(error, PartlyFailed), url
            assert isinstance(error.failures[event.id], Rejected), url
            assert "secret" not in str(error.failures[event.id])
        assert server.heads == []
        async with download(tmp_path / "own", allow_hosts=["127.0.0.1"]) as allowed:
            assert await attempt(allowed, shot("good.jpg", server.url("good.jpg"))) is None
        assert len(server.heads) == 1, "it answers, and counts who asks"
    assert {path.name for path in tmp_path.iterdir()} == {".incoming", "own"}


@pytest.mark.parametrize(
    "url",
    [
        "http://shots.example.com/a.jpg",
        "https://SHOTS.Example.com/a.jpg",
        "http://shots.example.com:8443/a.jpg?sign=1#x",
        "http://a.pics.example.com/%E4%BD%A0@%23.jpg",
        "http://a.b.pics.example.com/a",
        "http://[::1]:9/a.jpg",
        "http://127.0.0.1:8080/a.jpg",
    ],
)
def test_an_allowed_host_is_fetched_as_it_is_written(url: str) -> None:
    assert str(vet(url, ALLOWED).url) == url.partition("#")[0]


def test_an_entry_with_a_port_allows_that_port_alone() -> None:
    with pytest.raises(Rejected, match=r"127\.0\.0\.1:80 is not among"):
        vet("http://127.0.0.1/a.jpg", ALLOWED)


def test_an_event_without_a_url_is_rejected() -> None:
    with pytest.raises(Rejected, match="no URL"):
        vet(None, ALLOWED)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("http://shots.example.com", "not a URL"),
        ("shots.example.com/", "not a URL"),
        ("*", "whole labels"),
        ("a*.example.com", "whole labels"),
        ("*.*.example.com", "whole labels"),
        ("图.example.com", "ASCII"),
        ("\u212aube.example.com", "ASCII"),
        ("*.\u017fhots.example.com", "ASCII|whole labels"),
        ("", "not a host"),
        ("a b", "not a host"),
        ("user@host", "not a host"),
        ("host:", "not a host"),
        (".example.com", "not a host"),
        ("[::x]", "not a host|not permitted|Only hex|not a"),
    ],
)
def test_a_bad_entry_is_refused_with_a_reason(entry: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=says):
        DownloadSettings.model_validate({"type": "download", "directory": tmp_path, "allow_hosts": [entry]})


async def test_an_address_that_is_not_public_is_refused_although_its_host_is_allowed(
    tmp_path: Path,
) -> None:
    async with serving(lambda path: ok(jpeg())) as server, download(tmp_path, allow_cidr=[]) as sink:
        error = await attempt(sink, shot(url=server.url("a.jpg")))
        assert "allow_cidr" in str(error)
        assert server.heads == []


@pytest.mark.parametrize(
    "url",
    [
        "http://boo\u212a.example.com/a.jpg",
        "http\u017f://book.example.com/a.jpg",
        "http://book.example.com/a\u212a.jpg",
        "http://boo\u212a.example.com:80/a.jpg",
    ],
)
def test_a_letter_that_only_unicode_folds_to_ascii_is_none_of_a_url(url: str) -> None:
    with pytest.raises(Rejected, match="not a plain http"):
        vet(url, host_list(["book.example.com"]))
