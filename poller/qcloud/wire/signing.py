"""The platform's signature, which proves knowledge of the key and is valid until `t`."""

import hashlib

LIFETIME = 60
"""Seconds a signature lives: a captured poll URL drains the queue until its `t` expires."""


def sign(key: str, t: int) -> str:
    """Return the lower-case hex MD5 of the key followed by t (the 2016 v1.1 document, "cmd, t, sign")."""
    return hashlib.md5(f"{key}{t}".encode()).hexdigest()


def signed_query(*, key: str, app_id_param: str, app_id: int | str, now: float) -> dict[str, str]:
    """Return the inputs every call carries: the customer's id, `t` a minute ahead of `now`, and `sign`."""
    t = int(now) + LIFETIME
    return {app_id_param: str(app_id), "t": str(t), "sign": sign(key, t)}
