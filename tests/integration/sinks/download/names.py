"""Names that try to leave a directory, to be a different file, or to fool whoever reads them."""

import random

_DEVICES = ["CON", "PRN", "AUX", "NUL", "COM1", "COM9", "LPT1", "LPT9", "con", "Nul", "CONIN$", "CLOCK$"]
_UP = [
    "..",
    "../",
    "..\\",
    "../../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%5c",
    "%252e%252e%252f",
    "..;/",
    ".. /",
]
_UP += [
    "....//",
    "..\0/",
    "．．/",
    "..\u2215",
    "..\u2044",
    "..%c0%af",
    "%c0%ae%c0%ae/",
    "..%u2215",
    "\u2025/",
]
_ROOTS = [
    "/",
    "//",
    "\\",
    "\\\\",
    "C:",
    "C:\\",
    "\\\\?\\",
    "\\\\.\\",
    "file:///",
    "~",
    "~root/",
    "/proc/self/root/",
]
_TARGETS = ["etc/passwd", "outside/canary", "canary", "x.jpg", "link/x.jpg", "root/.ssh/authorized_keys"]
_SINGLE = [
    "",
    ".",
    "...",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "-",
    "--",
    "-rf",
    "-rf .jpg",
    "--help",
    "#",
    "%",
    "%empty",
]
_SINGLE += [
    "%00",
    "%0a",
    "%2F",
    "%",
    "%%",
    "*",
    "?",
    "|",
    ";",
    "&",
    "`id`",
    "$(id)",
    "${HOME}",
    "a;rm -rf .jpg",
    "'",
    '"',
]
_SINGLE += [
    "<script>",
    "a\x1b[2Jb.jpg",
    "\x7f",
    "\x9b31m",
    "\ufeff",
    "\u200b",
    "\u2028",
    "\u2029",
    "\u202egpj.exe",
    "a\u202eb",
]
_SINGLE += [
    "é.jpg",
    "e\u0301.jpg",
    "Å",
    "A\u030a",
    "\u212b",
    "ﬁ.jpg",
    "fi.jpg",
    "ſ.jpg",
    "s.jpg",
    "ß",
    "ss",
    "SS",
    "İ",
    "i\u0307",
]
_SINGLE += [
    "\ud800",
    "\udfff.jpg",
    "a\udc80b",
    "\udcff\udcfe",
    "\U0001f600.jpg",
    "\U0010ffff",
    "\uffff",
    "截图.jpg",
    "صورة",
]
_SINGLE += [
    ".incoming",
    ".incoming/x.part",
    ".hidden",
    ".htaccess",
    "index.php",
    "x.jpg.json",
    "x.jpg",
    "X.JPG",
    "x.Jpg",
    "x.jpg.",
]
_SINGLE += [
    "x.jpg ",
    "x.jpg\0.png",
    "x.jpg::$DATA",
    "x:y.jpg",
    "a/b.jpg",
    "a//b.jpg",
    "a\\b.jpg",
    "b.jpg",
    "B.jpg",
    "~",
    "a~b",
]
_SINGLE += [
    "x~0123456789abcdef.jpg",
    ".0123456789abcdef0123456789abcdef.part",
    "lost+found",
    "core",
    "null",
    "None",
]
_LONG = [
    "a" * 200,
    "a" * 255,
    "a" * 256,
    "a" * 300,
    "a" * 300 + ".jpg",
    "é" * 150,
    "截" * 100 + ".jpg",
    "/" * 300,
    "../" * 100,
]
_LONG += [
    "a/" * 150,
    "." * 300,
    " " * 300,
    "x." + "y" * 300,
    "\0" * 300,
    "a" * 5000 + ".jpg",
    "A" * 300,
    "%" * 300,
    "~" * 300,
]


def _table() -> list[str]:
    names = [up + target for up in _UP for target in _TARGETS] + [
        root + target for root in _ROOTS for target in _TARGETS
    ]
    names += [device + ending for device in _DEVICES for ending in ("", ".jpg", ".", " ", ":", ".tar.gz")]
    return names + _UP + _SINGLE + _LONG


def _generated(number: int) -> list[str]:
    rng = random.Random(1471850187)
    pieces = [*_UP, *_ROOTS, *_SINGLE, *_DEVICES, "a", "B", ".jpg", "_1_2_3_4_5.jpg", "link/", "\u202e", "\0"]
    return ["".join(rng.choices(pieces, k=rng.randint(2, 8))) for _ in range(number)]


HOSTILE_NAMES = list(dict.fromkeys([*_table(), *_generated(400)]))
