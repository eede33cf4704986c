"""What is read by the template is what `screenshot_event` reads, byte for byte, or it is not read by the template."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poller.core.model import Event, parse_event
from poller.qcloud.events import usual_messages
from poller.qcloud.events.screenshots import screenshot_event
from poller.qcloud.events.usual_messages import UsualMessages

BASE = "http://shots-1250000000.file.myqcloud.com/"
RECEIVED = datetime(2016, 8, 22, 8, 0, 1, 234567, tzinfo=UTC)
USUAL = b'{"stream_id":"5000_a","pic_url":"5000_a_1471850187_1471850188_10_300_169.jpg"}'
DATED = USUAL[:-1] + b',"create_time":1471850200}'


def plainly(raw: bytes, received_at: datetime = RECEIVED, account: str = "main", base: str = BASE) -> Event:
    return screenshot_event(raw, account=account, picture_base=base, received_at=received_at)


def by_template(
    raw: bytes, received_at: datetime = RECEIVED, account: str = "main", base: str = BASE
) -> Event | None:
    return UsualMessages(account, base).reader(received_at)(raw)


@pytest.mark.parametrize(
    "raw",
    [
        USUAL,
        DATED,
        USUAL.replace(b"5000_a_147", b"5000_other_147"),
        USUAL.replace(b"1471850188", b"0"),
        USUAL.replace(b"_10_", b"_0_"),
        USUAL.replace(b"_10_", b"_999999999_"),
        USUAL.replace(b"300_169", b"99999_1"),
        USUAL.replace(b":", b": ").replace(b",", b", "),
        USUAL.replace(b"5000_a", b"..~-_.a_"),
        USUAL.replace(b"5000_a", b"_1471850187_1471850188_10_300_169.jpg"),
        USUAL.replace(b"5000_a", b"~stream~"),
    ],
)
@pytest.mark.parametrize("account", ["main", "\u4e2d\u6587"])
@pytest.mark.parametrize("base", [BASE, "https://cdn.example.com/%7Ea b/\u56fe/"])
def test_usual_messages_are_read_by_the_template(raw: bytes, account: str, base: str) -> None:
    event = by_template(raw, account=account, base=base)

    assert event is not None
    assert event == plainly(raw, account=account, base=base)
    assert event == parse_event(event.encoded)


def test_the_message_may_be_a_part_of_the_answer() -> None:
    (raw,) = msgspec.json.decode(b"[" + USUAL + b"]", type=list[msgspec.Raw])

    assert by_template(raw) == plainly(USUAL)


@pytest.mark.parametrize(
    "raw",
    [
        USUAL.replace(b"5000_a", b"\\u0035000_a"),
        USUAL.replace(b'"5000_a"', b'"\\u0035000_a"'),
        USUAL.replace(b'"5000_a"', b'"5000\x7fa"'),
        USUAL.replace(b"5000_a", b'a\\"b'),
        USUAL.replace(b"5000_a", "\u76f4\u64ad".encode()),
        USUAL.replace(b"5000_a", b"a@b#c"),
        USUAL.replace(b'"5000_a_', b'"a@b#c_'),
        USUAL.replace(b"5000_a", b"a/b"),
        USUAL.replace(b"5000_a", b"a b"),
        USUAL.replace(b'"5000_a"', b'""'),
        USUAL.replace(b'"5000_a"', b"5000"),
        USUAL.replace(b'"5000_a"', b"null"),
        USUAL.replace(b'"pic_url":"', b'"pic_url":"/'),
        USUAL.replace(b'"pic_url":"', b'"pic_url":"http://other.example.com/'),
        USUAL.replace(b"_10_", b"_010_"),
        USUAL.replace(b"_10_", b"_00_"),
        USUAL.replace(b"_10_", b"_1000000000_"),
        USUAL.replace(b"_10_", b"_-1_"),
        USUAL.replace(b"_10_", "_\u0661_".encode()),
        USUAL.replace(b"300_169", b"0300_169"),
        USUAL.replace(b"300_169", b"0_0"),
        USUAL.replace(b"300_169", b"100000_169"),
        USUAL.replace(b"1471850187", b"0"),
        USUAL.replace(b"1471850187", b"01471850187"),
        USUAL.replace(b"1471850187", b"4102444800"),
        USUAL.replace(b"1471850187", b"9471850187"),
        USUAL.replace(b".jpg", b".JPG"),
        USUAL.replace(b".jpg", b".jpg?a=b"),
        USUAL.replace(b".jpg", b".jpg\\n"),
        USUAL.replace(b".jpg", b".jpeg"),
        USUAL[:-1] + b',"file_size":1}',
        USUAL[:-1] + b',"stream_id":"b"}',
        USUAL[:-1] + b',"pic_url":"b"}',
        USUAL[:-1] + b',"pic_full_url":"http://other.example.com/b.jpg"}',
        USUAL[:-1] + b',"create_time":"1471850200"}',
        USUAL[:-1] + b',"create_time":1471850200000}',
        USUAL[:-1] + b',"create_time":1471850200.5}',
        USUAL[:-1] + b',"create_time":1471850200e1}',
        USUAL[:-1] + b',"create_time":0}',
        USUAL[:-1] + b',"create_time":null}',
        DATED[:-1] + b',"create_time":1471850201}',
        b'{"pic_url":"5000_a_1471850187_1471850188_10_300_169.jpg","stream_id":"5000_a"}',
        b'{"stream_id":"2016","pic_url":"/2016-09-12/2016-screenshot-10-03-08-1280x720.jpg"}',
        b'{"stream_id":"a","pic_url":"a.jpg"}',
        USUAL.replace(b":", b" : "),
        b" " + USUAL,
        USUAL + b" ",
    ],
)
def test_other_messages_are_left_to_the_parser(raw: bytes) -> None:
    assert by_template(raw) is None


# ---------------------------------------------------------------- messages with one thing or two that are not usual

plain = st.text("ab019_.~-", min_size=1, max_size=20)
epochs = st.integers(10**9, 4 * 10**9 - 1).map(str)
offsets = st.integers(0, 10**9 - 1).map(str)
sizes = st.integers(1, 99_999).map(str)
pieces = st.sampled_from(
    [*"a0_.~-@#% :,{}[]?=&+/", '"', "\\", '\\"', "\\u0041", "\\n", "\x7f", "\u4e2d", "\U0001f600"]
)
odd_texts = st.just("") | st.builds("{}{}{}".format, plain, pieces, plain)
odd_numbers = st.sampled_from(
    [
        *("", "0", "00", "01", "010", "-1", "1e3", "1.5", "\u0661", "x", "99999", "100000", "1000000000"),
        *(
            "01471850187",
            "3999999999",
            "4102444799",
            "4102444800",
            "9999999999",
            "1471850187000",
            "null",
            '"1"',
        ),
    ]
)
endings = st.sampled_from(
    [".jpeg", ".JPG", ".png", "", ".jpg?t=1", ".jpg?", ".jpg/", ".jpg_1_2_3_4.jpg", ".jpg\\n"]
)
PARTS = (plain, plain, epochs, epochs | st.just("0"), offsets, sizes, sizes, st.just(".jpg"), epochs)
ODD_PARTS = (odd_texts, odd_texts, *[odd_numbers] * 5, endings, odd_numbers)
AROUND = [("{", ""), ("{", "} "), (" {", "}"), ("[", "]"), ("{", "}{"), ("{{", "}}")]
members = st.tuples(
    st.sampled_from(["stream_id", "pic_url", "pic_full_url", "create_time", "width", "file_size", "x"]),
    st.sampled_from(
        ["null", "1", "[]", '{"pic_url":"x"}', '"a_1471850187_0_1_2_3.jpg"', '"http://x.example/y"']
    ),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    kind = draw(
        st.sampled_from(["part"] * 6 + ["parts", "usual", "member", "order", "number", "spaces", "around"])
    )
    odd = {draw(st.integers(0, len(PARTS) - 1)) for _ in range({"part": 1, "parts": 2}.get(kind, 0))}
    parts = [draw(ODD_PARTS[place] if place in odd else part) for place, part in enumerate(PARTS)]
    stream, start, push, task, offset, width, height, ending, created = parts
    name = f"{start}_{push}_{task}_{offset}_{width}_{height}{ending}"
    shape = [("stream_id", stream if kind == "number" else f'"{stream}"'), ("pic_url", f'"{name}"')]
    if 8 in odd or draw(st.booleans()):
        shape.append(("create_time", created))
    if kind == "member":
        shape.insert(draw(st.integers(0, len(shape))), draw(members))
    if kind == "order":
        shape = draw(st.permutations(shape))
    space = draw(st.sampled_from([" ", "  ", "\t"])) if kind == "spaces" else ""
    inner = f",{space}".join(f'"{key}":{space}{value}' for key, value in shape)
    around = draw(st.sampled_from(AROUND)) if kind == "around" else ("{", "}")
    return inner.join(around).encode()


moments = st.datetimes(timezones=st.just(UTC)) | st.just(
    datetime(2016, 8, 22, tzinfo=timezone(timedelta(hours=8)))
)


@settings(max_examples=1000)
@given(st.lists(messages(), min_size=1, max_size=4), moments)
@example([USUAL, DATED, USUAL], RECEIVED)
def test_whatever_the_template_reads_is_what_the_parser_reads(
    raws: list[bytes], received_at: datetime
) -> None:
    read = UsualMessages("main", BASE).reader(received_at)
    for raw in raws:
        event = read(raw)
        if event is not None:
            expected = plainly(raw, received_at)
            assert (event, event.encoded) == (expected, expected.encoded)


@settings(max_examples=100)
@given(
    plain,
    st.builds("{}_{}_{}_{}_{}_{}.jpg".format, plain, epochs, epochs, offsets, sizes, sizes),
    st.none() | epochs.map(int),
)
def test_every_plain_message_is_read_by_the_template(stream: str, name: str, created: int | None) -> None:
    fields: dict[str, object] = {"stream_id": stream, "pic_url": name}
    raw = msgspec.json.encode(fields if created is None else fields | {"create_time": created})

    event = by_template(raw)

    assert event is not None
    assert event == plainly(raw)


def test_times_and_sizes_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual_messages, "MOST", 10)
    template = UsualMessages("main", BASE)
    read = template.reader(RECEIVED)

    for number in range(100):
        name = f"a_{1471850187 + number}_0_{number}_{number + 1}_169.jpg"
        raw = msgspec.json.encode({"stream_id": "a", "pic_url": name})
        assert read(raw) == plainly(raw)

    for remembered in (template._starts, template._sizes, template._moments):
        assert remembered.cache_info().currsize == 10
