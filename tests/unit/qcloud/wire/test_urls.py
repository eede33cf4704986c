"""Where pictures are, and which path identifies them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from poller.qcloud.wire.urls import bucket_base, bucket_hosts, host_of, locate

BASE = bucket_base("shots", 1250000000)
HOST = "http://shots-1250000000.file.myqcloud.com/"
COS = "http://test-10000.cos.ap-shanghai.myqcloud.com/"

BARE = [
    # what the platform says, what is appended to the base, the path that identifies it
    ("a.jpg", "a.jpg", "a.jpg"),
    ("5000_live_1_2_3_300_169.jpg", "5000_live_1_2_3_300_169.jpg", "5000_live_1_2_3_300_169.jpg"),
    ("/a.jpg", "a.jpg", "a.jpg"),
    ("//a.jpg", "a.jpg", "a.jpg"),
    ("///a/b.jpg", "a/b.jpg", "a/b.jpg"),
    ("/2016-09-12/x.jpg", "2016-09-12/x.jpg", "2016-09-12/x.jpg"),
    ("//2016-09-12/x.jpg", "2016-09-12/x.jpg", "2016-09-12/x.jpg"),
    ("3891_@v_tls#3p.jpg", "3891_%40v_tls%233p.jpg", "3891_@v_tls#3p.jpg"),
    ("a b.jpg", "a%20b.jpg", "a b.jpg"),
    ("a+b.jpg", "a%2Bb.jpg", "a+b.jpg"),
    ("a&b=c.jpg", "a%26b%3Dc.jpg", "a&b=c.jpg"),
    ("100%.jpg", "100%25.jpg", "100%.jpg"),
    ("a%40b.jpg", "a%2540b.jpg", "a%40b.jpg"),
    ("直播.jpg", "%E7%9B%B4%E6%92%AD.jpg", "直播.jpg"),
    ("😀.jpg", "%F0%9F%98%80.jpg", "😀.jpg"),
    ("a?.jpg", "a%3F.jpg", "a?.jpg"),
    ("a?b.jpg", "a%3Fb.jpg", "a?b.jpg"),
    ("shihou/5659-320.jpg?t=1499678069&tt=2", "shihou/5659-320.jpg?t=1499678069&tt=2", "shihou/5659-320.jpg"),
    ("a.jpg?t=1 2", "a.jpg?t=1%202", "a.jpg"),
    ("a.jpg?t=%20#x", "a.jpg?t=%20%23x", "a.jpg"),
    ("a\nb.jpg", "a%0Ab.jpg", "a\nb.jpg"),
    ("a\0.jpg", "a%00.jpg", "a\0.jpg"),
    ("a\r\nHost: x", "a%0D%0AHost%3A%20x", "a\r\nHost: x"),
    ("a\\b.jpg", "a%5Cb.jpg", "a\\b.jpg"),
    ('a<b>".jpg', "a%3Cb%3E%22.jpg", 'a<b>".jpg'),
    ("a:b.jpg", "a%3Ab.jpg", "a:b.jpg"),
    ("ftp://x/y.jpg", "ftp%3A//x/y.jpg", "ftp://x/y.jpg"),
    ("file:///etc/passwd", "file%3A///etc/passwd", "file:///etc/passwd"),
    ("javascript:alert(1)", "javascript%3Aalert%281%29", "javascript:alert(1)"),
    ("http:/x.jpg", "http%3A/x.jpg", "http:/x.jpg"),
    ("http://", "http%3A//", "http://"),
    ("a//b.jpg", "a//b.jpg", "a//b.jpg"),
    ("-rf", "-rf", "-rf"),
    (".jpg", ".jpg", ".jpg"),
    ("a.jpg\n", "a.jpg%0A", "a.jpg\n"),
    ("\u202egpj.exe", "%E2%80%AEgpj.exe", "\u202egpj.exe"),
    ("a\ud800.jpg", "a%3F.jpg", "a\ud800.jpg"),
]

FULL = [
    (
        COS + "2019-12-05/t-screenshot-10-32-54-960x540.jpg",
        None,
        "2019-12-05/t-screenshot-10-32-54-960x540.jpg",
    ),
    ("https://h.example/a.jpg", None, "a.jpg"),
    ("HTTP://h.example/a.jpg", "http://h.example/a.jpg", "a.jpg"),
    ("//h.example/a.jpg", "http://h.example/a.jpg", "a.jpg"),
    ("//10.0.0.1:8080/a.jpg", "http://10.0.0.1:8080/a.jpg", "a.jpg"),
    (" http://h.example/a.jpg ", "http://h.example/a.jpg", "a.jpg"),
    ("http://h.example/a@b.jpg", None, "a@b.jpg"),
    ("http://h.example/a%40b.jpg", None, "a@b.jpg"),
    ("http://h.example/a#b.jpg", "http://h.example/a%23b.jpg", "a#b.jpg"),
    ("http://h.example/a%23b.jpg", None, "a#b.jpg"),
    ("http://h.example/a b.jpg", "http://h.example/a%20b.jpg", "a b.jpg"),
    ("http://h.example/100%.jpg", "http://h.example/100%25.jpg", "100%.jpg"),
    ("http://h.example/100%zz.jpg", "http://h.example/100%25zz.jpg", "100%zz.jpg"),
    ("http://h.example/直播.jpg", "http://h.example/%E7%9B%B4%E6%92%AD.jpg", "直播.jpg"),
    ("http://h.example/%E7%9B%B4%E6%92%AD.jpg", None, "直播.jpg"),
    ("http://h.example/a.jpg?t=1&tt=2", None, "a.jpg"),
    ("http://h.example/a.jpg?sign=q%3Dx", None, "a.jpg"),
    ("http://h.example//a.jpg", None, "a.jpg"),
    ("http://h.example", None, ""),
    ("http://h.example?x=/y", None, ""),
    ("http://h.example:8080/a.jpg", None, "a.jpg"),
    ("http://[::1]:80/a.jpg", None, "a.jpg"),
    ("http://h.example/a\r\nX: y", "http://h.example/a%0D%0AX:%20y", "a\r\nX: y"),
    ("http://h.example/a\\b", "http://h.example/a%5Cb", "a\\b"),
    (HOST + "a%20b.jpg", None, "a b.jpg"),
]


@pytest.mark.parametrize(("name", "below", "path"), BARE, ids=repr)
def test_a_bare_name_is_a_literal_path_below_the_base(name: str, below: str, path: str) -> None:
    place = locate(name, BASE)
    assert (place.url, place.path) == (HOST + below, path)
    assert locate(name, None).url is None
    assert locate(name, None).path == path


@pytest.mark.parametrize(("name", "url", "path"), FULL, ids=repr)
def test_a_full_url_is_kept_but_for_what_is_illegal_in_it(name: str, url: str | None, path: str) -> None:
    for base in (BASE, None):
        place = locate(name, base)
        assert (place.url, place.path) == (url or name, path)


@pytest.mark.parametrize(
    "name", ["a.jpg", "3891_@v_tls#3p.jpg", "a b.jpg", "直播/1.jpg", "100%.jpg", "a%40b.jpg"]
)
def test_a_picture_is_the_same_by_its_name_and_by_its_full_url(name: str) -> None:
    bare = locate(name, BASE)
    assert bare.url is not None
    assert locate(bare.url, BASE).path == bare.path == locate("/" + name, BASE).path
    assert locate(bare.url, None).path == bare.path


def test_a_full_url_below_a_base_with_folders_is_the_bare_name() -> None:
    assert locate("http://h.example/pics/a.jpg?x=1", "http://h.example/pics/").path == "a.jpg"


def test_the_query_is_told_apart_from_the_path() -> None:
    assert locate("a.jpg?t=1", BASE).query == locate("http://h.example/a.jpg?t=1", BASE).query == "t=1"


@given(st.text(min_size=1))
def test_whatever_the_name_its_url_is_legal_and_stays_at_its_host(name: str) -> None:
    url = locate("x" + name, BASE).url
    assert url is not None
    assert url.startswith(HOST)
    assert url.isascii()
    assert url.isprintable()
    assert not set(url) & set(' "<>\\^`{|}#')
    assert URL(url, encoded=True).host == "shots-1250000000.file.myqcloud.com"


OWN_HOSTS = [
    "shots-1250000000.file.myqcloud.com",
    *(
        f"shots-1250000000.{v4}.myqcloud.com"
        for v4 in ("cosgz", "cossh", "costj", "coscd", "cossgp", "coshk", "cosca", "cosger")
    ),
    "shots-1250000000.cos.ap-shanghai.myqcloud.com",
    "shots-1250000000.cos.ap-beijing-1.myqcloud.com",
    "shots-1250000000.cos.na-siliconvalley.myqcloud.com",
    "shots-1250000000.cos.accelerate.myqcloud.com",
    "shots-1250000000.cos.ap-guangzhou.tencentcos.cn",
    "shots-1250000000.cos.eu-frankfurt.tencentcos.cn",
]
FOREIGN_HOSTS = [
    "cossh.myqcloud.com",
    "myqcloud.com",
    "other-1250000000.cossh.myqcloud.com",
    "shots-1250000001.cossh.myqcloud.com",
    "xshots-1250000000.cossh.myqcloud.com",
    "x.shots-1250000000.cossh.myqcloud.com",
    "shots-1250000000.x.cossh.myqcloud.com",
    "shots-1250000000.cossh.myqcloud.com.evil.example",
    "shots-1250000000.cossh.evil.example",
    "shots-1250000000.cosxx.myqcloud.com",
    "shots-1250000000.cos.nowhere.myqcloud.com",
    "shots-1250000000.cos.myqcloud.com",
    "shots-1250000000.cos.ap-shanghai.file.myqcloud.com",
    "shots-1250000000.cos.ap-shanghai.tencentcos.com",
    "shots-1250000000.picsh.myqcloud.com",
    "shots-1250000000.image.myqcloud.com",
    "shots-1250000000.ci.ap-shanghai.myqcloud.com",
    "shots-1250000000.pic.ap-shanghai.myqcloud.com",
    "shots-1250000000.cos-website.ap-shanghai.myqcloud.com",
    "shots-1250000000.cos-internal.ap-shanghai.tencentcos.cn",
    "shots-1250000000.cos-internal.accelerate.tencentcos.cn",
]


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_every_default_domain_of_the_bucket_is_the_accounts_own(host: str) -> None:
    assert host in bucket_hosts("shots", 1250000000)
    assert host in bucket_hosts("Shots", "1250000000")


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_domain_that_only_looks_like_the_buckets_is_not_its_own(host: str) -> None:
    assert host not in bucket_hosts("shots", 1250000000)


def test_a_host_is_read_out_of_a_url() -> None:
    assert host_of(COS) in bucket_hosts("test", 10000)
    assert host_of("https://[::1]:80/x") == "::1"
    assert host_of("no url") is None


@pytest.mark.parametrize(
    "name", ["http\u017f://shots.example.com/a.jpg", "http\u017f://x", "//shots.co\u212a/a.jpg"]
)
def test_only_ascii_letters_are_a_scheme_or_a_host(name: str) -> None:
    place = locate(name, "http://shots.example/")
    assert place.url is not None
    assert place.url.startswith("http://shots.example/")
