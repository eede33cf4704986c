"""Deliberate bugs in the audit: what is taken for a gap, and what is remembered of it."""

from .bugs import Bug

GAPS = "tests/unit/pipeline/test_gaps.py::"
ASKED = "tests/unit/operations/test_audit.py::"
RUNNING = "tests/integration/pipeline/test_audit.py::"

AUDIT = (
    Bug(
        "a changed interval is taken for a gap",
        "poller/pipeline/gaps.py",
        "if not all(map(any, sides)) or (sum(differing) > 1 and not nearest):",
        "if not any(map(any, sides)):",
        (GAPS + "test_a_changed_interval_is_no_gap[10-30]",),
    ),
    Bug(
        "an interruption is taken for a gap",
        "poller/pipeline/gaps.py",
        "return any(since <= at <= until for at in self.breaks)",
        "return False",
        (GAPS + "test_an_interruption_within_the_same_task_is_no_gap[interrupted]",),
    ),
    Bug(
        "a hole is judged while its pictures may still come",
        "poller/pipeline/gaps.py",
        "        if abs(now - run.received[at + 1]) < settle:\n            return\n",
        "",
        (GAPS + "test_every_hole_between_pictures_of_one_interval_is_found_with_its_number",),
    ),
    Bug(
        "a picture that comes late fills no gap",
        "poller/pipeline/gaps.py",
        "if run.insert(offset, received) and run.gaps:",
        "if run.insert(offset, received) and not run.gaps:",
        (GAPS + "test_a_picture_that_comes_after_the_gap_was_found_is_late_and_no_second_gap",),
    ),
    Bug(
        "what the audit knows of the streams is not stored",
        "poller/pipeline/audit.py",
        "for about, state in states.items()",
        "for about, state in ()",
        (RUNNING + "test_an_audit_that_is_cut_off_anywhere_finds_every_gap_once[0-sqlite]",),
    ),
    Bug(
        "what the state of a stream includes is taken again",
        "poller/pipeline/gaps.py",
        "number < self._upto(key):",
        "number < 0:",
        (
            GAPS + "test_a_state_that_is_ahead_of_the_place_where_looking_begins_again_takes_nothing_twice",
            RUNNING + "test_an_audit_that_is_cut_off_in_a_round_counts_nothing_twice[0-sqlite]",
        ),
    ),
    Bug(
        "the state of a stream says that it includes less than it does",
        "poller/pipeline/gaps.py",
        "audited.upto = max(audited.upto, upto)",
        "audited.upto = upto",
        (GAPS + "test_a_state_says_no_less_than_it_was_restored_with",),
    ),
    Bug(
        "a late picture is committed without the state that knows it",
        "poller/pipeline/audit.py",
        "        keys |= {(picture.account, picture.stream_id) for picture in late}\n",
        "",
        (RUNNING + "test_an_audit_that_is_cut_off_in_a_round_counts_nothing_twice[0-sqlite]",),
    ),
    Bug(
        "the place of the audit is ahead of streams that its round has not committed",
        "poller/pipeline/audit.py",
        "        place, ends = self._stored_at, False\n",
        "        place, ends = self.position, False\n",
        (RUNNING + "test_an_audit_that_is_cut_off_in_a_round_counts_nothing_twice[0-sqlite]",),
    ),
    Bug(
        "what came while the audit was off looks like a gap",
        "poller/pipeline/audit.py",
        "            self._auditor.drop(lambda account: account not in now)\n",
        "",
        (RUNNING + "test_an_account_without_audit_is_left_alone_and_its_pause_is_no_gap[memory]",),
    ),
    Bug(
        "a reported gap is listed a second time by the log",
        "poller/operations/audit.py",
        "one.from_at < gap.to_at and gap.from_at < one.to_at\n",
        "one.id == gap.id\n",
        (ASKED + "test_known_gaps_are_listed_with_what_came_later_and_only_once",),
    ),
    Bug(
        "a gap that was filled counts as missing",
        "poller/operations/audit.py",
        "return sum(gap.missing - gap.filled for gap in self.gaps)",
        "return sum(gap.missing for gap in self.gaps)",
        (ASKED + "test_a_gap_in_the_log_that_was_filled_later_is_not_missing",),
    ),
)
