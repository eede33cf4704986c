"""Deliberate bugs of the template by which usual messages are read."""

from .bugs import Bug

_FILE = "poller/qcloud/events/usual_messages.py"
_TESTS = "tests/unit/qcloud/events/test_usual_messages.py::"
_SAME = _TESTS + "test_whatever_the_template_reads_is_what_the_parser_reads"
_OTHERS = _TESTS + "test_other_messages_are_left_to_the_parser"

READING = (
    Bug(
        "the template prints an offset with leading zeros",
        _FILE,
        "_(0|[1-9][0-9]{{0,8}})_",
        "_([0-9]{{1,9}})_",
        (_OTHERS, _SAME),
    ),
    Bug(
        "the template takes characters that a URL writes in another way",
        _FILE,
        r'_NAME = rf"([\w.~-]+_(',
        r'_NAME = rf"([\w.~@#-]+_(',
        (_OTHERS,),
    ),
    Bug(
        "the template takes names whose escapes it does not read",
        _FILE,
        r"""[ ]?"([\w.~-]+)",[ ]?""",
        r"""[ ]?"([^"]+)",[ ]?""",
        (_OTHERS, _SAME),
    ),
    Bug(
        "the template looks only at the beginning of a message",
        _FILE,
        "\\\\}}'.encode()).fullmatch",
        "'.encode()).match",
        (_OTHERS, _SAME),
    ),
    Bug(
        "the template passes over the time that a message says",
        _FILE,
        "            if created is None:\n",
        "            if created is None or True:\n",
        (_TESTS + "test_usual_messages_are_read_by_the_template",),
    ),
    Bug(
        "the template calls a task that is 0 a time",
        _FILE,
        "_encode(moment(task))",
        "_encode(_moment(task)[0])",
        (_TESTS + "test_usual_messages_are_read_by_the_template",),
    ),
    Bug(
        "what the template remembers has no bound",
        _FILE,
        "lru_cache(MOST)",
        "lru_cache(None)",
        (_TESTS + "test_times_and_sizes_are_remembered_up_to_a_bound",),
    ),
)
