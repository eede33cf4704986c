"""The sections of the configuration that the core knows; adapters bring their own, built on these."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from poller.settings.fields import (
    CustomerId,
    HostName,
    Kind,
    Listen,
    Name,
    Pattern,
    ReadableFile,
    ResolvedPath,
    Secret,
    SecretFile,
    Url,
)
from poller.settings.units import Duration, Rate, Size, duration_between, size_between, wrong


class Section(BaseModel):
    """The base of all settings: frozen, no key but the declared ones, no value in an error's text."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        regex_engine="python-re",
    )


# ---------------------------------------------------------------- sinks, sources, spools


class Only(Section):
    """Which events a sink takes; what is left out does not restrict."""

    kinds: Annotated[
        tuple[Kind, ...] | None,
        Field(min_length=1, description="The kinds of event to take, such as screenshot."),
    ] = None
    streams: Annotated[
        tuple[Pattern, ...] | None,
        Field(
            min_length=1, description="Shell globs; an event is taken if one of them matches its stream id."
        ),
    ] = None


class BatchSettings(Section):
    """How many events travel together."""

    max_events: int = Field(default=1, ge=1, le=1000, description="The most events in one batch, 1 to 1000.")
    max_wait: Annotated[Duration, duration_between("0s", "5m")] = Field(
        default=0.0, description="How long a batch that is not full waits for more events."
    )


class SinkSettings(Section):
    """What every sink has; an adapter's own settings build on it and may have other defaults."""

    type: str = Field(description="Which adapter carries the events out.")
    only: Only | None = Field(default=None, description="Which events this sink takes; all, if left out.")
    order: Literal["none", "stream"] = Field(
        default="none",
        description="With stream, the events of each stream arrive in order, also under retries.",
    )
    timeout: Annotated[Duration, duration_between("1ms", "1h")] = Field(
        default=30.0, description="How long one delivery may take before it counts as failed."
    )
    concurrency: int = Field(default=1, ge=1, le=256, description="How many batches are carried at once.")
    rate: Rate | None = Field(default=None, description="The most deliveries attempted in a period of time.")
    give_up_after: Annotated[Duration, duration_between("0s", "365d")] = Field(
        default=259_200.0,
        description="The age, from its first attempt, at which a delivery becomes a dead letter.",
    )
    batch: BatchSettings = Field(default=BatchSettings(), description="How many events travel together.")

    fetches_pictures: ClassVar[bool] = False
    """Whether it fetches pictures by their URLs, and so can do nothing with one that has none."""

    def contradictions(self, accounts: Mapping[str, "AccountSettings"]) -> Iterator[tuple[str, str]]:
        """What cannot work with these accounts, although each setting is right: a setting's name, and what is wrong.

        `accounts` are those whose events may come to this sink, by name.
        """
        yield from ()

    @property
    def ordered(self) -> bool:
        """Whether the events of each stream must arrive in order."""
        return self.order == "stream"

    @field_validator("batch", "only", mode="after")
    @classmethod
    def _rest_from_the_adapter(cls, value: Section | None, info: ValidationInfo) -> Section | None:
        """What is left out of a section is as the adapter has it, not as the base has it."""
        default = cls.model_fields[info.field_name or ""].default
        if value is None or not isinstance(default, Section):
            return value
        left_out = default.model_fields_set - value.model_fields_set
        return value.model_copy(update={name: getattr(default, name) for name in left_out})


class SourceSettings(Section):
    """What every source has."""

    kinds: ClassVar[frozenset[str] | None] = None
    """The kinds of event that it gives; None where that is not known."""
    needs: ClassVar[tuple[str, ...]] = ()
    """The sections of its account (`cos`, `vod`) without which its events have no URL."""
    names_pictures: ClassVar[bool] = False
    """Whether its pictures come as bare names, which have a URL only by the `cos` of its account."""

    type: str = Field(description="Which adapter fetches the events.")
    account: str = Field(description="The name of the account, under accounts, that it belongs to.")


class SpoolSettings(Section):
    """What every spool has."""

    type: str = Field(description="Which engine keeps the events.")
    retain: Annotated[Duration, duration_between("0s", "365d")] = Field(
        default=86_400.0, description="How long settled events are kept, from when they were received."
    )
    retain_dead: Annotated[Duration, duration_between("0s", "3650d")] = Field(
        default=2_592_000.0, description="How long dead letters are kept, from when they were given up."
    )
    retain_quarantine: Annotated[Duration, duration_between("0s", "3650d")] = Field(
        default=2_592_000.0, description="How long what could not be read is kept, from when it was received."
    )


class JournalSettings(Section):
    """The notebook of raw pages."""

    path: ResolvedPath | None = Field(
        default=None, description="The journal's file; beside the spool, if left out."
    )
    size: Annotated[Size, size_between("16MiB", "4GiB")] = Field(
        default=64 * 2**20, description="The space set aside for it, 16MiB to 4GiB."
    )


# ---------------------------------------------------------------- accounts


class TlsSettings(Section):
    """Certificates for connections that are made; all are PEM files."""

    ca_file: ReadableFile | None = Field(
        default=None, description="The authorities to trust instead of the system's."
    )
    cert_file: ReadableFile | None = Field(default=None, description="The client certificate to show.")
    key_file: ReadableFile | None = Field(default=None, description="The client certificate's private key.")
    _contents: bytes = PrivateAttr(b"")
    """A digest of the files, so that settings with a renewed certificate behind the same path are not equal."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if self.cert_file is not None and self.key_file is None:
            raise wrong("needs key_file beside it", at="cert_file")
        if self.key_file is not None and self.cert_file is None:
            raise wrong("needs cert_file beside it", at="key_file")
        return self

    @model_validator(mode="after")
    def _know_contents(self) -> Self:
        digest = hashlib.blake2b()
        for path in (self.ca_file, self.cert_file, self.key_file):
            with suppress(OSError):  # was just read; whoever opens it in earnest says why it cannot be
                digest.update(b"" if path is None else path.read_bytes())
            digest.update(b"\0")
        self._contents = digest.digest()
        return self


class CosSettings(Section):
    """Where pictures are: a bucket and its owner, or a URL of one's own."""

    bucket: str | None = Field(
        default=None, pattern=r"^[a-z0-9-]{1,63}$", description="The bucket of the pictures."
    )
    app_id: CustomerId | None = Field(default=None, description="The customer id that the bucket belongs to.")
    base_url: Url | None = Field(default=None, description="What picture names are appended to instead.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.base_url is not None:
            _alone(self, "base_url", "bucket", "app_id")
        elif self.bucket is None or self.app_id is None:
            raise wrong("needs bucket and app_id, or base_url")
        return self


class VodSettings(Section):
    """Where recordings are: a business's id, or a URL of one's own."""

    biz_id: CustomerId | None = Field(
        default=None, description="The business id, as in BIZ_ID.vod.myqcloud.com."
    )
    base_url: Url | None = Field(default=None, description="What recording names are appended to instead.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.base_url is not None:
            _alone(self, "base_url", "biz_id")
        elif self.biz_id is None:
            raise wrong("needs biz_id or base_url")
        return self


class AccountSettings(Section):
    """A customer of the platform, and how to speak for it."""

    endpoint: Url = Field(
        default="http://fcgi.video.qcloud.com/common_access", description="The platform's interface."
    )
    app_id: CustomerId = Field(description="The platform's customer id.")
    app_id_param: Literal["cmd", "appid"] = Field(
        default="cmd", description="What the interface calls the customer id: cmd (2016) or appid (2017 on)."
    )
    key: Secret | None = Field(
        default=None, description="The key that signs; better ${NAME} than the key itself."
    )
    key_file: SecretFile | None = Field(default=None, description="A file that holds the key.")
    cos: CosSettings | None = Field(default=None, description="Where pictures are.")
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="The account's own domains (of a CDN) that pictures come from, besides those of its bucket.",
    )
    vod: VodSettings | None = Field(default=None, description="Where recordings are.")
    rate: Rate = Field(
        default=Rate(limit=20, period=1.0),
        description="The most calls to the platform, over all of its sources.",
    )
    proxy: Url | None = Field(
        default=None, description="An HTTP proxy; those of the environment are ignored."
    )
    tls: TlsSettings | None = Field(default=None, description="Certificates for the endpoint.")

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        _one_secret(self, "key", "key_file")
        if self.key is None and self.key_file is None:
            raise wrong("needs key or key_file")
        return self

    @property
    def key_value(self) -> str:
        """The key, wherever it came from."""
        given = self.key or self.key_file
        assert given is not None
        return given.get_secret_value()


def _alone(section: Section, name: str, *others: str) -> None:
    for other in others:
        if getattr(section, other) is not None:
            raise wrong(f"does not go with {name}: remove one", at=other)


def _one_secret(section: Section, secret: str, secret_file: str) -> None:
    for name in (secret, secret_file):
        if name in section.model_fields_set and getattr(section, name) is None:
            raise wrong("a secret cannot be empty", at=name)
    if getattr(section, secret) is not None and getattr(section, secret_file) is not None:
        raise wrong(f"does not go with {secret}: remove one", at=secret_file)


# ---------------------------------------------------------------- the daemon itself


class AdminSettings(Section):
    """The port an operator looks at."""

    listen: Listen = Field(default=Listen(host="127.0.0.1", port=9464), description="Where to listen.")
    sink_age_limit: Annotated[Duration, duration_between("1s", "365d")] = Field(
        default=900.0,
        description="A sink whose oldest event waits longer than this makes /readyz say so.",
    )
    token: Secret | None = Field(
        default=None, description="What a request must bring; better ${NAME} than itself."
    )
    token_file: SecretFile | None = Field(default=None, description="A file that holds the token.")

    @model_validator(mode="after")
    def _loopback_or_token(self) -> Self:
        _one_secret(self, "token", "token_file")
        if self.token_value is None and not self.listen.loopback:
            raise wrong("others can reach this address: set token_file, or listen on 127.0.0.1", at="listen")
        return self

    @property
    def token_value(self) -> str | None:
        """The token, wherever it came from; None where none is asked for."""
        given = self.token or self.token_file
        return given.get_secret_value() if given is not None else None


class LogSettings(Section):
    """What is logged, and how; always to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is told."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="For people or machines; auto is console on a terminal, json otherwise."
    )


class Settings(Section):
    """The whole configuration."""

    accounts: Mapping[Name, AccountSettings] = Field(
        min_length=1, description="Customers of the platform, by name."
    )
    sources: Mapping[Name, SerializeAsAny[SourceSettings]] = Field(
        min_length=1, description="Where events come from."
    )
    spool: SerializeAsAny[SpoolSettings] = Field(
        description="Where events are kept until every sink has them."
    )
    journal: JournalSettings = Field(default=JournalSettings(), description="The notebook of raw pages.")
    sinks: Mapping[Name, SerializeAsAny[SinkSettings]] = Field(min_length=1, description="Where events go.")
    admin: AdminSettings | None = Field(
        default=None, description="The port for metrics and health; none by default."
    )
    log: LogSettings = Field(default=LogSettings(), description="What is logged, and how.")
