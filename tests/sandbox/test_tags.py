"""Looking into media messages: what they carry, by which codec, and where its bytes begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.sandbox.media.tags import AUDIO, VIDEO, Packet, Payload, audio, look, video

HEADER, KEYFRAME, FRAME, OTHER = Packet.HEADER, Packet.KEYFRAME, Packet.FRAME, Packet.OTHER
MOD = b"\x03abcd"  # an extension of four bytes


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Payload("unknown", OTHER, 0, 0)),
        (b"\x17\0\0\0\0config", Payload("h264", HEADER, 0, 5)),
        (b"\x17\x01\0\0\0nals", Payload("h264", KEYFRAME, 0, 5)),
        (b"\x27\x01\0\0\x50nals", Payload("h264", FRAME, 80, 5)),
        (b"\x27\x01\xff\xff\xb0nals", Payload("h264", FRAME, -80, 5)),
        (b"\x37\x01\0\0\0nals", Payload("h264", FRAME, 0, 5)),
        (b"\x17\x02\0\0\0", Payload("h264", OTHER, 0, 5)),
        (b"\x57\0", Payload("h264", OTHER, 0, 2)),
        (b"\x17", Payload("h264", OTHER, 0, 1)),
        (b"\x1c\0\0\0\0config", Payload("hevc", HEADER, 0, 5)),
        (b"\x12frame", Payload("flv1", KEYFRAME, 0, 1)),
        (b"\x22frame", Payload("flv1", FRAME, 0, 1)),
        (b"\x5fx", Payload("unknown (15)", OTHER, 0, 1)),
        (b"\x90hvc1config", Payload("hevc", HEADER, 0, 5)),
        (b"\x91hvc1\0\0\x28nals", Payload("hevc", KEYFRAME, 40, 8)),
        (b"\xa1hvc1\xff\xff\xffnals", Payload("hevc", FRAME, -1, 8)),
        (b"\xa3hvc1nals", Payload("hevc", FRAME, 0, 5)),
        (b"\x91avc1\0\0\x28nals", Payload("h264", KEYFRAME, 40, 8)),
        (b"\x91av01obus", Payload("av1", KEYFRAME, 0, 5)),
        (b"\xa1vp09frame", Payload("vp9", FRAME, 0, 5)),
        (b"\x92hvc1", Payload("hevc", OTHER, 0, 5)),
        (b"\x94hvc1amf", Payload("hevc", OTHER, 0, 8)),
        (b"\x91xxxxframe", Payload("unknown (78787878)", KEYFRAME, 0, 5)),
        (b"\x97" + MOD + b"\x01hvc1\0\0\x28nals", Payload("hevc", KEYFRAME, 40, 14)),
        (b"\x97" + MOD + b"\x07" + MOD + b"\x00hvc1config", Payload("hevc", HEADER, 0, 17)),
        (b"\x97\xff\x01\x00" + bytes(257) + b"\x01av01obus", Payload("av1", KEYFRAME, 0, 266)),
        (b"\x96\x01avc1\0frame", Payload("unknown (01617663)", OTHER, 0, 12)),
    ],
)
def test_a_video_message_is_recognised(body: bytes, expected: Payload) -> None:
    assert video(body) == expected
    assert look(VIDEO, body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Payload("unknown", OTHER, 0, 0)),
        (b"\xaf\x00\x12\x10", Payload("aac", HEADER, 0, 2)),
        (b"\xaf\x01frame", Payload("aac", FRAME, 0, 2)),
        (b"\xaf", Payload("aac", OTHER, 0, 1)),
        (b"\x2fframe", Payload("mp3", FRAME, 0, 1)),
        (b"\xb2frame", Payload("speex", FRAME, 0, 1)),
        (b"\xd2frame", Payload("unknown (13)", FRAME, 0, 1)),
        (b"\x90Opusconfig", Payload("opus", HEADER, 0, 5)),
        (b"\x91Opusframe", Payload("opus", FRAME, 0, 5)),
        (b"\x91mp4aframe", Payload("aac", FRAME, 0, 5)),
        (b"\x92Opus", Payload("opus", OTHER, 0, 5)),
        (b"\x97" + MOD + b"\x01fLaCframe", Payload("flac", FRAME, 0, 11)),
    ],
)
def test_an_audio_message_is_recognised(body: bytes, expected: Payload) -> None:
    assert audio(body) == expected
    assert look(AUDIO, body) == expected


@given(kind=st.sampled_from([AUDIO, VIDEO]), body=st.binary(max_size=40))
def test_any_bytes_are_classified_without_an_error(kind: int, body: bytes) -> None:
    payload = look(kind, body)
    if payload.packet in (HEADER, KEYFRAME, FRAME):
        assert 0 < payload.offset <= len(body)


@given(rest=st.binary(max_size=300))
def test_any_extension_of_an_enhanced_message_is_classified_without_an_error(rest: bytes) -> None:
    look(VIDEO, b"\x97" + rest)
    look(AUDIO, b"\x97" + rest)
