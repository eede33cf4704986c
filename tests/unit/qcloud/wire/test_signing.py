"""Signatures."""

from poller.qcloud.wire.signing import sign, signed_query


def test_the_known_answer_comes_out() -> None:
    assert sign("5d41402abc4b2a76b9719d911017c592", 1471850187) == "b17971b51ba0fe5916ddcd96692e9fb3"


def test_a_signature_lives_for_one_minute() -> None:
    query = signed_query(key="k" * 32, app_id_param="appid", app_id=1234, now=1471850127.9)
    assert query == {"appid": "1234", "t": "1471850187", "sign": sign("k" * 32, 1471850187)}
