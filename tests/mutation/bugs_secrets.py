"""Deliberate bugs in what masks secrets."""

from .bugs import Bug

REDACTION = "tests/qcloud/test_redaction.py::"
SPELLED = REDACTION + "test_a_push_secret_is_masked_however_a_message_spells_it"

SECRETS = (
    Bug(
        "a secret's name is not folded",
        "poller/qcloud/redaction.py",
        "folded = name.translate(_NO_SEPARATORS).lower()",
        "folded = name",
        (SPELLED,),
    ),
    Bug(
        "a secret's object is masked up to its first bracket",
        "poller/qcloud/redaction.py",
        '            depth += 1 if token.group() in (b"{", b"[") else -1\n        if depth == 0:',
        '            depth += 1 if token.group() in (b"{", b"[") else -9\n        if depth <= 0:',
        (SPELLED,),
    ),
    Bug(
        "escaped letters are taken for no name",
        "poller/qcloud/redaction.py",
        "_ESCAPED_LETTER.search(folded) is not None",
        "False",
        (SPELLED,),
    ),
    Bug(
        "a channel's answer is stored as it came",
        "poller/qcloud/channels.py",
        "redact_message(msgspec.json.format(output, indent=-1))",
        "msgspec.json.format(output, indent=-1)",
        (REDACTION + "test_no_row_of_a_list_and_no_state_of_a_channel_keeps_its_push_secret",),
    ),
    Bug(
        "a page that was not read is quarantined as it came",
        "poller/scribe.py",
        "body=redact(opened.text)",
        "body=opened.text",
        (REDACTION + "test_a_page_that_a_bug_leaves_unread_is_masked_in_quarantine",),
    ),
)
