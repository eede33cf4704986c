"""Pages of a list: whole, cut, hostile, and in the forms that stores send."""

import pytest

from poller.qcloud.cos.listing import BadPage, ListPage, error_code, is_whole, read_page

HEAD = "<?xml version='1.0' encoding='utf-8' ?>\n"


def listed(*inner: str, more: str = "<IsTruncated>false</IsTruncated>", head: str = HEAD) -> bytes:
    return f"{head}<ListBucketResult>{more}{''.join(inner)}</ListBucketResult>".encode()


def contents(*keys: str) -> str:
    return "".join(
        f"<Contents><Key>{key}</Key><Size>3</Size><Owner><ID>1</ID></Owner></Contents>" for key in keys
    )


URL = "<EncodingType>url</EncodingType>"


def test_keys_and_common_prefixes_are_read() -> None:
    page = read_page(
        listed(
            "<Name>b-1</Name><Prefix>a</Prefix><Marker/>",
            contents("a&amp;1", "a 2"),
            "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>",
        ),
        prefix="a",
    )
    assert page == ListPage(keys=("a&1", "a 2"), prefixes=("a/",))


def test_encoded_keys_are_decoded_only_where_the_answer_says_so() -> None:
    assert read_page(listed(URL, contents("%E7%9B%B4%25+a"))).keys == ("直%+a",)
    assert read_page(listed(contents("%E7%9B%B4"))).keys == ("%E7%9B%B4",)


def test_a_key_that_is_not_utf_8_is_left_out() -> None:
    assert read_page(listed(URL, contents("a%FF", "b"))).keys == ("b",)


def test_the_next_page_begins_at_the_marker_that_the_store_names() -> None:
    more = "<IsTruncated>true</IsTruncated><NextMarker>a%20b</NextMarker>"
    assert read_page(listed(URL, contents("a"), more=more)).following == "a b"


def test_without_a_marker_the_next_page_begins_behind_the_last_key() -> None:
    assert read_page(listed(contents("a", "b"), more="<IsTruncated>true</IsTruncated>")).following == "b"


def test_the_namespace_of_s3_does_not_hide_the_keys() -> None:
    body = listed(contents("a")).replace(b"<ListBucketResult>", b'<ListBucketResult xmlns="http://s3/">')
    assert read_page(body).keys == ("a",)


def test_a_page_may_come_in_another_declared_encoding() -> None:
    head = "<?xml version='1.0' encoding='utf-16'?>\n"
    body = listed(contents("直"), head=head).decode().encode("utf-16")
    assert read_page(body).keys == ("直",)


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>&b;</Key></Contents></ListBucketResult>"
)
EXTERNAL = (
    '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>&a;</Key></Contents></ListBucketResult>"
)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not whole XML"),
        (b"<html>oops", "not whole XML"),
        (b"<html></html>", "no list of a bucket"),
        (b"<Error><Code>AccessDenied</Code></Error>", "no list of a bucket"),
        (listed(contents("a"))[:-10], "not whole XML"),
        (listed(contents("a")) + b"x", "not whole XML"),
        (listed(contents("a"), more=""), "whether more follows"),
        (listed(contents("a"), more="<IsTruncated>perhaps</IsTruncated>"), "whether more follows"),
        (BOMB.encode(), "document type"),
        (EXTERNAL.encode(), "document type"),
        (b"<a>" * 20 + b"</a>" * 20, "too deep"),
        (listed(contents("a")).replace(b"utf-8", b"klingon"), "XML"),
        (listed(contents("\x01")), "not whole XML"),
        (b"\x1f\x8b\x08\x00", "not whole XML"),
    ],
)
def test_anything_else_is_no_page(body: bytes, reason: str) -> None:
    with pytest.raises(BadPage, match=reason):
        read_page(body)


def test_keys_that_were_not_asked_for_are_refused() -> None:
    with pytest.raises(BadPage, match="not asked for"):
        read_page(listed(contents("a", "b")), prefix="a")


def test_a_list_that_does_not_advance_is_refused() -> None:
    more = "<IsTruncated>true</IsTruncated><NextMarker>a</NextMarker>"
    with pytest.raises(BadPage, match="does not advance"):
        read_page(listed(contents("a"), more=more), marker="a")
    with pytest.raises(BadPage, match="does not advance"):
        read_page(listed(more="<IsTruncated>true</IsTruncated>"), marker="a")


def test_an_error_has_a_code() -> None:
    assert error_code(b"<Error><Code>NoSuchBucket</Code></Error>") == "NoSuchBucket"
    assert error_code(b"<html>403</html>") == error_code(b"") == error_code(b"<Code>a b</Code>") == ""


def test_an_answer_is_whole_once_its_root_has_ended() -> None:
    assert is_whole(listed() + b"\n", "")
    assert not is_whole(listed()[:-1], "")
    assert not is_whole(listed(), "gzip")
