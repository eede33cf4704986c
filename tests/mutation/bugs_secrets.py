"""Deliberate bugs in what masks secrets, and in what corrects the clock."""

from .bugs import Bug

REDACTION = "tests/unit/qcloud/wire/test_redaction.py::"
SPELLED = REDACTION + "test_a_push_secret_is_masked_however_a_message_spells_it"

SECRETS = (
    Bug(
        "a secret's name is not folded",
        "poller/qcloud/wire/redaction.py",
        'return "".join(each for each in _without_lookalikes(name) if each.isalnum()).lower()',
        "return name",
        (SPELLED,),
    ),
    Bug(
        "a secret's object is masked up to its first bracket",
        "poller/qcloud/wire/redaction.py",
        '            depth += 1 if token.group() in (b"{", b"[") else -1\n        if depth == 0:',
        '            depth += 1 if token.group() in (b"{", b"[") else -9\n        if depth <= 0:',
        (SPELLED,),
    ),
    Bug(
        "escaped letters are taken for no name",
        "poller/qcloud/wire/redaction.py",
        "_ESCAPED_LETTER.search(folded) is not None",
        "False",
        (SPELLED,),
    ),
    Bug(
        "a channel's answer is stored as it came",
        "poller/qcloud/events/channels.py",
        "redact_message(msgspec.json.format(output, indent=-1))",
        "msgspec.json.format(output, indent=-1)",
        (REDACTION + "test_no_row_of_a_list_and_no_state_of_a_channel_keeps_its_push_secret",),
    ),
    Bug(
        "a page that was not read is quarantined as it came",
        "poller/pipeline/ingest.py",
        "body = redact(opened.text, *secrets)",
        "body = opened.text",
        (REDACTION + "test_a_page_that_a_bug_leaves_unread_is_masked_in_quarantine",),
    ),
    Bug(
        "a measured skew is a correction at once",
        "poller/qcloud/wire/skew.py",
        "correction = seconds if skew.correction and",
        "correction = seconds if",
        (
            "tests/unit/qcloud/wire/test_skew.py::test_three_answers_that_agree_are_an_alarm_and_correct_nothing",
            "tests/integration/qcloud/test_account.py::test_a_date_that_something_in_between_writes_changes_no_signature",
        ),
    ),
    Bug(
        "a correction that brings refusals stays",
        "poller/qcloud/wire/skew.py",
        "    if not skew.correction:\n",
        "    if skew.correction:\n",
        (
            "tests/unit/qcloud/wire/test_skew.py::test_a_correction_that_brings_refusals_is_dropped_until_the_clocks_change",
        ),
    ),
    Bug(
        "a push is judged by the measured clock alone",
        "poller/sources/callbacks/receiver.py",
        "found = flaw(fields, self._keys, ours)",
        "found = flaw(fields, self._keys, theirs)",
        (
            "tests/integration/sources/test_callbacks.py"
            "::test_a_push_is_good_by_our_clock_or_by_the_platforms_as_far_as_that_is_believed",
        ),
    ),
)
