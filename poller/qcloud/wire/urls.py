"""The URL of a picture, and the path that identifies it. Pure."""

import re
from urllib.parse import quote, unquote

import msgspec

from poller.settings.regions import REGIONS

_PLAIN = re.compile(r"[A-Za-z0-9_.~-][A-Za-z0-9_.~/-]*\Z")
_ABSOLUTE = re.compile(r"\s*[Hh][Tt][Tt][Pp][Ss]?://[^/?#\s]")
_RELATIVE = re.compile(
    r"\s*//(?:(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}|[0-9]+(?:\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?/"
)
_AUTHORITY = re.compile(r"([^:/]*://)([^/?#]*)")
_HOST = re.compile(r"(?:[^@/?#]*@)?(\[[^\]]*\]|[^:/?#]+)")
_NOT_IN_AUTHORITY = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9_.~!$&'()*+,;=:@\[\]%-]")
_NOT_LEGAL = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9_.~!$&'()*+,;=:@/?%-]")

# The default domains of a bucket (Tencent Cloud, COS).
# Version 4: "Bucket Overview", 2017.
_V4 = ("cosgz", "cossh", "costj", "coscd", "cossgp", "coshk", "cosca", "cosger")
_SUFFIXES = frozenset(
    {
        "file.myqcloud.com",  # the 2016 v1.1 document
        "cos.accelerate.myqcloud.com",
        *(f"{region}.myqcloud.com" for region in _V4),
        *(f"cos.{region}.myqcloud.com" for region in REGIONS),
        *(f"cos.{region}.tencentcos.cn" for region in REGIONS),
    }
)


class Located(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A picture's address: `url` (None without a base to build on), decoded `path`, `query` as it stood."""

    url: str | None
    path: str
    query: str = ""


def bucket_base(bucket: str, app_id: int | str) -> str:
    """The beginning of every picture's URL in a bucket (the 2016 v1.1 document)."""
    return f"http://{bucket}-{app_id}.file.myqcloud.com/"


def bucket_endpoint(bucket: str, app_id: int | str, region: str) -> str:
    """Return the URL at which a bucket is listed: that of its region (version 5)."""
    return f"https://{bucket}-{app_id}.cos.{region}.myqcloud.com/"


def bucket_hosts(bucket: str, app_id: int | str) -> frozenset[str]:
    """The hosts that serve a bucket's pictures: the bucket's own label below each default domain.

    The other domains, for image processing, static websites and the internal network, are not included.
    """
    label = f"{bucket}-{app_id}".lower()
    return frozenset(f"{label}.{suffix}" for suffix in _SUFFIXES)


def host_of(url: str) -> str | None:
    """Return the lower-case host of an http(s) URL, brackets off; None when it has none."""
    start = url.find("//")
    match = _HOST.match(url, start + 2) if start >= 0 else None
    return match.group(1).strip("[]").lower() if match else None


def locate(name: str, base: str | None) -> Located:
    """The URL and the path of a picture, from its name in a message.

    A full URL is kept, and only its illegal characters are encoded. Any other name is a literal path below `base`
    (which ends with a slash). A `?` in it begins a query only if a `=` follows.
    """
    if _PLAIN.match(name):
        return Located(url=None if base is None else base + name, path=name)
    if _ABSOLUTE.match(name):
        return _full(name.strip(), base)
    if _RELATIVE.match(name):
        return _full("http:" + name.strip(), base)
    return _bare(name.lstrip("/"), base)


def _full(name: str, base: str | None) -> Located:
    authority = _AUTHORITY.match(name)
    assert authority is not None
    start = authority.group(1).lower() + _NOT_IN_AUTHORITY.sub(_encode, authority.group(2))
    rest = _NOT_LEGAL.sub(_encode, name[authority.end() :])
    url = start + rest
    path, _, query = rest.partition("?")
    if base is not None and url.startswith(base):
        path = url[len(base) :].partition("?")[0]
    return Located(url=url, path=unquote(path).lstrip("/"), query=query)


def _bare(name: str, base: str | None) -> Located:
    path, mark, query = name.partition("?")
    if "=" not in query:
        path, mark, query = name, "", ""
    url = None if base is None else base + quote(path, safe="/", errors="replace")
    if url is not None and mark:
        url += "?" + _NOT_LEGAL.sub(_encode, query)
    return Located(url=url, path=path, query=query)


def _encode(match: re.Match[str]) -> str:
    return quote(match.group(), safe="", errors="replace")
