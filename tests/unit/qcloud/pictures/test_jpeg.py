"""What counts as one whole picture: nothing cut, nothing else, nothing too large."""

import random
from contextlib import suppress

import pytest
from fastcrc import crc64

from poller.core.errors import Rejected, TryLater
from poller.qcloud.pictures.jpeg import check_checksum, check_picture
from tests.integration.sinks.download.shots import jpeg

PIXELS = 50_000_000
DQT = b"\xff\xdb\x00\x43\x00" + bytes(range(1, 65))
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\x12\xff\x00\x34\xff\xd0\x56"
END = b"\xff\xd9"


def frame(width: int, height: int, kind: int = 0xC0) -> bytes:
    return (
        bytes((0xFF, kind))
        + b"\x00\x0b\x08"
        + height.to_bytes(2, "big")
        + width.to_bytes(2, "big")
        + b"\x01\x01\x11\x00"
    )


def made(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments)


WHOLE = made(DQT, frame(300, 169), SCAN, END)


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        jpeg(),
        made(DQT, frame(300, 169, 0xC2), SCAN, DQT, SCAN, END),  # progressive: tables between scans
        made(b"\xff\xff\xff" + DQT, frame(300, 169), SCAN, END),  # fill bytes
        WHOLE + b"\0" * 100,
    ],
    ids=["by hand", "encoder", "progressive", "fill bytes", "zero padding"],
)
def test_a_whole_picture_passes(body: bytes) -> None:
    width, height = check_picture(body, max_pixels=PIXELS)
    assert (width, height) in {(300, 169), (320, 176)}


@pytest.mark.parametrize(
    "body",
    [WHOLE, jpeg(), made(DQT, frame(3, 3, 0xC2), SCAN, made(END * 9), DQT.replace(b"\1\2", END), SCAN, END)],
    ids=["by hand", "encoder", "with an end marker inside a table"],
)
def test_every_truncation_is_refused(body: bytes) -> None:
    for length in range(len(body)):
        with pytest.raises(TryLater):
            check_picture(body[:length], max_pixels=PIXELS)


def test_a_thumbnail_with_an_end_of_its_own_does_not_make_a_cut_picture_whole() -> None:
    exif = b"\xff\xe1" + (len(WHOLE) + 2).to_bytes(2, "big") + WHOLE
    body = made(exif, DQT, frame(300, 169), SCAN, END)
    assert check_picture(body, max_pixels=PIXELS) == (300, 169)
    for length in range(len(body)):
        with pytest.raises(TryLater):
            check_picture(body[:length], max_pixels=PIXELS)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "nothing came"),
        (b"<html>", "HTML"),
        (b"\n <?xml version='1.0'?>", "HTML or XML"),
        (b"\x89PNG\r\n\x1a\n" + WHOLE, "something else"),
        (b"\0" + WHOLE, "not a JPEG"),
        (WHOLE + b"<script>", "follows the end"),
        (WHOLE + WHOLE, "follows the end"),
        (made(END), "before its first scan"),
        (made(DQT, SCAN, END), "before its first scan"),
        (made(DQT, frame(1, 1), END), "before its first scan"),
        (made(frame(1, 1), frame(2, 2), SCAN, END), "not the only one"),
        (made(frame(0, 9), SCAN, END), "without width"),
        (made(frame(9, 0), SCAN, END), "without width"),
        (made(b"\xff\xc0\x00\x04\x08\x00", SCAN, END), "short"),
        (made(b"\xff\xdb\x00\x01", SCAN, END), "longer than the rest"),
        (made(b"\xff" * 1_000_000), "cut or broken"),
        (made(b"\xff\xdb\x00\x02" * 1_000_000), "cut or broken"),
        (made(frame(1, 1), b"\xff\xda\x00\x02", b"\xff\x00" * 5_000_000), "its end is missing"),
    ],
)
def test_what_is_no_whole_picture_may_become_one(body: bytes, says: str) -> None:
    with pytest.raises(TryLater, match=says):
        check_picture(body, max_pixels=PIXELS)


@pytest.mark.parametrize(("width", "height"), [(16385, 1), (1, 16385), (65535, 65535), (10_000, 5_001)])
def test_a_header_that_promises_a_bomb_is_rejected_for_good(width: int, height: int) -> None:
    with pytest.raises(Rejected, match=f"{width}x{height}"):
        check_picture(made(DQT, frame(width, height), SCAN, END), max_pixels=PIXELS)


def test_the_largest_picture_that_is_allowed_passes() -> None:
    assert check_picture(made(frame(10_000, 5_000), SCAN, END), max_pixels=PIXELS) == (10_000, 5_000)


def test_ten_thousand_damaged_pictures_end_in_one_of_the_two_words() -> None:
    rng = random.Random(7)
    for _ in range(10_000):
        body = bytearray(WHOLE)
        for _ in range(rng.randint(1, 5)):
            body[rng.randrange(len(body))] = rng.choice((0, 0xFF, 0xD9, 0xDA, 0xC0, rng.randrange(256)))
        with suppress(TryLater, Rejected):
            check_picture(bytes(body), max_pixels=PIXELS)


def test_the_checksum_is_the_stores_crc_in_decimal() -> None:
    assert crc64.xz(b"123456789") == 11051210869376104954
    check_checksum(b"123456789", "11051210869376104954")
    check_checksum(b"123456789", None)
    for wrong in ("11051210869376104955", "", "0", "995dc9bbdf1939fa"):
        with pytest.raises(TryLater, match="checksum"):
            check_checksum(b"123456789", wrong)
