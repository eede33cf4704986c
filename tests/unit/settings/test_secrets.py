"""Secrets with characters that nobody sees, and secrets of digits."""

from pathlib import Path

import pytest

from poller.core.errors import BadConfiguration
from poller.settings import Settings, load
from tests.commands import Ended, poller

KEY = "5ecre75ecre75ecre75ecre75ecre700"
DIGITS = "12345678901234567890123456789012"
HOOK = "whsec_" + "YWJj" * 10
INVISIBLE = {
    "\u200b": "U+200B, ZERO WIDTH SPACE",
    "\u00a0": "U+00A0, NO-BREAK SPACE",
    "\ufeff": "U+FEFF, ZERO WIDTH NO-BREAK SPACE",
    "\u202e": "U+202E, RIGHT-TO-LEFT OVERRIDE",
    "\u2028": "U+2028, LINE SEPARATOR",
    "\u3000": "U+3000, IDEOGRAPHIC SPACE",
    "\u00ad": "U+00AD, SOFT HYPHEN",
    "\u3164": "U+3164, HANGUL FILLER",
    "\ufe0f": "U+FE0F, VARIATION SELECTOR-16",
    "\u0085": "U+0085, a control character",
    "\x01": "U+0001, a control character",
    "\t": "U+0009, a control character",
    "\r": "U+000D, a control character",
    "\n": "U+000A, a control character",
    "\x00": "U+0000, a control character",
}
COS = "key: k\n    cos: {bucket: b, app_id: 1,"
PLACES = {
    "key": ("accounts.main.key", 'key: "${S}"', "file: none"),
    "key_file": ("accounts.main.key_file", "key_file: s", "s"),
    "cos secret_id": ("accounts.main.cos.secret_id", f'{COS} secret_id: "${{S}}"}}', ""),
    "cos secret_key": ("accounts.main.cos.secret_key", f'{COS} secret_key: "${{S}}"}}', ""),
    "cos secret_key_file": ("accounts.main.cos.secret_key_file", f"{COS} secret_key_file: s}}", "s"),
    "token": ("admin.token", 'token: "${S}"', ""),
    "token_file": ("admin.token_file", "token_file: s", "s"),
    "secret": ("sinks.hook.secret", 'secret: "${S}"', ""),
    "secret_file": ("sinks.hook.secret_file", "secret_file: s", "s"),
    "secrets": ("sinks.hook.secrets", 'secrets: ["${S}"]', ""),
    "header": ("sinks.hook.headers", 'headers: {Authorization: "Bearer ${S}"}', ""),
    "push key": ("sources.pushed.key", 'key: "${S}"', ""),
    "push keys": ("sources.pushed.keys", 'keys: ["${S}"]', ""),
    "push key_file": ("sources.pushed.key_file", "key_file: s", "s"),
}


def written(folder: Path, place: str, secret: str, raw: bytes | None = None) -> Settings:
    path, line, _ = PLACES[place]
    (folder / "s").write_bytes(secret.encode() if raw is None else raw)
    of = {at: line if path.startswith(at) else "" for at in ("accounts", "admin", "sinks", "sources")}
    text = f"""
accounts:
  main:
    app_id: 1234
    {of["accounts"] or "key: k"}
sources:
  pushed:
    type: callbacks
    account: main
    path: /0123456789abcdef0123456789abcdef
    {of["sources"] or "key: k"}
spool: {{type: memory}}
admin:
  listen: 127.0.0.1:0
  {of["admin"]}
sinks:
  hook:
    type: webhook
    url: https://example.com/
    {of["sinks"]}
"""
    (folder / "poller.yaml").write_text(text)
    return load(folder / "poller.yaml", {"S": secret})


def good(place: str) -> str:
    return HOOK if PLACES[place][0].startswith("sinks.hook.secret") else KEY


@pytest.mark.parametrize("place", PLACES)
def test_an_invisible_character_in_a_secret_is_a_finding_that_names_it(tmp_path: Path, place: str) -> None:
    secret = good(place)
    for character, named in INVISIBLE.items():
        if character == "\x00" and not place.endswith("_file"):
            continue  # no variable of an environment holds it
        if place == "secret_file" and character == "\n":
            continue  # two secrets, one a line
        with pytest.raises(BadConfiguration) as refused:
            written(tmp_path, place, secret[:12] + character + secret[12:])
        message = str(refused.value)
        assert PLACES[place][0] in message
        if not (place.startswith("secret") and character == "\n"):
            assert named in message, repr(character)
        assert secret[:12] not in message
        assert secret[12:] not in message


WRAPS = {"BOM": "\ufeff{}", "LF": "{}\n", "CRLF": "{}\r\n", "CR": "{}\r", "all": "\ufeff{}\r\n\r\n"}
WRAPPED = [  # a mark before a header's secret is within its value
    pytest.param(place, wrap, id=f"{name}-{place}")
    for name, wrap in WRAPS.items()
    for place in PLACES
    if not (place == "header" and wrap.startswith("\ufeff"))
]


@pytest.mark.parametrize(("place", "wrap"), WRAPPED)
def test_a_byte_order_mark_and_a_line_end_are_no_part_of_a_secret(
    tmp_path: Path, place: str, wrap: str
) -> None:
    settings = written(tmp_path, place, wrap.format(good(place)))
    dumped = _secrets(settings)
    assert good(place) in dumped or f"Bearer {KEY}" in dumped


@pytest.mark.parametrize("place", [name for name in PLACES if name.endswith("_file")])
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16_is_a_finding_that_says_so(tmp_path: Path, place: str, codec: str) -> None:
    with pytest.raises(BadConfiguration, match="UTF-16: save it as UTF-8"):
        written(tmp_path, place, "", good(place).encode(codec))


@pytest.mark.parametrize("blank", [" {}", "{} ", "{} \n"])
def test_a_blank_around_a_secret_is_a_finding(tmp_path: Path, blank: str) -> None:
    with pytest.raises(BadConfiguration, match="begins or ends with a blank") as refused:
        written(tmp_path, "key_file", blank.format(KEY))
    assert KEY not in str(refused.value)


def test_a_key_of_digits_is_its_digits_and_never_echoed(tmp_path: Path) -> None:
    for text in ("7", "123456789012345678", "0.5"):
        (tmp_path / "poller.yaml").write_text(
            f"accounts: {{main: {{app_id: 1, key: {text}}}}}\n"
            "sources: {shots: {type: screenshot_queue, account: main}}\n"
            "spool: {type: memory}\nsinks: {out: {type: stdout}}\n"
        )
        assert load(tmp_path / "poller.yaml").accounts["main"].key_value == text
    for text in (DIGITS, "0123456789", "1e5", "1_000", "[" + DIGITS + "]", "{" + DIGITS + ": 1}"):
        (tmp_path / "poller.yaml").write_text(
            f"accounts: {{main: {{app_id: 1, key: {text}}}}}\n"
            "sources: {shots: {type: screenshot_queue, account: main}}\n"
            "spool: {type: memory}\nsinks: {out: {type: stdout}}\n"
        )
        with pytest.raises(BadConfiguration) as refused:
            load(tmp_path / "poller.yaml")
        assert text.strip("[]{}: ") not in str(refused.value)


def _secrets(settings: Settings) -> list[str]:
    main, hook, pushed = settings.accounts["main"], settings.sinks["hook"], settings.sources["pushed"]
    found = [main.key, main.key_file, pushed.key, pushed.key_file, *pushed.keys]  # type: ignore[attr-defined]
    found += [hook.secret, hook.secret_file, *hook.secrets, *hook.headers.values()]  # type: ignore[attr-defined]
    if main.cos is not None:
        found += [main.cos.secret_id, main.cos.secret_key, main.cos.secret_key_file]
    if settings.admin is not None:
        found += [settings.admin.token, settings.admin.token_file]
    return [secret.get_secret_value() for secret in found if secret is not None]


# ---------------------------------------------------------------- the sandbox's customers


BAD_CUSTOMERS = {
    "a list": f"- app_id: 1\n  key: [{DIGITS}]\n",
    "a mapping": f"- app_id: 1\n  key: {{{DIGITS}: 1}}\n",
    "no colon": f"- key{DIGITS}\n",
    "a secret as a name": f"- {DIGITS}: 1\n",
    "a bare list": f"- [{DIGITS}]\n",
    "a mapping of all": f"key: {DIGITS}\n",
    "no YAML": f'- app_id: 1\n  key: "{DIGITS}\n',
    "a tag": f"- app_id: 1\n  key: !!python/object {DIGITS}\n",
    "a number for a name": f"- app_id: 1\n  bucket: {DIGITS}\n",
    "a text for a number": f"- app_id: x{DIGITS}\n",
    "invisible": f'- app_id: 1\n  key: "{DIGITS}\\u200b{DIGITS}"\n',
    "binary": f"- app_id: 1\n  key: !!int x{DIGITS}\n",
    "a date": f"- app_id: 1\n  key: {DIGITS}\n  callback_url: {DIGITS}\n",
}


@pytest.mark.parametrize("case", BAD_CUSTOMERS)
def test_no_secret_of_the_customers_file_is_echoed(tmp_path: Path, case: str) -> None:
    (tmp_path / "c.yaml").write_text(BAD_CUSTOMERS[case])
    done = _sandbox(tmp_path, "--listen", "nonsense")
    assert done.returncode == 2, done.stderr
    assert DIGITS not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_customer_s_key_of_digits_is_its_digits(tmp_path: Path) -> None:
    for key in (DIGITS, "01234567012345670123456701234567", f'"\ufeff{DIGITS}"'):
        (tmp_path / "c.yaml").write_text(f"- app_id: 1\n  key: {key}\n  callback_key: 0777\n")
        done = _sandbox(tmp_path, "--listen", "nonsense")
        assert done.returncode == 2
        assert "nonsense" in done.stderr, "the customers were taken"


def _sandbox(folder: Path, *words: str) -> Ended:
    places = ("--directory", str(folder / "p"), "--customers", str(folder / "c.yaml"))
    return poller("sandbox", *places, *words)
