"""Deliberate bugs at the HTTP edge of polls and webhooks."""

from .bugs import Bug

ODD = "tests/integration/qcloud/test_odd_answers.py::"
FORM = ODD + "test_every_message_of_an_answer_comes_out_once_whatever_its_head_looks_like"
HTTP = (
    Bug(
        "what comes after an answer's length is thrown away",
        "poller/runtime/http_answer.py",
        "            self._keep(len(self._data))\n        if self._framing.by in",
        "            pass\n        if self._framing.by in",
        (FORM,),
    ),
    Bug(
        "where lengths conflict the first one counts",
        "poller/runtime/http_head.py",
        "    if len(known) > 1:\n",
        "    if not known:\n",
        (FORM, ODD + "test_with_lengths_that_conflict_every_byte_until_the_close_is_kept"),
    ),
    Bug(
        "a head that cannot be read is no answer",
        "poller/runtime/http_answer.py",
        "        self._note(*([why] if why else []))\n        self._keep(len(self._data))\n",
        "        self._note(*([why] if why else []))\n        self._data.clear()\n",
        (FORM,),
    ),
    Bug(
        "a source whose answers come to nothing is polled as often as ever",
        "poller/pipeline/pace.py",
        "return self.nothing_came >= NOTHING_CAME",
        "return False",
        (
            "tests/unit/pipeline/test_intake.py"
            "::test_where_every_answer_is_spoiled_four_pages_are_lost_in_a_minute_and_one_in_each_later_one",
        ),
    ),
    Bug(
        "a 2xx counts though the request was not sent",
        "poller/runtime/http_poster.py",
        "    return connection.unsent > 0\n",
        "    return False\n",
        (
            "tests/integration/sinks/test_webhook_odd_answers.py"
            "::test_a_2xx_before_the_whole_request_was_sent_is_no_delivery",
        ),
    ),
    Bug(
        "informational answers are read for ever",
        "poller/runtime/http_answer.py",
        "if count + 1 > MOST_INTERIM or total + size > LARGEST_INTERIM:",
        "if count < 0:",
        (
            "tests/integration/qcloud/test_odd_answers.py"
            "::test_no_more_informational_answers_are_taken_than_anybody_sends",
        ),
    ),
    Bug(
        "any number of names is looked up at once",
        "poller/runtime/resolver.py",
        "if len(self._pending) >= MOST_LOOKUPS:",
        "if len(self._pending) < 0:",
        (
            "tests/integration/runtime/test_resolver.py"
            "::test_who_asks_for_the_same_name_waits_for_the_same_look_up_and_few_names_are_looked_up_at_once",
        ),
    ),
)
