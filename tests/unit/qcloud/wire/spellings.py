"""How a push secret may be written in one message of the queue. Each is valid JSON that names a picture."""

import html
import json
from collections.abc import Callable
from urllib.parse import quote, urlencode

SECRET = "c0ffeec0ffeec0ffeec0ffeec0ffee00"
NUMBER = "31415926535897932384"

NAMES = (
    "txSecret",
    "TxSecret",
    "TXSECRET",
    "tx_secret",
    "tx-secret",
    "tx/secret",
    "txSecret[]",
    "Tx.Secret",
    "tx secret",
    "txTime",
    "tx_time",
    "stream_param",
    "streamParam",
    "StreamParam",
    "stream-param",
    "stream.param",
    "STREAM_PARAM",
    "streamParams",
    "sign",
    "Sign",
    "SIGN",
)
QUERY_NAMES = tuple(name for name in NAMES if name.lower() != "sign")
"""A `sign=` in a URL may be the picture's own, and stays."""

MEMBERS: dict[str, Callable[[str], str]] = {
    "text": lambda name: json.dumps({name: SECRET}),
    "number": lambda name: f'{{"{name}":{NUMBER}}}',
    "spaced": lambda name: f'{{"{name}" \t:\n "{SECRET}" }}',
    "object": lambda name: json.dumps({name: {"bizid": 1, "a": [SECRET, {"b": SECRET}], "c": '"}' + SECRET}}),
    "list": lambda name: json.dumps({name: [SECRET, [SECRET], "]", SECRET]}),
    "quote in it": lambda name: json.dumps({name: f'b"=1&x={SECRET}\\" {SECRET}'}),
    "name escaped": lambda name: f'{{"{_all_escaped(name)}":"{SECRET}"}}',
    "first letter escaped": lambda name: f'{{"\\u{ord(name[0]):04X}{name[1:]}":"{SECRET}"}}',
    "twice": lambda name: f'{{"{name}":"{SECRET}","{name}":"{SECRET}"}}',
    "deep": lambda name: json.dumps({"a": [{"b": {"c": [{name: SECRET}]}}]}),
    "in a string": lambda name: json.dumps({"ext": json.dumps({name: SECRET})}),
    "object in a string": lambda name: json.dumps({"ext": json.dumps({name: {"a": SECRET}})}),
    "list in a string": lambda name: json.dumps({"ext": json.dumps([{name: [SECRET]}])}),
    "in a string in a string": lambda name: json.dumps(
        {"ext": json.dumps({"ext": json.dumps({name: SECRET})})}
    ),
    "in five strings": lambda name: _within(json.dumps({name: SECRET}), 5),
    "in eight strings": lambda name: _within(json.dumps({name: SECRET}), 8),
    "in a torn string": lambda name: json.dumps({"ext": json.dumps({"a": 1, name: SECRET})[:-1]}),
    "object in a torn string": lambda name: json.dumps(
        {"ext": json.dumps({"a": {name: {"b": SECRET}}})[:-1]}
    ),
    "in a JSONP string": lambda name: json.dumps({"ext": f"back({json.dumps({name: SECRET})});"}),
    "percent-encoded": lambda name: json.dumps({"ext": quote(json.dumps({name: SECRET}))}),
    "percent-encoded twice": lambda name: json.dumps({"ext": quote(quote(json.dumps({name: SECRET})))}),
    "HTML-escaped": lambda name: json.dumps({"ext": html.escape(json.dumps({name: SECRET}))}),
    "in a query": lambda name: json.dumps(
        {"u": "http://h/a?" + urlencode({"x": json.dumps({name: SECRET})})}
    ),
}

QUERIES: dict[str, Callable[[str], str]] = {
    "query": lambda name: json.dumps({"p": f"?x=1&{name}={SECRET}"}),
    "first": lambda name: json.dumps({"p": f"{name}={SECRET}&x=1"}),
    "after a question mark": lambda name: json.dumps({"p": f"?{name}={SECRET}"}),
    "semicolons": lambda name: json.dumps({"p": f"x=1;{name}={SECRET};y=2"}),
    "commas": lambda name: json.dumps({"p": f"x=1,{name}={SECRET},y=2"}),
    "lines": lambda name: json.dumps({"p": f"x=1\n{name}={SECRET}\r\ny=2"}),
    "Go": lambda name: '{"p":"?x=1\\u0026' + name + "=" + SECRET + '\\u0026y=2"}',
    "Go, equals too": lambda name: '{"p":"?x=1\\u0026' + name + "\\u003d" + SECRET + '"}',
    "all escaped": lambda name: '{"p":"' + _all_escaped(f"?x=1&{name}={SECRET}") + '"}',
    "escaped twice": lambda name: json.dumps({"p": f"?x=1\\u0026{name}\\u003d{SECRET}\\u0026y"}),
    "HTML": lambda name: json.dumps({"p": html.escape(f"?x=1&{name}={SECRET}&y=2")}),
    "colon": lambda name: json.dumps({"p": f"x: 1, {name}: {SECRET}"}),
    "arrow": lambda name: json.dumps({"p": f"'{name}' => '{SECRET}'"}),
    "in a URL": lambda name: json.dumps({"u": f"rtmp://h/live/s?a=1&{name}={SECRET}"}),
    "in a fragment": lambda name: json.dumps({"u": f"http://h/a.jpg#{name}={SECRET}"}),
    "encoded once": lambda name: json.dumps(
        {"u": "http://h/a?u=" + quote(f"rtmp://h/s?{name}={SECRET}", safe="")}
    ),
    "encoded twice": lambda name: json.dumps(
        {"u": "http://h/a?u=" + quote(quote(f"rtmp://h/s?a=1&{name}={SECRET}", safe=""), safe="")}
    ),
    "encoded thrice": lambda name: json.dumps(
        {"u": quote(quote(quote(f"?a=1&{name}={SECRET}", safe=""), safe=""))}
    ),
    "every letter encoded": lambda name: json.dumps({"u": "?a=1&" + _all_percent(name) + "=" + SECRET}),
    "every letter encoded twice": lambda name: json.dumps(
        {"u": "?a=1&" + _all_percent(name).replace("%", "%25") + "%3D" + SECRET}
    ),
    "letters encoded in lower case": lambda name: json.dumps(
        {"u": _all_percent(name).lower() + "%3d" + SECRET}
    ),
    "value encoded": lambda name: json.dumps({"p": f"?{name}=%2B{SECRET}%2F{SECRET}%3D&y=2"}),
    "slashes escaped": lambda name: '{"p":"?' + name + "=" + SECRET + "\\/" + SECRET + '"}',
    "named by a key": lambda name: json.dumps({"h": [{"key": name, "value": SECRET}]}),
    "named by a name": lambda name: json.dumps({"h": {"Name": name, "Value": SECRET}}),
    "named in a pair": lambda name: json.dumps({"h": [["a", "b"], [name, SECRET]]}),
    "named by a key in a string": lambda name: json.dumps({"h": json.dumps([{"k": name, "v": SECRET}])}),
    "a member of a form's map": lambda name: json.dumps({f"params[{name}]": SECRET, f"p.{name}": SECRET}),
    "a list of a form": lambda name: json.dumps({f"{name}[0]": SECRET, "p": f"?{name}[1]={SECRET}"}),
    "HTML-escaped twice": lambda name: json.dumps({"p": f"a=1&amp;amp;{name}&amp;#61;{SECRET}"}),
    "HTML by name": lambda name: json.dumps({"p": f"{name}&equals;{SECRET} {name}&colon;{SECRET}"}),
    "XML": lambda name: json.dumps({"p": f"<{name}>{SECRET}</{name}>"}),
    "as a name": lambda name: json.dumps({f"?a=1&{name}={SECRET}": 1}),
    "in a list": lambda name: json.dumps({"p": ["x", f"{name}={SECRET}"]}),
    "in JSON in a string": lambda name: json.dumps({"ext": json.dumps({"p": f"?x=1&{name}={SECRET}"})}),
    "Go in JSON in a string": lambda name: json.dumps({"ext": f'{{"p":"?x=1\\u0026{name}={SECRET}"}}'}),
    "beyond the basic plane": lambda name: json.dumps({"p": f"\U0001f4f7?x=1&{name}={SECRET}"}),
}


def all_messages() -> dict[str, dict[str, str]]:
    """Each form of a message, and in it each name that the secret may have."""
    return _messages(MEMBERS, NAMES) | _messages(QUERIES, QUERY_NAMES)


def _messages(forms: dict[str, Callable[[str], str]], names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    start = '{"stream_id":"s","pic_url":"a.jpg",'
    return {form: {name: start + write(name)[1:] for name in names} for form, write in forms.items()}


def _within(text: str, levels: int) -> str:
    for _ in range(levels):
        text = json.dumps({"e": text})
    return text


def _all_escaped(text: str) -> str:
    return "".join(f"\\u{ord(each):04x}" for each in text)


def _all_percent(text: str) -> str:
    return "".join(f"%{ord(each):02X}" for each in text)
