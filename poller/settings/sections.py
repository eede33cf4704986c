"""The sections of the configuration that all adapters share. An adapter's own section is built on one of these."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from poller.settings.fields import (
    Cidr,
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
    SiteName,
    Url,
)
from poller.settings.regions import Region
from poller.settings.start import NOW, Start
from poller.settings.units import Duration, Rate, Size, duration_between, size_between, wrong


class Section(BaseModel):
    """The base of all settings: frozen, without undeclared keys, and without values in the text of errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        regex_engine="python-re",
    )


# ---------------------------------------------------------------- sinks, sources, spools


class Only(Section):
    """Selects the events that a sink takes. A setting that is left out does not restrict."""

    kinds: Annotated[
        tuple[Kind, ...] | None,
        Field(min_length=1, description="The kinds of event to take, such as screenshot."),
    ] = None
    streams: Annotated[
        tuple[Pattern, ...] | None,
        Field(
            min_length=1, description="Shell globs. An event is taken if one of them matches its stream id."
        ),
    ] = None


class BatchSettings(Section):
    """How many events are delivered together."""

    max_events: int = Field(default=1, ge=1, le=1000, description="The most events in one batch, 1 to 1000.")
    max_wait: Annotated[Duration, duration_between("0s", "5m")] = Field(
        default=0.0, description="How long a batch waits for more events while it is not full."
    )


class SinkSettings(Section):
    """The settings of every sink. An adapter's own settings build on them and may have other defaults."""

    type: str = Field(description="The adapter that delivers the events.")
    only: Only | None = Field(default=None, description="The events that this sink takes; by default all.")
    order: Literal["none", "stream"] = Field(
        default="none",
        description="With stream, the events of each stream are delivered in order, even after retries.",
    )
    lanes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="With order stream and a shared spool, the number of parts into which the streams are divided, "
        "1 to 64. Different daemons may serve them at once.",
    )
    timeout: Annotated[Duration, duration_between("1ms", "1h")] = Field(
        default=30.0, description="How long one delivery may take before it counts as failed."
    )
    concurrency: int = Field(default=1, ge=1, le=256, description="How many batches are in hand at once.")
    rate: Rate | None = Field(default=None, description="The most attempts in a period; by default no limit.")
    give_up_after: Annotated[Duration, duration_between("0s", "365d")] = Field(
        default=259_200.0,
        description="How long after its first attempt an event that still fails becomes a dead letter.",
    )
    batch: BatchSettings = Field(default=BatchSettings(), description="How events are put into batches.")
    start: Start = Field(
        default=NOW,
        description="Where a sink starts that the spool does not know yet: earliest (the oldest retained event), now, "
        "or the first event received at this time or later, such as '2026-11-22 10:03' in quotes, or 2h. An age counts "
        "from when the sink is first attached.",
    )

    fetches_pictures: ClassVar[bool] = False
    """Whether the sink fetches pictures by their URLs, so that it needs events with URLs."""

    @property
    def keeps_files_here(self) -> bool:
        """Whether the sink leaves files that only the daemon that delivered them can see."""
        return False

    def contradictions(self, accounts: Mapping[str, "AccountSettings"]) -> Iterator[tuple[str, str]]:
        """Valid settings that cannot work with these accounts: the name of a setting, and the text of what is wrong.

        `accounts` are the accounts, by name, whose events this sink may get.
        """
        yield from ()

    @property
    def ordered(self) -> bool:
        """Whether the events of each stream must arrive in order."""
        return self.order == "stream"

    @field_validator("batch", "only", mode="after")
    @classmethod
    def _rest_from_the_adapter(cls, value: Section | None, info: ValidationInfo) -> Section | None:
        """Fill a section with the adapter's defaults instead of the base's."""
        default = cls.model_fields[info.field_name or ""].default
        if value is None or not isinstance(default, Section):
            return value
        left_out = default.model_fields_set - value.model_fields_set
        return value.model_copy(update={name: getattr(default, name) for name in left_out})


class SourceSettings(Section):
    """The settings of every source."""

    kinds: ClassVar[frozenset[str] | None] = None
    """The kinds of event that the source gives; None if they are not known."""
    needs: ClassVar[tuple[str, ...]] = ()
    """The sections of the account (`cos`, `vod`) that the source needs to build the URLs of its events."""
    names_pictures: ClassVar[bool] = False
    """Whether pictures come as bare names, so that their URLs need the `cos` of the account."""

    type: str = Field(description="The adapter that gets the events.")
    account: str = Field(description="The account of the source: a name under accounts.")


class SpoolSettings(Section):
    """The settings of every spool."""

    shared: ClassVar[bool] = False
    """Whether several daemons share the spool (`Shared`)."""

    type: str = Field(description="The engine that keeps the events.")
    retain: Annotated[Duration, duration_between("0s", "365d")] = Field(
        default=86_400.0, description="How long settled events are kept after they were received."
    )
    retain_dead: Annotated[Duration, duration_between("0s", "3650d")] = Field(
        default=2_592_000.0, description="How long dead letters are kept after they were given up."
    )
    retain_quarantine: Annotated[Duration, duration_between("0s", "3650d")] = Field(
        default=2_592_000.0, description="How long messages that could not be read are kept in quarantine."
    )

    @property
    def competing(self) -> bool:
        """Whether all daemons that share the spool poll queues, and not one of them at a time."""
        return False


class JournalSettings(Section):
    """The journal of raw pages."""

    path: ResolvedPath | None = Field(
        default=None,
        description="The journal's file; by default a file beside the spool. With a spool without a file it is "
        "`poller.journal` in the folder in which the daemon is started, so name one.",
    )
    size: Annotated[Size, size_between("16MiB", "4GiB")] = Field(
        default=64 * 2**20, description="The size of the file, which is written in advance: 16MiB to 4GiB."
    )


# ---------------------------------------------------------------- accounts


class TlsSettings(Section):
    """Certificates for outgoing connections, in PEM files."""

    ca_file: ReadableFile | None = Field(
        default=None, description="The certificate authorities to trust instead of the system's."
    )
    cert_file: ReadableFile | None = Field(default=None, description="The client certificate to present.")
    key_file: ReadableFile | None = Field(default=None, description="The client certificate's private key.")
    _contents: bytes = PrivateAttr(b"")
    """A digest of the files' contents, so that settings differ when a certificate at the same path was renewed."""

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
            with suppress(OSError):  # was readable a moment ago; the connection reports the error
                digest.update(b"" if path is None else path.read_bytes())
            digest.update(b"\0")
        self._contents = digest.digest()
        return self


class CosSettings(Section):
    """Where pictures are: a bucket and its customer id, or a base URL. With keys, the bucket can also be listed."""

    bucket: str | None = Field(
        default=None, pattern=r"^[a-z0-9-]{1,63}$", description="The bucket of the pictures."
    )
    app_id: CustomerId | None = Field(default=None, description="The customer id that the bucket belongs to.")
    base_url: Url | None = Field(default=None, description="Instead: a URL to which names are appended.")
    region: Region | None = Field(
        default=None, description="The region of the bucket, whose domain lists the bucket."
    )
    endpoint: Url | None = Field(
        default=None, description="Instead of region: the URL that lists the bucket, for a private set-up."
    )
    secret_id: Secret | None = Field(
        default=None, description="The id of the key that may list the bucket (cos:GetBucket)."
    )
    secret_key: Secret | None = Field(
        default=None, description="The key that signs lists; prefer ${NAME} to the key itself."
    )
    secret_key_file: SecretFile | None = Field(default=None, description="A file that contains the key.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.base_url is not None:
            _forbid_others(self, "base_url", "bucket", "app_id")
        elif self.bucket is None or self.app_id is None:
            raise wrong("needs bucket and app_id, or base_url")
        return self

    @model_validator(mode="after")
    def _one_key_and_place(self) -> Self:
        _one_secret(self, "secret_key", "secret_key_file")
        if self.endpoint is not None:
            _forbid_others(self, "endpoint", "region")
            if "?" in self.endpoint:
                raise wrong("takes no query: the daemon writes its own", at="endpoint")
        return self

    @property
    def missing_to_list(self) -> tuple[str, ...]:
        """The settings without which the bucket cannot be listed; empty if it can."""
        lacks = {
            "secret_id": self.secret_id is None,
            "secret_key": self.secret_key_value is None,
            "endpoint" if self.bucket is None else "region": self.endpoint is None
            and (self.bucket is None or self.region is None),
        }
        return tuple(name for name, missing in lacks.items() if missing)

    @property
    def secret_key_value(self) -> str | None:
        """The key that signs lists, from `secret_key` or `secret_key_file`; None where the bucket is not listed."""
        given = self.secret_key or self.secret_key_file
        return None if given is None else given.get_secret_value()


class VodSettings(Section):
    """Where recordings are: a business id, or a base URL."""

    biz_id: CustomerId | None = Field(
        default=None, description="The business id, as in BIZ_ID.vod.myqcloud.com."
    )
    base_url: Url | None = Field(default=None, description="Instead: a URL to which ids are appended.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.base_url is not None:
            _forbid_others(self, "base_url", "biz_id")
        elif self.biz_id is None:
            raise wrong("needs biz_id or base_url")
        return self


class AuditSettings(Section):
    """The search for pictures that never came, by the names of those that did."""

    enabled: bool = Field(
        default=True, description="Whether gaps in the pictures of a stream are found and reported as events."
    )
    settle: Annotated[Duration, duration_between("1s", "1h")] = Field(
        default=60.0,
        description="How long a hole stays open for pictures that come late, after the picture behind it was received.",
    )
    backfill: Literal["off", "auto"] = Field(
        default="off",
        description="With auto, pictures are looked for in the bucket after an answer of the queue was lost.",
    )


class AccountSettings(Section):
    """A customer of the platform, with the credentials for its calls."""

    endpoint: Url = Field(
        default="http://fcgi.video.qcloud.com/common_access", description="The URL of the platform's API."
    )
    app_id: CustomerId = Field(description="The platform's customer id.")
    app_id_param: Literal["cmd", "appid"] = Field(
        default="cmd", description="The API's name of the customer id: cmd (2016) or appid (2017 on)."
    )
    key: Secret | None = Field(
        default=None, description="The key that signs calls; prefer ${NAME} to the key itself."
    )
    key_file: SecretFile | None = Field(default=None, description="A file that contains the key.")
    cos: CosSettings | None = Field(default=None, description="Where pictures are.")
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Further domains that pictures come from, such as a CDN's, besides those of the bucket.",
    )
    vod: VodSettings | None = Field(default=None, description="Where recordings are.")
    rate: Rate = Field(
        default=Rate(limit=20, period=1.0),
        description="The most calls to the platform, for all sources of the account together.",
    )
    proxy: Url | None = Field(
        default=None, description="An HTTP proxy. Proxies of the environment are ignored."
    )
    tls: TlsSettings | None = Field(default=None, description="Certificates for the endpoint.")
    audit: AuditSettings = Field(
        default=AuditSettings(), description="The search for pictures that never came."
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        _one_secret(self, "key", "key_file")
        if self.key is None and self.key_file is None:
            raise wrong("needs key or key_file")
        return self

    @property
    def key_value(self) -> str:
        """The key, from `key` or `key_file`."""
        given = self.key or self.key_file
        assert given is not None
        return given.get_secret_value()


def _forbid_others(section: Section, name: str, *others: str) -> None:
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
    """The port for metrics, health and status."""

    listen: Listen = Field(default=Listen(host="127.0.0.1", port=9464), description="The address to bind.")
    sink_age_limit: Annotated[Duration, duration_between("1s", "365d")] = Field(
        default=900.0,
        description="/readyz reports a sink whose oldest pending event waits longer than this.",
    )
    token: Secret | None = Field(
        default=None, description="The token that a request must send; prefer ${NAME} to it."
    )
    token_file: SecretFile | None = Field(default=None, description="A file that contains the token.")

    @model_validator(mode="after")
    def _loopback_or_token(self) -> Self:
        _one_secret(self, "token", "token_file")
        if self.token_value is None and not self.listen.loopback:
            raise wrong("others can reach this address: set token_file, or listen on 127.0.0.1", at="listen")
        return self

    @property
    def token_value(self) -> str | None:
        """The token, from `token` or `token_file`; None if requests need no token."""
        given = self.token or self.token_file
        return given.get_secret_value() if given is not None else None


SHORTEST_TOKEN = 16
"""Characters of a token for the pages: a person can type it, and nobody can guess it."""


class WebSettings(Section):
    """The port for the pages that people look at."""

    listen: Listen = Field(default=Listen(host="127.0.0.1", port=9480), description="The address to bind.")
    token_file: SecretFile | None = Field(
        default=None,
        description="A file with the token of people who look and operate; 16 characters or more.",
    )
    view_token_file: SecretFile | None = Field(
        default=None, description="A file with the token of people who only look; 16 characters or more."
    )
    hosts: tuple[SiteName, ...] = Field(
        default=(),
        description="Names under which a proxy serves the pages, as in the Host header, such as wall.example.com.",
    )
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that pictures may be fetched from although they are not public."
    )

    @field_validator("token_file", "view_token_file")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_TOKEN:
            raise wrong(
                f"the token has fewer than {SHORTEST_TOKEN} characters: make one with `openssl rand -hex 16`"
            )
        return value

    @model_validator(mode="after")
    def _tokens_fit(self) -> Self:
        if self.token_value is None and self.view_token_value is None:
            self._check_without_tokens()
        elif self.token_value == self.view_token_value:
            raise wrong("is the token of token_file: who looks could operate", at="view_token_file")
        return self

    def _check_without_tokens(self) -> None:
        need = "set token_file or view_token_file"
        if not self.listen.loopback:
            raise wrong(f"others can reach this address: {need}, or listen on 127.0.0.1", at="listen")
        if any(not re.match(r"(localhost|127\.[0-9.]+|\[::1\])(:|$)", host) for host in self.hosts):
            raise wrong(f"others can reach the pages under these names: {need}", at="hosts")

    @property
    def token_value(self) -> str | None:
        """The token of people who may operate; None if nobody may."""
        return self.token_file.get_secret_value() if self.token_file is not None else None

    @property
    def view_token_value(self) -> str | None:
        """The token of people who may only look; None if there is none."""
        return self.view_token_file.get_secret_value() if self.view_token_file is not None else None


class LogSettings(Section):
    """The log, which always goes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The lowest level to log."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="The format of the log. auto is console on a terminal, json otherwise."
    )


class TracingSettings(Section):
    """Traces by OpenTelemetry. The standard OTEL_* variables set all else, such as headers and the sampler."""

    otlp: Url | None = Field(
        default=None,
        description="The URL of a collector that takes OTLP over HTTP; by default OTEL_EXPORTER_OTLP_ENDPOINT.",
    )

    @model_validator(mode="after")
    def _without_query(self) -> Self:
        if self.otlp is not None and "?" in self.otlp:
            raise wrong("takes no query: put a token into OTEL_EXPORTER_OTLP_HEADERS", at="otlp")
        return self


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
    journal: JournalSettings = Field(default=JournalSettings(), description="The journal of raw pages.")
    sinks: Mapping[Name, SerializeAsAny[SinkSettings]] = Field(min_length=1, description="Where events go.")
    admin: AdminSettings | None = Field(
        default=None, description="The port for metrics, health and status; by default none."
    )
    web: WebSettings | None = Field(default=None, description="The port for the pages; by default none.")
    log: LogSettings = Field(default=LogSettings(), description="The level and the format of the log.")
    tracing: TracingSettings | None = Field(
        default=None,
        description="Traces by OpenTelemetry, with the extra otel; by default none. `tracing: {}` is enough.",
    )
