"""Deliberate bugs about the pages."""

from .bugs import Bug

WALL = "tests/browser/test_wall.py::"

PAGES = (
    Bug(
        "a silent stream is only late on the wall",
        "poller/web/static/wall/model.js",
        '  if (quiet > 4 * cadence) return "silent";\n',
        "",
        (WALL + "test_the_wall_and_the_commands_agree_which_stream_needs_attention",),
    ),
    Bug(
        "a hidden tab keeps its connection",
        "poller/web/static/live.js",
        "(document.hidden ? feed.stop() : feed.start())",
        "feed.start()",
        (WALL + "test_the_seventh_tab_works_while_six_are_hidden",),
    ),
    Bug(
        "every stream has a tile, whether it is seen or not",
        "poller/web/static/wall/grid.js",
        "this.order.slice(from * columns, to * columns)",
        "this.order",
        (WALL + "test_of_thousands_of_streams_few_have_nodes",),
    ),
    Bug(
        "a wall asks for all of its pictures at once",
        "poller/web/static/pictures.js",
        "const AT_ONCE = 8;",
        "const AT_ONCE = 80;",
        (WALL + "test_at_most_eight_pictures_are_asked_for_at_a_time",),
    ),
    Bug(
        "a picture of a stream that is not live is not dimmed",
        "poller/web/static/wall/tile.js",
        'why || level !== "good" ? "1" : ""',
        '""',
        (WALL + "test_a_stream_that_is_unplugged_is_late_and_then_silent_in_words",),
    ),
)
