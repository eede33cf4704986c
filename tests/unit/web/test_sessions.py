"""Sessions, one-time codes and tokens."""

from poller.web import sessions
from poller.web.sessions import LIFETIME, LOOK, OPERATE, Codes, Sessions, Tokens


class Now:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_a_session_is_found_by_its_id_for_twelve_hours() -> None:
    now = Now()
    found = Sessions(now=now)
    id = found.create(LOOK)
    now.time += LIFETIME - 1
    session = found.find(id)
    assert session is not None
    assert session.role == LOOK
    now.time += 2
    assert found.find(id) is None
    assert LIFETIME == 12 * 3600


def test_ids_differ_and_are_long_and_other_ids_open_nothing() -> None:
    found = Sessions()
    first, second = found.create(LOOK), found.create(LOOK)
    assert first != second
    assert len(first) >= 43, "256 bits"
    assert found.find(first[:-1]) is None
    assert found.find("") is None


def test_an_id_is_not_kept_and_the_key_opens_nothing() -> None:
    found = Sessions()
    id = found.create(OPERATE)
    session = found.find(id)
    assert session is not None
    assert found.find(session.key) is None
    assert id not in repr(vars(found))


def test_a_session_that_is_ended_is_gone_and_its_owner_is_told() -> None:
    ended: list[str] = []
    found = Sessions(ended=ended.append)
    id = found.create(LOOK)
    session = found.find(id)
    assert session is not None
    found.end(id)
    found.end(id)
    assert found.find(id) is None
    assert ended == [session.key]


def test_the_number_of_sessions_is_bounded_and_the_oldest_ends_first() -> None:
    ended: list[str] = []
    found = Sessions(ended=ended.append, most=3)
    ids = [found.create(LOOK) for _ in range(4)]
    assert [found.find(id) is not None for id in ids] == [False, True, True, True]
    assert len(ended) == 1


def test_however_often_viewers_log_in_the_operator_stays() -> None:
    found = Sessions(most=3)
    operator = found.create(OPERATE)
    for _ in range(10):
        found.create(LOOK)
    assert found.find(operator) is not None


def test_a_code_logs_in_once_and_within_an_hour() -> None:
    now = Now()
    codes = Codes(now=now)
    first, second = codes.create(OPERATE), codes.create(OPERATE)
    assert codes.take(first) == OPERATE
    assert codes.take(first) is None
    now.time += sessions.CODE_LIFETIME + 1
    assert codes.take(second) is None
    assert codes.take("guess") is None


def test_the_number_of_codes_is_bounded() -> None:
    codes = Codes()
    first = codes.create(OPERATE)
    last = [codes.create(OPERATE) for _ in range(sessions.MOST_CODES)][-1]
    assert codes.take(first) is None
    assert codes.take(last) == OPERATE


def test_each_token_gives_its_role_and_nothing_else_does() -> None:
    tokens = Tokens(operate="operators-token-1", look="viewers-token-12")
    assert tokens.role("operators-token-1") == OPERATE
    assert tokens.role("viewers-token-12") == LOOK
    for wrong in ("", "operators-token-", "operators-token-1 ", "OPERATORS-TOKEN-1", "\u00e9"):
        assert tokens.role(wrong) is None
    assert tokens.login


def test_without_tokens_there_is_no_login_and_no_word_logs_in() -> None:
    tokens = Tokens(operate=None, look=None)
    assert not tokens.login
    assert tokens.role("") is None
    assert tokens.role("None") is None
