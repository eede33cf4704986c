"""Settings of the source `callbacks`: who may push, and how a push is authenticated."""

import ipaddress
import re
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from poller.qcloud.events.notifications import KINDS
from poller.settings import Cidr, Listen, Secret, SecretFile, SourceSettings, wrong

_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_UNGUESSABLE: Final = re.compile(r"[A-Za-z0-9_-]{16,}")
_LONGEST_PATH: Final = 1024
_REMEDY: Final = (
    "a path that nobody can guess is wanted, with 16 letters, digits, - or _ in a row at least: "
    """take what this prints: python3 -c "import secrets; print('/' + secrets.token_urlsafe(24))\""""
)
_LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def _path(path: SecretStr) -> SecretStr:
    text = path.get_secret_value()
    if not text.startswith("/"):
        raise wrong("a path begins with a slash")
    if len(text) > _LONGEST_PATH or not _PATH.fullmatch(text):
        raise wrong("a path is letters, digits and ._~- between slashes, and does not end with a slash")
    if not any(_UNGUESSABLE.fullmatch(part) for part in text.split("/")):
        raise wrong(_REMEDY)
    return path


class CallbacksSettings(SourceSettings):
    """A receiver of the platform's notifications."""

    kinds: ClassVar[frozenset[str] | None] = KINDS

    listen: Listen = Field(
        default=Listen(host="127.0.0.1", port=9465),
        description="The address to bind. It has no TLS: use a proxy in front of it.",
    )
    path: Annotated[Secret, AfterValidator(_path)] | None = Field(
        default=None, description="The secret path of the URL to push to; never shown."
    )
    key: Secret | None = Field(
        default=None,
        description="The key that signs notifications (see the platform's console); prefer ${NAME} to it.",
    )
    key_file: SecretFile | None = Field(default=None, description="A file that contains the key.")
    keys: tuple[Secret, ...] = Field(
        default=(),
        max_length=4,
        description="Several valid keys: the new and the old key during rotation.",
    )
    unsigned: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="Whether notifications without t and sign are accepted; allow needs allow_from.",
    )
    allow_from: tuple[Cidr, ...] = Field(default=(), description="Networks that may push; by default any.")
    trusted_proxies: tuple[Cidr, ...] = Field(
        default=(), description="Networks of proxies whose X-Forwarded-For names the caller."
    )

    @model_validator(mode="after")
    def _shown_to_be_the_platform(self) -> Self:
        if self.path is None:
            raise wrong(_REMEDY, at="path")
        ways = [name for name in ("key", "key_file", "keys") if name in self.model_fields_set]
        for name in ways:
            if not getattr(self, name):
                raise wrong("a secret cannot be empty", at=name)
        if len(ways) > 1:
            raise wrong(f"does not go with {ways[0]}: remove one (keys takes several)", at=ways[1])
        if self.unsigned == "allow" and not self.allow_from:
            raise wrong("whoever finds the path could push: needs allow_from beside it", at="unsigned")
        if not ways and self.unsigned == "refuse":
            raise wrong("needs key, key_file or keys; or unsigned: allow and allow_from, where no key is set")
        return self

    @model_validator(mode="after")
    def _somebody_may_push(self) -> Self:
        if not self.allow_from or self.trusted_proxies or not self.listen.loopback:
            return self
        if not any(
            one.version == net.version and one.overlaps(net) for one in self.allow_from for net in _LOOPBACK
        ):
            raise wrong(
                "only this machine can reach listen, and it is not in allow_from: behind a proxy here, "
                "add trusted_proxies: [127.0.0.1]",
                at="allow_from",
            )
        return self

    def good_keys(self) -> tuple[str, ...]:
        """All valid keys, from `key`, `key_file` and `keys`."""
        given = [self.key, self.key_file, *self.keys]
        return tuple(secret.get_secret_value() for secret in given if secret is not None)
