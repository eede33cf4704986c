"""Configurations that are refused, each with where and why.

A case is the good configuration with some of its lines exchanged. In those lines § stands before the
character where a finding is expected; it is taken out before the text is used. `lay` writes a case to a
folder together with the few files that some cases name.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GOOD = {
    1: "accounts:",
    2: "  main:",
    3: "    app_id: 1234",
    4: "    key: k",
    5: "sources:",
    6: "  shots: {type: screenshot_queue, account: main}",
    7: "spool: {type: memory}",
    8: "sinks:",
    9: "  out: {type: stdout}",
}
MARK = "§"
CANARY = "canary-5e1f-never-to-be-seen"
ENVIRON: Mapping[str, str] = {
    "CANARY": CANARY,
    "NOTHING": "",
    "INJECTION": "{type: stdout}",
    "NOT_UTF8": "\udcff",
    "FIVE": "5",
}
FILES = {
    "empty": b"",
    "blank": b" \n\n",
    "latin": b"caf\xe9\n",
    "long": b"x" * 70_000,
    "secret": CANARY.encode() + b"\n",
    "dsn": f"postgresql://poller:{CANARY}@/@db:5432/poller\n".encode(),
    "short": CANARY[:15].encode() + b"\n",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad configuration: each finding expected at `line` and `column`, with `fragment` in its text."""

    name: str
    text: bytes
    expected: tuple[tuple[int, int, str], ...]


def lay(case: Case, folder: Path) -> Path:
    """Write the case and the files it may name; returns the configuration's path."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir(exist_ok=True)
    with suppress(FileExistsError):
        os.mkfifo(folder / "pipe")
        (folder / "loop").symlink_to(folder / "loop")
    path = folder / "poller.yaml"
    path.write_bytes(case.text)
    return path


def case(name: str, lines: Mapping[int, str], *fragments: str) -> Case:
    """The good configuration with lines exchanged, findings in the order of their places."""
    return whole(
        name, "\n".join({**GOOD, **lines}[number] for number in sorted({**GOOD, **lines})) + "\n", *fragments
    )


def whole(name: str, text: str, *fragments: str) -> Case:
    """A configuration written out."""
    places = []
    while MARK in text:
        before, _, after = text.partition(MARK)
        places.append((before.count("\n") + 1, len(before) - before.rfind("\n")))
        text = before + after
    expected = tuple((*place, fragment) for place, fragment in zip(places, fragments, strict=True))
    return Case(name=name, text=text.encode(), expected=expected)


def account(name: str, line: str, *fragments: str) -> Case:
    """Line 4 of the good configuration exchanged: the account's key."""
    return case(name, {4: line}, *fragments)


def sink(name: str, entry: str, *fragments: str) -> Case:
    """Line 9 of the good configuration exchanged: its one sink."""
    return case(name, {9: entry}, *fragments)


WITH_COS = "    key: k\n    cos: {bucket: b, app_id: 1}"
HOOK = "  out: {type: webhook, url: https://example.com/hook, "

FILE = [
    Case(name="an empty file", text=b"", expected=((1, 1, "file: the file is empty"),)),
    Case(name="a file of comments", text=b"# nothing\n\n", expected=((1, 1, "empty"),)),
    Case(name="a file of one null", text=b"---\n~\n", expected=((1, 1, "empty"),)),
    Case(name="a list", text=b"- a\n- b\n", expected=((1, 1, "not a mapping"),)),
    Case(name="a word", text=b"poller\n", expected=((1, 1, "not a mapping"),)),
    Case(name="not UTF-8", text=b"accounts:\n  caf\xe9: 1\n", expected=((2, 6, "not UTF-8"),)),
    Case(name="UTF-16", text="accounts: 1".encode("utf-16"), expected=((1, 1, "not UTF-8"),)),
    Case(name="too large", text=b"#" * (2**20 + 1), expected=((1, 1, "1 MiB"),)),
    Case(name="a NUL", text=b"accounts:\n  a\0b: 1\n", expected=((2, 4, "does not print"),)),
    Case(name="too deep in brackets", text=b"[" * 30, expected=((1, 26, "nested deeper"),)),
    Case(name="too deep in dashes", text=b"- " * 5000, expected=((1, 51, "nested deeper"),)),
    Case(
        name="nothing that is needed",
        text=b"log: {}\n",
        expected=(
            (1, 1, "accounts: is missing"),
            (1, 1, "sinks: is missing"),
            (1, 1, "sources: is missing"),
            (1, 1, "spool: is missing"),
        ),
    ),
    case("a second document", {10: "§---", 11: "sinks: {}"}, "second document"),
]

SYNTAX = [
    case("a tab as indentation", {9: "§\tout: {type: stdout}"}, "a tab: indent"),
    case("a tab after a colon", {7: "spool:§\t{type: memory}"}, "a tab"),
    case("a quote that is never closed", {4: "    key: §'abc"}, "never closed"),
    case("a brace that is never closed", {9: "  out: {type: stdout", 10: "log§: {level: info}"}, "syntax"),
    case(
        "no blank after a colon, and a line below",
        {3: "    app_id§:1234"},
        "a blank is missing after the colon",
    ),
    case(
        "no blank after a colon, and a section below", {4: "    key§:k"}, "a blank is missing after the colon"
    ),
    case(
        "no blank after a colon, then a comment",
        {3: "    app_id§:1234", 4: "\n    # the key\n    key: k"},
        "a blank is missing after the colon",
    ),
    case("no blank after a section's name", {2: "  main§:x"}, "a blank is missing after the colon"),
    case("no blank before a brace", {9: "  §out:{type: stdout}"}, "a blank is missing after the colon"),
    case(
        "no blank in braces", {7: "spool: {type: memory, §retain:3d}"}, "a blank is missing after the colon"
    ),
    case(
        "no blank in a nested section", {5: "    cos§:bucket\nsources:"}, "a blank is missing after the colon"
    ),
    case("two colons in one line", {4: "    key: abc§: def"}, "second ': '"),
    case("a value that begins with an at sign", {4: "    key: §@abc"}, "put the value in quotes"),
    case("a value that begins with a backtick", {4: "    key: §`abc`"}, "put the value in quotes"),
    case("a value that begins with a percent sign", {4: "    key: §%abc"}, "put the value in quotes"),
    case("an unknown escape", {4: '    key: "a\\§qb"'}, "unknown escape"),
    case("an escape out of range", {1: '§accounts: "\\UFFFFFFFF"'}, "out of range"),
    case("half a character", {4: '    key: §"\\ud800"'}, "half a character"),
    case(
        "a wrong indentation",
        {6: "  shots: {type: screenshot_queue, account: main}", 7: " §spool: {type: memory}"},
        "syntax",
    ),
    case(
        "an IPv6 address without quotes", {10: "admin: {listen: §[::1]:9464}"}, "an IPv6 address needs quotes"
    ),
    case("a variable in braces without quotes", {9: HOOK + "secret: §${CANARY}}"}, 'needs quotes: "${NAME}"'),
]

TRAPS = [
    case("a leading zero", {3: "    app_id: §0123"}, "octal"),
    case("a leading zero that is no octal", {3: "    app_id: §0189"}, "octal"),
    account("a key with a leading zero", "    key: §0123456", "octal"),
    case("hexadecimal", {3: "    app_id: §0x1F"}, "decimal"),
    case("octal with an o", {3: "    app_id: §0o17"}, "decimal"),
    case("binary", {3: "    app_id: §0b11"}, "decimal"),
    case("underscores in a number", {3: "    app_id: §1_000"}, "readers differ"),
    case("a plus sign", {3: "    app_id: §+12"}, "readers differ"),
    case("a number that is too long", {3: "    app_id: §1234567890123456789"}, "readers differ"),
    case("base 60", {10: "journal: {size: §1:30}"}, "base 60"),
    sink("a time of base 60", "  out: {type: stdout, timeout: §1:30}", "base 60"),
    sink("a longer time of base 60", "  out: {type: stdout, timeout: §1:30:00}", "base 60"),
    sink("yes", "  out: {type: download, directory: d, sidecar: §yes}", "true or false"),
    sink("No", "  out: {type: download, directory: d, sidecar: §No}", "true or false"),
    sink("on", "  out: {type: download, directory: d, sidecar: §on}", "true or false"),
    sink("OFF", "  out: {type: download, directory: d, sidecar: §OFF}", "true or false"),
    account("off as a text", "    key: §off", "boolean"),
    case("a date", {4: "    key: §2024-01-02"}, "date"),
    case("a moment", {4: "    key: §2024-01-02 10:00:00"}, "date"),
    case("an exponent", {3: "    app_id: §1e3"}, "exponent"),
    sink("an exponent with a fraction", "  out: {type: stdout, concurrency: §1.0e+2}", "exponent"),
    sink("infinity", "  out: {type: stdout, concurrency: §.inf}", "infinity and NaN"),
    sink("minus infinity", "  out: {type: stdout, concurrency: §-.Inf}", "infinity and NaN"),
    sink("not a number", "  out: {type: stdout, concurrency: §.nan}", "infinity and NaN"),
    case("an anchor", {3: "    app_id: §&id 1234"}, "anchors are refused"),
    case("an anchor and its alias", {3: "    app_id: §&id 1234", 4: "    key: §*id"}, "anchors", "aliases"),
    sink("an anchor on a mapping", "  out: §&out {type: stdout}", "anchors"),
    sink("a star without quotes", "  out: {type: stdout, only: {streams: [§*]}}", "aliases are refused"),
    sink("a star and a dot", "  out: {type: stdout, only: {streams: [§*.jpg]}}", "aliases are refused"),
    case("a merge key", {9: "  out: {§<<: {type: stdout}, type: stdout}"}, "merge keys"),
    case("a tag of python", {7: "spool: §!!python/object/apply:os.system ['true']"}, "tags are refused"),
    case("a tag of YAML's own", {3: "    app_id: §!!int 1234"}, "tags are refused"),
    case("a tag of one's own", {4: "    key: §!secret abc"}, "tags are refused"),
    case("a tag with an unknown handle", {4: "    key: §!ab!cd ef"}, "tags are refused"),
    case("a bare exclamation mark", {4: "    key: §! abc"}, "tags are refused"),
    case("the same key twice", {10: "§spool: {type: memory}"}, "the same key twice (first on line 7)"),
    sink(
        "the same key twice in braces", "  out: {type: stdout, rate: 1/s, §rate: 2/s}", "the same key twice"
    ),
    case(
        "the same account twice", {10: "log: {level: info, §level: debug}"}, "log.level: the same key twice"
    ),
    sink("a number as a name", "  §1: {type: stdout}", "a key is text"),
    sink("a boolean as a name", "  §true: {type: stdout}", "a key is text"),
    sink("a word for a boolean as a name", "  §on: {type: stdout}", "a key is text"),
    sink("nothing as a name", "  §~: {type: stdout}", "a key is text"),
    sink("a list as a name", "  ? §[a, b]", "a key is one word"),
    sink("a variable as a name", "  §${CANARY}: {type: stdout}", "not in keys"),
]

VARIABLES = [
    account("a variable that is not set", "    key: §${NOT_SET_HERE}", "variable NOT_SET_HERE is not set"),
    account(
        "a variable that is not set, in quotes", '    key: §"a ${NOT_SET_HERE} b"', "NOT_SET_HERE is not set"
    ),
    account("a variable never closed", "    key: §${CANARY", "never closed"),
    account("a variable with a default", "    key: §${CANARY:-abc}", "a variable's name and nothing else"),
    account("a variable without a name", "    key: §${}", "a variable's name"),
    account("a variable without braces", "    key: §$CANARY", "write ${NAME}"),
    account("a variable that is empty", "    key: §${NOTHING}", "cannot be empty"),
    account("a variable that is not UTF-8", "    key: §${NOT_UTF8}", "variable NOT_UTF8 is not UTF-8"),
    case("a variable cannot bring in YAML", {9: "  out: §${INJECTION}"}, "must be a mapping"),
    sink(
        "a variable of the wrong type",
        "  out: {type: stdout, concurrency: §'${FIVE}'}",
        "must be a whole number, not '${FIVE}'",
    ),
    sink("a secret in the wrong place", '  out: {type: stdout, timeout: §"${CANARY}"}', "not '${CANARY}'"),
    sink(
        "a secret as a URL",
        '  out: {type: webhook, url: §"https://u:${CANARY}@example.com"}',
        "no user or password",
    ),
]

KEYS = [
    case("an unknown setting at the top", {10: "§sink: {}"}, "sink: unknown setting, did you mean sinks?"),
    case("an unknown setting that is like nothing", {10: "§zzzzzz: {}"}, "(known here: accounts, admin,"),
    case(
        "an unknown setting of an account",
        {10: "log: {}", 4: "    key: k\n    §endpont: http://a/"},
        "accounts.main.endpont: unknown setting, did you mean endpoint?",
    ),
    case(
        "an unknown setting of a source",
        {6: "  shots: {type: screenshot_queue, account: main, §cuont: 3}"},
        "did you mean count?",
    ),
    case("an unknown setting of a spool", {7: "spool: {type: memory, §retian: 1h}"}, "did you mean retain?"),
    sink("an unknown setting of a sink", "  out: {type: stdout, §time_out: 3s}", "did you mean timeout?"),
    sink(
        "an unknown setting of a batch",
        "  out: {type: stdout, batch: {§max_event: 3}}",
        "did you mean max_events?",
    ),
    sink(
        "an unknown setting of only", "  out: {type: stdout, only: {§stream: [a]}}", "did you mean streams?"
    ),
    sink(
        "an unknown setting of a webhook",
        "  out: {type: webhook, url: http://a/, §header: {}}",
        "did you mean headers?",
    ),
    case("an unknown setting of the log", {10: "log: {§levl: info}"}, "did you mean level?"),
    case("an unknown setting of the journal", {10: "journal: {§sizes: 64MiB}"}, "did you mean size?"),
    case(
        "an unknown setting of the admin port", {10: "admin: {§listn: 127.0.0.1:1}"}, "did you mean listen?"
    ),
    case(
        "an unknown setting of an account's certificates",
        {4: "    key: k\n    tls: {§ca: x}"},
        "unknown setting",
    ),
    case(
        "an unknown setting of an account's bucket",
        {4: "    key: k\n    cos: {§url: http://a/, base_url: http://a/}"},
        "did you mean base_url?",
    ),
    sink("no type", "  §out: {timeout: 3s}", "sinks.out.type: is missing: one of amqp, download, "),
    case("no type of a spool", {7: "§spool: {retain: 1h}"}, "spool.type: is missing: one of memory, "),
    case("no type of a source", {6: "  §shots: {account: main}"}, "sources.shots.type: is missing"),
    sink("an unknown type", "  out: {type: §webhok}", "no such adapter is installed, did you mean webhook?"),
    sink("a type like nothing", "  out: {type: §zzzz}", "no such adapter is installed: one of"),
    case("an unknown type of a spool", {7: "spool: {type: §sqllite}"}, "did you mean sqlite?"),
    case(
        "an unknown type of a source",
        {6: "  shots: {type: §screenshots_queue, account: main}"},
        "did you mean screenshot_queue?",
    ),
    sink("a type that is a number", "  out: {type: §5}", "the name of an adapter"),
    sink("a type without a value", "  out: {type:§ }", "the name of an adapter"),
    case(
        "an unknown account", {6: "  shots: {type: screenshot_queue, account: §mian}"}, "did you mean main?"
    ),
    case(
        "an account like none",
        {6: "  shots: {type: screenshot_queue, account: §zzzz}"},
        "no such account under accounts: one of main",
    ),
    case(
        "a source without account",
        {6: "  §shots: {type: screenshot_queue}"},
        "sources.shots.account: is missing",
    ),
    case(
        "an account without app_id", {2: "  §main:", 3: "    # nothing"}, "accounts.main.app_id: is missing"
    ),
    case(
        "an account without key", {2: "  §main:", 4: "    # nothing"}, "accounts.main: needs key or key_file"
    ),
    sink("a webhook without url", "  §out: {type: webhook}", "sinks.out.url: is missing"),
    sink("a download without directory", "  §out: {type: download}", "sinks.out.directory: is missing"),
    case(
        "a directory of each of several daemons",
        {
            7: "spool: {type: postgres, dsn: postgresql://db/poller}",
            9: "  out: {type: download, directory: §d}",
            10: "  all: {type: download, directory: e, shared: true}",
        },
        "sinks.out.directory: several daemons share a spool of type postgres",
    ),
    case("a sqlite spool without path", {7: "§spool: {type: sqlite}"}, "spool.path: is missing"),
    case("no sinks", {8: "sinks: §{}", 9: ""}, "sinks: needs at least 1"),
    case("sinks without a value", {8: "sinks:§", 9: ""}, "sinks: has no value"),
    case("no sources", {5: "sources: §{}", 6: ""}, "sources: needs at least 1"),
    case("sinks as a list", {9: "  §- {type: stdout}"}, "must be a mapping of names"),
    sink("a sink as a word", "  out: §stdout", "must be a mapping of names"),
    sink("a sink without a value", "  out:§", "has no value"),
    sink("a name with a blank", "  §my sink: {type: stdout}", "a name is 1 to 64"),
    sink("a name with a dot", "  §my.sink: {type: stdout}", "a name is 1 to 64"),
    sink("a name that is too long", f"  §{'x' * 65}: {{type: stdout}}", "a name is 1 to 64"),
    sink("an empty name", "  §'': {type: stdout}", "a name is 1 to 64"),
    case("a bad name of an account", {2: "  main: {app_id: 1, key: k}\n  §ma/in:"}, "a name is 1 to 64"),
]

VALUES = [
    sink("a duration without a unit", "  out: {type: stdout, timeout: §30}", "no unit: write 250ms, 30s"),
    sink("a duration with a fraction and no unit", "  out: {type: stdout, timeout: §0.5}", "no unit"),
    sink(
        "a duration with an unknown unit",
        "  out: {type: stdout, timeout: §30sec}",
        "a duration is written 250ms, 30s, 5m, 12h or 3d, not '30sec'",
    ),
    sink("a duration of two units", "  out: {type: stdout, timeout: §1h30m}", "a duration is written"),
    sink("a duration below nothing", "  out: {type: stdout, timeout: §-5s}", "a duration is written"),
    sink("a duration with a blank", "  out: {type: stdout, timeout: §30 s}", "a duration is written"),
    sink("a duration as a list", "  out: {type: stdout, timeout: §[30s]}", "a duration is written"),
    sink("a duration without a value", "  out: {type: stdout, timeout:§ }", "has no value: a duration"),
    sink("a duration as a boolean", "  out: {type: stdout, timeout: §true}", "a duration is written"),
    sink("a timeout of nothing", "  out: {type: stdout, timeout: §0}", "between 1ms and 1h, not '0'"),
    sink("a timeout that is too long", "  out: {type: stdout, timeout: §2h}", "between 1ms and 1h, not '2h'"),
    case("a size without a unit", {10: "journal: {size: §67108864}"}, "no unit: write 64KiB"),
    case("a size with an unknown unit", {10: "journal: {size: §64mb}"}, "a size is written"),
    case("a size with a fraction", {10: "journal: {size: §1.5GiB}"}, "a size is written"),
    case("a journal that is too small", {10: "journal: {size: §1MiB}"}, "between 16MiB and 4GiB, not '1MiB'"),
    case("a journal that is too large", {10: "journal: {size: §5GiB}"}, "between 16MiB and 4GiB"),
    sink("a rate without a period", "  out: {type: stdout, rate: §20}", "needs its period: write 20/s"),
    sink("a rate of nothing", "  out: {type: stdout, rate: §0/s}", "wait for ever"),
    sink("a rate in no time", "  out: {type: stdout, rate: §1/0s}", "wait for ever"),
    sink("a rate with a fraction", "  out: {type: stdout, rate: §0.5/s}", "1/2s"),
    sink("a rate with an unknown period", "  out: {type: stdout, rate: §5/min}", "a rate is written"),
    sink("a rate below nothing", "  out: {type: stdout, rate: §-1/s}", "a rate is written"),
    sink(
        "a start that is no time", "  out: {type: stdout, start: §yesterday}", "a start is written earliest"
    ),
    sink(
        "a start on a day that never was", '  out: {type: stdout, start: §"2026-02-30"}', "a start is written"
    ),
    sink("a start that is a number", "  out: {type: stdout, start: §5}", "a start is written earliest, now"),
    sink("a start before the calendar", "  out: {type: stdout, start: §999999999d}", "a start is written"),
    account("an account's rate", "    key: k\n    rate: §20 per second", "a rate is written"),
    sink("a concurrency of nothing", "  out: {type: stdout, concurrency: §0}", "at least 1, not '0'"),
    sink(
        "a concurrency that is too high", "  out: {type: stdout, concurrency: §257}", "at most 256, not '257'"
    ),
    sink("a concurrency as a text", "  out: {type: stdout, concurrency: §'4'}", "must be a whole number"),
    sink(
        "a concurrency with a fraction", "  out: {type: stdout, concurrency: §4.5}", "must be a whole number"
    ),
    sink("a concurrency as a boolean", "  out: {type: stdout, concurrency: §true}", "must be a whole number"),
    sink("a batch of nothing", "  out: {type: stdout, batch: {max_events: §0}}", "at least 1"),
    sink("a batch that is too large", "  out: {type: stdout, batch: {max_events: §1001}}", "at most 1000"),
    sink("a batch as a number", "  out: {type: stdout, batch: §100}", "must be a mapping of settings"),
    sink("only as a list", "  out: {type: stdout, only: §[a]}", "must be a mapping of settings"),
    sink("streams as a text", "  out: {type: stdout, only: {streams: §room}}", "must be a list"),
    sink("streams without one", "  out: {type: stdout, only: {streams: §[]}}", "needs at least 1"),
    sink(
        "an empty stream",
        "  out: {type: stdout, only: {streams: [a, §'']}}",
        "streams[1]: must have at least 1",
    ),
    sink(
        "a stream as a number",
        "  out: {type: stdout, only: {streams: [§5]}}",
        "must be text: put it in quotes",
    ),
    sink("a kind in capitals", "  out: {type: stdout, only: {kinds: [§Screenshot]}}", "kinds[0]: must match"),
    sink(
        "a flag as a text", "  out: {type: download, directory: d, sidecar: §'true'}", "must be true or false"
    ),
    sink("an empty directory", "  out: {type: download, directory: §''}", "a path is text"),
    sink("a directory at home", "  out: {type: download, directory: §'~/pictures'}", "no ~"),
    sink("a directory as a number", "  out: {type: download, directory: §5}", "a path is text"),
    case(
        "a count that is too high",
        {6: "  shots: {type: screenshot_queue, account: main, count: §101}"},
        "at most 100, not '101'",
    ),
    case(
        "a count of nothing", {6: "  shots: {type: screenshot_queue, account: main, count: §0}"}, "at least 1"
    ),
    case(
        "a delay without a unit",
        {6: "  shots: {type: screenshot_queue, account: main, max_delay: §5}"},
        "no unit",
    ),
    case(
        "a beat that is too short",
        {6: "  shots: {type: screenshot_queue, account: main, beat: §500ms}"},
        "a beat is written 10s, from 1s to 60s, or \"off\", not '500ms'",
    ),
    case(
        "a beat that is too long",
        {6: "  shots: {type: screenshot_queue, account: main, beat: §61s}"},
        "from 1s to 60s",
    ),
    case(
        "a beat without a unit",
        {6: "  shots: {type: screenshot_queue, account: main, beat: §10}"},
        "a beat is written 10s",
    ),
    case(
        "a beat that is switched off like a boolean",
        {6: "  shots: {type: screenshot_queue, account: main, beat: §off}"},
        "put it in quotes",
    ),
    case(
        "an account as a number",
        {6: "  shots: {type: screenshot_queue, account: §5}"},
        "must be text: put it in quotes",
    ),
    sink("a URL without scheme", "  out: {type: webhook, url: §example.com/hook}", "begins with http"),
    sink("a URL of another scheme", "  out: {type: webhook, url: §ftp://example.com}", "begins with http"),
    sink("a URL without host", "  out: {type: webhook, url: §'https:///hook'}", "needs a host"),
    sink(
        "a URL with a user",
        "  out: {type: webhook, url: §'https://me:pass@example.com/'}",
        "no user or password",
    ),
    sink("a URL with a fragment", "  out: {type: webhook, url: §'https://example.com/#top'}", "fragment"),
    sink("a URL with a bad port", "  out: {type: webhook, url: §'https://example.com:99999/'}", "port"),
    sink("a URL with a blank", "  out: {type: webhook, url: §'https://example.com/a b'}", "blanks"),
    sink("a URL with a bad address", "  out: {type: webhook, url: §'https://[::1/'}", "host or port"),
    account(
        "an endpoint without scheme", "    key: k\n    endpoint: §fcgi.video.qcloud.com", "begins with http"
    ),
    sink(
        "a network with bits behind the prefix",
        HOOK + "allow_cidr: [10.0.0.0/8, §10.0.0.1/8]}",
        "allow_cidr[1]: a network is written",
    ),
    sink("a network that is none", HOOK + "allow_cidr: [§localhost]}", "not 'localhost'"),
    sink("a network as a text", HOOK + "allow_cidr: §10.0.0.0/8}", "must be a list"),
    case("an unknown level", {10: "log: {level: §inof}"}, "did you mean info?"),
    case("an unknown format", {10: "log: {format: §yaml}"}, "must be auto, console or json, not 'yaml'"),
    account("an unknown app_id_param", "    key: k\n    app_id_param: §cmdd", "did you mean cmd?"),
    case("an app_id as a list", {3: "    app_id: §[1]"}, "an id is a number"),
    case("an app_id with a blank", {3: "    app_id: §a b"}, "an id is a number"),
    account(
        "a bucket without its owner",
        "    key: k\n    §cos: {bucket: shots}",
        "needs bucket and app_id, or base_url",
    ),
    account(
        "a bucket and a URL",
        "    key: k\n    cos: {base_url: http://a/, bucket: §shots}",
        "does not go with base_url",
    ),
    account(
        "a business and a URL",
        "    key: k\n    vod: {biz_id: §1, base_url: http://a/}",
        "does not go with base_url",
    ),
    account("nothing under vod", "    key: k\n    §vod: {}", "needs biz_id or base_url"),
    account(
        "a region that does not exist",
        "    key: k\n    cos: {bucket: b, app_id: 1, region: §ap-shangai}",
        "did you mean ap-shanghai?",
    ),
    account(
        "a region and an endpoint",
        "    key: k\n    cos: {bucket: b, app_id: 1, endpoint: http://a/, region: §ap-shanghai}",
        "does not go with endpoint",
    ),
    account(
        "an endpoint with a query",
        '    key: k\n    cos: {bucket: b, app_id: 1, endpoint: §"http://a/?a=b"}',
        "takes no query",
    ),
    account(
        "two keys of a bucket",
        '    key: k\n    cos: {bucket: b, app_id: 1, secret_key: "${CANARY}", secret_key_file: §secret}',
        "does not go with secret_key",
    ),
    account(
        "a backfill that does not exist",
        "    key: k\n    audit: {backfill: §always}",
        "must be off or auto",
    ),
    account("cos without a value", "    key: k\n    cos: {bucket: §[a], app_id: 1}", "must be text"),
]

ADMIN = [
    case("a port without host", {10: "admin: {listen: §9464}"}, "127.0.0.1:9464"),
    case("a port without host and a colon", {10: "admin: {listen: §':9464'}"}, "with host and port"),
    case("a host without port", {10: "admin: {listen: §127.0.0.1}"}, "with host and port"),
    case("an IPv6 address without brackets", {10: "admin: {listen: §'::1:9464'}"}, "with host and port"),
    case("a port that is too high", {10: "admin: {listen: §127.0.0.1:65536}"}, "at most 65535"),
    case("an address that is none", {10: "admin: {listen: §127.0.0.300:80}"}, "not an IP address"),
    case(
        "an open port without a token",
        {10: "admin: {listen: §0.0.0.0:9464}"},
        "set token_file, or listen on 127.0.0.1",
    ),
    case("an open port of IPv6 without a token", {10: "admin: {listen: §'[::]:9464'}"}, "set token_file"),
    case(
        "an open port by name without a token", {10: "admin: {listen: §example.com:9464}"}, "set token_file"
    ),
    case("a token and its file", {10: "admin: {token: abc, token_file: §secret}"}, "does not go with token"),
    case("an empty token", {10: "admin: {token: §''}"}, "cannot be empty"),
]

WEB = [
    case(
        "pages for others without a token",
        {10: "web: {listen: §0.0.0.0:9480}"},
        "set token_file or view_token_file, or listen on 127.0.0.1",
    ),
    case(
        "pages under a proxy's name without a token",
        {10: "web: {hosts: §[wall.example.com]}"},
        "others can reach the pages under these names: set token_file",
    ),
    case(
        "a token's file that is missing",
        {10: "web: {token_file: §not-there}"},
        "cannot be read: No such file",
    ),
    case("a token's file that is empty", {10: "web: {view_token_file: §empty}"}, "the file is empty"),
    case("a token that is short", {10: "web: {token_file: §short}"}, "fewer than 16 characters"),
    case(
        "a viewers' token that is short", {10: "web: {view_token_file: §short}"}, "fewer than 16 characters"
    ),
    case(
        "one token for both roles",
        {10: "web: {token_file: secret, view_token_file: §secret}"},
        "is the token of token_file: who looks could operate",
    ),
    *(
        case(
            f"a proxy's name that is {what}",
            {10: f"web: {{token_file: secret, hosts: [wall.example.com, §'{name}']}}"},
            "without scheme or path",
        )
        for what, name in (
            ("a URL", "https://wall.example.com"),
            ("with a path", "wall.example.com/live"),
            ("with a star", "*.example.com"),
            ("with a port that is too high", "wall.example.com:65536"),
            ("with a port of 0", "wall.example.com:0"),
            ("with a port that is none", "wall.example.com:http"),
            ("with a user", "me@wall.example.com"),
            ("with a blank", "wall.example.com "),
            ("empty", ""),
            ("an IPv6 address without brackets", "::1"),
        )
    ),
    case(
        "an address in hosts that is none",
        {10: "web: {token_file: secret, hosts: [§'[::1::2]:9480']}"},
        "not an IP address",
    ),
    case("an unknown setting of the pages", {10: "web: {§tokn_file: secret}"}, "did you mean token_file?"),
]

SECRETS = [
    account("a key as a list", "    key: §[hunter2, hunter2]", "a secret is text"),
    account("a key as a mapping", "    key: §{hunter2: hunter2}", "a secret is text"),
    account("a key as a boolean", "    key: §true", "a secret is text"),
    account("a key without a value", "    key:§", "cannot be empty"),
    account("an empty key", "    key: §''", "a secret cannot be empty"),
    account(
        "a key and a file", "    key: hunter2\n    key_file: §secret", "does not go with key: remove one"
    ),
    account("a key's file that is missing", "    key_file: §not-there", "cannot be read: No such file"),
    account("a key's file that is empty", "    key_file: §empty", "the file is empty"),
    account("a key's file of blanks", "    key_file: §blank", "the file is empty"),
    account("a key's file that is a folder", "    key_file: §folder", "not a regular file"),
    account("a key's file that is not UTF-8", "    key_file: §latin", "not UTF-8"),
    account("a key's file that is too long", "    key_file: §long", "more than 65536 bytes"),
    account("a key's file behind a file", "    key_file: §secret/key", "cannot be read: Not a directory"),
    account("a key's file with a NUL", '    key_file: §"a\\0b"', "a path is text"),
    sink("a webhook's secret as a list", HOOK + "secret: §[hunter2]}", "a secret is text"),
    sink("a webhook's secrets as a text", HOOK + "secrets: §hunter2}", "must be a list"),
    sink("a webhook's file that is missing", HOOK + "secret_file: §not-there}", "cannot be read"),
    sink(
        "a header without a value",
        HOOK + "headers: {Authorization:§ }}",
        "headers.Authorization: has no value",
    ),
    sink("a certificate that is missing", HOOK + "tls: {ca_file: §not-there}}", "cannot be read"),
    sink("a certificate without its key", HOOK + "tls: {cert_file: §secret}}", "needs key_file"),
    sink("a proxy with a password", HOOK + "proxy: §'http://me:hunter2@proxy:3128'}", "no user or password"),
]

SEVERAL = [
    sink(
        "an unknown setting with a trap for a value",
        "  out: {type: stdout, §timeot: §0123}",
        "timeout?",
        "octal",
    ),
    sink(
        "two unknown settings and a missing one", "  §out: {type: webhook, §a1: 1, §b1: 2}", "url", "a1", "b1"
    ),
    case(
        "a trap and a mistake in one list", {9: HOOK + "allow_cidr: [§0123, §no-net]}"}, "octal", "a network"
    ),
    whole(
        "everything at once",
        "accounts:\n"
        "  main: {app_id: §yes, key: k}\n"
        "  other: {app_id: 1, key_file: §not-there}\n"
        "sources:\n"
        "  shots: {type: screenshot_queue, account: §man, §cont: 1}\n"
        "spool: {type: §sqlit}\n"
        "sinks:\n"
        "  one: {type: webhook, url: §example.com, timeout: §30}\n"
        "  two: {type: stdout, §tiemout: 30s}\n"
        "  §three: {}\n"
        "§logs: {}\n",
        "true or false",
        "cannot be read",
        "did you mean main?",
        "did you mean count?",
        "did you mean sqlite?",
        "begins with http",
        "no unit",
        "did you mean timeout?",
        "type: is missing",
        "did you mean log?",
    ),
]

IDS = [
    case("an app_id of letters", {3: "    app_id: §abc"}, "an id is a number"),
    case("a cos app_id of letters", {4: "    key: k\n    cos: {bucket: b, app_id: §b}"}, "an id is a number"),
    case("a vod biz_id of letters", {4: "    key: k\n    vod: {biz_id: §b1}"}, "an id is a number"),
]

DOUBTFUL = [
    sink("lanes without an order", "  out: {type: stdout, lanes: §3}", "divides a sink with order: stream"),
    sink(
        "lanes for one daemon",
        "  out: {type: stdout, order: stream, lanes: §3}",
        "one of type memory is not shared",
    ),
    sink(
        "a kind that nobody gives",
        "  out: {type: stdout, only: {kinds: [§screenshots]}}",
        "did you mean screenshot?",
    ),
    case(
        "gaps where no account is audited",
        {
            4: "    key: k\n    audit: {enabled: false}",
            9: "  out: {type: stdout, only: {kinds: [screenshot, §gap]}}",
        },
        "no source here gives events of the kind gap",
    ),
    sink(
        "a kind that no source here gives",
        "  out: {type: stdout, only: {kinds: [screenshot, §recording]}}",
        "no source here gives events of the kind recording: they give screenshot",
    ),
    case(
        "recordings without a place for them",
        {6: "  shots: {type: recordings, follow: seen, account: §main}"},
        "recordings builds URLs by vod, and accounts.main has none",
    ),
    case("a spool that is a folder", {7: "spool: {type: sqlite, path: §folder}"}, "is a folder"),
    case(
        "a spool that is a pipe", {7: "spool: {type: sqlite, path: §pipe}"}, "is a pipe, a socket or a device"
    ),
    case(
        "a spool that is a device",
        {7: "spool: {type: sqlite, path: §/dev/null}"},
        "is a pipe, a socket or a device",
    ),
    case(
        "a spool below a file",
        {7: "spool: {type: sqlite, path: §secret/spool.db}"},
        "is a file: nothing can be below it",
    ),
    case(
        "a spool far below a file",
        {7: "spool: {type: sqlite, path: §secret/a/spool.db}"},
        "secret is a file: nothing",
    ),
    case(
        "a spool that is a link to itself",
        {7: "spool: {type: sqlite, path: §loop}"},
        "a link that leads to itself",
    ),
    case(
        "a spool with a name of 300 bytes",
        {7: "spool: {type: sqlite, path: §" + "x" * 300 + "}"},
        "is too long",
    ),
    *(
        case(
            f"a journal that is the spool's {end}",
            {7: "spool: {type: sqlite, path: it}", 10: f"journal: {{path: §it{end}}}"},
            "is the spool's own file",
        )
        for end in ("-wal", "-shm", ".lock", ".head", ".clock", ".sock")
    ),
    case(
        "pictures below a file",
        {4: WITH_COS, 9: "  out: {type: download, directory: §secret/pictures}"},
        "is a file: nothing can be below it",
    ),
    case("a journal that is a folder", {10: "journal: {path: §folder}"}, "is a folder"),
    case(
        "a journal that is the spool",
        {7: "spool: {type: sqlite, path: it}", 10: "journal: {path: §it}"},
        "is the spool's own file",
    ),
    case(
        "pictures in a file",
        {4: WITH_COS, 9: "  out: {type: download, directory: §secret}"},
        "is a file: name a folder",
    ),
    case(
        "one sync for all pictures where that cannot be relied on",
        {4: WITH_COS, 9: "  out: {type: download, directory: /proc/pictures, sync: §filesystem}"},
        "filesystem needs a folder on ext4 or xfs, and this one is of another kind (0x9fa0): use sync: file",
    ),
    sink(
        "pictures of an account that does not say where they are",
        "  out: {type: §download, directory: d}",
        "none can be built for accounts.main: add cos there",
    ),
    case(
        "pictures of an account that names only hosts",
        {4: "    key: k\n    hosts: [cdn.example.com]", 9: "  out: {type: §download, directory: d}"},
        "none can be built for accounts.main: add cos there",
    ),
    sink(
        "pictures and more of an account that does not say where they are",
        "  out: {type: §download, directory: d, allow_hosts: [a.example], only: {streams: [a]}}",
        "none can be built for accounts.main: add cos there",
    ),
    case(
        "pictures of two accounts, of which one does not say where they are",
        {
            4: WITH_COS + "\n  second: {app_id: 5, key: k}\n  third: {app_id: 6, key: k}",
            6: "  shots: {type: screenshot_queue, account: main}\n"
            "  more: {type: screenshot_queue, account: second}",
            9: "  out: {type: §download, directory: d}",
        },
        "none can be built for accounts.second: add cos there",
    ),
    account(
        "a backfill without a bucket",
        "    key: k\n    audit: {backfill: §auto}",
        "auto lists the bucket, and accounts.main.cos has no secret_id and no secret_key and no region",
    ),
    account(
        "a backfill with half a key",
        '    key: k\n    cos: {base_url: http://a/, endpoint: §http://b/, secret_id: "${CANARY}"}',
        "is for listing the bucket, and accounts.main.cos has no secret_key: add it there",
    ),
    account(
        "a region without keys",
        "    key: k\n    cos: {bucket: b, app_id: 1, region: §ap-shanghai}",
        "is for listing the bucket, and accounts.main.cos has no secret_id and no secret_key",
    ),
    account(
        "keys for a bucket that nobody names",
        '    key: k\n    cos: {base_url: http://a/, secret_id: §"${CANARY}", secret_key: "${CANARY}"}',
        "accounts.main.cos has no endpoint",
    ),
    *(
        case(
            f"one port for two listeners: {one} and {other}",
            {
                6: "  shots: {type: callbacks, account: main, key: k, path: /a-path-that-nobody-guesses,"
                f' listen: §"{one}"}}',
                10: f'admin: {{listen: "{other}", token: t}}',
            },
            "admin.listen listens on port 9465 too",
        )
        for one, other in (
            ("127.0.0.1:9465", "127.0.0.1:9465"),
            ("127.0.0.1:9465", "0.0.0.0:9465"),
            ("[::]:9465", "127.0.0.1:9465"),
            ("localhost:9465", "127.0.0.1:9465"),
        )
    ),
    case(
        "one port for the pages and for metrics",
        {10: "admin: {listen: 127.0.0.1:9480}", 11: "web: {listen: §127.0.0.1:9480}"},
        "admin.listen listens on port 9480 too",
    ),
    case(
        "one port for the pages and for pushes",
        {
            6: "  shots: {type: callbacks, account: main, key: k, path: /a-path-that-nobody-guesses,"
            ' listen: §"127.0.0.1:9480"}',
            10: "web: {listen: 127.0.0.1:9480}",
        },
        "web.listen listens on port 9480 too",
    ),
    case(
        "pages that may not fetch from the pictures' host",
        {
            4: "    key: k\n    cos: {base_url: §http://127.0.0.1:8081/shots/}",
            10: "web: {allow_cidr: [10.0.0.0/8]}",
        },
        "127.0.0.1 is not a public address: name it in web.allow_cidr",
    ),
    *(
        sink(f"a webhook to {host}", f"  out: {{type: webhook, url: §'http://{host}/hook'}}", "allow_cidr")
        for host in (
            "127.0.0.1:8080",
            "10.1.2.3",
            "192.168.0.9",
            "169.254.169.254",
            "[::1]",
            "[fd00::1]",
            "localhost",
            "hook.localhost:8080",
            "0x7f.1",
            "2130706433",
            "127.1",
            "0177.0.0.1",
            "[::ffff:127.0.0.1]",
            "LOCALHOST.",
        )
    ),
]

"""What cannot work together: found by `check`, and a warning of a daemon."""

DSN = [
    *(
        case(f"a dsn {name}", {7: f'spool: {{type: postgres, dsn: §"{dsn}"}}'}, fragment)
        for name, dsn, fragment in (
            ("without a colon", f"postgres//{CANARY}", "a dsn is written postgresql://user"),
            ("of another engine", f"mysql://poller:{CANARY}@db/poller", "a dsn is written postgresql://user"),
            (
                "with @ in the password",
                f"postgresql://poller:{CANARY}@x@db/poller",
                "write % @ : / ? # in it",
            ),
            (
                "with / in the password",
                f"postgresql://poller:{CANARY}/x@db/poller",
                "write % @ : / ? # in it",
            ),
            (
                "with ? in the password",
                f"postgresql://poller:{CANARY}?x=y@db/poller",
                "write % @ : / ? # in it",
            ),
            (
                "with # in the password",
                f"postgresql://poller:{CANARY}#x@db/poller",
                "write % @ : / ? # in it",
            ),
            ("with [ in the password", f"postgresql://poller:{CANARY}[x@db/poller", "the dsn cannot be read"),
            (
                "with a word as a port",
                f"postgresql://poller:{CANARY}@db:five/poller",
                "written host or host:5432",
            ),
            (
                "with a port beyond all",
                f"postgresql://poller:{CANARY}@db:65536/poller",
                "written host or host:5432",
            ),
            ("with a comma too many", f"postgresql://poller:{CANARY}@db1,/poller", "a server is missing"),
            (
                "with an unknown sslmode",
                f"postgresql://poller:{CANARY}@db/poller?sslmode=on",
                "sslmode is disable",
            ),
            (
                "with half an option",
                f"postgresql://poller:{CANARY}@db/poller?sslmode",
                "the dsn cannot be read",
            ),
        )
    ),
    case(
        "a file with a dsn with @ and / in the password",
        {7: "spool: {type: postgres, dsn_file: §dsn}"},
        "write % @ : / ? # in it",
    ),
]

CASES = [*IDS, *FILE, *SYNTAX, *TRAPS, *VARIABLES, *KEYS, *VALUES, *ADMIN, *WEB, *SECRETS, *DSN, *SEVERAL]
